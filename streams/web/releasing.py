"""Opening every gate at once, and closing the matter early: past BUDGET, so it works while tables recover."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import Field

from schemas.commands import ThrottleCommand
from streams.core.defining import RequestError, Wrong, until
from streams.core.releasing import LONGEST, end_release, is_live, release
from streams.ports import ReleaseSwitch, RetryableError
from streams.web.budget_changes import reason_of
from streams.web.reading import Reading
from streams.web.writing import Body, BoundedRoute, Reason, Store, Writing

router = APIRouter(route_class=BoundedRoute, tags=["release"])


class ReleaseBody(Body):
    """Until when, and why."""

    until: str = Field(description="An instant, or a span from now such as 2h; 7 days at most.", max_length=64)
    reason: Reason = ""


def shown(command: ThrottleCommand | None, now: int) -> dict[str, Any]:
    """A release for people."""
    if command is None or not is_live(command, now):
        last = None if command is None else command.reason
        return {"live": False, "last": last}
    return {
        "live": True, "since": command.issued_at, "until": command.expires_at, "reason": command.reason,
        "revision": command.revision,
    }  # fmt: skip


def _switch(store: Store) -> ReleaseSwitch:
    if store.releases is None:
        raise RetryableError("this API was started without a broker: use `sluice release`")
    return store.releases


@router.get("/v1/release", summary="Whether every gate is open now")
async def read_release(store: Store, reader: Reading) -> dict[str, Any]:
    """As it lies on the gates' topic."""
    return shown(await _switch(store).current(), store.clock.now())


@router.post("/v1/release", summary="Open every gate until a time", status_code=201)
async def post_release(store: Store, caller: Writing, body: ReleaseBody) -> dict[str, Any]:
    """All measures and limits are lifted, at once and whatever state Sluice is in. A second one takes the first one's
    place. Needs a key that is bound to no team."""
    caller.concerns_all("a release of every gate")
    now = store.clock.now()
    why = reason_of(body.reason)
    try:
        stop = until(body.until, now, LONGEST)
    except ValueError as error:
        raise RequestError([Wrong("until", str(error))]) from error
    switch = _switch(store)
    command = release(await switch.current(), stop, caller.name, why, now)
    await switch.say(command)
    return shown(command, now)


@router.delete("/v1/release", summary="End the release now")
async def delete_release(store: Store, caller: Writing, reason: Annotated[str, Query()] = "") -> dict[str, Any]:
    """What budgets say holds again. Needs a key that is bound to no team."""
    caller.concerns_all("the release of every gate")
    now = store.clock.now()
    why = reason_of(reason)
    switch = _switch(store)
    previous = await switch.current()
    if not is_live(previous, now):
        raise HTTPException(404, "no release is in force")
    command = end_release(previous, caller.name, why, now)
    await switch.say(command)
    return shown(command, now)
