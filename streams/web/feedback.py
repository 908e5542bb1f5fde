"""What people say about alerts, and what they plan: answering, declaring, and what was said before.

An answer needs a key of scope ``budgets:write``; one that is bound to a team answers that team's alerts and plans for
that team. Who, when and why stand in the history of definitions, in the ledger.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import BaseModel, Field

from schemas.alerts import Alert
from schemas.answers import AlertAnswer, AnswerKind, PlannedEvent
from schemas.instants import format_instant
from schemas.money import format_usd
from streams.core.answering import answers_of, planned_of
from streams.core.answers import wholes
from streams.core.definitions import Definitions
from streams.core.planned import PlanEnd, ending_of, phase_of
from streams.ports import DefinitionStore, Version
from streams.sinks.answered_alerts import AmbiguousError, find_alert, parts_of
from streams.web.budget_changes import reason_of
from streams.web.reading import Parts, Reader, Reading, present
from streams.web.writing import Amount, Body, BoundedRoute, Reason, Store, Writing, publish, withdraw

router = APIRouter(route_class=BoundedRoute, tags=["feedback"])
AlertKey = Annotated[str, Path(max_length=512, description="Its dedup key or id, or the only beginning of one.")]
Limit = Annotated[int, Query(ge=1, le=5_000, description="The newest so many.")]


class AnswerBody(Body):
    """A word on an alert."""

    answer: AnswerKind = Field(description="no: this is normal here. yes: this was an incident. planned: it was meant.")
    amount_usd: Amount = Field("", description="Of `planned`: what was declared above the usual, for all of its time.")
    until: str = Field("", max_length=64, description="Of `planned`: an instant, or a span from now; else for a day.")
    reason: Reason = ""


class EventBody(Body):
    """What is declared ahead."""

    id: str = Field("", max_length=64, description="Empty: one is made.")
    scope: str = Field(max_length=600, description="org:, team:, feature:, team_feature: or model: and the name.")
    starts: str = Field("now", alias="from", max_length=64, description="now, an instant, or a span from now.")
    until: str = Field(max_length=64, description="An instant, or a span from its beginning such as 6h.")
    amount_usd: Amount = Field(description="What it may cost above the usual, in all.")
    reason: Reason = ""


class AnswerNow(BaseModel):
    """An answer as it stands, or stood."""

    alert: str
    rule: str
    answer: str
    amount: str = Field(description="Of `planned`.")
    starts: str = Field(description="The time that it is about, until `until`.")
    until: str
    teaches: str = Field(description="What learns from it; empty: it is recorded, and nothing learns from it.")
    version: int
    by: str
    at: str
    reason: str
    also: list[str] = Field([], description="Alerts about parts of the same, which were given the same answer with it.")


class Answers(BaseModel):
    """Answers, the newest first."""

    answers: list[AnswerNow]


class Event(BaseModel):
    """A planned event."""

    id: str
    scope: str
    starts: str = Field(serialization_alias="from")
    until: str
    amount: str
    phase: Literal["ahead", "running", "over"]
    version: int
    by: str
    at: str
    reason: str


class Events(BaseModel):
    """Planned events: what runs or lies ahead first."""

    now: str
    events: list[Event]


@router.post("/v1/alerts/{alert:path}/feedback", summary="Answer an alert: yes, no or planned")
async def post_answer(
    store: Store, parts: Parts, caller: Writing, alert: AlertKey, body: AnswerBody, response: Response
) -> AnswerNow:
    """It teaches the scope of the alert within seconds, and what told of parts of the same. Another answer takes its
    place."""
    found = await _alert(parts, alert, "")
    known = await store.known.now(fresh=True)
    now = await present(parts)
    wanted = answers_of(
        found, await parts_of(parts.pool, found), known.answers, kind=body.answer, amount_usd=body.amount_usd,
        ends=body.until, why=body.reason, by=caller.name, now=now,
    )  # fmt: skip
    caller.may(wanted[0], known)
    placed = await publish(store, wanted, caller.name, wanted[0].reason)
    response.status_code = 201 if wanted[0].key() not in known.answers else 200
    return shown_answer(placed[0].definition, [each.alert for each in wanted[1:]])


@router.get("/v1/alerts/{alert:path}/feedback", summary="What was answered, when, by whom and why")
async def read_answer(store: Store, parts: Parts, reader: Reading, alert: AlertKey) -> Answers:
    """Every answer to the alert, the newest first; that one holds."""
    found = await _alert(parts, alert, reader.team)
    known = await store.known.now(fresh=True)
    return Answers(answers=await answers_to(store.known.store(), known, found.dedup_key))


@router.get("/v1/feedback", summary="The answers that stand")
async def read_answers(
    store: Store, reader: Reading, answer: AnswerKind | None = None, team: str = "", limit: Limit = 200
) -> Answers:
    """The newest first. A team's key sees those on the team's own alerts."""
    known = await store.known.now()
    return Answers(answers=standing_answers(known, reader.team or team, answer or "")[:limit])


@router.get("/v1/planned", summary="Planned events")
async def read_events(store: Store, parts: Parts, reader: Reading, over: bool = False, limit: Limit = 200) -> Events:
    """Those that run or lie ahead; with `over` also those that are over. A team's key sees the team's own."""
    now = await present(parts)
    known = await store.known.now()
    found = [each for each in events_of(known, now, over=over) if _is_the_teams(reader, each)]
    return Events(now=format_instant(now), events=found[:limit])


@router.post("/v1/planned", summary="Declare a launch, a re-embedding or a load test", status_code=201)
async def post_event(store: Store, parts: Parts, caller: Writing, body: EventBody) -> Event:
    """Its hours are expected up to 1.5 times the amount, and never become the usual."""
    known = await store.known.now(fresh=True)
    now = await present(parts)
    wanted = planned_of(
        scope=body.scope, starts=body.starts, ends=body.until, amount_usd=body.amount_usd, why=body.reason,
        by=caller.name, now=now, event_id=body.id,
    )  # fmt: skip
    caller.may(wanted, known)
    (placed,) = await publish(store, [wanted], caller.name, wanted.reason, {wanted.key(): 0})
    return shown_event(placed.definition, now)


@router.delete("/v1/planned/{event_id}", summary="End a planned event now", status_code=204)
async def delete_event(
    store: Store,
    parts: Parts,
    caller: Writing,
    event_id: Annotated[str, Path(max_length=64)],
    reason: Annotated[str, Query()] = "",
) -> None:
    """What it has cost so far stays planned; one that lies ahead is withdrawn."""
    known = await store.known.now(fresh=True)
    found = known.planned.get(f"planned|{event_id}")
    if found is None:
        raise HTTPException(404, {"detail": f"there is no planned event {event_id!r}", "action": "See /v1/planned."})
    caller.may(found, known)
    why = reason_of(reason)
    await end_event(store, found, caller.name, why, await present(parts))


async def end_event(store: Store, event: PlannedEvent, by: str, why: str, now: int) -> None:
    """End an event where it stands.

    Raises:
        RequestError: it is over.
    """
    end: PlanEnd = ending_of(event, now)
    if end is None:
        await withdraw(store, event.key(), by, why, event.version)
    else:
        await publish(store, [end], by, why, {event.key(): event.version})


async def _alert(parts: Parts, text: str, team: str) -> Alert:
    try:
        found = await find_alert(parts.pool, text)
    except AmbiguousError as error:
        raise HTTPException(409, str(error)) from error
    if found is None or team not in ("", found.team_id):
        # Whether another team has such an alert is that team's business.
        raise HTTPException(404, {"detail": f"there is no alert {text[:255]!r}", "action": "See /v1/alerts."})
    return found


async def answers_to(asking: DefinitionStore, known: Definitions, alert: str) -> list[AnswerNow]:
    """Every answer to an alert, the newest first: from the ledger, and what it has not heard of yet."""
    key = f"answer|{alert}"
    versions = {each.version: each for each in await asking.history(key) if each.key == key}
    found = {number: _version(each) for number, each in versions.items() if each.definition is not None}
    standing = known.answers.get(key)
    if standing is not None:
        found[standing.version] = shown_answer(standing)
    return [found[number] for number in sorted(found, reverse=True)]


def standing_answers(known: Definitions, team: str, kind: str) -> list[AnswerNow]:
    """The answers that stand, the newest first; ``team`` and ``kind`` empty: all."""
    held: Iterable[AlertAnswer] = sorted(known.answers.values(), key=lambda each: (-each.changed_at, each.alert))
    return [shown_answer(each) for each in held if team in ("", each.team_id) and kind in ("", each.answer)]


def events_of(known: Definitions, now: int, *, over: bool) -> list[Event]:
    """Planned events by their beginning, those that are over last."""
    held = sorted(known.planned.values(), key=lambda each: (each.until <= now, each.starts, each.id))
    return [shown_event(each, now) for each in held if over or each.until > now]


def shown_answer(answer: object, also: Sequence[str] = ()) -> AnswerNow:
    """An answer for people."""
    assert isinstance(answer, AlertAnswer)
    return AnswerNow(
        alert=answer.alert, rule=answer.rule, answer=answer.answer,
        amount=format_usd(answer.nanos) if answer.answer == "planned" else "", starts=format_instant(answer.starts),
        until=format_instant(answer.until), teaches=answer.teaches, version=answer.version, by=answer.changed_by,
        at=format_instant(answer.changed_at), reason=answer.reason, also=list(also),
    )  # fmt: skip


def _version(version: Version) -> AnswerNow:
    found = shown_answer(version.definition)
    return found.model_copy(
        update={"version": version.version, "by": version.changed_by, "reason": version.reason,
                "at": format_instant(version.changed_at)}
    )  # fmt: skip


def shown_event(event: object, now: int) -> Event:
    """A planned event for people."""
    assert isinstance(event, PlannedEvent)
    return Event(
        id=event.id, scope=event.scope, starts=format_instant(event.starts), until=format_instant(event.until),
        amount=format_usd(event.nanos), phase=phase_of(event, now), version=event.version, by=event.changed_by,
        at=format_instant(event.changed_at), reason=event.reason,
    )  # fmt: skip


def _is_the_teams(reader: Reader, event: Event) -> bool:
    own = f"team:{reader.team}"
    return not reader.team or event.scope == own or own in wholes(event.scope)
