"""Reviews: what critical alerts lead to, who looks into it until when, and what came of it."""

from collections.abc import Mapping
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import Field

from schemas.instants import format_instant, to_micros
from streams.core.alert_life import LifeError
from streams.core.defining import RequestError, Wrong, said, until
from streams.core.defining import name as a_name
from streams.core.silencing import LONGEST
from streams.sinks import reviews
from streams.web.alerts import Telling
from streams.web.reading import Parts, Reading
from streams.web.writing import Body, BoundedRoute

router = APIRouter(route_class=BoundedRoute, tags=["reviews"])
ReviewId = Annotated[str, Path(max_length=64)]


class OutcomeBody(Body):
    """What came of it."""

    outcome: str = Field(max_length=2_000, description="What was the cause, and what was done about it.")
    by: str = Field("", max_length=256, description="The person; the key's name is added.")


class HandOverBody(Body):
    """Another owner, another day."""

    owner: str = Field("", max_length=256, description="Empty: the same.")
    due: str = Field("", max_length=64, description="An instant, or a span from now; empty: the same.")


@router.get("/v1/reviews", summary="Reviews of critical alerts")
async def read_reviews(
    parts: Parts, reader: Reading, closed: Annotated[bool, Query(description="Also those that are done.")] = False
) -> dict[str, Any]:
    """Open ones, the first due first. A team's key sees the team's own."""
    now = parts.clock.now()
    rows = await reviews.list_reviews(parts.pool, team=reader.team, closed=closed)
    listed = [shown(row, now) for row in rows]
    return {"reviews": listed, "overdue": sum(each["overdue"] for each in listed)}


@router.put("/v1/reviews/{review_id}/outcome", summary="Close a review")
async def put_outcome(parts: Parts, caller: Telling, review_id: ReviewId, body: OutcomeBody) -> dict[str, Any]:
    """With what came of it. Needs a key of scope `alerts:write`."""
    caller.may((await found(parts.pool, review_id))["team_id"])
    return await close(parts.pool, review_id, body.outcome, caller.said_as(body.by), parts.clock.now())


@router.patch("/v1/reviews/{review_id}", summary="Hand a review over, or move its day")
async def patch_review(parts: Parts, caller: Telling, review_id: ReviewId, body: HandOverBody) -> dict[str, Any]:
    """An open one."""
    caller.may((await found(parts.pool, review_id))["team_id"])
    return await hand_over(parts.pool, review_id, body.owner, body.due, parts.clock.now())


async def close(pool: asyncpg.Pool, review_id: str, outcome: str, by: str, now: int) -> dict[str, Any]:
    """Say what came of a review.

    Raises:
        RequestError: without an outcome.
        LifeError: it is closed.
    """
    try:
        words = said(outcome)
    except ValueError as error:
        raise RequestError([Wrong("outcome", "say what was the cause and what was done about it")]) from error
    if not await reviews.close_review(pool, review_id, words, by, now):
        await _closed_already(pool, review_id)
    return shown(await found(pool, review_id), now)


async def hand_over(pool: asyncpg.Pool, review_id: str, owner: str, due: str, now: int) -> dict[str, Any]:
    """Another owner or another day for an open review.

    Raises:
        RequestError: neither, or one that cannot be.
        LifeError: it is closed.
    """
    try:
        day = until(due, now, LONGEST) if due else None
    except ValueError as error:
        raise RequestError([Wrong("due", str(error))]) from error
    try:
        person = a_name(owner) if owner else ""
    except ValueError as error:
        raise RequestError([Wrong("owner", str(error))]) from error
    if not person and day is None:
        raise RequestError([Wrong("owner", "give another owner, another day, or both")])
    if not await reviews.hand_over(pool, review_id, person, day):
        await _closed_already(pool, review_id)
    return shown(await found(pool, review_id), now)


async def _closed_already(pool: asyncpg.Pool, review_id: str) -> None:
    row = await found(pool, review_id)
    raise LifeError(f"review {review_id} was closed by {row['closed_by']}: {row['outcome']}")


async def found(pool: asyncpg.Pool, review_id: str) -> Mapping[str, Any]:
    """The review of an id.

    Raises:
        HTTPException: 404.
    """
    rows = await reviews.list_reviews(pool, review_id=review_id) if review_id else []
    if not rows:
        raise HTTPException(404, {"detail": f"there is no review {review_id[:64]!r}", "action": "See /v1/reviews."})
    return rows[0]


def shown(row: Mapping[str, Any], now: int) -> dict[str, Any]:
    """A review for people."""
    due, closed = to_micros(row["due_at"]), row["closed_at"]
    names = ("dedup_key", "episode", "rule", "severity", "team_id", "summary", "owner", "outcome", "closed_by")
    return {
        "id": row["review_id"], "state": "closed" if closed else "open",
        "overdue": closed is None and due <= now,
        "opened_at": format_instant(to_micros(row["opened_at"])), "due_at": format_instant(due),
        "closed_at": format_instant(to_micros(closed)) if closed else None,
    } | {name: row[name] for name in names}  # fmt: skip
