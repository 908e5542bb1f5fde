"""Changing budgets: their definitions, what is added to them for a while, and what was spent before Sluice came."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Path, Query, Response
from pydantic import Field

from schemas.budgets import Budget
from schemas.instants import InstantError, format_instant, parse_instant
from schemas.money import format_usd
from streams.core.budget_entry import definition_of_entry
from streams.core.defining import RequestError, Wrong, balance_of, override_of, said
from streams.core.opening_file import periods_of
from streams.web.answers import Change, OverrideNow
from streams.web.writing import (
    Amount,
    Body,
    BoundedRoute,
    Reason,
    Store,
    Writing,
    budget_named,
    expected_version,
    publish,
    withdraw,
)

router = APIRouter(route_class=BoundedRoute, tags=["budgets"])

BudgetId = Annotated[str, Path(max_length=64)]
IfMatch = Annotated[
    str | None,
    Header(description="The ETag that was read, or `*` for whatever stands. Without it only a new one is taken."),
]
Entry = Annotated[dict[str, Any], Field(description="As an entry of the file; `id` may be left out.")]


class BudgetBody(Body):
    """A budget in the words of `budgets.yaml`, and why."""

    budget: Entry
    reason: Reason = ""


class OverrideBody(Body):
    """More money until a time, or no throttling."""

    extra_usd: Amount = ""
    lifts: bool = False
    until: str = Field(description="An instant, or a span from now such as 2h.", max_length=64)
    value: str = Field("", max_length=512, description="Of a `per` budget only this one.")
    reason: Reason = ""


class BalanceBody(Body):
    """What was spent in a period before Sluice was there to see it."""

    period_start: str = Field(description="The instant at which a period of the budget starts.", max_length=64)
    amount_usd: Amount
    value: str = Field("", max_length=512)
    reason: Reason = ""


def reason_of(text: str) -> str:
    """Why.

    Raises:
        RequestError: it is not said.
    """
    try:
        return said(text)
    except ValueError as error:
        raise RequestError([Wrong("reason", str(error))]) from error


@router.put("/v1/budgets/{budget_id}", summary="Define a budget, or change it")
async def put_budget(
    store: Store, caller: Writing, budget_id: BudgetId, body: BudgetBody, response: Response, if_match: IfMatch = None
) -> Change:
    """A new budget needs no If-Match; a change needs the ETag of the version that it was made from. Workers have it
    within seconds. Every wrong field is named at once."""
    known = await store.known.now(fresh=True)
    standing = known.of_budget(budget_id)
    if standing is not None:
        caller.may(standing, known)
    wanted = definition_of_entry("budget", body.budget, budget_id, known)
    assert isinstance(wanted, Budget)
    caller.may(wanted, known)
    reason = reason_of(body.reason)
    key = wanted.key()
    version = expected_version(if_match, key, standing.version if standing else 0)
    expected = None if version is None else {key: version}
    (placed,) = await publish(store, [wanted], caller.name, reason, expected)
    response.status_code = 200 if standing else 201
    response.headers["ETag"] = f'"{placed.version}"'
    return Change(key=key, version=placed.version, reason=reason, by=caller.name)


@router.delete("/v1/budgets/{budget_id}", summary="Withdraw a budget", status_code=204)
async def delete_budget(
    store: Store, caller: Writing, budget_id: BudgetId, reason: Annotated[str, Query()] = "", if_match: IfMatch = None
) -> None:
    """What it throttles is let go; its history stays."""
    known = await store.known.now(fresh=True)
    standing = budget_named(known, budget_id)
    caller.may(standing, known)
    why = reason_of(reason)
    version = expected_version(if_match, standing.key(), standing.version)
    await withdraw(store, standing.key(), caller.name, why, version)


@router.post("/v1/budgets/{budget_id}/overrides", summary="More money, or no throttling, until a time", status_code=201)
async def post_override(store: Store, caller: Writing, budget_id: BudgetId, body: OverrideBody) -> OverrideNow:
    """It ends by itself. Several add up."""
    known = await store.known.now(fresh=True)
    budget = budget_named(known, budget_id)
    caller.may(budget, known)
    now = store.clock.now()
    found = override_of(
        budget, extra_usd=body.extra_usd, lifts=body.lifts, ends=body.until, value=body.value, why=body.reason,
        by=caller.name, now=now,
    )  # fmt: skip
    await publish(store, [found], caller.name, found.reason, {found.key(): 0})
    return OverrideNow(
        id=found.id, value=found.value, extra=format_usd(found.extra_nanos), lifts=found.lifts,
        starts=format_instant(found.starts), until=format_instant(found.until), live=True, by=caller.name,
        reason=found.reason,
    )  # fmt: skip


@router.delete("/v1/budgets/{budget_id}/overrides/{override_id}", summary="End an override now", status_code=204)
async def delete_override(
    store: Store,
    caller: Writing,
    budget_id: BudgetId,
    override_id: Annotated[str, Path(max_length=128)],
    reason: Annotated[str, Query()] = "",
) -> None:
    """The budget counts without it from now on."""
    known = await store.known.now(fresh=True)
    budget = budget_named(known, budget_id)
    caller.may(budget, known)
    why = reason_of(reason)
    found = known.overrides.get(f"override|{override_id}")
    if found is None or found.budget_id != budget_id:
        raise HTTPException(404, f"budget {budget_id} has no override {override_id[:64]!r}")
    await withdraw(store, found.key(), caller.name, why)


@router.post("/v1/budgets/{budget_id}/opening-balance", summary="What was spent before Sluice was there")
async def post_balance(store: Store, caller: Writing, budget_id: BudgetId, body: BalanceBody) -> dict[str, str]:
    """It is added to what is counted in that period. A second one for the same period takes the first one's place; 0
    takes it back."""
    known = await store.known.now(fresh=True)
    budget = budget_named(known, budget_id)
    caller.may(budget, known)
    try:
        start = parse_instant(body.period_start)
    except (InstantError, OverflowError) as error:
        raise RequestError([Wrong("period_start", str(error))]) from error
    found = balance_of(
        budget, period_start=start, amount_usd=body.amount_usd, value=body.value, why=body.reason, by=caller.name,
        bounds=periods_of(budget),
    )  # fmt: skip
    await publish(store, [found], caller.name, found.reason)
    return {"budget_id": budget_id, "period_start": format_instant(start), "amount": format_usd(found.nanos)}
