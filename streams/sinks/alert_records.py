"""What is known of alerts beyond how they stand: their episodes, the words on them, and what was sent to whom."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from schemas.instants import to_datetime, to_micros
from streams.sinks.postgres import storable

#: Of one alert: who looks at more has another problem.
HISTORY_MAX = 500
DELIVERIES_MAX = 200
_IS_SHORT = re.compile(r"[0-9a-f]{8}")
#: What people type instead of a dedup key: the beginning of its digest.
SHORT_ID = "left(encode(sha256(convert_to(dedup_key, 'UTF8')), 'hex'), 8)"
_ONE = f"select *, body::text as body_text, {SHORT_ID} as short_id from alerts where dedup_key = $1"
_SHORT = f"select dedup_key from alerts where {SHORT_ID} = $1 order by stated_at desc limit 1"
_LIKE = f"""
select dedup_key from alerts where starts_with({SHORT_ID}, $1) or starts_with(dedup_key, $1)
order by stated_at desc limit 4
"""
_HISTORY = f"""
select * from alert_history where dedup_key = $1 order by episode desc, recorded_at desc, stated_at desc
limit {HISTORY_MAX}
"""
_WORDS = f"""
select episode, said_at, said_by, via, withdrawn, note from acknowledgements where dedup_key = $1
order by said_at desc, word_id limit {HISTORY_MAX}
"""
_DELIVERIES = f"""
select * from alert_deliveries where dedup_key = $1 order by position desc limit {DELIVERIES_MAX}
"""
#: What held an alert back when its groups spoke last.
_HELD = """
select distinct each ->> 'dedup_key' as dedup_key, each ->> 'by' as by, each ->> 'what' as what,
    each -> 'receivers' as receivers
from notify_groups g cross join lateral jsonb_array_elements(g.mutes) each
where g.group_key in (select group_key from notify_members where dedup_key = any($1::text[]))
    and each ->> 'dedup_key' = any($1::text[]) and each ->> 'by' <> 'silence'
order by 1, 2, 3
"""
_EPISODES = """
select dedup_key, episode, min(recorded_at) as began from alert_history where dedup_key = any($1::text[])
group by 1, 2 order by 1, 2
"""

_UNREVIEWED = """
select distinct on (h.dedup_key, h.episode) h.dedup_key, h.episode, h.severity, h.summary, h.recorded_at,
    a.body::text as body_text
from alert_history h join alerts a on a.dedup_key = h.dedup_key
where h.severity in ('critical', 'emergency') and not h.historic and h.recorded_at >= $1
    and not exists (select 1 from reviews r where r.dedup_key = h.dedup_key and r.episode = h.episode)
order by h.dedup_key, h.episode, (h.severity = 'emergency') desc, h.recorded_at limit $2
"""


async def find_alert(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> asyncpg.Record | None:
    """An alert by its dedup key or its short id, as it stands, with ``body_text``."""
    found = await connection.fetchrow(_ONE, storable(dedup_key))
    if found is None and _IS_SHORT.fullmatch(dedup_key):
        # Only now: every alert is looked at.
        named = await connection.fetchval(_SHORT, dedup_key)
        found = None if named is None else await connection.fetchrow(_ONE, named)
    return found


async def keys_like(connection: asyncpg.Connection | asyncpg.Pool, text: str) -> list[str]:
    """At most four dedup keys that begin so, or whose short id does."""
    return [row["dedup_key"] for row in await connection.fetch(_LIKE, storable(text))]


async def history(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> list[asyncpg.Record]:
    """Every statement that changed how it stands, the newest first."""
    return list(await connection.fetch(_HISTORY, storable(dedup_key)))


async def words_on(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> list[asyncpg.Record]:
    """Who took it in hand and who gave it back, the newest first."""
    return list(await connection.fetch(_WORDS, storable(dedup_key)))


async def deliveries(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> list[asyncpg.Record]:
    """Messages that told of it, the newest first: to whom, when, with which receipt or error."""
    return list(await connection.fetch(_DELIVERIES, storable(dedup_key)))


async def held_back(
    connection: asyncpg.Connection | asyncpg.Pool, dedup_keys: Sequence[str]
) -> Mapping[str, list[dict[str, Any]]]:
    """By alert, what holds messages about it back besides silences: ``by`` (inhibition, quiet_hours), ``what`` (the
    inhibiting alert's key, the quiet hours' name), and for which ``receivers`` (empty: all)."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in await connection.fetch(_HELD, [storable(each) for each in dedup_keys]):
        held = {"by": row["by"], "what": row["what"], "receivers": row["receivers"] or []}
        found.setdefault(row["dedup_key"], []).append(held)
    return found


async def episodes_of(
    connection: asyncpg.Connection | asyncpg.Pool, dedup_keys: Sequence[str]
) -> Mapping[str, list[tuple[int, int]]]:
    """Of each alert its episodes and when this database heard of each first (microseconds), the oldest first."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row in await connection.fetch(_EPISODES, [storable(each) for each in dedup_keys]):
        found.setdefault(row["dedup_key"], []).append((row["episode"], to_micros(row["began"])))
    return found


async def unreviewed(connection: asyncpg.Connection | asyncpg.Pool, since: int, limit: int) -> list[asyncpg.Record]:
    """Episodes that were critical at some time after ``since`` and have no review: as worst, with the alert's body."""
    return list(await connection.fetch(_UNREVIEWED, to_datetime(since), limit))
