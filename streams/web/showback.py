"""Who spent a budget, by feature, model, user, key, hour and whatever else tells calls apart."""

from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.budgets import CELL_ATTRIBUTES, Budget
from schemas.instants import InstantError, format_instant, parse_instant, to_datetime
from schemas.money import format_usd
from streams.core import showback
from streams.core.defining import RequestError, Wrong
from streams.core.definitions import Definitions
from streams.core.matching import conditions_of
from streams.core.periods import bounds_of, window_of
from streams.core.showback import Plan, Share
from streams.settings_sources import did_you_mean
from streams.web import queries
from streams.web.budgets import seen
from streams.web.reading import Reading, present
from streams.web.writing import Store, budget_named

router = APIRouter(tags=["budgets"])
_NOBODY = ["", "__unattributed__"]


class ShowbackRow(BaseModel):
    """What one of them spent."""

    name: str
    cost: str
    share_percent: str = Field(description="Of what was spent, with two decimals; empty where nothing was.")
    named: bool = Field(description="False for the opening balance and for what is not known.")


class Showback(BaseModel):
    """Who spent it. `rows` and `others` add up to `spent`."""

    budget_id: str
    value: str
    by: str
    period_start: str
    period_end: str
    currency: Literal["USD"] = "USD"
    spent: str
    exact: bool = Field(description="Whether every row is an exact sum; what is not known is a row of its own.")
    note: str = Field(description="Where the rows come from, and what is missing.")
    rows: list[ShowbackRow]
    others: str = Field(description="What the named rows spent together that `limit` cut off.")


class ShowbackQuery(BaseModel):
    """By what, and of which period."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field("feature", description=f"One of {', '.join(showback.BY)}.")
    at: str = Field("", description="An instant in the period that is meant; else now.")
    value: str = Field("", description="Of a `per` budget only this one.", max_length=512)
    limit: int = Field(100, ge=1, le=1_000)

    @field_validator("by")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in showback.BY:
            guess = did_you_mean(value, showback.BY)
            raise ValueError(f"cannot tell by {value[:40]!r}{guess} There are: {', '.join(showback.BY)}")
        return value


@router.get("/v1/budgets/{budget_id}/showback", summary="Who spent it")
async def read_showback(
    store: Store, reader: Reading, budget_id: str, query: Annotated[ShowbackQuery, Query()]
) -> Showback:
    """The rows add up to what the budget has spent in the period; `note` says plainly what is exact."""
    known = await store.known.now()
    budget = seen(reader, budget_named(known, budget_id))
    now = await present(store)
    return await showback_of(store.pool, known, budget, query, now)


async def showback_of(
    pool: asyncpg.Pool, known: Definitions, budget: Budget, query: ShowbackQuery, now: int
) -> Showback:
    """The answer, for the API and the command line alike.

    Raises:
        RequestError: the budget does not count at that instant.
    """
    bounds = _bounds(budget, query.at, now)
    spent, opening = await _spent(pool, known, budget, bounds, query.value)
    planned = showback.plan(budget, query.by, bounds, known)
    rows = await _rows(pool, budget, planned, bounds, query)
    planned = showback.judged(planned, rows)
    if spent is None:
        # The budget has stated nothing of that period: what the ledger has is all that is known.
        spent = sum(share.nanos for share in rows) + (0 if planned.budget_id == budget.id else opening)
    # What a budget states of each of its values has their opening balances in it.
    shares = showback.closed(rows, spent, 0 if planned.budget_id == budget.id else opening)
    named = [share for share in shares if share.named]
    shown = named[: query.limit] + [share for share in shares if not share.named]
    return Showback(
        budget_id=budget.id,
        value=query.value,
        by=query.by,
        period_start=format_instant(bounds[0]),
        period_end=format_instant(bounds[1]),
        spent=format_usd(spent),
        exact=planned.exact,
        note=planned.note,
        rows=[_row(share, spent) for share in shown],
        others=format_usd(sum(share.nanos for share in named[query.limit :])),
    )


def _bounds(budget: Budget, at: str, now: int) -> tuple[int, int]:
    try:
        instant = parse_instant(at) if at else now
    except (InstantError, OverflowError) as error:
        raise RequestError([Wrong("at", str(error))]) from error
    if budget.period.kind == "rolling":
        found = window_of(budget.period, instant, budget.starts, budget.ends)
    else:
        found = bounds_of(budget.period, instant, budget.starts, budget.ends)
    if found is None:
        problem = f"budget {budget.id} does not count at {format_instant(instant)}: see its start and end"
        raise RequestError([Wrong("at", problem)])
    return found


async def _spent(
    pool: asyncpg.Pool, known: Definitions, budget: Budget, bounds: tuple[int, int], value: str
) -> tuple[int | None, int]:
    """What the budget itself states, None where it has not yet; and what of it was there before Sluice."""
    rows = await queries.budget_periods(pool, [budget.id], *_moments(_row_bounds(budget, bounds)))
    mine = [row for row in rows if not value or row["value"] == value]
    spent = sum(int(row["spent_nanos"]) for row in mine) if mine else None
    opening = sum(
        balance.nanos
        for balance in known.balances.values()
        if balance.budget_id == budget.id
        and bounds[0] <= balance.period_start < bounds[1]
        and (not value or balance.value == value)
    )
    return spent, opening


async def _rows(
    pool: asyncpg.Pool, budget: Budget, planned: Plan, bounds: tuple[int, int], query: ShowbackQuery
) -> list[Share]:
    if planned.kind in ("cells", "spenders"):
        found = await _shares(pool, budget, bounds, query, planned.kind == "spenders")
        return [Share(row["name"], int(row["nanos"])) for row in found]
    asked = [planned.budget_id or budget.id]
    rows = await queries.budget_periods(pool, asked, *_moments(_row_bounds(budget, bounds)))
    if planned.kind == "values":
        values: dict[str, int] = {}
        for row in rows:
            name = row["value"]
            if name and (not query.value or planned.budget_id != budget.id or name == query.value):
                values[name] = values.get(name, 0) + int(row["spent_nanos"])
        return sorted(
            (Share(name, nanos) for name, nanos in values.items()), key=lambda share: (-share.nanos, share.name)
        )
    labels: dict[str, int] = {}
    for row in rows:
        if not query.value or row["value"] == query.value:
            stated: dict[str, Any] = row["takers"] or {}
            for label, nanos in stated.items():
                labels[label] = labels.get(label, 0) + int(nanos)
    return showback.of_label(query.by, labels)


async def _shares(
    pool: asyncpg.Pool, budget: Budget, bounds: tuple[int, int], query: ShowbackQuery, of_spenders: bool
) -> list[asyncpg.Record]:
    conditions = {name: sorted(values) for name, values in conditions_of(budget.match).items()}
    if query.value and budget.per:
        conditions[budget.per] = [query.value]
    is_pooled = bool(budget.per) and not query.value
    counted = queries.Counted(
        _moments(showback.whole_hours(bounds)),
        {name: values for name, values in conditions.items() if name in CELL_ATTRIBUTES},
        nobody=(budget.per, _NOBODY) if is_pooled and budget.per in CELL_ATTRIBUTES else None,
        exempt=[showback.like(pattern) for pattern in budget.exempt_models],
    )
    if not of_spenders:
        return await queries.showback(pool, query.by, counted)
    who = {name: values for name, values in conditions.items() if name in showback.SPENDERS}
    nobody = [budget.per] if is_pooled and budget.per in showback.SPENDERS else []
    return await queries.spenders(pool, query.by, counted, who, nobody)


def _row_bounds(budget: Budget, bounds: tuple[int, int]) -> tuple[int, int]:
    """Where the budget's own row begins: a rolling budget has one row, without a period."""
    return (0, 1) if budget.period.kind == "rolling" else bounds


def _moments(bounds: tuple[int, int]) -> tuple[Any, Any]:
    return to_datetime(bounds[0]), to_datetime(bounds[1])


def _row(share: Share, spent: int) -> ShowbackRow:
    percent = share.nanos * 10_000 // spent if spent > 0 else None
    text = "" if percent is None else f"{'-' if percent < 0 else ''}{abs(percent) // 100}.{abs(percent) % 100:02d}"
    return ShowbackRow(name=share.name, cost=format_usd(share.nanos), share_percent=text, named=share.named)
