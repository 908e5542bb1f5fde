"""Whether memory is flat: the slope of its samples after the warm-up. Pure."""

from collections.abc import Sequence
from statistics import median
from typing import Literal, NamedTuple

from loadtest.bench.figures import slope

#: The first part of a run fills caches, windows and the allocator, and says nothing about growth.
WARM_UP_SHARE = 1 / 3
#: Growth of the fitted line over the judged part, as a share of the median, that still counts as flat.
FLAT_PERCENT = 5.0
#: Below this nothing is said: some megabytes of noise are a steep line over a few minutes.
MINUTES_MIN = 10.0

Verdict = Literal["flat", "growing", "too short to say"]


class Flatness(NamedTuple):
    """The fitted line and what it means."""

    verdict: Verdict
    mib_per_hour: float
    growth_percent: float
    median_mib: float
    minutes: float


def judge(samples: Sequence[tuple[float, float]]) -> Flatness:
    """Judge samples of (seconds, MiB), in order.

    >>> judge([(minute * 60, 300.0) for minute in range(60)]).verdict
    'flat'
    """
    judged = [point for point in samples if point[0] >= samples[-1][0] * WARM_UP_SHARE] if samples else []
    if len(judged) < 2:
        return Flatness("too short to say", 0.0, 0.0, 0.0, 0.0)
    span_s = judged[-1][0] - judged[0][0]
    per_s, middle = slope(judged), median(mib for _, mib in judged)
    growth = 100 * per_s * span_s / middle if middle else 0.0
    verdict: Verdict = "flat" if growth <= FLAT_PERCENT else "growing"
    if span_s < MINUTES_MIN * 60:
        verdict = "too short to say"
    return Flatness(verdict, round(per_s * 3600, 2), round(growth, 2), round(middle, 1), round(span_s / 60, 1))
