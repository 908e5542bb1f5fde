-- What costs money, by day: one row for each resource and UTC day, made of ledger_cells and made again when cells change.
create table resource_days (
    day date not null,
    org_id text not null,
    team_id text not null,
    project_id text not null,
    feature text not null,
    category text not null,
    provider text not null,
    model text not null,
    environment text not null,
    cost_nanos numeric(38, 0) not null,
    requests bigint not null,
    -- Of a person who waits for the answer.
    interactive bigint not null,
    -- Of batch and background calls: their money, and a bit for each hour of the day in which there were any.
    job_nanos numeric(38, 0) not null,
    job_hours integer not null,
    -- The last hour in which it was used; null where it only cost.
    last_use timestamptz,
    primary key (org_id, team_id, project_id, feature, category, provider, model, environment, day)
);
create index resource_days_day on resource_days (day);

-- The inventory: every resource that was ever seen, with its last use.
create table resources (
    org_id text not null,
    team_id text not null,
    project_id text not null,
    feature text not null,
    category text not null,
    provider text not null,
    model text not null,
    environment text not null,
    first_day date not null,
    last_day date not null,
    last_use timestamptz,
    primary key (org_id, team_id, project_id, feature, category, provider, model, environment)
);

-- One worker at a time looks for waste, once an hour: which hour was looked at, and until when somebody is at it.
create table waste_passes (
    only_one boolean primary key default true check (only_one),
    done_hour timestamptz not null,
    held_until timestamptz not null
);
insert into waste_passes (done_hour, held_until) values ('epoch', 'epoch');
