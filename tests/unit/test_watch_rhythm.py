"""When a source is missed: after its own rhythm, and not because it is night."""

import pytest

from schemas.instants import parse_instant
from streams.core.heard import SourcesHeard
from streams.core.watch_rhythm import DAY_MINUTES, allowed_pause, first_heard, last_heard, source_name

#: 2026-11-16 is a Monday.
MONDAY = parse_instant("2026-11-16T00:00:00Z") // 60_000_000
FLOOR = 15


def days_of(minutes):
    """Masks by day of minutes since 1970."""
    found: dict[int, int] = {}
    for minute in minutes:
        day, place = divmod(minute, DAY_MINUTES)
        found[day] = found.get(day, 0) | 1 << place
    return found


def at(weekday, clock, week=0):
    """A minute: weekday 0 is Monday; week 0 is the one of MONDAY."""
    hour, minute = map(int, clock.split(":"))
    return MONDAY + (week * 7 + weekday) * DAY_MINUTES + hour * 60 + minute


def office(weeks=2, days=range(5), opens="08:00", closes="20:00"):
    """Heard every minute of office hours, on the weeks before week 0."""
    return [
        minute
        for week in range(-weeks, 0)
        for day in days
        for minute in range(at(day, opens, week), at(day, closes, week))
    ]


def this_week(until_day, clock, days=range(5), opens="08:00", closes="20:00"):
    """The same of the present week, until its last word."""
    last = at(until_day, clock)
    return [
        minute for day in days if day <= until_day for minute in range(at(day, opens), min(at(day, closes), last + 1))
    ]


def hourly(count, until):
    """A job that runs at five past every hour."""
    return [until - number * 60 for number in range(count)]


def daily(jitter, until):
    """A job that runs once a day for twelve minutes, some minutes early or late."""
    return [until - back * DAY_MINUTES + late + minute for back, late in enumerate(jitter) for minute in range(-11, 1)]


HOURS = 60
RHYTHMS = {
    "at noon of a workday it is missed within the floor": (office() + this_week(1, "12:00"), FLOOR),
    "its night is no silence": (office() + this_week(1, "19:59"), 13 * HOURS + 1),
    "who leaves half an hour early is not missed all night": (office() + this_week(1, "19:29"), 13 * HOURS + 1),
    "its weekend is no silence": (office() + this_week(4, "19:59"), 61 * HOURS + 1),
    "in its first week every pause that it ever made at this time counts": (
        this_week(2, "19:59"), 13 * HOURS + 1,
    ),
    "an hourly job is missed after an hour and a half": (hourly(9 * 24, at(1, "12:05")), 90),
    "a daily job that comes early or late is missed an hour after its day": (
        daily([0, 20, -20, 15, -5, 10, 0, 5, -15, 20], at(2, "02:00")), 25 * HOURS + 9,
    ),
    "one bad day in a fortnight teaches nothing": (
        [m for m in office() if not at(2, "12:00", -1) < m < at(2, "15:00", -1)] + this_week(1, "12:00"), FLOOR,
    ),
    "a source of a few minutes has no rhythm": ([at(0, "08:00"), at(1, "08:00")], None),
    "a source of some hours has none": (list(range(at(1, "08:00"), at(1, "12:00"))), None),
    "who was never heard has none": ([], None),
}  # fmt: skip


@pytest.mark.parametrize("case", RHYTHMS)
def test_for_how_long_it_may_be_silent(case):
    minutes, allowed = RHYTHMS[case]
    assert allowed_pause(days_of(minutes), FLOOR) == allowed


def test_the_first_and_the_last_minute_across_days():
    days = days_of([at(0, "23:59"), at(1, "00:00"), at(3, "07:07")])
    assert (first_heard(days), last_heard(days)) == (at(0, "23:59"), at(3, "07:07"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param("//gateway/edge-eu-1", "//gateway/edge-eu-1", id="a name of its own stays"),
        pytest.param("//gateway/litellm", "//gateway/litellm", id="a plain one too"),
        pytest.param("//gw/proxy-7d9c6b5f4d-x2v9z", "//gw/proxy-*", id="a pod of a deployment"),
        pytest.param("//gw/scraper-x2v9z", "//gw/scraper-*", id="a pod of a daemon set"),
        pytest.param("//gw/store-0", "//gw/store-0", id="a pod of a stateful set keeps its number"),
        pytest.param("//gw/proxy", "//gw/proxy", id="five letters are a word"),
        pytest.param("//gw/9f86d081884c7d65", "//gw/*", id="a container's id"),
        pytest.param("x" * 500, "x" * 200, id="a long one is cut"),
    ],
)
def test_short_lived_instances_are_one_source(source, name):
    assert source_name(source) == name


def test_what_was_heard_is_taken_once_by_minute_and_name():
    heard = SourcesHeard()
    for minute, source in [(5, b"//a"), (5, b"//a"), (7, b"//a"), (DAY_MINUTES + 1, b"//b-7d9c6b5f4d-x2v9z")]:
        heard.at(minute * 60_000 + 59_999)[source] = None
    assert heard.take() == {("//a", 0): 0b1010_0000, ("//b-*", 1): 0b10}
    assert heard.take() == {}
