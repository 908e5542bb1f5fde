"""What a series of hours should come to, and the most that a fortnight of it should bring; pure, over numpy.

numpy and not River: a bar is the largest of 336 sums over the same hours, made anew once an hour, and River's rolling
statistics would keep each of them a second time (16 KB) and could not take back an hour that is corrected late.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Excess is summed over so many hours, and spend itself over so many.
SCALES, LEVELS = (1, 3, 12), (1, 3)
#: How far back the bar looks, and how far back the scatter does.
DAYS, WEEK = 14, 7 * 24
_DAY = 24
#: Known hours without which nothing is scored.
HOURS_MIN = 72
#: Same-hour observations that an expectation needs; else the hours beside it help out.
OBSERVATIONS_MIN = 3
#: Weeks that the course of a week is learned from.
WEEKS = 3
#: A day's largest counts so much less for each day that has passed, as a logarithm.
FADING = 0.04
#: How the logarithms of days' largest vary in most series, and how many days that counts for.
VARIES, VARIES_DAYS = 0.4, 5
#: By how many deviations the largest of e times as many days is larger (of the extremes of most distributions).
GROWS = 0.78


class Record(NamedTuple):
    """The most that a fortnight should bring, and what it says to be above it."""

    largest: float
    #: What a ratio to ``largest`` is raised to: high where each day's largest is much the same.
    power: float


def expectations(values: Floats, left_out: Bools) -> Floats:
    """What was expected of each hour, and of the one after the last: medians of same hours before it.

    The first three days have none (NaN); where too few same hours are left, the level of the last week stands in.
    """
    count = len(values)
    clean = np.where(left_out, np.nan, values)
    expected = _medians(clean, [_DAY * day for day in range(1, 8)], OBSERVATIONS_MIN)
    if count >= WEEKS * WEEK:
        lags = [WEEK * week + beside for week in range(1, WEEKS + 1) for beside in (-1, 0, 1)]
        by_week = _medians(clean, lags, 2 * WEEKS)
        expected = np.where(np.isfinite(by_week), (expected + by_week) / 2, expected)
    known = clean[-WEEK:]
    known = known[np.isfinite(known)]
    level = float(np.median(known)) if known.size else 0.0
    expected[HOURS_MIN:] = np.where(np.isfinite(expected[HOURS_MIN:]), expected[HOURS_MIN:], level)
    return expected


def excess_of(values: Floats, expected: Floats) -> Floats:
    """What each hour was above its expectation; in the first three days, above the same hour of the day before. Where
    neither is known it is nothing.
    """
    usual = expected.copy()
    first = slice(_DAY, min(HOURS_MIN, len(values)))
    before = values[: max(0, first.stop - _DAY)]
    usual[first] = np.where(np.isfinite(usual[first]), usual[first], before)
    return np.nan_to_num(values - usual)


def record(values: Floats, scale: int, least: float) -> Record:
    """Of sums over so many hours, the most that fourteen days should bring, from the largest of each day that is known.

    Of fewer days it is more than the largest seen: a record is broken every other day in the first ones. What is
    below ``least`` counts as that.
    """
    sums = np.cumsum(values)
    sums[scale:] = sums[scale:] - sums[:-scale].copy()
    # Only what does not overlap the hours that are judged: else a leak would hide behind its own beginning. The first
    # day had nothing to be compared with.
    sums = sums[_DAY : len(sums) + 1 - scale][-DAYS * _DAY :]
    if not sums.size:
        return Record(least, 1.0)
    missing = -len(sums) % _DAY
    days = np.concatenate([np.full(missing, -np.inf), sums]).reshape(-1, _DAY).max(axis=1)[::-1]
    logs = np.log(np.maximum(days, least))
    count = len(sums) / _DAY
    deviation = math.sqrt((count * float(logs.var()) + VARIES_DAYS * VARIES**2) / (count + VARIES_DAYS))
    largest = float((logs - FADING * np.arange(len(logs))).max()) + GROWS * deviation * math.log(DAYS / count)
    # Rounded: it is kept with the state of every scope.
    return Record(float(round(math.exp(min(largest, 50.0)))), round(0.5 / deviation, 3))


def _medians(clean: Floats, lags: Sequence[int], least: int) -> Floats:
    """The median of what was so many hours before each hour, and before the one after the last."""
    count = len(clean) + 1
    beside = np.full((len(lags), count), np.inf)
    for row, lag in enumerate(lags):
        if lag < count:
            beside[row, lag:] = clean[: count - lag]
    beside[np.isnan(beside)] = np.inf
    beside.sort(axis=0)
    known = np.isfinite(beside).sum(axis=0)
    columns = np.arange(count)
    lower, upper = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, len(lags) - 1)
    middle = (beside[lower, columns] + beside[upper, columns]) / 2
    return np.where(known >= least, middle, np.nan)
