"""The shipped detectors as judges of one series, by the kind of what it holds."""

import math

from detectors.base import Observation, whole
from detectors.gpu_judge import GpuJudge
from detectors.hourly_spend import HourlySpend
from detectors.judging import UNKNOWN, Judge, Kind, Verdict
from detectors.request_judge import RequestJudge
from schemas.instants import HOUR, hour_of

NANOS = 1_000_000_000
RATIO = 1.5
#: The excess, in the median expectation of an hour, that counts where no floor in money is given.
FLOOR_SHARE = 0.5


def make_judge(kind: Kind, step_us: int, floor: float | None = None) -> Judge:
    """The shipped detector for a series of this kind with rows every ``step_us``, knowing nothing yet.

    ``floor`` is in the unit of the values (dollars, where they are dollars); None: it scales with the series.

    Raises:
        ValueError: the step is not above zero, or the kind is unknown.
    """
    if step_us <= 0:
        raise ValueError("the step of a series is a time above zero")
    if kind == "spend":
        return HourlyRule(step_us, floor)
    if kind == "gpu":
        return GpuJudge(step_us)
    if kind == "requests":
        return RequestJudge()
    raise ValueError(f"a series is of spend, gpu or requests, and not of {kind!r}")


class HourlyRule:
    """The fixed rule: above 1.5 times the median of the same hour and by more than the floor; one page an incident."""

    def __init__(self, step_us: int, floor: float | None) -> None:
        self._history, self._floor, self._step_us = HourlySpend(), floor, step_us
        self._hour, self._sum, self._has_known = -1, 0.0, False
        self._hot_at: int | None = None

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge the running hour with this row in it."""
        hour = hour_of(timestamp_us)
        if hour != self._hour:
            if self._hour >= 0:
                self._learn()
            self._hour, self._sum, self._has_known = hour, 0.0, False
        if value is None or not math.isfinite(value):
            return UNKNOWN
        self._sum, self._has_known = self._sum + value, True
        score = self._history.score_one(Observation(hour, hour + HOUR, self._sum * NANOS))
        if score is None or score.expected is None:
            return UNKNOWN
        expected = score.expected / NANOS
        floor = FLOOR_SHARE * expected if self._floor is None else self._floor
        excess = self._sum - expected
        is_hot = excess > max(floor, (RATIO - 1) * expected)
        opens = is_hot and (self._hot_at is None or hour - self._hot_at > 3 * HOUR)
        if is_hot:
            self._hot_at = hour
        return Verdict(expected, excess / max(expected, floor, 1e-9), opens, False)

    def _learn(self) -> None:
        self._history.learn_one(
            Observation(self._hour, self._hour + HOUR, whole(self._sum * NANOS) if self._has_known else None)
        )
