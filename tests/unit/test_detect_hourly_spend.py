"""Expected spend of an hour: the median of its own hour, against Python's own median."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import Observation
from detectors.hourly_spend import HOURS_KEPT, HourlySpend
from schemas.instants import DAY, HOUR

USD = 1_000_000_000
START = 20_000 * DAY


def hour(n: int, nanos: int | None) -> Observation:
    return Observation(START + n * HOUR, START + (n + 1) * HOUR, nanos)


def taught(totals: dict[int, int | None]) -> HourlySpend:
    spend = HourlySpend()
    for n, nanos in totals.items():
        spend.learn_one(hour(n, nanos))
    return spend


@given(st.lists(st.integers(0, 10**9).map(lambda micros: micros * 1_000), min_size=3, max_size=7))
def test_the_expectation_is_the_median_of_the_same_hour_to_the_microdollar(days: list[int]):
    spend = taught({24 * day: nanos for day, nanos in enumerate(days)})
    score = spend.score_one(hour(24 * len(days), 0))
    assert score is not None
    assert score.expected == statistics.median(days)


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ({0: 9 * USD, 24: 9 * USD}, None),
        ({0: 9 * USD, 24: 9 * USD, 48: 9 * USD}, 9 * USD),
        ({0: 9 * USD, 24: None, 48: 9 * USD}, None),
        ({0: 1 * USD, 24: 900 * USD, 48: 3 * USD}, 3 * USD),
        ({0: 4 * USD, 48: 4 * USD}, 4 * USD),
        ({0: 0, 24: 0, 48: 0}, 0),
        ({0: -5 * USD, 24: -5 * USD, 48: -5 * USD}, 0),
        ({1: 9 * USD, 25: 9 * USD, 49: 9 * USD}, None),
        ({48: 9 * USD, 24: 9 * USD, 0: 9 * USD}, 9 * USD),
    ],
    ids=[
        "two days are a cold start",
        "three days are enough",
        "a hole is no observation",
        "one wild day does not move the median",
        "an hour that nobody stated spent nothing, and counts",
        "nothing spent, nothing expected",
        "credits expect nothing, not less",
        "only the same hour counts",
        "days may be learned out of order",
    ],
)
def test_expectation_of_hour_72(totals: dict[int, int | None], expected: int | None):
    score = taught(totals).score_one(hour(72, 10 * USD))
    assert (score and score.expected) == expected


def test_a_late_correction_replaces_the_total_of_its_hour():
    spend = taught({0: 1 * USD, 24: 1 * USD, 48: 1 * USD, 49: 0})
    spend.learn_one(hour(48, 7 * USD))
    spend.learn_one(hour(24, 7 * USD))
    assert spend.score_one(hour(72, 0)).expected == 7 * USD


def test_only_seven_days_count():
    spend = taught({24 * day: (1 if day < 7 else 50) * USD for day in range(14)})
    assert spend.score_one(hour(24 * 14, 0)).expected == 50 * USD


def test_a_silence_longer_than_memory_leaves_zeros_and_bounds():
    spend = taught({0: 50 * USD, 24: 50 * USD, 48: 50 * USD, 48 + 10_000: 1 * USD})
    assert len(spend.state().nanos) == HOURS_KEPT
    assert spend.score_one(hour(48 + 10_000 + 5, 0)).expected == 0


def test_an_hour_older_than_memory_is_ignored():
    spend = taught({5_000: 1 * USD})
    before = spend.state()
    spend.learn_one(hour(0, 1 * USD))
    assert spend.state() == before
