"""Budget periods in their own time zone: the cases that go wrong at the wrong hour."""

import pytest

from schemas.instants import HOUR, format_instant, parse_instant
from streams.core.periods import period_bounds


@pytest.mark.parametrize(
    ("period", "zone", "at", "start", "end"),
    [
        pytest.param("day", "UTC", "2026-11-21T23:59:59Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", id="a day in UTC"),
        pytest.param("day", "Asia/Tokyo", "2026-11-21T14:59:59Z", "2026-11-20T15:00:00Z", "2026-11-21T15:00:00Z", id="Tokyo's day starts at 15 h UTC"),
        pytest.param("day", "Asia/Kolkata", "2026-11-21T18:29:59Z", "2026-11-20T18:30:00Z", "2026-11-21T18:30:00Z", id="India's midnight lies on a half hour"),
        pytest.param("day", "America/New_York", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", id="New York's short day in March"),
        pytest.param("day", "America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", id="New York's long day in November"),
        pytest.param("day", "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", id="a midnight that did not exist"),
        pytest.param("week", "UTC", "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z", id="a Sunday belongs to the week of its Monday"),
        pytest.param("week", "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z", id="Monday's midnight starts the week"),
        pytest.param("month", "UTC", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z", id="a leap February"),
        pytest.param("month", "America/New_York", "2026-03-31T23:00:00Z", "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z", id="a month over the change of clocks"),
        pytest.param("month", "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", id="December ends with the year"),
        pytest.param("hour", "UTC", "2026-11-21T10:59:59Z", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", id="an hour"),
        pytest.param("hour", "Asia/Kolkata", "2026-11-21T10:15:00Z", "2026-11-21T09:30:00Z", "2026-11-21T10:30:00Z", id="an hour of a zone on the half hour"),
    ],
)  # fmt: skip
def test_the_period_of_an_instant(period, zone, at, start, end):
    found = period_bounds(period, zone, parse_instant(at))
    assert [format_instant(bound) for bound in found] == [start, end]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"])
@pytest.mark.parametrize("period", ["hour", "day", "week", "month"])
def test_periods_follow_each_other_without_gap_or_overlap_for_a_year(zone, period):
    instant = parse_instant("2026-01-01T00:00:00Z")
    start, end = period_bounds(period, zone, instant)
    for _ in range(400):
        following = period_bounds(period, zone, end)
        assert following[0] == end
        assert period_bounds(period, zone, end - 1) == (start, end)
        start, end = following
    assert end > instant + 300 * HOUR
