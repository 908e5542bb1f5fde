"""Budget periods in a budget's own time zone: which one an instant falls into, daylight saving included.

A period starts and ends at wall-clock midnight (or full hour) of its zone, so a day may have 23 or 25 hours. Where a
midnight does not exist (a clock that jumps over it), the period starts at the first instant after the gap.
"""

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from schemas.instants import HOUR, to_datetime, to_micros

Period = Literal["hour", "day", "week", "month"]


def period_bounds(period: Period, timezone: str, instant: int) -> tuple[int, int]:
    """The start and the end (exclusive) of the period that holds ``instant``; all microseconds since 1970.

    Weeks start on Monday. Hours are hours of the zone: where it is off by 30 minutes, so are they.

    >>> from schemas.instants import parse_instant, format_instant
    >>> at = parse_instant("2026-11-20T23:30:00Z")
    >>> [format_instant(t) for t in period_bounds("day", "Asia/Tokyo", at)]
    ['2026-11-20T15:00:00Z', '2026-11-21T15:00:00Z']
    """
    zone = _zone(timezone)
    local = to_datetime(instant).astimezone(zone)
    if period == "hour":
        start = instant - (local.minute * 60 + local.second) * 1_000_000 - local.microsecond
        return start, start + HOUR
    first = _first_day(period, local.date())
    return _midnight(first, zone), _midnight(_next_first_day(period, first), zone)


def _first_day(period: Period, day: date) -> date:
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def _next_first_day(period: Period, first: date) -> date:
    if period == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if period == "week" else 1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    # fold=0 takes the earlier of two midnights; a midnight that does not exist maps behind the gap.
    return to_micros(datetime.combine(day, time(), zone))


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
