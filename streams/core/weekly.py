"""The weekly digest: which weeks are due where, and what a week was, from what the ledger holds. Pure.

Money is in nanodollars, instants are microseconds. A week begins on Monday in the zone of whoever is told; the ledger
has whole UTC hours, so in a zone that is half an hour off it begins with the hour that Monday's midnight falls into.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Literal, NamedTuple

from schemas.instants import DAY, HOUR, to_datetime
from streams.core.drivers import Parts, Usage, split
from streams.core.periods import day_start, period_bounds, time_zone

Subject = Literal["team", "model", "all"]
#: A digest that nobody could send for so long is not sent any more: the next one says the same again.
LATE_MAX = 3 * DAY
_WEEK = re.compile(r"(\d{4})-?W(\d{2})")


class Week(NamedTuple):
    """Seven days in a zone."""

    monday: date
    timezone: str

    @property
    def name(self) -> str:
        """``2026-W47``, as ISO 8601 counts."""
        year, number, _ = self.monday.isocalendar()
        return f"{year}-W{number:02d}"

    @property
    def start(self) -> int:
        """The first instant, at a whole UTC hour."""
        return _hour(day_start(self.timezone, self.monday))

    @property
    def end(self) -> int:
        """The first instant after it, at a whole UTC hour."""
        return _hour(day_start(self.timezone, self.monday + timedelta(days=7)))

    def before(self) -> "Week":
        """The week before."""
        return Week(self.monday - timedelta(days=7), self.timezone)


def _hour(instant: int) -> int:
    return instant - instant % HOUR


def last_week(now: int, timezone: str) -> Week:
    """The last week that is over.

    >>> from schemas.instants import parse_instant
    >>> last_week(parse_instant("2026-11-22T23:30:00Z"), "UTC").name
    '2026-W46'
    >>> last_week(parse_instant("2026-11-22T23:30:00Z"), "Europe/Berlin").name
    '2026-W47'

    Raises:
        ValueError: there is no such zone.
    """
    today = to_datetime(now).astimezone(time_zone(timezone)).date()
    return Week(today - timedelta(days=today.weekday() + 7), timezone)


def week_of(text: str, timezone: str, now: int) -> Week:
    """The week that ``2026-W47`` or a day of it names; of an empty text the last that is over.

    Raises:
        ValueError: it names none.
    """
    if not text.strip():
        return last_week(now, timezone)
    found = _WEEK.fullmatch(text.strip())
    try:
        day = date.fromisocalendar(int(found[1]), int(found[2]), 1) if found else date.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is no week; write 2026-W47, or a day of it such as 2026-11-18") from error
    return Week(day - timedelta(days=day.weekday()), timezone)


def due_week(now: int, timezone: str, at_hour: int) -> Week | None:
    """The week to be told now: the last one, from ``at_hour`` o'clock on Monday, for three days; else None.

    Raises:
        ValueError: there is no such zone.
    """
    week = last_week(now, timezone)
    due = day_start(timezone, week.monday + timedelta(days=7)) + at_hour * HOUR
    return week if due <= now < due + LATE_MAX else None


class Row(NamedTuple):
    """What one team, feature and model cost in a week, and how it was used."""

    team: str
    feature: str
    model: str
    usage: Usage


class BudgetNow(NamedTuple):
    """Where a budget stands, and what is foreseen for its period."""

    budget_id: str
    period: str
    timezone: str
    spent_nanos: int
    limit_nanos: int
    #: None: nobody has foreseen anything.
    projected_nanos: int | None = None
    exhausts_at: int | None = None


class AlertThen(NamedTuple):
    """One episode of an alert that began in the week, as its worst."""

    severity: str
    summary: str
    at: int


class ReviewNow(NamedTuple):
    """A review that is open."""

    summary: str
    owner: str
    due_at: int


class Facts(NamedTuple):
    """What the ledger says of one subject and week."""

    subject: Subject
    name: str
    week: Week
    now: int
    rows: Sequence[Row]
    rows_before: Sequence[Row]
    #: Spent from the start of the month that the week ends in to the week's end.
    month_nanos: int = 0
    budgets: Sequence[BudgetNow] = ()
    alerts: Sequence[AlertThen] = ()
    reviews: Sequence[ReviewNow] = ()

    @property
    def nanos(self) -> int:
        """What the week cost."""
        return sum(row.usage.cost_nanos for row in self.rows)

    @property
    def nanos_before(self) -> int:
        """What the week before cost."""
        return sum(row.usage.cost_nanos for row in self.rows_before)


#: What the ledger has of a team, feature and model: the three names, whether it is the week itself (else the week
#: before), and the members of ``Usage``.
Spent = tuple[str, str, str, bool, tuple[int, int, int, int, int, int, int]]


def facts_of(
    subject: Subject,
    name: str,
    week: Week,
    now: int,
    *,
    spent: Iterable[Spent],
    month_nanos: int,
    budgets: Iterable[tuple[str, str, str, int, int, int | None, int | None]],
    alerts: Iterable[tuple[str, str, int]],
    reviews: Iterable[tuple[str, str, int]],
) -> Facts:
    """The facts of a subject's week from rows of the ledger, in the order of ``BudgetNow``, ``AlertThen`` and
    ``ReviewNow``."""
    rows: tuple[list[Row], list[Row]] = ([], [])
    for team, feature, model, is_week, usage in spent:
        rows[is_week].append(Row(team, feature, model, Usage(*usage)))
    return Facts(
        subject, name, week, now, rows[True], rows[False], month_nanos,
        [BudgetNow(*row) for row in budgets], [AlertThen(*row) for row in alerts], [ReviewNow(*row) for row in reviews],
    )  # fmt: skip


class Change(NamedTuple):
    """What one team, feature or model cost, and the week before."""

    name: str
    nanos: int
    before: int


def changes(facts: Facts, kind: Literal["team", "feature", "model"], most: int) -> list[Change]:
    """The dearest of a kind, with what they cost before; of equal ones by name."""
    now, before = _by(facts.rows, kind), _by(facts.rows_before, kind)
    found = [Change(name, now.get(name, 0), before.get(name, 0)) for name in now.keys() | before.keys()]
    found.sort(key=lambda one: (-max(one.nanos, one.before), one.name))
    return found[:most]


def _by(rows: Iterable[Row], kind: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        name = getattr(row, kind)
        found[name] = found.get(name, 0) + row.usage.cost_nanos
    return found


def parts_of(facts: Facts) -> Parts:
    """What the change against the week before is made of; the parts add up to it."""
    return split(_usages(facts.rows_before), _usages(facts.rows))


def _usages(rows: Iterable[Row]) -> Mapping[str, Usage]:
    found: dict[str, list[int]] = {}
    for row in rows:
        numbers = found.setdefault(row.model, [0] * len(Usage._fields))
        for place, number in enumerate(row.usage):
            numbers[place] += number
    return {model: Usage(*numbers) for model, numbers in found.items()}


class Month(NamedTuple):
    """The month that a week ends in."""

    name: str
    start: int
    end: int


def month_of(week: Week) -> Month:
    """Its bounds in the week's zone, cut to whole UTC hours."""
    start, end = period_bounds("month", week.timezone, week.end - HOUR)
    name = f"{to_datetime(start).astimezone(time_zone(week.timezone)):%B}"
    return Month(name, _hour(start), _hour(end))


def month_end_nanos(facts: Facts) -> int | None:
    """What the month will cost if its other days cost what the week's did; None: the month ends with the week."""
    left = month_of(facts.week).end - facts.week.end
    length = facts.week.end - facts.week.start
    return facts.month_nanos + facts.nanos * left // length if left > 0 else None


def by_model(facts: Facts, most: int) -> list[Facts]:
    """The facts of everything, apart for each of the dearest models."""
    names = [one.name for one in changes(facts, "model", most)]
    return [
        facts._replace(
            subject="model", name=name, month_nanos=0, budgets=(), alerts=(), reviews=(),
            rows=[row for row in facts.rows if row.model == name],
            rows_before=[row for row in facts.rows_before if row.model == name],
        )
        for name in names
    ]  # fmt: skip
