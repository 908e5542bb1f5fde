"""What costs money: every resource with its last use, what it costs, and how that changed."""

from typing import Annotated, Literal

import asyncpg
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.instants import DAY, format_instant
from schemas.money import format_usd
from streams.core.resources import DAYS_KEPT, Day, History, Resource, day_of, last_uses
from streams.core.waste import MONTH, WastePolicy, week_of
from streams.sinks.resources import PostgresResources
from streams.web.reading import Parts, Reading, present

router = APIRouter(tags=["waste"])


class InventoryQuery(BaseModel):
    """Which resources."""

    model_config = ConfigDict(extra="forbid")

    team: str = Field("", max_length=512)
    category: Literal["", "llm", "gpu", "storage", "vector", "transfer", "tooling"] = ""
    unused_days: int = Field(0, ge=0, le=3_650, description="Only what has not been used for so many days.")
    limit: int = Field(200, ge=1, le=5_000, description="The dearest first.")


class ResourceRow(BaseModel):
    """One resource."""

    org_id: str
    team_id: str
    project_id: str
    feature: str
    category: str
    provider: str
    model: str
    environment: str
    first_seen: str = Field(description="The day.")
    last_use: str | None = Field(description="Null: never used. Of what is only billed: when its feature was, or team.")
    unused_days: int
    cost_30d: str = Field(description="Of the thirty whole days before today.")
    cost_7d: str
    cost_7d_before: str
    week_over_week: bool = Field(description="The fixed rule: more than 1.5 times the week before.")


class Inventory(BaseModel):
    """What there is."""

    now: str
    count: int = Field(description="How many match, shown or not.")
    resources: list[ResourceRow]


@router.get("/v1/inventory", summary="Every resource, with its last use and what it costs")
async def read_inventory(parts: Parts, reader: Reading, query: Annotated[InventoryQuery, Query()]) -> Inventory:
    """A team's key sees the team's own. The list is made anew once an hour."""
    if reader.team:
        query = query.model_copy(update={"team": reader.team})
    return await inventory_of(parts.pool, query, await present(parts))


async def inventory_of(pool: asyncpg.Pool, query: InventoryQuery, now: int) -> Inventory:
    """The answer, for the API and the command line alike."""
    today = day_of(now)
    rows = await PostgresResources(pool).read(today - DAYS_KEPT)
    histories = [History(Resource(*r.names), r.first_day, r.last_use, [Day(*day) for day in r.days]) for r in rows]
    uses = last_uses(histories)
    found = [
        _row(history, uses[history.resource], now)
        for history in sorted(histories, key=lambda each: (-each.spent(today - MONTH, today), each.resource))
        if query.team in ("", history.resource.team_id) and query.category in ("", history.resource.category)
    ]
    found = [row for row in found if row.unused_days >= query.unused_days]
    return Inventory(now=format_instant(now), count=len(found), resources=found[: query.limit])


def _row(history: History, used: int | None, now: int) -> ResourceRow:
    today = day_of(now)
    last, before, is_above = week_of(history, now, WastePolicy())
    since = history.first_day * DAY if used is None else used
    return ResourceRow(
        **history.resource._asdict(),
        first_seen=format_instant(history.first_day * DAY)[:10],
        last_use=None if used is None else format_instant(used),
        unused_days=max(0, (now - since) // DAY),
        cost_30d=format_usd(history.spent(today - MONTH, today)),
        cost_7d=format_usd(last),
        cost_7d_before=format_usd(before),
        week_over_week=is_above,
    )
