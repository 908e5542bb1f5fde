"""The shipped detectors as judges of one series, by the kind of what it holds."""

import math

from detectors.base import Observation, whole
from detectors.gpu_utilisation import FULL, GpuUtilisation
from detectors.hourly_spend import HourlySpend
from detectors.judging import UNKNOWN, Judge, Kind, Verdict
from detectors.runaway_request import RunawayRequest
from detectors.spend_judge import SpendJudge
from schemas.instants import HOUR, SECOND, hour_of

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
        return SpendJudge(step_us, floor)
    if kind == "gpu":
        return GpuRule(step_us)
    if kind == "requests":
        return RequestRule()
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


class GpuRule:
    """Strictly idle for the trailing hour pages; a mean below 20 % for an hour is a ticket; both end above 30 %."""

    def __init__(self, step_us: int, enter: float = 0.2, leave: float = 0.3) -> None:
        self._gpu, self._enter, self._leave = GpuUtilisation(), enter * FULL, leave * FULL
        self._longest = max(180 * SECOND, step_us)
        self._before: int | None = None
        self._said = ""
        self._low_since: int | None = None

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge a sample: it stands for the time since the sample before, where that is no gap."""
        before, self._before = self._before, timestamp_us
        if before is None or timestamp_us - before > self._longest:
            before = timestamp_us - min(self._longest, 60 * SECOND)
        seen = Observation(before, timestamp_us, value)
        score = self._gpu.score_one(seen)
        self._gpu.learn_one(seen)
        if score is None:
            self._low_since = None
            return UNKNOWN
        is_low, is_strict = score.observed < self._enter, score.peak < self._enter
        self._low_since = (timestamp_us if self._low_since is None else self._low_since) if is_low else None
        if score.observed > self._leave:
            self._said = ""
        page = is_strict and self._said != "page"
        lasts = self._low_since is not None and timestamp_us - self._low_since >= HOUR
        ticket = not page and lasts and not self._said
        self._said = "page" if page else "ticket" if ticket else self._said
        strangeness = 1 - (score.observed + score.peak) / (2 * FULL)
        return Verdict(None, strangeness, page, ticket)


class RequestRule:
    """More than 50 000 tokens is a ticket; a page where it is above 1.5 times the usual oversized request."""

    def __init__(self) -> None:
        self._requests = RunawayRequest()

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one request."""
        seen = Observation(timestamp_us, timestamp_us, value)
        score = self._requests.score_one(seen)
        self._requests.learn_one(seen)
        if score is None:
            return UNKNOWN
        expected = None if score.expected is None else float(score.expected)
        is_over = score.excess > 0
        page = is_over and (expected is None or score.observed > RATIO * expected)
        return Verdict(expected, score.observed / max(50_000, expected or 0), page, is_over and not page)
