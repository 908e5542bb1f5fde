"""What a finding costs if it goes on."""

from datetime import timedelta

from schemas.instants import HOUR, to_datetime, to_micros


def by_month_end(since: int, nanos_per_hour: int) -> int:
    """What so many nanodollars an hour amount to from an hour's beginning until the UTC month ends.

    >>> from schemas.instants import parse_instant
    >>> by_month_end(parse_instant("2026-11-30T22:00:00Z"), 5), by_month_end(parse_instant("2026-12-31T23:00:00Z"), 5)
    (10, 5)
    """
    day = to_datetime(since)
    first = (day.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return max(0, nanos_per_hour) * ((to_micros(first) - since) // HOUR)
