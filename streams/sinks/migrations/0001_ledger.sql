-- The ledger: cumulative totals as METER states them, one row per cell-hour segment and source partition.
-- Money is in nanodollars; sum() over bigint is numeric and cannot overflow.
create table ledger_cells (
    cell_id text not null,
    slot text not null,
    segment bigint not null,
    revision integer not null,
    last_offset bigint not null,
    hour timestamptz not null,
    org_id text not null,
    cost_center text not null,
    team_id text not null,
    project_id text not null,
    feature text not null,
    model text not null,
    provider text not null,
    environment text not null,
    request_type text not null,
    user_tier text not null,
    category text not null,
    requests bigint not null,
    successes bigint not null,
    errors bigint not null,
    cache_hits bigint not null,
    input_tokens bigint not null,
    cache_read_input_tokens bigint not null,
    cache_creation_input_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_output_tokens bigint not null,
    audio_tokens bigint not null,
    gpu_milliseconds bigint not null,
    cost_nanos bigint not null,
    reported_cost_nanos bigint not null,
    reconciled_cost_nanos bigint not null,
    estimated_cost_nanos bigint not null,
    unpriced_requests bigint not null,
    unverified_late bigint not null,
    cost_histogram bigint[] not null,
    latency_histogram bigint[] not null,
    primary key (cell_id, slot, segment)
);
create index ledger_cells_hour on ledger_cells (hour);
create index ledger_cells_team_hour on ledger_cells (team_id, hour);

-- How far the ledger is, per source partition: everything below next_offset is in ledger_cells.
create table ledger_sources (
    slot text primary key,
    revision integer not null,
    next_offset bigint not null,
    stream_time timestamptz not null,
    dead_letters bigint not null,
    duplicates bigint not null,
    updated_at timestamptz not null default now()
);

create table budget_status (
    budget_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    scope_type text not null,
    scope_id text not null,
    period text not null,
    amount_nanos bigint not null,
    spent_nanos bigint not null,
    crossed_percent integer not null,
    commanded text not null,
    mode text not null,
    sequence numeric not null,
    stated_at timestamptz not null,
    primary key (budget_id, period_start)
);

-- Alerts as they stand: the newest (episode, status) of each dedup key.
create table alerts (
    dedup_key text primary key,
    episode integer not null,
    status text not null,
    rule text not null,
    severity text not null,
    tier text not null,
    scope_type text not null,
    scope_id text not null,
    team_id text not null,
    feature text not null,
    summary text not null,
    occurred_at timestamptz not null,
    opened_at timestamptz not null,
    stated_at timestamptz not null,
    resolved_at timestamptz,
    historic boolean not null,
    body jsonb not null
);
create index alerts_open on alerts (status, occurred_at desc);

-- What is owed to receivers. The id is derived, so a repeat of the same statement owes nothing new.
create table outbox (
    notification_id text primary key,
    position bigint generated always as identity,
    dedup_key text not null,
    receiver text not null,
    body jsonb not null,
    state text not null default 'owed' check (state in ('owed', 'sent', 'given_up')),
    attempts integer not null default 0,
    due_at timestamptz not null default now(),
    leased_until timestamptz,
    owed_at timestamptz not null default now(),
    sent_at timestamptz,
    receipt text,
    last_error text
);
create index outbox_due on outbox (due_at) where state = 'owed';
create index outbox_alert on outbox (dedup_key, receiver, position);

create table gateway_commands (
    command_key text primary key,
    command_id text not null,
    revision bigint not null,
    budget_id text not null,
    scope_type text not null,
    scope_id text not null,
    action text not null,
    reason text not null,
    issued_at timestamptz not null,
    expires_at timestamptz not null,
    dry_run boolean not null,
    body jsonb not null
);
create table gateway_command_history (
    command_id text primary key,
    command_key text not null,
    revision bigint not null,
    action text not null,
    issued_at timestamptz not null,
    recorded_at timestamptz not null default now(),
    body jsonb not null
);
create table gateway_acks (
    command_id text not null,
    gateway text not null,
    command_key text not null,
    revision bigint not null,
    applied_at timestamptz not null,
    rejected_count bigint not null,
    primary key (command_id, gateway)
);

-- API keys: only a hash is kept.
create table api_keys (
    key_id text primary key,
    name text not null,
    key_hash bytea not null unique,
    scopes text[] not null,
    -- Events sent with a bound key belong to this team, whatever they say; empty: not bound.
    team_id text not null default '',
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
