"""The spend detector by itself: what it expects, what it finds strange, and what no series may do to it."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import SIZE_MAX, Observation
from detectors.hour_ring import EXACT, HOURS_KEPT, HourRing
from detectors.spend_spike import Answer, Siblings, SpendSpike
from schemas.instants import DAY, HOUR

USD = 1_000_000_000
START = 20_000 * DAY


def hour(n: int, nanos: float | None) -> Observation:
    return Observation(START + n * HOUR, START + (n + 1) * HOUR, nanos)


def taught(values, first: int = 0) -> SpendSpike:
    spend = SpendSpike()
    for n, usd in enumerate(values, first):
        spend.learn(hour(n, None if usd is None else round(usd * USD)), False)
    return spend


def bursty(count: int, seed: int = 1, burst: float = 6.0) -> list[float]:
    """A daily wave with a burst every other day: what the bar has to learn."""
    dice = random.Random(seed)
    wave = [20 + 8 * math.sin(n * math.pi / 12) + dice.uniform(-3, 3) for n in range(count)]
    return [usd * (burst if n % 48 == 31 else 1) for n, usd in enumerate(wave)]


@given(st.lists(st.integers(0, 99_999_999).map(lambda cents: cents * 10_000_000), min_size=3, max_size=7))
def test_the_expectation_is_the_median_of_the_same_hour_to_the_cent(days: list[int]):
    spend = SpendSpike()
    for n in range(24 * len(days)):
        spend.learn(hour(n, days[n // 24] if n % 24 == 0 else 0), False)
    score = spend.score_one(hour(24 * len(days), 0))
    assert score is not None
    assert score.expected == pytest.approx(statistics.median(days), abs=1)


def test_an_hour_of_the_week_counts_as_much_as_the_hour_of_the_day_once_three_weeks_are_known():
    def usd(n: int) -> float:
        return 100.0 if n % 168 in (50, 51, 52) else 10.0

    assert taught(usd(n) for n in range(168 * 3 + 51 - 7)).score_one(hour(168 * 3 + 44, 0)).expected == 10 * USD
    young = taught(usd(n) for n in range(168 * 2 + 51))
    assert young.score_one(hour(168 * 2 + 51, 0)).expected == 10 * USD
    assert taught(usd(n) for n in range(168 * 3 + 51)).score_one(hour(168 * 3 + 51, 0)).expected == 55 * USD


@pytest.mark.parametrize(("burst", "is_strange"), [(1.0, True), (6.0, False)], ids=["a calm one", "one that bursts"])
def test_five_times_an_hour_is_strange_to_a_calm_series_and_nothing_new_to_one_that_bursts(burst, is_strange):
    spend = taught(bursty(24 * 10, burst=burst))
    score = spend.score_one(hour(240, 100 * USD))
    assert score.rules(150) == ("previous_hour", "yesterday", "expected")
    assert (score.strangeness >= 1_000) == is_strange


def test_a_leak_that_no_single_hour_shows_is_found_by_its_twelve_hours():
    spend = taught(45 if n % 24 == 5 and n % 48 < 24 else 20 for n in range(24 * 10))
    found = []
    for n in range(250, 262):
        found.append(spend.score_one(hour(n, 38 * USD)).strangeness)
        spend.learn(hour(n, 38 * USD), False)
    assert found[0] < 1_000
    assert max(found) >= 1_000


@pytest.mark.parametrize(
    ("observed", "broken"),
    [
        (150, ()),
        (150.000000001, ("expected",)),
        (180.000000002, ("previous_hour", "expected")),
        (225.000000001, ("previous_hour", "yesterday", "expected")),
        (0, ()),
        (-500, ()),
    ],
)
def test_the_fixed_rules_are_exact_and_told_apart(observed, broken):
    values = [100.0] * 168
    values[-1], values[-24] = 120.000000001, 150.0
    assert taught(values).score_one(hour(168, round(observed * USD))).rules(150) == broken


@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 400,
        [5.0] * 400,
        [-3.0] * 400,
        [None] * 400,
        [0.0] * 399 + [1e9],
        [SIZE_MAX / USD] * 400,
        [(-1) ** n * 1e8 for n in range(400)],
        [0.0 if n % 24 else 7.0 for n in range(400)],
        [None if n % 2 else 7.0 for n in range(400)],
        [1e-9] * 400,
    ],
    ids=[
        "zeros", "constant", "below zero", "holes", "one huge hour", "as large as may be", "both signs",
        "seasons of zeros", "every other hour missing", "nanodollars",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, 1, -5 * USD, 50 * USD, SIZE_MAX, math.nan, math.inf, None])
def test_no_series_breaks_it(values, value):
    spend = SpendSpike.from_state(taught(values).state())
    score = spend.score_one(hour(400, value))
    if score is not None:
        assert 0 <= score.strangeness <= 1_000_000
        assert 0 <= score.expected <= SIZE_MAX
        assert (
            score.strangeness >= 1_000
            or not score.rules(150)
            or score.excess < 50 * USD
            or max(each or 0 for each in values) >= 5
        )


def test_a_constant_series_finds_its_own_level_quite_usual():
    score = taught([5.0] * 300).score_one(hour(300, 5 * USD))
    assert (score.strangeness, score.rules(150)) == (0, ())


@pytest.mark.parametrize("late", [0, 1, 3, 11])
def test_hours_learned_late_end_in_the_same_bytes(late: int):
    values = bursty(300)
    straight, other = taught(values), taught(values[: 300 - late - 1])
    for n in reversed(range(300 - late - 1, 300)):
        other.learn(hour(n, round(values[n] * USD)), False)
    assert other.state() == straight.state()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-SIZE_MAX, SIZE_MAX)), min_size=1, max_size=90))
def test_a_ring_is_what_it_was_after_a_restart_and_exact_for_two_days(nanos):
    ring = HourRing()
    for n, each in enumerate(nanos):
        ring.set(START + n * HOUR, each, n % 3 == 0)
    packed = ring.pack()
    again = HourRing.unpack(ring.end, *packed)
    assert again.pack() == packed
    for n, each in enumerate(nanos):
        kept = again.at(START + n * HOUR)
        if each is None or len(nanos) - n <= EXACT:
            assert kept == each
        else:
            assert kept is not None
            assert abs(kept - each) <= abs(each) * 5e-8 + 1
    assert list(again.before(ring.end)[1]) == [n % 3 == 0 for n in range(len(nanos))]


def test_a_ring_forgets_after_three_weeks_and_a_silence_is_zeros():
    ring = HourRing()
    ring.set(START, 5, False)
    ring.set(START + 10_000 * HOUR, 7, False)
    assert len(ring.before(ring.end)[0]) == HOURS_KEPT
    assert (ring.at(START), ring.at(START + 9_999 * HOUR), ring.at(START + 10_000 * HOUR)) == (None, 0, 7)
    ring.set(START, 9, False)
    assert ring.at(START) is None


def score_at(spend: SpendSpike, n: int, usd: float):
    return spend.score_one(hour(n, round(usd * USD)))


def test_after_no_the_same_stays_quiet_and_twice_as_much_does_not():
    spend = taught(bursty(24 * 9, burst=1.0))
    assert score_at(spend, 216, 300).strangeness >= 1_000
    spend.learn(hour(216, 300 * USD), True)
    spend.answer(Answer("no", START + 216 * HOUR, START + 217 * HOUR))
    for n in range(217, 240):
        spend.learn(hour(n, 20 * USD), False)
    assert score_at(spend, 240, 300).strangeness < 1_000
    assert score_at(spend, 240, 600).strangeness >= 1_000


def test_after_yes_the_same_is_found_again_whatever_was_answered_before():
    spend = taught(bursty(24 * 9, burst=1.0))
    spend.learn(hour(216, 300 * USD), True)
    spend.answer(Answer("no", START + 216 * HOUR, START + 217 * HOUR))
    for n in range(217, 241):
        spend.learn(hour(n, (300 if n == 240 else 20) * USD), n == 240)
    spend.answer(Answer("yes", START + 240 * HOUR, START + 241 * HOUR))
    for n in range(241, 264):
        spend.learn(hour(n, 20 * USD), False)
    assert score_at(spend, 264, 300).strangeness >= 1_000


def test_an_incident_that_was_confirmed_raises_no_bar_and_one_that_nobody_answered_does():
    def strangeness(kind: str | None) -> int:
        spend = taught(bursty(24 * 9, burst=1.0))
        spend.learn(hour(216, 300 * USD), True)
        if kind:
            spend.answer(Answer(kind, START + 216 * HOUR, START + 217 * HOUR))
        return score_at(spend, 240, 300).strangeness

    assert strangeness("yes") > 2 * strangeness(None) > 2 * strangeness("no")


@pytest.mark.parametrize(
    ("spent", "is_strange"), [((100, 100, 90), False), ((290, 0, 0), False), ((0, 300, 60), True), ((340,), True)]
)
def test_what_was_planned_is_quiet_up_to_half_as_much_again_over_all_of_its_hours(spent, is_strange):
    spend = taught([20.0] * 240)
    spend.answer(Answer("planned", START + 240 * HOUR, START + 250 * HOUR, 200 * USD))
    for n, extra in enumerate(spent[:-1], 240):
        spend.learn(hour(n, (20 + extra) * USD), True)
    score = score_at(spend, 240 + len(spent) - 1, 20 + spent[-1])
    assert score.is_planned
    assert (score.strangeness >= 1_000) == is_strange


def test_a_plan_of_days_counts_from_its_first_hour():
    spend = taught([20.0] * 240)
    spend.answer(Answer("planned", START + 240 * HOUR, START + 340 * HOUR, 2_000 * USD))
    found = []
    for n in range(240, 340):
        found.append(score_at(spend, n, 60).strangeness)
        spend.learn(hour(n, 60 * USD), True)
    # 40 dollars an hour above the usual: 3,000 are passed in the 76th hour.
    assert [strangeness >= 1_000 for strangeness in found].index(True) == 75


def test_a_new_level_is_taken_as_if_it_had_always_been():
    spend = taught(10 + 5 * math.sin(n * math.pi / 12) for n in range(24 * 8))
    for n in range(24 * 8, 24 * 9):
        spend.learn(hour(n, round((30 + 15 * math.sin(n * math.pi / 12)) * USD)), True)
    spend.accept(START + 24 * 8 * HOUR, START + 24 * 9 * HOUR)
    for n in (24 * 9, 24 * 9 + 6):
        assert score_at(spend, n, 0).expected == pytest.approx((30 + 15 * math.sin(n * math.pi / 12)) * USD, rel=1e-6)


def test_a_young_scope_is_measured_by_its_siblings():
    siblings = Siblings(mean=20.0 * USD, bars=(2.0, 3.0, 5.0), spread=0.5)
    newborn, hours_old = SpendSpike(), taught([2.0] * 10)
    assert newborn.outlook(START) is None
    for spend, hour_, usd in ((newborn, START, 20), (hours_old, START + 10 * HOUR, 2)):
        outlook = spend.outlook(hour_, siblings)
        assert (outlook.usual[0], outlook.is_cold) == (usd * USD, True)
    assert not taught([2.0] * 72).outlook(START + 72 * HOUR, siblings).is_cold
