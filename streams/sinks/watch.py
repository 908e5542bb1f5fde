"""What the watcher keeps and reads in PostgreSQL: its lease and state, which sources were heard, what is owed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, TypeVar

import asyncpg
from asyncpg import BitString

from schemas.instants import DAY, HOUR, MINUTE, SECOND, to_datetime, to_micros
from streams.history_ports import StoreError
from streams.sinks.postgres import storable
from streams.watch_ports import Held, ReceiverOwed, SourceHeard, UnpricedCalls

DAY_BITS = 1_440
#: A lease outlives a question that hangs.
ASK_S = 10.0
_EPOCH = date(1970, 1, 1)
#: What waits in an ordinary way has been tried, or was due, for longer than this.
OWED_S = 10.0
#: A receiver that took a message within this works.
WORKS_S = 60.0
SOURCES_MAX = 2_000
MODELS_MAX = 50
ERROR_LENGTH = 200
Result = TypeVar("Result")

_TAKE = """
insert into watchers as old (app_id, holder, term, leased_until)
values ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
on conflict (app_id) do update set holder = excluded.holder, leased_until = excluded.leased_until,
    term = old.term + (old.holder <> excluded.holder)::int
where old.holder = excluded.holder or old.leased_until < clock_timestamp()
returning term, state
"""
_KEEP = """
update watchers set state = $4, leased_until = clock_timestamp() + make_interval(secs => $5)
where app_id = $1 and holder = $2 and term = $3
"""
_RELEASE = "update watchers set leased_until = clock_timestamp() where app_id = $1 and holder = $2"
_HEAR = """
insert into sources_heard as old (topic, source, day, minutes)
select * from unnest($1::text[], $2::text[], $3::date[], $4::varbit[]) as new
on conflict (topic, source, day) do update set minutes = old.minutes | excluded.minutes
where old.minutes | excluded.minutes <> old.minutes
"""
_LAST_DAYS = """
select * from (
    select distinct on (topic, source) topic, source, day, minutes from sources_heard where day >= $1
    order by topic, source, day desc
) found order by day desc, topic, source limit $2
"""
_ALL_DAYS = """
select topic, source, day, minutes from sources_heard
join unnest($2::text[], $3::text[]) as silent (topic, source) using (topic, source) where day >= $1
"""
_FORGET = "delete from sources_heard where day < $1"
_UNPRICED = f"""
select hour, provider, model, sum(unpriced_requests)::bigint as calls,
    sum(estimated_cost_nanos)::numeric as estimated
from ledger_cells where hour >= $1 and hour < $2 and unpriced_requests > 0
group by hour, provider, model order by calls desc limit {MODELS_MAX * 24}
"""
_REQUESTS = """
select hour, sum(requests)::bigint as calls from ledger_cells
where hour >= $1 and hour < $2 and category = 'llm' group by hour
"""
#: A receiver that takes messages has more to say than its limit lets through, and does not fail.
_OWED = f"""
select o.receiver, count(*) filter (where is_due) as waiting,
    coalesce(extract(epoch from now() - min(o.owed_at) filter (
        where is_due and o.owed_at < now() - interval '{OWED_S} seconds'
            and (r.last_sent_at is null or r.last_sent_at < now() - interval '{WORKS_S} seconds')
    )), 0)::float8 as oldest_s,
    count(*) filter (where is_due and o.body->'alerts' @> '[{{"tier": "page"}}]') as pages,
    count(*) filter (where o.state = 'given_up' and o.owed_at > now() - interval '1 hour') as given_up,
    (array_agg(o.last_error order by o.position desc) filter (where o.last_error is not null))[1] as error
from outbox o left join notify_receivers r using (receiver),
    lateral (select o.state = 'owed' and (o.attempts > 0 or o.due_at < now()) as is_due) due
where o.state in ('owed', 'given_up') group by o.receiver
"""
_SILENT = """
select extract(epoch from clock_timestamp() - max(updated_at))::float8 from ledger_sources
"""


class PostgresWatch:
    """Implements ``streams.watch_ports.WatchStore`` and ``streams.watch_ports.HeardSources``."""

    def __init__(self, pool: asyncpg.Pool, app_id: str) -> None:
        self._pool = pool
        self._app_id = app_id

    # -- the lease --------------------------------------------------------------------------------------------------

    async def take(self, holder: str, lease_s: float) -> Held | None:
        """Take or renew the lease; None while another holds it."""
        row = await _asked(lambda: self._pool.fetchrow(_TAKE, self._app_id, holder, lease_s))
        return None if row is None else Held(row["term"], row["state"])

    async def keep(self, holder: str, term: int, state: Any, lease_s: float) -> bool:
        """Keep the state and renew the lease; False where another holds it by now."""
        done = await _asked(lambda: self._pool.execute(_KEEP, self._app_id, holder, term, state, lease_s))
        return done == "UPDATE 1"

    async def release(self, holder: str) -> None:
        """Let another take it at once."""
        await _asked(lambda: self._pool.execute(_RELEASE, self._app_id, holder))

    # -- sources ----------------------------------------------------------------------------------------------------

    async def hear(self, heard: Mapping[tuple[str, str, int], int]) -> None:
        """Add minutes, by topic, source and day since 1970."""
        rows = sorted(
            (topic, storable(name), _EPOCH + timedelta(days=day), mask) for (topic, name, day), mask in heard.items()
        )
        columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
        columns[3] = [_bits(mask) for mask in columns[3]]
        await _asked(lambda: self._pool.execute(_HEAR, *columns))

    async def sources(self, now: int, days: int, silent_us: int) -> Sequence[SourceHeard]:
        """The sources of the last so many days, of those that are silent everything; forgets what is older."""
        first = (to_datetime(now) - timedelta(days=days)).date()
        await _asked(lambda: self._pool.execute(_FORGET, first))
        rows = await _asked(lambda: self._pool.fetch(_LAST_DAYS, first, SOURCES_MAX))
        found = {(row["topic"], row["source"]): {_day(row["day"]): _mask(row["minutes"])} for row in rows}
        silent = [key for key, last in found.items() if now - _end_of(last) >= silent_us]
        if silent:
            names = [list(column) for column in zip(*silent, strict=True)]
            for row in await _asked(lambda: self._pool.fetch(_ALL_DAYS, first, *names)):
                found[row["topic"], row["source"]][_day(row["day"])] = _mask(row["minutes"])
        return [SourceHeard(source, topic, heard) for (topic, source), heard in found.items()]

    # -- the ledger and the outbox ----------------------------------------------------------------------------------

    async def ledger(self) -> tuple[Mapping[str, int], int | None]:
        """``{slot: next offset}``, and how long ago it heard of METER, in microseconds; None before it ever did."""
        rows = await _asked(lambda: self._pool.fetch("select slot, next_offset from ledger_sources"))
        silent = await _asked(lambda: self._pool.fetchval(_SILENT))
        return {row["slot"]: row["next_offset"] for row in rows}, None if silent is None else int(silent * SECOND)

    async def unpriced(self, now: int) -> tuple[Sequence[UnpricedCalls], Mapping[int, int]]:
        """Calls without a price by hour and model, and all calls by hour, of the last day."""
        bounds = to_datetime(now - DAY), to_datetime(now + HOUR)
        rows = await _asked(lambda: self._pool.fetch(_UNPRICED, *bounds))
        found = [
            UnpricedCalls(to_micros(row["hour"]), row["provider"], row["model"], row["calls"], int(row["estimated"]))
            for row in rows
        ]
        if not found:
            return [], {}
        calls = await _asked(lambda: self._pool.fetch(_REQUESTS, *bounds))
        return found, {to_micros(row["hour"]): row["calls"] for row in calls}

    async def owed(self) -> Sequence[ReceiverOwed]:
        """What each receiver is owed, or was given up."""
        rows = await _asked(lambda: self._pool.fetch(_OWED))
        return [
            ReceiverOwed(
                row["receiver"], row["waiting"], int(row["oldest_s"] * SECOND), row["pages"], row["given_up"],
                (row["error"] or "")[:ERROR_LENGTH],
            )
            for row in rows
        ]  # fmt: skip


async def _asked(ask: Callable[[], Awaitable[Result]]) -> Result:
    """What the database answers.

    Raises:
        StoreError: it does not, now.
    """
    try:
        async with asyncio.timeout(ASK_S):
            return await ask()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreError(str(error) or repr(error)) from error


def _bits(mask: int) -> BitString:
    """A day's minutes, the first one rightmost."""
    return BitString.frombytes(mask.to_bytes(DAY_BITS // 8, "big"), DAY_BITS)


def _mask(minutes: BitString) -> int:
    """
    >>> _mask(_bits(0b1011))
    11
    """
    return int.from_bytes(minutes.bytes, "big")


def _day(day: date) -> int:
    return (day - _EPOCH).days


def _end_of(days: Mapping[int, int]) -> int:
    """The end of the last minute of a single day."""
    ((day, mask),) = days.items()
    return day * DAY + mask.bit_length() * MINUTE
