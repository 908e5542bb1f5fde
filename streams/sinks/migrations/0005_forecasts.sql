-- What FORECAST has learned of each budget (and of each value of a per-budget): a versioned state, replaced by later ones.
create table forecast_states (
    budget_id text not null,
    value text not null,
    at timestamptz not null,
    state bytea not null,
    primary key (budget_id, value)
);

-- What was said of each period, by method and point of the period, and in the end what came.
create table budget_forecasts (
    budget_id text not null,
    value text not null,
    period_start timestamptz not null,
    method text not null,
    at timestamptz not null,
    said_at timestamptz not null,
    until timestamptz not null,
    timezone text not null,
    spent_nanos numeric(38, 0) not null,
    limit_nanos numeric(38, 0) not null,
    projected_nanos numeric(38, 0) not null,
    low_nanos numeric(38, 0) not null,
    high_nanos numeric(38, 0),
    exhausts_at timestamptz,
    is_best boolean not null,
    burn_nanos_per_hour numeric(38, 0) not null,
    known_us bigint not null,
    judged integer not null,
    error_permille integer not null,
    bias_permille integer not null,
    -- What the period cost; null while it is not over.
    actual_nanos numeric(38, 0),
    -- Gateways were throttled in it: what came was not what would have come.
    was_held boolean not null default false,
    primary key (budget_id, value, period_start, method, at)
);
create index budget_forecasts_said on budget_forecasts (said_at);
