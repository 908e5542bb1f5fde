-- NOTIFY: alerts are placed into groups, groups speak when they are due, and what they say is owed to receivers.

alter table alerts
    -- When the first statement of the present episode was recorded, and its end; Sluice's clock, not the stream's.
    add column episode_at timestamptz not null default now(),
    add column ended_at timestamptz,
    -- Whether the routes let it silence others.
    add column may_inhibit boolean not null default false;
update alerts set episode_at = opened_at, ended_at = resolved_at;
create index alerts_inhibiting on alerts (ended_at) where may_inhibit;

-- Everything of a source partition of alerts.v1 below this offset is placed.
create table notify_offsets (
    source text primary key,
    next_offset bigint not null
);

-- One group of one route. Whoever flushes it holds its row's lock; `due_at` is null where it has nothing to say.
create table notify_groups (
    group_key text primary key,
    -- What the route says of it: what the core needs to flush it, also after the routes have changed.
    body jsonb not null,
    due_at timestamptz,
    opened_at timestamptz not null default now(),
    -- When it spoke last since it has had firing members; null: it has none, or has not spoken yet.
    flushed_at timestamptz,
    -- What held its firing alerts back at the last flush: inhibition, silences, quiet hours.
    mutes jsonb not null default '[]'
);
create index notify_groups_due on notify_groups (due_at) where due_at is not null;

-- Which alerts are in which group. Who left is a member until everybody who was told has heard of it.
create table notify_members (
    group_key text not null references notify_groups on delete cascade,
    dedup_key text not null,
    -- Whom this alert is told to by this group, and how soon after a flush it may be told.
    receivers text[] not null,
    interval_us bigint not null,
    -- Its routes lead elsewhere by now: for this group the alert has ended.
    departed boolean not null default false,
    primary key (group_key, dedup_key)
);
create index notify_members_alert on notify_members (dedup_key);

-- What each receiver was last told of each group.
create table notify_told (
    group_key text not null references notify_groups on delete cascade,
    receiver text not null,
    body jsonb not null,
    told_at timestamptz not null,
    primary key (group_key, receiver)
);

-- The receipt of the first message of each thread: what later messages of it answer.
create table notify_threads (
    receiver text not null,
    thread_key text not null,
    receipt text not null,
    opened_at timestamptz not null default now(),
    primary key (receiver, thread_key)
);

-- Threads that a receiver could not be told of and that its fallback was: it hears how they go on.
create table notify_fallbacks (
    receiver text not null,
    thread_key text not null,
    fallback text not null,
    since timestamptz not null default now(),
    primary key (receiver, thread_key, fallback)
);

-- How each receiver stands, for all workers: its circuit, and what its rate limit has left.
create table notify_receivers (
    receiver text primary key,
    failures integer not null default 0,
    open_until timestamptz,
    opened_at timestamptz,
    tokens double precision,
    refilled_at timestamptz,
    -- Since when messages are held back; null: none are.
    held_since timestamptz,
    last_sent_at timestamptz,
    last_failed_at timestamptz,
    last_error text
);

-- A row is one message, as it will be rendered: a notification instead of one alert's statement.
alter table outbox
    add column thread_key text not null default '',
    add column group_key text not null default '',
    add column action text not null default 'trigger',
    add column reason text not null default 'opened',
    -- What is sent first where not everything can be: 3 a digest, 2 the first word of an incident, 1 its end, 0 the rest.
    add column urgency smallint not null default 0,
    -- Its place in the queue: that of the oldest message that it stands for.
    add column queued_at timestamptz not null default now(),
    -- Of a fallback's copy: the message that it is a copy of. Of a held message: the digest that told it.
    add column copy_of text,
    add column digest_id text,
    -- The fallback was told of it, or needs not be.
    add column fell_back boolean not null default false,
    drop constraint outbox_state_check,
    -- superseded: a later message of its thread says it all. digested: held back, and told in the message digest_id.
    add constraint outbox_state_check check (state in ('owed', 'sent', 'given_up', 'superseded', 'digested'));
update outbox set
    queued_at = owed_at,
    thread_key = dedup_key,
    action = case body->>'status' when 'resolved' then 'resolve' else 'trigger' end,
    reason = case body->>'status' when 'resolved' then 'resolved' when 'updated' then 'worse' else 'opened' end;
update outbox set body = jsonb_build_object(
    'v', 1, 'notification_id', notification_id, 'receiver', receiver, 'thread_key', thread_key, 'action', action,
    'reason', reason, 'alerts', jsonb_build_array(body),
    'decided_at', (extract(epoch from owed_at) * 1000000)::bigint);
drop index outbox_due;
drop index outbox_alert;
create index outbox_due on outbox (receiver, due_at) where state = 'owed';
create index outbox_thread on outbox (receiver, thread_key, position) where state = 'owed';
create index outbox_fallback on outbox (receiver, position) where not fell_back and state in ('owed', 'given_up');
create index outbox_group on outbox (group_key, receiver);
create index outbox_by_thread on outbox (thread_key, position);

-- Which messages said something new of an alert.
create table outbox_alerts (
    dedup_key text not null,
    notification_id text not null references outbox on delete cascade,
    primary key (dedup_key, notification_id)
);
insert into outbox_alerts (dedup_key, notification_id) select dedup_key, notification_id from outbox;
alter table outbox drop column dedup_key;

-- Every attempt to send.
create table outbox_tries (
    notification_id text not null references outbox on delete cascade,
    try integer not null,
    at timestamptz not null default now(),
    took_ms integer not null,
    outcome text not null check (outcome in ('sent', 'retried', 'given_up')),
    error text not null default '',
    primary key (notification_id, try, outcome)
);

-- What became of what was said of an alert, for people.
create view alert_deliveries as
select a.dedup_key, o.position, o.notification_id, o.receiver, o.thread_key, o.group_key, o.action, o.reason, o.state,
    o.attempts, o.owed_at, o.due_at, o.sent_at, o.receipt, o.last_error, o.copy_of, o.digest_id
from outbox_alerts a join outbox o using (notification_id);
