"""``sluice feedback`` and ``planned``: answer alerts and declare events, without the API."""

from collections.abc import Sequence

from rich.console import Console

from schemas.alerts import Alert
from schemas.answers import AnswerKind
from schemas.money import display_usd, parse_nanos
from streams.commands.budgets import day_minute, print_json
from streams.commands.desk import Desk, desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.answering import answers_of, planned_of
from streams.core.defining import RequestError, Wrong, said
from streams.core.letters import escaped
from streams.core.planned import ending_of
from streams.settings import Settings
from streams.sinks.answered_alerts import AmbiguousError, find_alert, parts_of
from streams.web.feedback import AnswerNow, answers_to, events_of, shown_answer, shown_event, standing_answers
from streams.web.queries import newest_stream_time

STYLES = {"yes": "red", "no": "green", "planned": "cyan", "running": "bold", "ahead": "", "over": "dim"}
_LEARNS = {
    "no": "the same again stays quiet, up to 1.25 times as much",
    "yes": "the same again is found again",
    "planned": "quiet up to 1.5 times that amount",
}


async def answer(
    settings: Settings, text: str, kind: AnswerKind, amount: str, ends: str, why: str, by: str, as_json: bool,
    out: Console,
) -> int:  # fmt: skip
    """``ALERT yes|no|planned``: put a word on an alert."""
    async with desk(settings) as at:
        alert = await _named(at, text)
        wanted = answers_of(
            alert, await parts_of(at.pool, alert), at.known.answers, kind=kind, amount_usd=amount, ends=ends, why=why,
            by=by, now=await _present(settings, at),
        )  # fmt: skip
        placed = await at.store.publish(wanted, by=by, reason=wanted[0].reason)
    now = shown_answer(placed[0].definition, [each.alert for each in wanted[1:]])
    if as_json:
        print_json(out, now.model_dump())
        return 0
    print_line(out, escaped(alert.summary), "dim")
    print_line(out, f"{_word(now)}: {_learns(now)}", "bold")
    for part in now.also:
        print_line(out, f"the same holds for {escaped(part)}")
    return 0


async def show_one(settings: Settings, text: str, as_json: bool, out: Console) -> int:
    """``show``: every answer to an alert. 1 where there is none."""
    async with desk(settings) as at:
        alert = await _named(at, text)
        found = await answers_to(at.store, at.known, alert.dedup_key)
    if as_json:
        print_json(out, {"answers": [each.model_dump() for each in found]})
    elif found:
        print_line(out, escaped(alert.summary), "dim")
        _print_answers(out, found)
    else:
        print_line(out, f"nobody has answered {escaped(alert.dedup_key)}")
    return 0 if found else 1


async def show_list(settings: Settings, team: str, kind: str, limit: int, as_json: bool, out: Console) -> int:
    """``list``: the answers that stand."""
    async with desk(settings) as at:
        found = standing_answers(at.known, team, kind)[:limit]
    if as_json:
        print_json(out, {"answers": [each.model_dump() for each in found]})
    elif found:
        _print_answers(out, found)
    else:
        print_line(out, "no alert was answered" + (" so" if team or kind else ""))
    return 0


async def add(
    settings: Settings, scope: str, amount: str, starts: str, ends: str, event_id: str, why: str, by: str,
    as_json: bool, out: Console,
) -> int:  # fmt: skip
    """``add``: declare an event."""
    async with desk(settings) as at:
        now = await _present(settings, at)
        wanted = planned_of(
            scope=scope, starts=starts, ends=ends, amount_usd=amount, why=why, by=by, now=now, event_id=event_id
        )
        (placed,) = await at.store.publish([wanted], by=by, reason=wanted.reason, expected={wanted.key(): 0})
    found = shown_event(placed.definition, now)
    if as_json:
        print_json(out, found.model_dump(by_alias=True))
        return 0
    span = f"{day_minute(found.starts)} to {day_minute(found.until)} UTC"
    print_line(out, f"{escaped(wanted.scope)} may cost {display_usd(wanted.nanos)} more, {span}", "bold")
    print_line(out, "it pages above 1.5 times as much, and these hours never become the usual")
    print_line(out, f"end it earlier with: sluice planned end {wanted.id} --why …", "dim")
    return 0


async def show_planned(settings: Settings, over: bool, as_json: bool, out: Console) -> int:
    """``list``: what is planned."""
    async with desk(settings) as at:
        found = events_of(at.known, await _present(settings, at), over=over)
    if as_json:
        print_json(out, {"events": [each.model_dump(by_alias=True) for each in found]})
        return 0
    if not found:
        print_line(out, "nothing is planned" + ("" if over else "; --all shows what is over"))
        return 0
    rows: list[Sequence[Cell]] = [
        [
            escaped(each.id), (each.phase, STYLES[each.phase]), escaped(each.scope), day_minute(each.starts),
            day_minute(each.until), display_usd(parse_nanos(each.amount)), escaped(each.by), escaped(each.reason),
        ]
        for each in found
    ]  # fmt: skip
    print_table(out, ("event", "is", "scope", "from (UTC)", "until", "amount", "who", "why"), rows, ("amount",))
    return 0


async def end(settings: Settings, event_id: str, why: str, by: str, as_json: bool, out: Console) -> int:
    """``end``: end an event now."""
    try:
        reason = said(why)
    except ValueError as error:
        raise RequestError([Wrong("--why", str(error))]) from error
    async with desk(settings) as at:
        event = at.known.planned.get(f"planned|{event_id}")
        if event is None:
            raise RequestError([Wrong("EVENT", f"there is no {event_id[:80]!r}; see `sluice planned list --all`")])
        left = ending_of(event, await _present(settings, at))
        if left is None:
            await at.store.withdraw(event.key(), by=by, reason=reason, expected=event.version)
        else:
            await at.store.publish([left], by=by, reason=reason, expected={event.key(): event.version})
    if as_json:
        print_json(out, {"id": event.id, "withdrawn": left is None})
    elif left is None:
        print_line(out, f"{event.id} is withdrawn before it began")
    else:
        print_line(out, f"{event.id} has ended: what it has cost so far stays planned")
    return 0


async def _present(settings: Settings, at: Desk) -> int:
    heard = await newest_stream_time(at.pool) if settings.clock == "stream" else None
    return heard or at.now


async def _named(at: Desk, text: str) -> Alert:
    try:
        found = await find_alert(at.pool, text)
    except AmbiguousError as error:
        raise RequestError([Wrong("ALERT", str(error))]) from error
    if found is None:
        raise RequestError([Wrong("ALERT", f"there is no alert {text[:80]!r}; GET /v1/alerts lists them")])
    return found


def _word(answer: AnswerNow) -> str:
    if not answer.amount:
        return answer.answer
    return f"planned, {display_usd(parse_nanos(answer.amount))} until {day_minute(answer.until)} UTC"


def _learns(answer: AnswerNow) -> str:
    if not answer.teaches:
        return f"recorded; nothing learns from answers to {answer.rule}"
    return f"{escaped(answer.teaches)} learns it within seconds: {_LEARNS[answer.answer]}"


def _print_answers(out: Console, answers: Sequence[AnswerNow]) -> None:
    rows: list[Sequence[Cell]] = [
        [
            day_minute(each.at), (_word(each), STYLES[each.answer]), escaped(each.alert), escaped(each.by),
            escaped(each.reason),
        ]
        for each in answers
    ]  # fmt: skip
    print_table(out, ("when (UTC)", "answer", "alert", "who", "why"), rows)
