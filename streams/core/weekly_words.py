"""What a week's digest says: a heading and paragraphs, readable in a mail, in Slack and on a terminal."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from schemas.keys import digest
from schemas.money import display_usd
from streams.core.drivers import Parts
from streams.core.forecast import words
from streams.core.notifying import Notification
from streams.core.weekly import (
    AlertThen,
    BudgetNow,
    Change,
    Facts,
    ReviewNow,
    by_model,
    changes,
    month_end_nanos,
    month_of,
    parts_of,
)

SEVERITIES = ("emergency", "critical", "warning", "info")
MODELS_MAX = 10
LISTED_MAX = 5
SUMMARY_MAX = 160
_PARTS = {
    "volume": ("more requests", "fewer requests"),
    "model_mix": ("dearer models", "cheaper models"),
    "tokens_per_request": ("more tokens per request", "fewer tokens per request"),
    "cache": ("fewer cache hits", "more cache hits"),
    "price": ("a higher price per token", "a lower price per token"),
}
_NAMELESS = {"": "without a name", "__unattributed__": "without a team", "__other__": "others"}


class Report(NamedTuple):
    """A digest: of one team, of the models, or of everything."""

    heading: str
    paragraphs: tuple[str, ...]


def report_of(facts: Facts) -> Report:
    """The digest of one subject's week."""
    month = _month(facts)
    listed: list[tuple[Literal["team", "feature", "model"], str]] = [
        ("team", "Teams"), ("feature", "Features"), ("model", "Models"),
    ]  # fmt: skip
    lists = [
        _listed(f"{title}:", map(_change, changes(facts, kind, LISTED_MAX)))
        for kind, title in listed
        if kind != facts.subject and facts.rows
    ]
    paragraphs = (_spend(facts), _why(facts), *lists, month, _budgets(facts), _alerts(facts.alerts), _reviews(facts))
    return Report(_heading(facts), tuple(each for each in paragraphs if each))


def models_report(facts: Facts) -> Report:
    """The digest of the models: a paragraph for each of the dearest, from the facts of everything."""
    found = by_model(facts, MODELS_MAX)
    paragraphs = [_spend(facts)]
    for one in found:
        parts = [f"{_name(one.name)}: {display_usd(one.nanos)}, {_against(one.nanos, one.nanos_before)}"]
        teams = [change for change in changes(one, "team", 3) if change.nanos]
        if teams:
            parts.append("by " + ", ".join(f"{_name(each.name)} {display_usd(each.nanos)}" for each in teams))
        why = _why(one).removeprefix("Why: ").rstrip(".")
        paragraphs.append("; ".join([*parts, *([why] if why else [])]) + ".")
    heading = f"Models in week {facts.week.name}: {display_usd(facts.nanos)}, {_against_short(facts)}"
    return Report(heading, tuple(paragraphs))


def notifications_of(
    report: Report, facts: Facts, subject: str, receivers: Iterable[str], owner: str
) -> tuple[Notification, ...]:
    """The messages that tell a report: one for each receiver, under ids that follow from subject and week.

    Args:
        subject: ``team``, ``models`` …; with the name and the week what the ids are made of.
        owner: the address of whoever answers for it; empty: where mails without an owner go.
    """
    said = ("report", subject, facts.name, facts.week.name)
    return tuple(
        Notification(
            notification_id=digest(*said, receiver),
            receiver=receiver,
            # Each week is a thread of its own.
            thread_key=f"v1:report:{digest(*said)}",
            action="tell",
            reason="report",
            alerts=(),
            group={"report": subject, "team": facts.name if facts.subject == "team" else "", "owner": owner},
            heading=report.heading,
            paragraphs=report.paragraphs,
            decided_at=facts.now,
        )
        for receiver in receivers
    )


def _name(name: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in _NAMELESS.get(name, name))
    return " ".join(shown.split())[:80] or _NAMELESS[""]


def _heading(facts: Facts) -> str:
    whose = {"team": f"Team {_name(facts.name)}", "model": _name(facts.name), "all": "AI spend"}[facts.subject]
    if facts.subject == "team" and facts.name in _NAMELESS:
        whose = f"Spend {_name(facts.name)}"
    return f"{whose} in week {facts.week.name}: {display_usd(facts.nanos)}, {_against_short(facts)}"


def _against_short(facts: Facts) -> str:
    return _against(facts.nanos, facts.nanos_before, long=False)


def _against(nanos: int, before: int, *, long: bool = True) -> str:
    """The change against the week before.

    >>> _against(150, 100, long=False), _against(50, 100, long=False), _against(100, 0, long=False), _against(7, 7)
    ('50 % more', '50 % less', 'nothing the week before', 'as the week before')
    """
    if nanos == before:
        return "as the week before"
    if before <= 0:
        return "nothing the week before" if before == 0 else f"{display_usd(before)} the week before"
    permille = abs(nanos - before) * 1_000 // before
    if permille < 10:
        return "as the week before" if not long else f"{_signed(nanos - before)}, less than 1 %"
    percent = f"{permille // 10}" if permille >= 100 else f"{permille // 10}.{permille % 10}"
    if nanos > before * 10:
        return f"{nanos // before} times the week before"
    way = "more" if nanos > before else "less"
    return f"{percent} % {way}" + (f" ({_signed(nanos - before)})" if long else "")


def _signed(nanos: int) -> str:
    return ("+" if nanos > 0 else "") + display_usd(nanos)


def _spend(facts: Facts) -> str:
    week = facts.week
    days = f"{week.monday:%-d %B} to {week.monday.fromordinal(week.monday.toordinal() + 6):%-d %B %Y}"
    zone = f" ({week.timezone})"
    then = "" if facts.nanos_before == 0 else f"; the week before {display_usd(facts.nanos_before)}"
    return f"{days}{zone}: {display_usd(facts.nanos)} spent{then}, {_against(facts.nanos, facts.nanos_before)}."


def _why(facts: Facts) -> str:
    """What the change is made of, the largest first; nothing where there is no week to compare with."""
    if facts.nanos_before <= 0 or facts.nanos == facts.nanos_before:
        return ""
    parts: Parts = parts_of(facts)
    found = [(name, nanos) for name, nanos in zip(Parts._fields, parts, strict=True) if nanos]
    # What is no hundredth of the change is noise to a reader.
    least = abs(facts.nanos - facts.nanos_before) // 100
    found = sorted((each for each in found if abs(each[1]) > least), key=lambda each: -abs(each[1]))
    if not found:
        return ""
    return "Why: " + ", ".join(f"{_PARTS[name][nanos < 0]} {_signed(nanos)}" for name, nanos in found) + "."


def _listed(head: str, lines: Iterable[str]) -> str:
    """A paragraph with a line for each of some things."""
    return "\n".join([head, *(f"· {line}" for line in lines)])


def _change(one: Change) -> str:
    return f"{_name(one.name)} {display_usd(one.nanos)} ({_step(one)})"


def _step(one: Change) -> str:
    if one.before == 0:
        return "new"
    if one.nanos == one.before:
        return "same"
    return _signed(one.nanos - one.before)


def _month(facts: Facts) -> str:
    if not facts.month_nanos:
        return ""
    month = month_of(facts.week).name
    ahead = month_end_nanos(facts)
    so_far = f"Forecast: {display_usd(facts.month_nanos)} in {month} so far"
    if ahead is None:
        return f"{month} is over with {display_usd(facts.month_nanos)}."
    return f"{so_far}; if its other days cost what this week's did, {display_usd(ahead)} at its end."


def _budgets(facts: Facts) -> str:
    if not facts.budgets:
        return ""
    ordered = sorted(facts.budgets, key=lambda one: (-_permille(one.spent_nanos, one.limit_nanos), one.budget_id))
    more = [f"{len(ordered) - LISTED_MAX} more"] if len(ordered) > LISTED_MAX else []
    return _listed("Budgets now:", [*(_budget(one, facts.now) for one in ordered[:LISTED_MAX]), *more])


def _budget(one: BudgetNow, now: int) -> str:
    used = _permille(one.spent_nanos, one.limit_nanos)
    text = f"{_name(one.budget_id)} {used // 10}.{used % 10} % of {display_usd(one.limit_nanos)} ({one.period})"
    if one.spent_nanos >= one.limit_nanos:
        return text + ", used up"
    if one.exhausts_at is not None and one.exhausts_at > now:
        return text + f", will be used up {words(one.exhausts_at, one.timezone, now)}"
    return text + (f", foreseen {display_usd(one.projected_nanos)}" if one.projected_nanos is not None else "")


def _permille(part: int, whole: int) -> int:
    return part * 1_000 // whole if whole > 0 else 0


def _alerts(alerts: Sequence[AlertThen]) -> str:
    if not alerts:
        return "Alerts: none."
    counts = [(sum(one.severity == severity for one in alerts), severity) for severity in SEVERITIES]
    told = ", ".join(f"{count} {severity}" for count, severity in counts if count)
    worst = min(alerts, key=lambda one: (SEVERITIES.index(one.severity), one.at, one.summary))
    return f"Alerts: {told}. The worst: {_clip(worst.summary)}"


def _reviews(facts: Facts) -> str:
    if not facts.reviews:
        return ""
    overdue = [one for one in facts.reviews if one.due_at <= facts.now]
    first: ReviewNow = min(facts.reviews, key=lambda one: (one.due_at, one.summary))
    late = f", {len(overdue)} of them overdue" if overdue else ""
    owner = _name(first.owner) if first.owner else "nobody"
    return f"Reviews: {len(facts.reviews)} open{late}. First due, with {owner}: {_clip(first.summary)}"


def _clip(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SUMMARY_MAX else line[: SUMMARY_MAX - 1] + "…"
