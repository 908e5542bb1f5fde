"""When people shall not be disturbed: whether an instant lies in quiet hours, and when those end."""

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.instants import to_datetime, to_micros
from streams.core.routes import QuietHours, Span

#: Spans that follow on each other are one; those that never end are asked again after two weeks.
_JOINED_MAX = 14


def quiet_until(quiet: QuietHours, now: int) -> int | None:
    """The end of the quiet hours that hold ``now``, in microseconds; None: nobody rests.

    >>> nights = QuietHours("nights", "Europe/Berlin", (Span((0, 1, 2, 3, 4), 22 * 60, 7 * 60),))
    >>> from schemas.instants import format_instant, parse_instant
    >>> format_instant(quiet_until(nights, parse_instant("2026-11-23T23:30:00+01:00")))
    '2026-11-24T06:00:00Z'
    >>> quiet_until(nights, parse_instant("2026-11-24T07:00:00+01:00"))
    """
    end = _end(quiet, now)
    for _ in range(_JOINED_MAX):
        later = None if end is None else _end(quiet, end)
        if later is None:
            break
        end = later
    return end


def _end(quiet: QuietHours, now: int) -> int | None:
    zone = _zone(quiet.timezone)
    today = to_datetime(now).astimezone(zone).date()
    ends = []
    for span in quiet.spans:
        for day in (today, today - timedelta(days=1)):
            if day.weekday() in span.days:
                start, end = _bounds(span, day, zone)
                if start <= now < end:
                    ends.append(end)
    return max(ends, default=None)


def _bounds(span: Span, day: date, zone: ZoneInfo) -> tuple[int, int]:
    """The instants between which a span of this day lies, by the clock on the wall: a night may have 7 or 9 hours."""
    minutes = span.end if span.end > span.start else span.end + 1440
    return _instant(day, span.start, zone), _instant(day, minutes, zone)


def _instant(day: date, minutes: int, zone: ZoneInfo) -> int:
    days, rest = divmod(minutes, 1440)
    return to_micros(datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60), zone))


@lru_cache(64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
