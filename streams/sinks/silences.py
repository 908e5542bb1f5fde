"""Silences in PostgreSQL: who wants no message about what, until when, and why."""

from typing import Any

import asyncpg
import msgspec

from schemas.instants import to_datetime, to_micros
from streams.core.notifying import Matcher, Silence
from streams.sinks.postgres import storable

#: What is shown and weighed at once: who needs more of them needs fewer alerts.
SILENCES_MAX = 1_000
_COLUMNS = "id, matchers, starts, least(ends, coalesce(ended_at, ends)) as ends, author, reason"
_LIVE = f"""
select {_COLUMNS} from silences where starts <= $1 and ends > $1 and (ended_at is null or ended_at > $1)
order by ends, id limit {SILENCES_MAX}
"""
_ALL = f"""
select *, ends as wanted_until, least(ends, coalesce(ended_at, ends)) as ends from silences
where $1::timestamptz is null or least(ends, coalesce(ended_at, ends)) > $1
order by least(ends, coalesce(ended_at, ends)) desc, id limit {SILENCES_MAX}
"""
_ADD = """
insert into silences (id, matchers, starts, ends, author, reason, made_at) values ($1, $2, $3, $4, $5, $6, $7)
on conflict (id) do nothing
"""
#: One that has not begun ends before it begins: it never held.
_END = """
update silences set ended_at = $2, ended_by = $3
where id = $1 and ended_at is null and ends > $2 returning id
"""


async def load_silences(connection: asyncpg.Connection | asyncpg.Pool, now: int) -> tuple[Silence, ...]:
    """Those in force at ``now`` (microseconds); one that was ended early is not among them."""
    return tuple(_silence(row) for row in await connection.fetch(_LIVE, to_datetime(now)))


async def list_silences(connection: asyncpg.Connection | asyncpg.Pool, since: int | None) -> list[asyncpg.Record]:
    """Those that end after ``since`` (None: all), the last to end first, with who ended what early."""
    return list(await connection.fetch(_ALL, None if since is None else to_datetime(since)))


async def add_silence(connection: asyncpg.Connection | asyncpg.Pool, silence: Silence, now: int) -> None:
    """Write one; the same one again changes nothing."""
    matchers = [{**each, "value": storable(each["value"])} for each in map(_builtins, silence.matchers)]
    author, reason = storable(silence.author), storable(silence.reason)
    times = [to_datetime(each) for each in (silence.starts, silence.ends)]
    await connection.execute(_ADD, silence.id, matchers, *times, author, reason, to_datetime(now))


async def end_silence(connection: asyncpg.Connection | asyncpg.Pool, silence_id: str, by: str, now: int) -> bool:
    """End one now; False where there is none, or it is over."""
    found = await connection.fetchval(_END, silence_id, to_datetime(now), storable(by))
    return found is not None


def _builtins(matcher: Matcher) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(matcher)
    return built


def _silence(row: asyncpg.Record) -> Silence:
    return Silence(
        id=row["id"],
        matchers=tuple(msgspec.convert(row["matchers"], list[Matcher])),
        starts=to_micros(row["starts"]),
        ends=to_micros(row["ends"]),
        author=row["author"],
        reason=row["reason"],
    )
