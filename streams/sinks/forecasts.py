"""Forecasts in PostgreSQL: what was learned of each budget, what was said, and what came."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from schemas.budgets import CELL_ATTRIBUTES
from schemas.instants import DAY, to_datetime, to_micros
from streams.history_ports import ForecastRow, Outcome, StoredForecast, StoreError
from streams.sinks.postgres import storable, with_retries

#: What was said longer ago is deleted: four quarters, and one more to compare with.
KEPT_US = 460 * DAY
_ROWS_AT_ONCE = 2_000
#: Budgets' attributes -> the ledger's columns.
_COLUMNS = {
    "org": "org_id", "team": "team_id", "project": "project_id",
    **{name: name for name in CELL_ATTRIBUTES if name not in ("org", "team", "project")},
}  # fmt: skip
_INSTANTS = ("period_start", "at", "said_at", "until", "exhausts_at")
_TYPES = dict.fromkeys(_INSTANTS, "timestamptz")
_TYPES |= dict.fromkeys(("budget_id", "value", "method", "timezone"), "text")
_TYPES |= dict.fromkeys(("judged", "error_permille", "bias_permille"), "integer")
_TYPES |= {"is_best": "boolean", "known_us": "bigint"}
_NAMES = ForecastRow.__struct_fields__
_KEY = ("budget_id", "value", "period_start", "method", "at")
_UPSERT_ROWS = (
    f"insert into budget_forecasts as old ({', '.join(_NAMES)}) select * from unnest("
    + ", ".join(f"${place}::{_TYPES.get(name, 'numeric')}[]" for place, name in enumerate(_NAMES, 1))
    + f") on conflict ({', '.join(_KEY)}) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name not in _KEY)
    + " where excluded.said_at >= old.said_at"
)
_UPSERT_STATE = """
insert into forecast_states as old (budget_id, value, at, state)
select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::bytea[])
on conflict (budget_id, value) do update set at = excluded.at, state = excluded.state where excluded.at >= old.at
"""
_OUTCOME = """
update budget_forecasts set actual_nanos = $4, was_held = $5
where budget_id = $1 and value = $2 and period_start = $3
"""


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what the driver raises into ``StoreError``."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreError(f"the database does not take it: {error!r}") from error


class PostgresForecasts:
    """Implements ``streams.ports.Forecasts``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], bytes]:
        """The states of these (budget, value) pairs, as far as there are any."""
        names = [[storable(key[place]) for key in keys] for place in (0, 1)]
        with store_errors():
            rows = await self._pool.fetch(
                "select s.* from forecast_states s join unnest($1::text[], $2::text[]) as k(budget_id, value)"
                " using (budget_id, value)",
                *names,
            )
        return {(row["budget_id"], row["value"]): row["state"] for row in rows}

    async def keep(
        self, states: Sequence[StoredForecast], rows: Sequence[ForecastRow], outcomes: Sequence[Outcome]
    ) -> None:
        """Store all of it in one transaction.

        Raises:
            StoreError: the database did not take it; nothing of it is visible.
        """

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                for some in _pieces(sorted(states, key=lambda each: (each.budget_id, each.value))):
                    columns = [(storable(s.budget_id), storable(s.value), to_datetime(s.at), s.state) for s in some]
                    await connection.execute(_UPSERT_STATE, *map(list, zip(*columns, strict=True)))
                for some in _pieces(sorted(rows, key=lambda row: tuple(getattr(row, name) for name in _KEY))):
                    await connection.execute(_UPSERT_ROWS, *([_held(row, name) for row in some] for name in _NAMES))
                for outcome in outcomes:
                    start = to_datetime(outcome.period_start)
                    names = (storable(outcome.budget_id), storable(outcome.value))
                    await connection.execute(_OUTCOME, *names, start, outcome.nanos, outcome.was_held)

        if states or rows or outcomes:
            with store_errors():
                await with_retries(attempt, retries=2)

    async def forget(self, now: int) -> int:
        """Delete what was said too long ago; returns how many rows went."""
        with store_errors():
            status = await self._pool.execute(
                "delete from budget_forecasts where said_at < $1", to_datetime(now - KEPT_US)
            )
        return int(status.split()[-1])

    async def hourly_spend(self, match: Sequence[tuple[str, str]], since: int, until: int) -> Mapping[int, int] | None:
        """Nanodollars by UTC hour of every cell that matches; None where cells do not have what is matched."""
        wanted: dict[str, list[str]] = {}
        for attribute, value in match:
            if attribute not in _COLUMNS:
                return None
            wanted.setdefault(_COLUMNS[attribute], []).append(value)
        where = "".join(f" and {column} = any(${place})" for place, column in enumerate(wanted, 3))
        with store_errors():
            rows = await self._pool.fetch(
                "select hour, sum(cost_nanos)::numeric as nanos from ledger_cells where hour >= $1 and hour < $2"
                f"{where} group by hour",
                to_datetime(since),
                to_datetime(until),
                *wanted.values(),
            )
        return {to_micros(row["hour"]): int(row["nanos"]) for row in rows}


def _pieces(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[first : first + _ROWS_AT_ONCE] for first in range(0, len(items), _ROWS_AT_ONCE)]


def _held(row: ForecastRow, name: str) -> Any:
    value = getattr(row, name)
    if name in _INSTANTS:
        return None if value is None else to_datetime(value)
    return storable(value) if isinstance(value, str) else value
