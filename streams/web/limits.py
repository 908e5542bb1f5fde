"""Standing limits against bursts, and which team may use which expensive model."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import Field

from schemas.budgets import Grant, Limit
from schemas.commands import Target
from schemas.instants import format_instant
from streams.core.budget_entry import definition_of_entry, entry_of_limit
from streams.core.defining import grant_of
from streams.web.answers import Change
from streams.web.budget_changes import BudgetId, Entry, IfMatch, reason_of
from streams.web.reading import Reading
from streams.web.writing import Body, BoundedRoute, Reason, Store, Writing, expected_version, publish, withdraw

router = APIRouter(route_class=BoundedRoute)


class LimitBody(Body):
    """A limit in the words of `budgets.yaml`, and why."""

    limit: Entry
    reason: Reason = ""


class GrantBody(Body):
    """A team may use a model that is marked expensive."""

    team: str = Field(max_length=512)
    model: str = Field(max_length=512)
    until: str = Field("", description="An instant, or a span from now such as 30d; empty: for good.", max_length=64)
    reason: Reason = ""


@router.get("/v1/limits", summary="Standing limits", tags=["limits"])
async def read_limits(store: Store, reader: Reading) -> dict[str, list[dict[str, Any]]]:
    """In the words of `budgets.yaml`, with version, who and why. A team's key sees the team's own."""
    known = await store.known.now()
    own = Target("team", reader.team)
    found = [limit for limit in known.limits.values() if not reader.team or limit.target == own]
    return {"limits": [_limit(limit) for limit in sorted(found, key=lambda limit: limit.id)]}


@router.get("/v1/limits/{limit_id}", summary="One standing limit", tags=["limits"])
async def read_limit(store: Store, reader: Reading, limit_id: BudgetId, response: Response) -> dict[str, Any]:
    """Its version is the ETag."""
    found = (await store.known.now()).limits.get(f"limit|{limit_id}")
    if found is None or (reader.team and found.target != Target("team", reader.team)):
        raise HTTPException(404, f"there is no limit {limit_id!r}" + (" of your team" if reader.team else ""))
    response.headers["ETag"] = f'"{found.version}"'
    return _limit(found)


def _limit(limit: Limit) -> dict[str, Any]:
    return {
        "limit": entry_of_limit(limit),
        "version": limit.version,
        "changed_by": limit.changed_by,
        "changed_at": format_instant(limit.changed_at),
        "reason": limit.reason,
    }


@router.put("/v1/limits/{limit_id}", summary="Define a limit, or change it", tags=["limits"])
async def put_limit(
    store: Store, caller: Writing, limit_id: BudgetId, body: LimitBody, response: Response, if_match: IfMatch = None
) -> Change:
    """As with budgets: a change needs If-Match."""
    known = await store.known.now(fresh=True)
    standing = known.limits.get(f"limit|{limit_id}")
    if standing is not None:
        caller.may(standing, known)
    wanted = definition_of_entry("limit", body.limit, limit_id, known)
    caller.may(wanted, known)
    reason = reason_of(body.reason)
    key = wanted.key()
    version = expected_version(if_match, key, standing.version if standing else 0)
    (placed,) = await publish(store, [wanted], caller.name, reason, None if version is None else {key: version})
    response.status_code = 200 if standing else 201
    response.headers["ETag"] = f'"{placed.version}"'
    return Change(key=key, version=placed.version, reason=reason, by=caller.name)


@router.delete("/v1/limits/{limit_id}", summary="Withdraw a limit", status_code=204, tags=["limits"])
async def delete_limit(
    store: Store, caller: Writing, limit_id: BudgetId, reason: Annotated[str, Query()] = "", if_match: IfMatch = None
) -> None:
    """Gateways let go of it."""
    known = await store.known.now(fresh=True)
    standing = known.limits.get(f"limit|{limit_id}")
    if standing is None:
        raise HTTPException(404, f"there is no limit {limit_id!r}")
    caller.may(standing, known)
    why = reason_of(reason)
    version = expected_version(if_match, standing.key(), standing.version)
    await withdraw(store, standing.key(), caller.name, why, version)


@router.get("/v1/grants", summary="Expensive models, and who may use them", tags=["grants"])
async def read_grants(store: Store, reader: Reading) -> dict[str, Any]:
    """A team's key sees the team's own grants."""
    known = await store.known.now()
    now = store.clock.now()
    grants = [grant for grant in known.grants.values() if grant.team_id and reader.team in ("", grant.team_id)]
    return {
        "expensive_models": sorted(grant.model for grant in known.grants.values() if not grant.team_id),
        "grants": [_grant(grant, now) for grant in sorted(grants, key=lambda grant: (grant.team_id, grant.model))],
    }


def _grant(grant: Grant, now: int) -> dict[str, Any]:
    return {
        "team": grant.team_id,
        "model": grant.model,
        "until": format_instant(grant.until) if grant.until else None,
        "live": not grant.until or grant.until > now,
        "by": grant.changed_by,
        "reason": grant.reason,
    }


@router.post("/v1/grants", summary="Let a team use an expensive model", status_code=201, tags=["grants"])
async def post_grant(store: Store, caller: Writing, body: GrantBody) -> dict[str, Any]:
    """A second one for the same team and model takes the first one's place. Needs a key that is bound to no team."""
    caller.concerns_all("who may use an expensive model")
    now = store.clock.now()
    found = grant_of(team=body.team, model=body.model, ends=body.until, why=body.reason, by=caller.name, now=now)
    await publish(store, [found], caller.name, found.reason)
    return _grant(found, now)


@router.delete("/v1/grants/{team}/{model:path}", summary="Take a grant back", status_code=204, tags=["grants"])
async def delete_grant(
    store: Store,
    caller: Writing,
    team: Annotated[str, Path(max_length=512)],
    model: Annotated[str, Path(max_length=512)],
    reason: Annotated[str, Query()] = "",
) -> None:
    """The team's gateways refuse the model again, if it is marked expensive."""
    caller.concerns_all("who may use an expensive model")
    await withdraw(store, f"grant|{team}|{model}", caller.name, reason_of(reason))
