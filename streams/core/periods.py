"""Budget periods: the local hour, day, week, month or quarter of an instant, and what a rolling one looks back over.

Periods of one kind in one zone follow each other without gap or overlap, through every change of the clocks:
a day may have 23 or 25 hours, and where midnight is skipped the day begins with its first minute. No clock is read.

A rolling budget is counted in **buckets**: UTC hours (as cells have) for windows of up to a week, the zone's days
beyond. Its window covers every bucket that it still touches, so it never looks back over less than was asked for.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from schemas.budgets import Period, PeriodKind
from schemas.instants import HOUR, SECOND, to_datetime, to_micros

#: Where what never ends does: 2200-01-01T00:00:00Z, which a JavaScript number still holds to the microsecond.
ENDLESS = 7_258_118_400 * SECOND
#: Windows of up to so many hours are counted by the hour, longer ones by the day.
HOURLY_MAX = 168

_STEP = timedelta(days=1)
Bounds = tuple[int, int]


def time_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as ``Asia/Tokyo``.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise ValueError(f"{name[:64]!r} is no time zone; write an IANA name such as UTC or Europe/Paris") from error


def bounds_of(period: Period, instant: int, starts: int = 0, ends: int = 0) -> Bounds | None:
    """The bounds that an instant is counted under: its period, or of a rolling one its bucket; microseconds.

    They are cut to [starts, ends), of which 0 is no bound. None: the instant lies outside of it, and is not counted.

    Raises:
        ValueError: there is no such time zone.
    """
    until = ends or ENDLESS
    if not starts <= instant < until:
        return None
    start, end = whole_bounds(period, instant)
    return max(start, starts), min(end, until)


def whole_bounds(period: Period, instant: int) -> Bounds:
    """``bounds_of`` without start and end dates.

    Raises:
        ValueError: there is no such time zone.
    """
    if period.kind == "total":
        return 0, ENDLESS
    if period.kind != "rolling":
        return period_bounds(period.kind, period.timezone, instant, period.week_start)
    if period.hours <= HOURLY_MAX:
        start = instant - instant % HOUR
        return start, start + HOUR
    return period_bounds("day", period.timezone, instant)


def is_within(period: Period, bounds: Bounds, now: int) -> bool:
    """Whether what was counted under these bounds counts at ``now``: they hold now, or the rolling window touches them.

    >>> hour = 3_600_000_000
    >>> [is_within(Period("rolling", hours=2), (hour, 2 * hour), now * hour) for now in (0, 1, 3, 4)]
    [False, True, True, False]
    """
    return bounds[0] <= now < leaves_at(period, bounds)


def leaves_at(period: Period, bounds: Bounds) -> int:
    """When what was counted under these bounds counts no more: at their end, or when the rolling window has passed."""
    return bounds[1] + period.hours * HOUR if period.kind == "rolling" else bounds[1]


def buckets_of(period: Period, now: int, starts: int = 0, ends: int = 0) -> list[Bounds]:
    """All bounds that count at ``now``, the oldest first: one, but of a rolling period its buckets.

    Raises:
        ValueError: there is no such time zone.
    """
    found = []
    at = min(now, ends - 1) if ends else now
    while (bounds := bounds_of(period, at, starts, ends)) and is_within(period, bounds, now):
        found.append(bounds)
        if period.kind != "rolling":
            break
        at = bounds[0] - 1
    return found[::-1]


def window_of(period: Period, now: int, starts: int = 0, ends: int = 0) -> Bounds | None:
    """From the start of the oldest bounds that count at ``now`` to the end of the newest; None where nothing counts.

    Raises:
        ValueError: there is no such time zone.
    """
    found = buckets_of(period, now, starts, ends)
    return (found[0][0], found[-1][1]) if found else None


def period_bounds(period: PeriodKind, timezone: str, instant: int, week_start: int = 0) -> Bounds:
    """The start (included) and end (excluded) of the period of an instant, microseconds since 1970.

    Weeks start on ``week_start``, 0 being Monday. It takes some microseconds: callers keep the answer while instants
    fall between the bounds.

    >>> from schemas.instants import parse_instant, format_instant
    >>> bounds = period_bounds("day", "Asia/Tokyo", parse_instant("2026-11-21T16:00:00Z"))
    >>> [format_instant(bound) for bound in bounds]
    ['2026-11-21T15:00:00Z', '2026-11-22T15:00:00Z']

    Raises:
        ValueError: there is no such zone.
    """
    zone = time_zone(timezone)
    if period == "hour":
        return _hour(zone, instant)
    first = _first_day(period, to_datetime(instant).astimezone(zone).date(), week_start)
    start, end = _day_start(zone, first), _day_start(zone, _next(period, first))
    # Clocks that go back over midnight repeat the end of a day that is over: those minutes belong to the new
    # one.
    while instant >= end:
        first = _next(period, first)
        start, end = end, _day_start(zone, _next(period, first))
    return start, end


def day_start(timezone: str, day: date) -> int:
    """The first instant of a day in a zone.

    Raises:
        ValueError: there is no such zone.
    """
    return _day_start(time_zone(timezone), day)


def _first_day(period: PeriodKind, day: date, week_start: int) -> date:
    if period == "week":
        return day - timedelta(days=(day.weekday() - week_start) % 7)
    if period == "quarter":
        return day.replace(month=day.month - (day.month - 1) % 3, day=1)
    return day.replace(day=1) if period == "month" else day


def _next(period: PeriodKind, first: date) -> date:
    if period in ("month", "quarter"):
        # A few days into the next one, whatever its length.
        return (first + timedelta(days=31 if period == "month" else 93)).replace(day=1)
    return first + (timedelta(days=7) if period == "week" else _STEP)


def _day_start(zone: ZoneInfo, day: date) -> int:
    """The first instant of a local day."""
    # Of a midnight that comes twice, the first; of one that is skipped, what it would have been.
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    start = midnight.astimezone(UTC)
    if start.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return to_micros(start)
    return _clock_change(zone, to_micros(start - _STEP), to_micros(start))


def _hour(zone: ZoneInfo, instant: int) -> tuple[int, int]:
    """The local hour; clocks that change within one cut it short (Lord Howe Island moves by half an hour)."""
    offset = _offset(zone, instant)
    start = (instant + offset) // HOUR * HOUR - offset
    end = start + HOUR
    if _offset(zone, start) != offset:
        start = _clock_change(zone, start, instant)
    if _offset(zone, end - 1) != offset:
        end = _clock_change(zone, instant, end - 1)
    return start, end


def _clock_change(zone: ZoneInfo, before: int, after: int) -> int:
    """The first instant of the offset that holds at ``after`` and did not at ``before``; to the second."""
    low, high, offset = before // SECOND, after // SECOND, _offset(zone, after)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle * SECOND) == offset:
            high = middle
        else:
            low = middle
    return high * SECOND


def _offset(zone: ZoneInfo, instant: int) -> int:
    """Microseconds that local clocks are ahead of UTC."""
    ahead = to_datetime(instant).astimezone(zone).utcoffset()
    return 0 if ahead is None else ahead // timedelta(microseconds=1)
