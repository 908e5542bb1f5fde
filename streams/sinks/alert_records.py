"""What is known of alerts beyond how they stand: their episodes, the words on them, and what was sent to whom."""

from collections.abc import Mapping, Sequence

import asyncpg

from schemas.instants import to_datetime, to_micros
from streams.sinks.postgres import storable

#: Of one alert: who looks at more has another problem.
HISTORY_MAX = 500
DELIVERIES_MAX = 200
_ONE = "select *, body::text as body_text from alerts where dedup_key = $1"
_BEGINNING = """
select dedup_key from alerts where starts_with(dedup_key, $1) order by dedup_key limit 3
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
_EPISODES = """
select dedup_key, episode, min(recorded_at) as began from alert_history where dedup_key = any($1::text[])
group by 1, 2 order by 1, 2
"""


async def find_alert(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> asyncpg.Record | None:
    """An alert as it stands, with ``body_text``."""
    return await connection.fetchrow(_ONE, storable(dedup_key))


async def keys_beginning(connection: asyncpg.Connection | asyncpg.Pool, text: str) -> list[str]:
    """At most three dedup keys that begin so: for people, who type the beginning of one."""
    return [row["dedup_key"] for row in await connection.fetch(_BEGINNING, storable(text))]


async def history(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> list[asyncpg.Record]:
    """Every statement that changed how it stands, the newest first."""
    return list(await connection.fetch(_HISTORY, storable(dedup_key)))


async def words_on(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> list[asyncpg.Record]:
    """Who took it in hand and who gave it back, the newest first."""
    return list(await connection.fetch(_WORDS, storable(dedup_key)))


async def deliveries(connection: asyncpg.Connection | asyncpg.Pool, dedup_key: str) -> list[asyncpg.Record]:
    """Messages that told of it, the newest first: to whom, when, with which receipt or error."""
    return list(await connection.fetch(_DELIVERIES, storable(dedup_key)))


async def episodes_of(
    connection: asyncpg.Connection | asyncpg.Pool, dedup_keys: Sequence[str]
) -> Mapping[str, list[tuple[int, int]]]:
    """Of each alert its episodes and when this database heard of each first (microseconds), the oldest first."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row in await connection.fetch(_EPISODES, [storable(each) for each in dedup_keys]):
        found.setdefault(row["dedup_key"], []).append((row["episode"], to_micros(row["began"])))
    return found


async def open_since(
    connection: asyncpg.Connection | asyncpg.Pool, since: int, severities: Sequence[str], limit: int
) -> list[asyncpg.Record]:
    """Episodes of these severities that began after ``since`` and have no review yet, with the alert's body."""
    return list(
        await connection.fetch(
            "select a.dedup_key, a.episode, a.opened_at, a.body::text as body_text from alerts a"
            " where a.severity = any($1::text[]) and not a.historic and a.stated_at >= $2 and not exists"
            " (select 1 from reviews r where r.dedup_key = a.dedup_key and r.episode = a.episode)"
            " order by a.stated_at limit $3",
            list(severities),
            to_datetime(since),
            limit,
        )
    )
