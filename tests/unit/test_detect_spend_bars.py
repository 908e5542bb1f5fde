"""The most that a fortnight of hours should bring, and what it says to be above it."""

import numpy as np
import pytest

from detectors.base import Observation
from detectors.spend_bars import Record, excess_of, expectations, record
from detectors.spend_spike import Answer, SpendSpike
from schemas.instants import HOUR

USD = 1_000_000_000


def peaks(*days: float) -> np.ndarray:
    """Hours of days, the oldest first: one hour of each costs so much, the others 1; before them a day of 1."""
    return np.concatenate([np.ones(24), *(np.r_[np.ones(11), day, np.ones(12)] for day in days)]).astype(float) * USD


def test_of_a_fortnight_it_is_about_the_largest_that_was_seen():
    found = record(peaks(*[5] * 13, 9), 1, 1.0)
    assert 9 * USD <= found.largest < 9.5 * USD


def test_of_few_days_it_is_more_than_was_seen():
    few, many = record(peaks(4, 5, 6), 1, 1.0), record(peaks(*[4, 5, 6, 5] * 4), 1, 1.0)
    assert few.largest > 1.3 * 6 * USD
    assert many.largest < 1.1 * 6 * USD


def test_what_lies_days_back_counts_less_and_more_than_a_fortnight_back_nothing():
    late, early = record(peaks(*[2] * 12, 9, 2), 1, 1.0), record(peaks(9, *[2] * 13), 1, 1.0)
    assert 0.5 * late.largest < early.largest < 0.8 * late.largest
    assert record(peaks(90, *[2] * 14), 1, 1.0).largest < 3 * USD


def test_a_ratio_says_more_where_the_largest_of_each_day_is_much_the_same():
    steady, wild = record(peaks(*[5] * 14), 1, 1.0), record(peaks(*[1, 50] * 7), 1, 1.0)
    assert steady.power > 2 * wild.power


@pytest.mark.parametrize("scale", [1, 3, 12])
def test_hours_that_are_judged_with_this_one_are_no_record(scale):
    values = peaks(*[2] * 10)
    values[1 - scale :] = 100 * USD if scale > 1 else values[-1]
    assert record(values, scale, 1.0).largest < 10 * scale * USD


@pytest.mark.parametrize("values", [np.empty(0), np.zeros(24), np.zeros(400)], ids=["none", "a day", "zeros"])
def test_without_anything_it_is_the_least(values):
    assert record(values, 3, 7.0).largest == pytest.approx(7, abs=8)


def test_a_record_is_finite_whatever_the_amounts():
    assert isinstance(record(np.full(400, 1e18) * np.linspace(1, 9, 400), 12, 1.0), Record)
    assert np.isfinite(record(np.r_[np.zeros(399), 1e300], 1, 1.0).largest)


def test_in_the_first_days_the_day_before_is_what_an_hour_is_compared_with():
    values = np.r_[np.ones(24), np.full(24, 3.0), np.full(52, 4.0)]
    expected = expectations(values, np.zeros(100, bool))[:-1]
    assert np.isnan(expected[:72]).all()
    found = excess_of(values, expected)
    assert (found[10], found[30], found[60]) == (0, 2, 1)


@pytest.mark.parametrize("count", [0, 10, 24, 40])
def test_of_less_than_two_days_excess_is_as_long_as_the_hours(count):
    assert len(excess_of(np.ones(count), np.full(count, np.nan))) == count


def test_a_month_of_calm_hours_and_one_confirmed_incident_leave_the_bar_where_it_was():
    spend = SpendSpike()
    for n in range(400):
        spend.learn(Observation(n * HOUR, n * HOUR + HOUR, (20 + n % 5) * USD), False)
    before = spend.outlook(400 * HOUR)
    for n in range(400, 403):
        spend.learn(Observation(n * HOUR, n * HOUR + HOUR, 500 * USD), True)
    for n in range(403, 430):
        spend.learn(Observation(n * HOUR, n * HOUR + HOUR, (20 + n % 5) * USD), False)
    learned = spend.outlook(430 * HOUR)
    spend.answer(Answer("yes", 400 * HOUR, 403 * HOUR))
    confirmed = spend.outlook(430 * HOUR)
    assert learned.bars[0] > 10 * before.bars[0]
    assert learned.levels[0] > 10 * before.levels[0]
    assert confirmed.bars[0] < 1.5 * before.bars[0]
    assert confirmed.levels[0] < 1.2 * before.levels[0]
