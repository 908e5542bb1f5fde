"""Silences: who wants no message about which alerts, until when, and why."""

from typing import Annotated, Any

import asyncpg
import msgspec
from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import Field

from schemas.instants import DAY, format_instant, to_micros
from schemas.readers import ALERTS
from streams.core.matchers import written
from streams.core.notifying import Matcher, Silence, labels_of
from streams.core.silencing import silence_of
from streams.sinks.owing import wake_all
from streams.sinks.silences import add_silence, end_silence, list_silences
from streams.web import queries
from streams.web.alerts import Telling
from streams.web.reading import Parts, Reading
from streams.web.writing import Body, BoundedRoute, Reason

router = APIRouter(route_class=BoundedRoute, tags=["silences"])
#: How long one that is over is still shown.
SHOWN_FOR = 7 * DAY
OPEN_MAX = 1_000


class SilenceBody(Body):
    """What to silence, until when, and why."""

    matchers: list[str] = Field(
        min_length=1, max_length=16,
        description='As Alertmanager writes them: team=search, rule!=gpu_idle, severity=~"info|warning". All hold.',
    )  # fmt: skip
    ends: str = Field(description="An instant, or a span from now such as 2h; 90 days at most.", max_length=64)
    starts: str = Field("", description="An instant; without it: now.", max_length=64)
    reason: Reason = ""
    by: str = Field("", max_length=256, description="The person; the key's name is added.")


@router.get("/v1/silences", summary="Silences that hold, are to come, or ended in the last 7 days")
async def read_silences(
    parts: Parts, reader: Reading, live: Annotated[bool, Query(description="Only those that hold now.")] = False
) -> dict[str, Any]:
    """The last to end first. `holds_back` is the number of open alerts that one silences. A team's key sees its own."""
    return {"silences": await shown_all(parts.pool, parts.clock.now(), live=live, team=reader.team)}


@router.post("/v1/silences", summary="Silence alerts until a time", status_code=201)
async def post_silence(parts: Parts, caller: Telling, body: SilenceBody) -> dict[str, Any]:
    """Messages about them stop; the alerts are shown on. Needs a key of scope `alerts:write`; one that is bound to a
    team has to match that very team."""
    now = parts.clock.now()
    made = silence_of(
        body.matchers, starts=body.starts, ends=body.ends, why=body.reason, by=caller.said_as(body.by), now=now,
        team=caller.team,
    )  # fmt: skip
    return await make(parts.pool, made, now)


@router.delete("/v1/silences/{silence_id}", summary="End a silence now")
async def delete_silence(
    parts: Parts,
    caller: Telling,
    silence_id: Annotated[str, Path(max_length=64)],
    by: Annotated[str, Query(max_length=256)] = "",
) -> dict[str, Any]:
    """What it held back and is still true is told."""
    now = parts.clock.now()
    found = {each["id"]: each for each in await shown_all(parts.pool, now, team=caller.team)}
    if silence_id not in found or not await end(parts.pool, silence_id, caller.said_as(by), now):
        raise HTTPException(404, {"detail": f"no silence {silence_id!r} holds", "action": "See /v1/silences."})
    return found[silence_id] | {"state": "ended", "ends": format_instant(now)}


async def make(pool: asyncpg.Pool, silence: Silence, now: int) -> dict[str, Any]:
    """Write a silence, and let NOTIFY look at every group at once."""
    async with pool.acquire() as connection, connection.transaction():
        await add_silence(connection, silence, now)
        await wake_all(connection)
    return next(each for each in await shown_all(pool, now) if each["id"] == silence.id)


async def end(pool: asyncpg.Pool, silence_id: str, by: str, now: int) -> bool:
    """End a silence, and let NOTIFY look at every group at once; False where none holds."""
    async with pool.acquire() as connection, connection.transaction():
        ended = await end_silence(connection, silence_id, by, now)
        await wake_all(connection)
    return ended


async def shown_all(pool: asyncpg.Pool, now: int, *, live: bool = False, team: str = "") -> list[dict[str, Any]]:
    """Silences for people, with how many open alerts each of them silences."""
    rows = await list_silences(pool, now if live else now - SHOWN_FOR)
    alerts = await queries.alerts(pool, queries.OPEN_STATUSES, None, None, OPEN_MAX)
    labels = [labels_of(ALERTS.decode(row["body_text"].encode())) for row in alerts]
    found = []
    for row in rows:
        matchers = tuple(msgspec.convert(row["matchers"], list[Matcher]))
        starts, ends = to_micros(row["starts"]), to_micros(row["ends"])
        state = "ended" if ends <= now else "coming" if starts > now else "live"
        if (live and state != "live") or (team and Matcher("team", "=", team) not in matchers):
            continue
        silence = Silence(
            id=row["id"], matchers=matchers, starts=starts, ends=ends, author=row["author"], reason=row["reason"]
        )
        found.append(
            {
                "id": row["id"], "state": state, "matchers": [written(each) for each in matchers],
                "starts": format_instant(starts), "ends": format_instant(ends), "author": row["author"],
                "reason": row["reason"], "ended_by": row["ended_by"],
                "holds_back": sum(silence.mutes(each, now) for each in labels),
            }
        )  # fmt: skip
    return found
