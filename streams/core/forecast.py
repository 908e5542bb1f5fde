"""What a budget will have spent at its period's end, and when it will be used up: three estimates side by side.

- ``run_rate``: spent + the rate of the last seven days x the time that is left x the growth that is expected.
- ``plain``: the mean so far x the length of the period, as bills are usually projected.
- ``seasonal``: spent + the usual course of a day or a week, by River (``detectors/seasonal_spend.py``) x growth.

What was spent is exact. What will be is an estimate, and each comes with how wrong its like was at the same point of
earlier periods. Pure: amounts are nanodollars, instants and spans are microseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from detectors.seasonal_spend import Course, SeasonalSpend
from schemas.instants import DAY, HOUR, to_datetime
from streams.core.periods import time_zone

Method = Literal["run_rate", "plain", "seasonal"]
METHODS: tuple[Method, ...] = ("run_rate", "plain", "seasonal")
#: Spend must have been known for so long before a forecast is worth a ticket.
KNOWN_MIN = 3 * DAY
#: What the run rate is taken over.
RATE_OVER = 7 * DAY
#: How far a budget without an end is looked at.
OPEN_HORIZON = 30 * DAY
#: An end that is further away than this is none.
_FAR = 3_660 * DAY
#: Earlier statements without which no estimate is preferred for its record.
_RECORD_MIN = 3


class Counter(NamedTuple):
    """What was counted of a budget within one period; of a rolling one within one bucket."""

    start: int
    end: int
    nanos: int


class Standing(NamedTuple):
    """Where one budget, or one value of a ``per`` budget, stands now."""

    budget_id: str
    value: str
    period_start: int
    #: 0: it has none.
    period_end: int
    #: What counts against the limit: counted here, and brought in as an opening balance.
    spent_nanos: int
    #: Amount, rolled-over money and overrides together.
    limit_nanos: int
    #: Every period or bucket that is still remembered, the present one among them.
    counters: tuple[Counter, ...]
    #: Since when it counts, where that is after the period's start: it was defined in the middle of one.
    counted_since: int = 0
    #: Not 0: it looks back so many hours at every instant.
    rolling_hours: int = 0
    timezone: str = "UTC"
    growth_permille: int = 1_000
    #: Whether gateways are throttled for it: what comes then says nothing about what would have come.
    is_held: bool = False

    def since(self) -> int:
        """The instant from which on everything that counts is known."""
        return max(self.period_start, self.counted_since)

    def until(self, now: int) -> int:
        """What is looked ahead to: the period's end; of a rolling budget a window on, of an open one thirty days."""
        if self.rolling_hours:
            return now + self.rolling_hours * HOUR
        is_open = not self.period_end or self.period_end - now > _FAR
        return now + OPEN_HORIZON if is_open else max(now, self.period_end)


class Record(NamedTuple):
    """How wrong one method was at this point of earlier periods, in thousandths of what then came."""

    #: How many earlier statements that is of; 0: no history yet, and the other two mean nothing.
    judged: int = 0
    #: The mean of how far it was off, and the mean of by how much it said too much (negative: too little).
    error_permille: int = 0
    bias_permille: int = 0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one method says."""

    method: Method
    #: Spend at ``until``; of a rolling budget the most that its window will hold up to then.
    projected_nanos: int
    #: Between these, if it is as wrong as it was before; without a history there is no upper bound.
    low_nanos: int
    high_nanos: int | None
    #: When the limit will be reached; None: not until then, or it is reached already.
    exhausts_at: int | None
    record: Record


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one budget at one instant."""

    at: int
    period_start: int
    until: int
    spent_nanos: int
    limit_nanos: int
    #: What the last hour cost.
    burn_nanos_per_hour: int
    #: How long its spend has been known.
    known_us: int
    estimates: tuple[Estimate, ...]

    @property
    def best(self) -> Estimate | None:
        """The estimate to act upon: the least wrong of those with a record, else the first that there is of seasonal,
        run rate and plain."""
        proven = [each for each in self.estimates if each.record.judged >= _RECORD_MIN]
        if proven:
            return min(proven, key=lambda each: (each.record.error_permille, METHODS.index(each.method)))
        by_method = {each.method: each for each in self.estimates}
        return by_method.get("seasonal") or by_method.get("run_rate") or by_method.get("plain")

    @property
    def projected_nanos(self) -> int | None:
        """What the best estimate says."""
        return self.best.projected_nanos if self.best else None

    @property
    def foreseen_nanos(self) -> int | None:
        """What forecast thresholds go by: the best estimate, once three days of spend are known."""
        return self.projected_nanos if self.known_us >= KNOWN_MIN else None

    @property
    def exhausts_at(self) -> int | None:
        """When the best estimate says that the limit will be reached."""
        return self.best.exhausts_at if self.best else None


class _Future(NamedTuple):
    """What one method expects."""

    #: What is spent from now to an instant.
    spend: Callable[[int], int]
    #: When so much more is spent, from now up to an instant; None: not until then.
    reaches: Callable[[int, int], int | None]


def project(
    standing: Standing,
    spend: SeasonalSpend,
    course: Course | None,
    known_since: int,
    records: Mapping[Method, Record],
    now: int,
) -> Projection:
    """Every estimate that can be made.

    ``course`` is what ``spend`` expects of the hours to come, None while it does not know enough; ``known_since`` is
    when ``spend`` began to learn.
    """
    until = standing.until(now)
    futures: dict[Method, _Future | None] = {
        "run_rate": _run_rate(spend, known_since, standing.growth_permille, now),
        "plain": _plain(standing, now),
        "seasonal": _seasonal(course, standing.growth_permille, now),
    }
    estimates = []
    for method, future in futures.items():
        if future is not None:
            look = _rolling if standing.rolling_hours else _fixed
            projected, exhausts = look(standing, spend, future, now, until)
            estimates.append(_estimate(method, projected, exhausts, standing, records.get(method, Record())))
    return Projection(
        at=now,
        period_start=standing.period_start,
        until=until,
        spent_nanos=standing.spent_nanos,
        limit_nanos=standing.limit_nanos,
        burn_nanos_per_hour=spend.spent(now - HOUR, now)[0],
        known_us=max(0, now - known_since),
        estimates=tuple(estimates),
    )


def record_of(errors: Sequence[int]) -> Record:
    """The record that these errors, in thousandths, make.

    >>> record_of([100, -50])
    Record(judged=2, error_permille=75, bias_permille=25)
    """
    count = len(errors)
    if not count:
        return Record()
    return Record(count, sum(map(abs, errors)) // count, sum(errors) // count)


def words(exhausts_at: int, timezone: str, now: int) -> str:
    """When a limit will be reached, as people say it, in the budget's own zone.

    >>> from schemas.instants import parse_instant
    >>> words(parse_instant("2026-11-19T13:10:00Z"), "Europe/Berlin", parse_instant("2026-11-12T00:00:00Z"))
    'on the 19th at about 14:00'
    """
    zone = time_zone(timezone)
    step = HOUR if exhausts_at - now > DAY else HOUR // 6
    when = to_datetime((exhausts_at + step // 2) // step * step).astimezone(zone)
    today = to_datetime(now).astimezone(zone)
    clock = f"at about {when:%H:%M}"
    if when.date() == today.date():
        return f"today {clock}"
    if (when.year, when.month) == (today.year, today.month):
        return f"on the {_ordinal(when.day)} {clock}"
    return f"on {when.day} {when:%B} {clock}"


def _ordinal(day: int) -> str:
    ending = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


def _run_rate(spend: SeasonalSpend, known_since: int, growth_permille: int, now: int) -> _Future | None:
    start = max(now - RATE_OVER, known_since)
    if now - start < HOUR:
        return None
    # The first known hour has nothing from before it was known.
    nanos, known = spend.spent(start if start > known_since else known_since - known_since % HOUR, now)
    known = min(known, now - start)
    return _steady(nanos * growth_permille, known * 1_000, now) if known else None


def _plain(standing: Standing, now: int) -> _Future | None:
    if not standing.rolling_hours and not standing.since():
        return None  # nobody knows since when an open budget counts
    length = standing.rolling_hours * HOUR or now - standing.since()
    return _steady(standing.spent_nanos, length, now) if length > 0 else None


def _steady(nanos: int, span: int, now: int) -> _Future:
    """So much in every such span."""

    def reaches(wanted: int, end: int) -> int | None:
        if nanos <= 0:
            return None
        at = now - -wanted * span // nanos
        return at if at <= end else None

    return _Future(lambda instant: _part(nanos, instant - now, span), reaches)


def _seasonal(course: Course | None, growth_permille: int, now: int) -> _Future | None:
    if course is None:
        return None

    def reaches(wanted: int, end: int) -> int | None:
        if growth_permille <= 0:
            return None
        return course.reaches(-(-wanted * 1_000 // growth_permille), now, end)

    return _Future(lambda instant: round(course.between(now, instant) * growth_permille / 1_000), reaches)


def _fixed(standing: Standing, spend: SeasonalSpend, future: _Future, now: int, until: int) -> tuple[int, int | None]:
    projected = standing.spent_nanos + future.spend(until)
    left = standing.limit_nanos - standing.spent_nanos
    return projected, (future.reaches(left, until) if left > 0 else None)


def _rolling(standing: Standing, spend: SeasonalSpend, future: _Future, now: int, until: int) -> tuple[int, int | None]:
    """Hour by hour: what comes enters the window, and what is older than the window leaves it."""
    window = standing.rolling_hours * HOUR
    known_nanos, known_us = spend.spent(now - window, now)
    unknown_nanos, unknown_us = standing.spent_nanos - known_nanos, window - known_us
    most = standing.spent_nanos
    exhausts = None
    left = 0
    for start in range(now, until, HOUR):
        end = min(start + HOUR, until)
        nanos, known = spend.spent(start - window, end - window)
        left += nanos + (_part(unknown_nanos, end - start - known, unknown_us) if unknown_us else 0)
        held = standing.spent_nanos + future.spend(end) - left
        most = max(most, held)
        if exhausts is None and standing.spent_nanos < standing.limit_nanos <= held:
            exhausts = end
    return most, exhausts


def _estimate(method: Method, projected: int, exhausts: int | None, standing: Standing, record: Record) -> Estimate:
    low, high = min(projected, standing.spent_nanos), None
    if record.judged:
        off = abs(projected) * record.error_permille // 1_000
        low, high = max(low, projected - off), projected + off
    return Estimate(
        method=method, projected_nanos=projected, low_nanos=low, high_nanos=high, exhausts_at=exhausts, record=record
    )


def _part(nanos: int, numerator: int, denominator: int) -> int:
    """``nanos x numerator / denominator``, rounded half up."""
    return (2 * nanos * numerator + denominator) // (2 * denominator)
