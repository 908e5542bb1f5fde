"""Budget periods: the local hour, day, week or month that an instant falls into. No clock is read.

Periods of one kind in one zone follow each other without gap or overlap, through every change of the clocks:
a day may have 23 or 25 hours, and where midnight is skipped the day begins with its first minute.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from schemas.instants import HOUR, SECOND, to_datetime, to_micros

Period = Literal["hour", "day", "week", "month"]

_STEP = timedelta(days=1)


def time_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as ``Asia/Tokyo``.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise ValueError(f"{name[:64]!r} is no time zone; write an IANA name such as UTC or Europe/Paris") from error


def period_bounds(period: Period, timezone: str, instant: int) -> tuple[int, int]:
    """The start (included) and end (excluded) of the period of an instant, microseconds since 1970.

    Weeks start on Monday. It takes some microseconds: callers keep the answer while instants fall between
    the bounds.

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
    first = _first_day(period, to_datetime(instant).astimezone(zone).date())
    start, end = _day_start(zone, first), _day_start(zone, _next(period, first))
    # Clocks that go back over midnight repeat the end of a day that is over: those minutes belong to the new
    # one.
    while instant >= end:
        first = _next(period, first)
        start, end = end, _day_start(zone, _next(period, first))
    return start, end


def _first_day(period: Period, day: date) -> date:
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def _next(period: Period, first: date) -> date:
    if period == "month":
        return (first + timedelta(days=31)).replace(day=1)
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
