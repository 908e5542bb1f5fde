-- Every version of every definition (budgets, limits, overrides, opening balances, runs, grants): who, why and when.
create table definition_history (
    key text not null,
    version integer not null,
    -- Null where it was withdrawn.
    body jsonb,
    changed_by text not null,
    reason text not null,
    changed_at timestamptz not null,
    withdrawn boolean not null,
    file_digest text not null default '',
    primary key (key, version)
);
create index definition_history_changed_at on definition_history (changed_at);
