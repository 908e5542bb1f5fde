-- Who spent the cells' money: a row for each key and user of a cell's segment, with its segment's revision. What a cell
-- holds beyond its rows no key or user is known of.
create table ledger_spenders (
    cell_id text not null,
    slot text not null,
    segment bigint not null,
    -- A digest of key and user.
    who text not null,
    key_id text not null,
    user_id text not null,
    revision integer not null,
    last_offset bigint not null,
    hour timestamptz not null,
    cost_nanos numeric(38, 0) not null,
    requests bigint not null,
    primary key (cell_id, slot, segment, who)
);
create index ledger_spenders_hour on ledger_spenders (hour);

-- Rows of spenders are written beside the cells, and later: up to where all of them are there.
alter table ledger_sources add column spenders_offset bigint not null default 0;
