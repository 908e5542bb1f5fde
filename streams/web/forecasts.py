"""What is said of a budget's future, what was said before, and how wrong that was."""

from datetime import datetime
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.instants import format_instant, to_micros
from schemas.money import format_usd
from streams.core.forecast import words
from streams.ports import RetryableError
from streams.web.budgets import visible
from streams.web.problems import problem
from streams.web.reading import Parts, Reader, Reading, present
from streams.web.writing import Store

router = APIRouter(tags=["budgets"])


class ForecastQuery(BaseModel):
    """Whose forecast, and how much of the past."""

    model_config = ConfigDict(extra="forbid")

    value: str = Field("", description="The value of a `per` budget, such as a key's id.")
    limit: int = Field(200, ge=0, le=5_000, description="Earlier statements in `history`, the newest first.")


class PastError(BaseModel):
    """How wrong a method was at this point of earlier periods."""

    statements: int = Field(description="Of how many statements that is; 0: no history yet, and the rest is null.")
    mean_percent: str | None = Field(description="How far it was off, on average, in percent of what came.")
    bias_percent: str | None = Field(description="By how much it said too much (negative: too little), on average.")


class Estimate(BaseModel):
    """What one method says: an estimate, no amount that anybody owes."""

    method: str = Field(description="`run_rate`, `plain` or `seasonal`; docs/budgets.md has the formulas.")
    is_best: bool = Field(description="Whether forecast thresholds go by it.")
    said_at: str
    projected: str
    low: str
    high: str | None = Field(description="Null while there is no history to take a bound from.")
    projected_percent: str = Field(description="Of the limit.")
    exhausts_at: str | None = Field(description="When the limit is reached; null: not before `until`, or it was.")
    exhausts: str = Field(description="The same in words, in the budget's own zone.")
    past_error: PastError


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
        period_start=_text(newest["period_start"]),
        until=_text(newest["until"]),
        timezone=newest["timezone"],
        spent=_usd(newest["spent_nanos"]),
        limit=_usd(newest["limit_nanos"]),
        burn_per_hour=_usd(newest["burn_nanos_per_hour"]),
        known_hours=newest["known_us"] // 3_600_000_000,
        estimates=[_estimate(row, now) for row in current.values()],
        history=[_statement(row) for row in history[:limit]],
    )


def _estimate(row: asyncpg.Record, now: int) -> Estimate:
    limit, projected = int(row["limit_nanos"]), int(row["projected_nanos"])
    exhausts = row["exhausts_at"]
    judged = row["judged"]
    return Estimate(
        method=row["method"],
        is_best=row["is_best"],
        said_at=_text(row["said_at"]),
        projected=format_usd(projected),
        low=_usd(row["low_nanos"]),
        high=None if row["high_nanos"] is None else _usd(row["high_nanos"]),
        projected_percent=_percent(projected * 1_000 // limit if limit > 0 else 0),
        exhausts_at=_text(exhausts) if exhausts else None,
        exhausts=_in_words(row, limit, now),
        past_error=PastError(
            statements=judged,
            mean_percent=_percent(row["error_permille"]) if judged else None,
            bias_percent=_percent(row["bias_permille"]) if judged else None,
        ),
    )


def _in_words(row: asyncpg.Record, limit: int, now: int) -> str:
    if int(row["spent_nanos"]) >= limit:
        return "100 % is passed already"
    if row["exhausts_at"] is None:
        return "will not pass 100 %"
    return "will pass 100 % " + words(to_micros(row["exhausts_at"]), row["timezone"], now)


def _statement(row: asyncpg.Record) -> Statement:
    actual = None if row["actual_nanos"] is None else int(row["actual_nanos"])
    error = None
    if actual is not None and actual > 0:
        error = _percent((int(row["projected_nanos"]) - actual) * 1_000 // actual)
    return Statement(
        period_start=_text(row["period_start"]),
        said_at=_text(row["said_at"]),
        method=row["method"],
        spent=_usd(row["spent_nanos"]),
        projected=_usd(row["projected_nanos"]),
        exhausts_at=_text(row["exhausts_at"]) if row["exhausts_at"] else None,
        actual=None if actual is None else format_usd(actual),
        error_percent=error,
        throttled=row["was_held"],
    )


def _percent(permille: int) -> str:
    sign = "-" if permille < 0 else ""
    return f"{sign}{abs(permille) // 10}.{abs(permille) % 10}"


def _usd(nanos: Any) -> str:
    # numeric in PostgreSQL: integers here, since a Decimal would round what is longer than its context.
    return format_usd(int(nanos))


def _text(moment: datetime) -> str:
    return format_instant(to_micros(moment))
