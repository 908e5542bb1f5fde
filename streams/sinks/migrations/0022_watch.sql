-- Who watches Sluice itself, and what the watcher remembers: one of the workers at a time, by a lease.
create table watchers (
    app_id text primary key,
    holder text not null,
    -- Counts the holders: what an earlier one writes late changes nothing.
    term bigint not null,
    leased_until timestamptz not null,
    state jsonb
);

-- In which minutes (UTC, of arrival) sources were heard: what their rhythms are learned from. Bits are only ever added;
-- the first minute of a day is the rightmost.
create table sources_heard (
    topic text not null,
    source text not null,
    day date not null,
    minutes bit(1440) not null,
    primary key (topic, source, day)
);
create index sources_heard_day on sources_heard (day);
