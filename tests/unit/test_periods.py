"""Budget periods in their own time zone: the cases that go wrong at the wrong hour."""

from datetime import date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.budgets import Period
from schemas.instants import HOUR, MINUTE, SECOND, format_instant, parse_instant
from streams.core.periods import bounds_of, buckets_of, is_within, leaves_at, period_bounds, window_of

YEAR = parse_instant("2023-12-31T00:00:00Z")


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
        pytest.param("month", "UTC", "2100-02-28T12:00:00Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z", id="a February of a century that is no leap year"),
        pytest.param("quarter", "UTC", "2024-03-31T23:59:59Z", "2024-01-01T00:00:00Z", "2024-04-01T00:00:00Z", id="the first quarter of a leap year"),
        pytest.param("quarter", "America/New_York", "2026-12-31T23:59:59Z", "2026-10-01T04:00:00Z", "2027-01-01T05:00:00Z", id="the last quarter goes from one offset to the other"),
        pytest.param("quarter", "Asia/Tokyo", "2026-06-30T15:00:00Z", "2026-06-30T15:00:00Z", "2026-09-30T15:00:00Z", id="Tokyo's third quarter begins in June by UTC"),
        pytest.param("day", "America/New_York", "2026-11-01T05:59:59Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", id="New York's first of two hours at one"),
        pytest.param("hour", "America/New_York", "2026-11-01T06:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z", id="New York's second of two hours at one is an hour of its own"),
        pytest.param("hour", "America/New_York", "2026-03-08T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z", id="New York's hour after the one that is skipped"),
        pytest.param("hour", "Australia/Lord_Howe", "2026-10-03T15:45:00Z", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z", id="Lord Howe's hour in October that begins at half past"),
        pytest.param("day", "Australia/Lord_Howe", "2026-04-04T20:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z", id="Lord Howe's day of 24 and a half hours"),
        pytest.param("hour", "UTC", "2026-11-21T10:59:59Z", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", id="an hour"),
        pytest.param("hour", "Asia/Kolkata", "2026-11-21T10:15:00Z", "2026-11-21T09:30:00Z", "2026-11-21T10:30:00Z", id="an hour of a zone on the half hour"),
    ],
)  # fmt: skip
def test_the_period_of_an_instant(period, zone, at, start, end):
    found = period_bounds(period, zone, parse_instant(at))
    assert [format_instant(bound) for bound in found] == [start, end]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"])
@pytest.mark.parametrize("period", ["hour", "day", "week", "month", "quarter"])
def test_periods_follow_each_other_without_gap_or_overlap_for_a_year(zone, period):
    instant = parse_instant("2026-01-01T00:00:00Z")
    start, end = period_bounds(period, zone, instant)
    for _ in range(400):
        following = period_bounds(period, zone, end)
        assert following[0] == end
        assert period_bounds(period, zone, end - 1) == (start, end)
        start, end = following
    assert end > instant + 300 * HOUR


@pytest.mark.parametrize(
    ("week_start", "zone", "at", "start", "end"),
    [
        pytest.param(6, "UTC", "2026-11-21T12:00:00Z", "2026-11-15T00:00:00Z", "2026-11-22T00:00:00Z", id="a Saturday ends the week from Sunday"),
        pytest.param(6, "UTC", "2026-11-22T00:00:00Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z", id="Sunday's midnight starts it"),
        pytest.param(5, "Asia/Tokyo", "2026-11-20T15:00:00Z", "2026-11-20T15:00:00Z", "2026-11-27T15:00:00Z", id="Tokyo's Saturday is still Friday in UTC"),
        pytest.param(6, "America/New_York", "2026-03-10T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-15T04:00:00Z", id="a week from the Sunday on which clocks go forward"),
        pytest.param(6, "America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-08T05:00:00Z", id="a week from the Sunday on which clocks go back"),
        pytest.param(2, "UTC", "2024-02-29T00:00:00Z", "2024-02-28T00:00:00Z", "2024-03-06T00:00:00Z", id="a week over the leap day"),
    ],
)  # fmt: skip
def test_weeks_start_on_the_day_that_is_chosen(week_start, zone, at, start, end):
    found = bounds_of(Period("week", zone, week_start), parse_instant(at))
    assert [format_instant(bound) for bound in found] == [start, end]


@pytest.mark.parametrize(
    ("period", "at", "starts", "ends", "expected"),
    [
        pytest.param(Period("month"), "2026-11-21T12:00:00Z", "2026-11-10T00:00:00Z", "", ("2026-11-10T00:00:00Z", "2026-12-01T00:00:00Z"), id="the first month is short"),
        pytest.param(Period("month"), "2026-11-21T12:00:00Z", "", "2026-11-22T00:00:00Z", ("2026-11-01T00:00:00Z", "2026-11-22T00:00:00Z"), id="the last month is short"),
        pytest.param(Period("month"), "2026-12-21T12:00:00Z", "2026-11-10T00:00:00Z", "2027-02-01T00:00:00Z", ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"), id="a month between is whole"),
        pytest.param(Period("day"), "2026-11-09T23:59:59.999999Z", "2026-11-10T00:00:00Z", "", None, id="the last microsecond before the start"),
        pytest.param(Period("day"), "2026-11-22T00:00:00Z", "", "2026-11-22T00:00:00Z", None, id="the end itself is outside"),
        pytest.param(Period("total"), "2026-11-21T12:00:00Z", "2026-11-10T00:00:00Z", "2026-12-01T00:00:00Z", ("2026-11-10T00:00:00Z", "2026-12-01T00:00:00Z"), id="a total is from start to end"),
        pytest.param(Period("total"), "2026-11-21T12:00:00Z", "", "", ("1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z"), id="a total without dates never ends"),
        pytest.param(Period("rolling", hours=24), "2026-11-21T12:34:00Z", "2026-11-21T12:30:00Z", "", ("2026-11-21T12:30:00Z", "2026-11-21T13:00:00Z"), id="a bucket is cut at the start"),
        pytest.param(Period("rolling", "Asia/Kolkata", hours=169), "2026-11-21T18:30:00Z", "", "", ("2026-11-21T18:30:00Z", "2026-11-22T18:30:00Z"), id="beyond a week a bucket is the zone's day"),
        pytest.param(Period("rolling", "Asia/Kolkata", hours=168), "2026-11-21T18:30:00Z", "", "", ("2026-11-21T18:00:00Z", "2026-11-21T19:00:00Z"), id="up to a week a bucket is a UTC hour"),
    ],
)  # fmt: skip
def test_nothing_is_counted_outside_of_start_and_end(period, at, starts, ends, expected):
    bounds = bounds_of(period, parse_instant(at), _micros(starts), _micros(ends))
    assert (bounds and tuple(format_instant(bound) for bound in bounds)) == expected


def _micros(text):
    return parse_instant(text) if text else 0


@pytest.mark.parametrize(
    ("period", "starts", "ends", "now", "count", "window"),
    [
        pytest.param(Period("rolling", hours=24), "", "", "2026-11-21T12:30:00Z", 25, ("2026-11-20T12:00:00Z", "2026-11-21T13:00:00Z"), id="a day back touches 25 hours"),
        pytest.param(Period("rolling", hours=24), "", "", "2026-11-21T12:00:00Z", 25, ("2026-11-20T12:00:00Z", "2026-11-21T13:00:00Z"), id="on the hour the oldest is still touched"),
        pytest.param(Period("rolling", "America/New_York", hours=720), "", "", "2026-11-21T12:00:00Z", 31, ("2026-10-22T04:00:00Z", "2026-11-22T05:00:00Z"), id="thirty days over a change of clocks touch 31 days"),
        pytest.param(Period("rolling", hours=9600), "", "", "2026-11-21T12:00:00Z", 401, ("2025-10-17T00:00:00Z", "2026-11-22T00:00:00Z"), id="four hundred days"),
        pytest.param(Period("rolling", hours=24), "2026-11-21T11:30:00Z", "", "2026-11-21T12:30:00Z", 2, ("2026-11-21T11:30:00Z", "2026-11-21T13:00:00Z"), id="not before it began"),
        pytest.param(Period("rolling", hours=24), "", "2026-11-21T10:30:00Z", "2026-11-21T12:30:00Z", 23, ("2026-11-20T12:00:00Z", "2026-11-21T10:30:00Z"), id="after its end it empties hour by hour"),
        pytest.param(Period("rolling", hours=24), "", "2026-11-01T00:00:00Z", "2026-11-21T12:30:00Z", 0, None, id="long after its end nothing is left"),
        pytest.param(Period("rolling", hours=24), "2026-12-01T00:00:00Z", "", "2026-11-21T12:30:00Z", 0, None, id="nothing before it begins"),
        pytest.param(Period("day"), "", "", "2026-11-21T12:30:00Z", 1, ("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"), id="a day is its own window"),
        pytest.param(Period("day"), "", "2026-11-21T12:00:00Z", "2026-11-21T12:30:00Z", 0, None, id="a day that ended counts no more"),
    ],
)  # fmt: skip
def test_a_window_is_made_of_the_buckets_that_it_touches(period, starts, ends, now, count, window):
    at, dates = parse_instant(now), (_micros(starts), _micros(ends))
    buckets = buckets_of(period, at, *dates)
    assert len(buckets) == count
    assert all(before[1] == after[0] for before, after in pairwise(buckets))
    found = window_of(period, at, *dates)
    assert (found and tuple(format_instant(bound) for bound in found)) == window


@settings(max_examples=200, deadline=None)
@given(
    zone=st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York", "Australia/Lord_Howe"]),
    hours=st.integers(1, 9_600),
    event=st.integers(0, 2 * 366 * 24 * 60),
    age=st.integers(0, 9_700 * 60),
)
def test_what_happened_within_the_window_is_always_in_a_bucket_that_counts(zone, hours, event, age):
    period, at = Period("rolling", zone, hours=hours), YEAR + event * MINUTE
    now = at + age * MINUTE
    bucket = bounds_of(period, at)
    counts = is_within(period, bucket, now)
    if age < hours * 60:
        assert counts
    # And never for longer than a bucket more, which is a day of 25 hours at most.
    if age >= (hours + (1 if hours <= 168 else 25)) * 60:
        assert not counts
    assert counts == (now < leaves_at(period, bucket))
    assert counts == (bucket in buckets_of(period, now))


def _label(kind, zone, instant, week_start):
    """What people call the period, from the local calendar alone."""
    day = datetime.fromtimestamp(instant // SECOND, ZoneInfo(zone)).date()
    if kind == "week":
        # Weeks are numbered from a day long ago that is a Monday.
        return (day.toordinal() - date(2001, 1, 1).toordinal() - week_start) // 7
    return {
        "day": (day.year, day.month, day.day),
        "month": (day.year, day.month),
        "quarter": (day.year, (day.month + 2) // 3),
    }[kind]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["day", "week", "month", "quarter"]),
    # Where clocks never go back over midnight, a local day is one stretch of time.
    zone=st.sampled_from(
        ["UTC", "Asia/Tokyo", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"]
    ),
    at=st.integers(0, 30 * 366 * 24 * 60),
    week_start=st.integers(0, 6),
)
def test_a_period_is_all_of_the_instants_that_the_calendar_calls_the_same(kind, zone, at, week_start):
    instant = YEAR + at * MINUTE
    start, end = period_bounds(kind, zone, instant, week_start)
    assert start <= instant < end
    named = _label(kind, zone, instant, week_start)
    assert _label(kind, zone, start, week_start) == named == _label(kind, zone, end - SECOND, week_start)
    if zone != "America/Santiago":  # there, midnight is skipped and repeated
        assert _label(kind, zone, start - SECOND, week_start) != named != _label(kind, zone, end, week_start)
