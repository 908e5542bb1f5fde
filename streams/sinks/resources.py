"""The inventory in PostgreSQL: what costs money, by day, with its last use; made of the ledger's cells."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import asyncpg

from schemas.alerts import Alert
from schemas.instants import HOUR, hour_of, to_datetime, to_micros
from schemas.readers import ALERTS
from streams.history_ports import ResourceRow
from streams.sinks.forecasts import store_errors
from streams.sinks.postgres import with_retries

NAMES = ("org_id", "team_id", "project_id", "feature", "category", "provider", "model", "environment")
_KEY = ", ".join(NAMES)
_FIGURES = ("cost_nanos", "requests", "interactive", "job_nanos", "job_hours", "last_use")
_EPOCH = date(1970, 1, 1)
_JOBS = "category = 'llm' and request_type <> 'interactive'"
_REFRESH_DAYS = f"""
insert into resource_days ({_KEY}, day, {", ".join(_FIGURES)})
select {_KEY}, (hour at time zone 'UTC')::date as day, sum(cost_nanos), sum(requests),
    coalesce(sum(requests) filter (where category = 'llm' and request_type = 'interactive'), 0),
    coalesce(sum(cost_nanos) filter (where {_JOBS}), 0),
    coalesce(bit_or(1 << extract(hour from hour at time zone 'UTC')::int) filter (where {_JOBS} and requests > 0), 0),
    max(hour) filter (where requests > 0 or gpu_milliseconds > 0)
from ledger_cells where hour >= $1 group by {_KEY}, day
on conflict ({_KEY}, day) do update set {", ".join(f"{name} = excluded.{name}" for name in _FIGURES)}
"""
_REFRESH_RESOURCES = f"""
insert into resources as old ({_KEY}, first_day, last_day, last_use)
select {_KEY}, min(day), max(day), max(last_use) from resource_days where day >= $1 group by {_KEY}
on conflict ({_KEY}) do update set first_day = least(old.first_day, excluded.first_day),
    last_day = greatest(old.last_day, excluded.last_day), last_use = greatest(old.last_use, excluded.last_use)
"""
_READ = f"""
select r.*, coalesce(d.days, '{{}}') as days, d.nanos, d.requests, d.interactive, d.job_nanos, d.job_hours
from resources r left join (
    select {_KEY}, array_agg(day order by day) as days, array_agg(cost_nanos order by day) as nanos,
        array_agg(requests order by day) as requests, array_agg(interactive order by day) as interactive,
        array_agg(job_nanos order by day) as job_nanos, array_agg(job_hours order by day) as job_hours
    from resource_days where day >= $1 group by {_KEY}
) d using ({_KEY}) order by {_KEY}
"""
_TAKE = """
update waste_passes set held_until = $3 where done_hour < $1 and held_until <= $2 returning true
"""
_TOLD = """
select body, stated_at from alerts where rule = any($1::text[]) and (status <> 'resolved' or stated_at >= $2)
"""


class PostgresResources:
    """Implements ``streams.ports.Resources``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def take_turn(self, now: int, hold_us: int) -> bool:
        """Whether this hour was not looked at yet and nobody else is at it; then it is held for so long."""
        with store_errors():
            taken = await self._pool.fetchval(
                _TAKE, to_datetime(hour_of(now)), to_datetime(now), to_datetime(now + hold_us)
            )
        return bool(taken)

    async def end_turn(self, now: int) -> None:
        """This hour was looked at."""
        with store_errors():
            await self._pool.execute(
                "update waste_passes set done_hour = greatest(done_hour, $1), held_until = 'epoch'",
                to_datetime(hour_of(now)),
            )

    async def heard_until(self) -> int | None:
        """The newest event time of any source; None before any was heard."""
        with store_errors():
            found = await self._pool.fetchval("select max(stream_time) from ledger_sources")
        return None if found is None else to_micros(found)

    async def refresh(self, since_day: int) -> None:
        """Make the days from ``since_day`` on anew from the cells, and the inventory of them."""
        since = _date(since_day)
        midnight = datetime(since.year, since.month, since.day, tzinfo=UTC)

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_REFRESH_DAYS, midnight)
                await connection.execute(_REFRESH_RESOURCES, since)

        with store_errors():
            await with_retries(attempt, retries=2)

    async def read(self, since_day: int) -> Sequence[ResourceRow]:
        """Every resource, with its days from ``since_day`` on."""
        with store_errors():
            rows = await self._pool.fetch(_READ, _date(since_day))
        return [_row(row) for row in rows]

    async def told(self, rules: Sequence[str], since: int) -> Sequence[tuple[Alert, int]]:
        """Alerts of these rules that are open, or were stated since, each with when it was."""
        with store_errors():
            rows = await self._pool.fetch(_TOLD, list(rules), to_datetime(since))
        return [(ALERTS.convert(row["body"]), to_micros(row["stated_at"])) for row in rows]


def _row(row: asyncpg.Record) -> ResourceRow:
    figures = [row[name] for name in ("days", "nanos", "requests", "interactive", "job_nanos", "job_hours")]
    days = [] if not figures[0] else list(zip(*figures, strict=True))
    used = row["last_use"]
    org, team, project, feature, category, provider, model, environment = (row[name] for name in NAMES)
    return ResourceRow(
        names=(org, team, project, feature, category, provider, model, environment),
        first_day=(row["first_day"] - _EPOCH).days,
        # The last hour in which it was used, to its end.
        last_use=None if used is None else to_micros(used) + HOUR,
        days=[
            ((day - _EPOCH).days, int(nanos), int(requests), int(interactive), int(job_nanos), int(hours))
            for day, nanos, requests, interactive, job_nanos, hours in days
        ],
    )


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)
