-- The life of an alert after it was told: what was said of it, who silenced it, who has it in hand, what was learned.

-- Every statement that changed how an alert stands, whoever writes it: its episodes, and worse and better within them.
create table alert_history (
    dedup_key text not null,
    alert_id text not null,
    episode integer not null,
    status text not null,
    severity text not null,
    tier text not null,
    summary text not null,
    action text not null,
    historic boolean not null,
    stated_at timestamptz not null,
    -- By this database's clock, where stated_at may be the stream's.
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (dedup_key, alert_id)
);
create index alert_history_grave on alert_history (recorded_at) where severity in ('critical', 'emergency') and not historic;
create function keep_alert_history() returns trigger language plpgsql as $$
begin
    insert into alert_history
        (dedup_key, alert_id, episode, status, severity, tier, summary, action, historic, stated_at)
    values (new.dedup_key, coalesce(new.body ->> 'alert_id', ''), new.episode, new.status, new.severity, new.tier,
        new.summary, coalesce(new.body ->> 'action', ''), new.historic, new.stated_at)
    on conflict (dedup_key, alert_id) do nothing;
    return null;
end $$;
create trigger alert_history after insert or update on alerts for each row execute function keep_alert_history();
insert into alert_history
    (dedup_key, alert_id, episode, status, severity, tier, summary, action, historic, stated_at, recorded_at)
select dedup_key, coalesce(body ->> 'alert_id', ''), episode, status, severity, tier, summary,
    coalesce(body ->> 'action', ''), historic, stated_at, stated_at
from alerts;

create table silences (
    id text primary key,
    -- [{"label": …, "op": "=" | "!=" | "=~" | "!~", "value": …}, …]; every one has to hold.
    matchers jsonb not null,
    starts timestamptz not null,
    ends timestamptz not null check (ends > starts),
    author text not null,
    reason text not null,
    made_at timestamptz not null,
    -- Ended before its time, and by whom; null: it ends by itself.
    ended_at timestamptz,
    ended_by text not null default ''
);
create index silences_ends on silences (ends);

-- Words on who has an episode of an alert in hand. The newest word of an episode holds; a withdrawal takes it back.
create table acknowledgements (
    -- Derived from the rest: said twice, it was said once.
    word_id text primary key,
    dedup_key text not null,
    episode integer not null,
    said_at timestamptz not null,
    said_by text not null,
    -- api, cli, page or pagerduty.
    via text not null,
    withdrawn boolean not null default false,
    note text not null default ''
);
create index acknowledgements_alert on acknowledgements (dedup_key, episode, said_at desc);

-- What a critical alert has to lead to: somebody looks into it until a day, and says what came of it.
create table reviews (
    -- Derived from the alert and its episode: one episode, one review.
    review_id text primary key,
    dedup_key text not null,
    episode integer not null,
    rule text not null,
    severity text not null,
    team_id text not null,
    summary text not null,
    owner text not null,
    opened_at timestamptz not null,
    due_at timestamptz not null,
    outcome text not null default '',
    closed_at timestamptz,
    closed_by text not null default '',
    unique (dedup_key, episode)
);
create index reviews_open on reviews (due_at) where closed_at is null;

-- Weekly reports that were told, written with the messages that tell them: each once, however many workers there are.
create table weekly_reports (
    subject text not null,
    name text not null,
    -- The Monday that the week began with, in the subject's own time zone.
    week date not null,
    decided_at timestamptz not null,
    body jsonb not null,
    primary key (subject, name, week)
);
