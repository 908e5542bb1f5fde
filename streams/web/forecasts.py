"""What is said of a budget's future, what was said before, and how wrong that was."""

from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.instants import format_instant
from streams.ports import RetryableError
from streams.web.answers import Estimate
from streams.web.budgets import visible
from streams.web.outlook import estimate_of, percent, text, usd
from streams.web.problems import problem
from streams.web.reading import Parts, Reader, Reading, present
from streams.web.writing import Store

router = APIRouter(tags=["budgets"])


class ForecastQuery(BaseModel):
    """Whose forecast, and how much of the past."""

    model_config = ConfigDict(extra="forbid")

    value: str = Field("", description="The value of a `per` budget, such as a key's id.")
    limit: int = Field(200, ge=0, le=5_000, description="Earlier statements in `history`, the newest first.")


class Statement(BaseModel):
    """What was said earlier."""

    period_start: str
    said_at: str
    method: str
    spent: str
    projected: str
    exhausts_at: str | None
    actual: str | None = Field(description="What the period cost; null while it is not over.")
    error_percent: str | None = Field(description="What was said, against what came: positive where it was too much.")
    throttled: bool = Field(description="Gateways were throttled in that period, so nobody is judged by it.")


class Forecast(BaseModel):
    """A budget's forecast."""

    now: str
    budget_id: str
    value: str
    period_start: str
    until: str = Field(description="What is looked ahead to: the period's end; of rolling and open budgets further.")
    timezone: str
    spent: str
    limit: str
    burn_per_hour: str = Field(description="What the last hour cost.")
    known_hours: int = Field(description="How long its spend has been known.")
    estimates: list[Estimate]
    history: list[Statement]


@router.get("/v1/budgets/{budget_id}/forecast", summary="What a budget will have spent, and when it is used up")
async def read_forecast(
    parts: Parts, store: Store, reader: Reading, budget_id: str, query: Annotated[ForecastQuery, Query()]
) -> Any:
    """Three estimates with their past errors, and what was said before. A team's key sees the team's own budgets."""
    found = None
    if await _may_see(parts.pool, store, reader, budget_id):
        found = await forecast_of(parts.pool, budget_id, query.value, query.limit, await present(parts))
    if found is not None:
        return found
    what_to_do = "`sluice budgets list` shows what there is; a new budget has a forecast after a minute."
    return problem(404, {"detail": f"nothing is forecast of budget {budget_id[:64]!r}", "action": what_to_do})


async def forecast_of(pool: asyncpg.Pool, budget_id: str, value: str, limit: int, now: int) -> Forecast | None:
    """The forecast of one budget, with up to ``limit`` earlier statements; None where there is none."""
    rows = await _said(pool, budget_id, value, limit)
    return _forecast(rows, limit, now) if rows else None


async def _may_see(pool: asyncpg.Pool, store: Store, reader: Reader, budget_id: str) -> bool:
    """A team's key: the budgets that throttle that team, or count it alone."""
    if not reader.team:
        return True
    sql = "select true from budget_status where budget_id = $1 and scope_type = 'team' and scope_id = $2 limit 1"
    if await pool.fetchval(sql, budget_id, reader.team):
        return True
    try:
        budget = (await store.known.now()).of_budget(budget_id)
    except RetryableError:
        return False
    return budget is not None and visible(reader, budget)


async def _said(pool: asyncpg.Pool, budget_id: str, value: str, limit: int) -> list[asyncpg.Record]:
    """The newest first; of one instant the best first."""
    sql = (
        "select * from budget_forecasts where budget_id = $1 and value = $2"
        " order by period_start desc, at desc, is_best desc, method limit $3"
    )
    return list(await pool.fetch(sql, budget_id, value, limit + 3))


def _forecast(rows: list[asyncpg.Record], limit: int, now: int) -> Forecast:
    newest = max(rows, key=lambda row: row["said_at"])
    current: dict[str, asyncpg.Record] = {}
    for row in rows:
        if row["period_start"] == newest["period_start"]:
            current.setdefault(row["method"], row)
    history = [row for row in rows if row not in current.values()]
    return Forecast(
        now=format_instant(now),
        budget_id=newest["budget_id"],
        value=newest["value"],
        period_start=text(newest["period_start"]),
        until=text(newest["until"]),
        timezone=newest["timezone"],
        spent=usd(newest["spent_nanos"]),
        limit=usd(newest["limit_nanos"]),
        burn_per_hour=usd(newest["burn_nanos_per_hour"]),
        known_hours=newest["known_us"] // 3_600_000_000,
        estimates=[estimate_of(row, now) for row in current.values()],
        history=[_statement(row) for row in history[:limit]],
    )


def _statement(row: asyncpg.Record) -> Statement:
    actual = None if row["actual_nanos"] is None else int(row["actual_nanos"])
    error = None
    if actual is not None and actual > 0:
        error = percent((int(row["projected_nanos"]) - actual) * 1_000 // actual)
    return Statement(
        period_start=text(row["period_start"]),
        said_at=text(row["said_at"]),
        method=row["method"],
        spent=usd(row["spent_nanos"]),
        projected=usd(row["projected_nanos"]),
        exhausts_at=text(row["exhausts_at"]) if row["exhausts_at"] else None,
        actual=None if actual is None else usd(actual),
        error_percent=error,
        throttled=row["was_held"],
    )
