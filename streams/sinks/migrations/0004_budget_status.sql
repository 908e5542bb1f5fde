-- Where budgets stand, with what Sluice measures of itself. A budget of sessions or keys has a row for each value.
alter table budget_status
    add column value text not null default '',
    add column carried_nanos numeric(38, 0) not null default 0,
    add column override_nanos numeric(38, 0) not null default 0,
    add column opening_nanos numeric(38, 0) not null default 0,
    add column estimated_nanos numeric(38, 0) not null default 0,
    add column burn_nanos_per_hour numeric(38, 0) not null default 0,
    add column exhausted_at timestamptz,
    add column overshoot_nanos numeric(38, 0) not null default 0,
    add column gap_nanos numeric(38, 0) not null default 0,
    add column ack_delay_ms bigint,
    add column takers jsonb not null default '{}',
    drop constraint budget_status_pkey,
    add primary key (budget_id, value, period_start);
