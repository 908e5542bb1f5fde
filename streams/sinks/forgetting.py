"""Forgetting what was delivered long ago, in PostgreSQL: messages with their tries, threads, and groups that ended.

Kept at any age is whatever a message to come may need: what is owed, everything of an incident that is open, its
thread, and what a group's receivers were told from which the ids and threads of its next incident follow.
"""

from datetime import datetime
from typing import Any

import asyncpg

from streams.delivering import Forgot
from streams.sinks.postgres import with_retries

#: Of all workers one forgets at a time: "sluice" and a number of its own.
_LOCK = 0x736C_7569_6365_0003
_MAY = "select pg_try_advisory_xact_lock($1)"

_OLD_MESSAGES = """
select coalesce(sent_at, owed_at) as at, notification_id from outbox
where state <> 'owed' and coalesce(sent_at, owed_at) < $1
    and ($3::timestamptz is null or (coalesce(sent_at, owed_at), notification_id) > ($3, $4::text))
order by 1, 2 limit $2
"""
#: A message of an incident whose end was said is history, whatever became of the thread since. Where no end was said,
#: it is while a receiver of the thread knows of something that fires, a fallback follows it, or (what an earlier
#: release owed) its alert fires.
_DROP_MESSAGES = """
delete from outbox o where o.notification_id = any($1::text[]) and o.state <> 'owed' and not (
    case when o.action = 'tell' then exists (select 1 from outbox held where held.digest_id = o.notification_id)
    else exists (
        select 1 from outbox owed
        where owed.receiver = o.receiver and owed.thread_key = o.thread_key and owed.state = 'owed')
    or not exists (
        select 1 from outbox last
        where last.thread_key = o.thread_key and last.receiver = o.receiver and last.position >= o.position
            and last.action = 'resolve')
    and (exists (
            select 1 from outbox any_of join notify_told t using (group_key, receiver)
            where any_of.thread_key = o.thread_key and any_of.receiver = o.receiver
                and t.body->'firing' <> '{}'::jsonb)
        or exists (
            select 1 from notify_fallbacks f where f.fallback = o.receiver and f.thread_key = o.thread_key)
        or (o.group_key = '' and exists (
            select 1 from alerts a where a.dedup_key = o.thread_key and a.status <> 'resolved')))
    end)
"""
_OLD_THREADS = """
select opened_at as at, receiver, thread_key from notify_threads
where opened_at < $1 and ($3::timestamptz is null or (opened_at, receiver, thread_key) > ($3, $4::text, $5::text))
order by 1, 2, 3 limit $2
"""
_DROP_THREADS = """
delete from notify_threads t using unnest($1::text[], $2::text[]) old (receiver, thread_key)
where t.receiver = old.receiver and t.thread_key = old.thread_key
    and not exists (select 1 from outbox o where o.thread_key = t.thread_key and o.receiver = t.receiver)
"""
_OLD_GROUPS = """
select opened_at as at, group_key from notify_groups
where opened_at < $1 and ($3::timestamptz is null or (opened_at, group_key) > ($3, $4::text))
order by 1, 2 limit $2
"""
#: Only groups of one alert: their incidents have the numbers of its episodes. A group by other labels counts its own,
#: and would say the ids of a year ago again if it had forgotten how far it was.
_DROP_GROUPS = """
with ended as materialized (
    select group_key from notify_groups g
    where g.group_key = any($1::text[]) and g.due_at is null and g.body->'labels' ? 'alert'
        and not exists (select 1 from notify_members m where m.group_key = g.group_key)
        and not exists (select 1 from outbox o where o.group_key = g.group_key)
        and not exists (
            select 1 from notify_told t where t.group_key = g.group_key and t.body->'firing' <> '{}'::jsonb)
        and not exists (
            select 1 from alerts a where a.dedup_key = g.body->'labels'->>'alert' and a.status <> 'resolved')
    order by group_key for update skip locked)
delete from notify_groups where group_key in (select group_key from ended)
"""
_TABLES = {
    "messages": (_OLD_MESSAGES, _DROP_MESSAGES),
    "threads": (_OLD_THREADS, _DROP_THREADS),
    "groups": (_OLD_GROUPS, _DROP_GROUPS),
}


class PostgresHistory:
    """Implements ``streams.delivering.History``."""

    #: Threads and groups are kept while they have messages.
    tables = tuple(_TABLES)

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def forget(self, table: str, before: datetime, after: tuple[Any, ...] | None, limit: int) -> Forgot | None:
        """Remove of the next few old rows those that nothing needs any more."""
        old, drop = _TABLES[table]
        names = 2 if table == "threads" else 1

        async def attempt() -> Forgot | None:
            async with self._pool.acquire() as connection, connection.transaction():
                if not await connection.fetchval(_MAY, _LOCK):
                    return None
                rows = await connection.fetch(old, before, limit, *(after or (None,) * (names + 1)))
                if not rows:
                    return Forgot(0, None)
                done = await connection.execute(drop, *([row[name] for row in rows] for name in range(1, names + 1)))
                return Forgot(int(done.split()[-1]), tuple(rows[-1]) if len(rows) == limit else None)

        return await with_retries(attempt)
