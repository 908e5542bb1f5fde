-- What was asked of whoever runs training runs, and what became of it.
create table job_commands (
    command_id text primary key,
    run_id text not null,
    action text not null,
    revision bigint not null,
    reason text not null,
    issued_at timestamptz not null,
    expires_at timestamptz not null,
    dry_run boolean not null
);
create index job_commands_run on job_commands (run_id, issued_at);

create table job_acks (
    command_id text not null,
    executor text not null,
    run_id text not null,
    revision bigint not null,
    outcome text not null,
    detail text not null,
    applied_at timestamptz not null,
    primary key (command_id, executor)
);
