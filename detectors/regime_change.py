"""A ratio that has changed for good: cache hits, output to input, price, errors, tokens per success.

A two-sided Page-Hinkley test over logarithms, against the same hour of the days before, in units of the ratio's own
usual deviation, and of the most that these ever added up to: a ratio that wanders has to wander further. Own sums and
not River's ``PageHinkley`` and ``ADWIN``: these know no hour of the day, are blind to the relative size of a change (a
rate of 0.1 % that becomes 0.5 % moves a mean by nothing), and state nothing plain.

Whole thousandths throughout, so that every path gives the same numbers. A hole is a hole, and neither zero nor usual.
"""

import math
from typing import ClassVar, Literal, Self

import msgspec

from detectors.base import Observation, Score, check_version, whole
from schemas.instants import HOUR, hour_of

HOURS_KEPT = 168
KNOWN_MIN = 48
SAME_HOUR_MIN = 3
#: What is added before the logarithm: differences far below half a percent are none.
ZERO = 0.005
_MILLI = 1_000
#: Deviations, in thousandths of the usual one: what each hour is forgiven, counts for at most, and adds up to a change.
SLACK, CLIP, ENOUGH = 750, 5_000, 8_000
#: After so many hours within the slack, one after the other, nothing is adding up any more.
CALM_HOURS = 3
#: What is added up has to be so many percent of the most that it ever was; the most fades by a part an hour.
OVER_PEAK, PEAK_FADE, BAR_MAX, SUM_MAX = 200, 512, 40_000, 64_000
#: A change is at least so large, in thousandths of a natural logarithm (28 %), and in usual deviations.
EFFECT_MIN, EFFECT_SCALES = 250, 2
#: A ratio that hardly moves has this deviation all the same.
SCALE_MIN = 50
_FADE = 48
_LARGEST = 10**6


class RegimeChangeState(msgspec.Struct, frozen=True):
    """Logarithms of consecutive hours that end before ``end``, in thousandths; None for a hole."""

    v: int = 1
    end: int = 0
    logs: list[int | None] = []
    #: The usual deviation from what is expected; 0 while nothing is.
    scale: int = 0
    up: int = 0
    down: int = 0
    #: Since when each has been rising.
    up_since: int = 0
    down_since: int = 0
    #: Hours within the slack, up to the last one.
    calm: int = 0
    #: The most that ever added up, and that adds up at present.
    peak: int = 0
    top: int = 0


class RegimeScore(Score, frozen=True):
    """``observed`` and ``expected`` are millionths of the ratio."""

    direction: Literal["up", "down"]
    #: Thousandths: 1000 and above is a change.
    strangeness: int
    #: When the change began, as far as can be told.
    since: int


class RegimeChange:
    """Learns a ratio an hour; ``value`` is at least 0, and None where there was too little to make one.

    >>> cache, day = RegimeChange(), 24 * HOUR
    >>> for n in range(72):
    ...     cache.learn_one(Observation(n * HOUR, n * HOUR + HOUR, 0.6))
    >>> for n in range(72, 75):
    ...     cache.learn_one(Observation(n * HOUR, n * HOUR + HOUR, 0.1))
    >>> cache.score_one(Observation(75 * HOUR, 76 * HOUR, 0.1)).direction
    'down'
    """

    name: ClassVar[str] = "regime_change"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self) -> None:
        self._keep(RegimeChangeState())

    def ready(self, x: Observation) -> bool:
        """Whether two days of hours are known."""
        return self._known >= KNOWN_MIN

    def score_one(self, x: Observation) -> RegimeScore | None:
        """Whether the ratio has changed, with this hour counted; None while not ready, or without a number."""
        log = _log(x.value)
        if log is None or not self.ready(x):
            return None
        hour = hour_of(x.start)
        expected = self._expected(hour)
        after = self._tested(hour, log - expected)
        is_up = after.up >= after.down
        sum_, since = (after.up, after.up_since) if is_up else (after.down, after.down_since)
        # A small change adds up as well, and is none that anybody should hear of.
        effect = abs(self._level(hour, log, since) - expected)
        is_large = effect >= max(EFFECT_MIN, EFFECT_SCALES * after.scale)
        strangeness = sum_ * _MILLI // self._bar()
        observed, usual = _millionths(log), _millionths(expected)
        return RegimeScore(
            observed=observed, expected=usual, excess=observed - usual,
            ratio_percent=observed * 100 // usual if usual > 0 else None,
            direction="up" if is_up else "down",
            strangeness=strangeness if is_large else min(strangeness, _MILLI - 1),
            since=since,
        )  # fmt: skip

    def learn_one(self, x: Observation) -> None:
        """Take an hour in; one that is known or older than memory is ignored."""
        hour, log = hour_of(x.start), _log(x.value)
        if hour < self._now.end:
            return
        now = self._now
        if log is not None and self.ready(x):
            deviation = log - self._expected(hour)
            now = self._tested(hour, deviation)
            if max(now.up, now.down) < self._bar():
                step = min(abs(deviation), 3 * now.scale) - now.scale
                now = msgspec.structs.replace(now, scale=max(SCALE_MIN, now.scale + step // _FADE))
        gap = (hour - now.end) // HOUR if now.logs else 0
        logs = [*now.logs, *[None] * min(gap, HOURS_KEPT), log][-HOURS_KEPT:]
        self._keep(msgspec.structs.replace(now, logs=logs, end=hour + HOUR))

    def accept(self, since: int) -> None:
        """What came from an hour on is the usual: what was before is forgotten."""
        now = self._now
        kept = max(1, min(len(now.logs), (now.end - since) // HOUR))
        self._keep(RegimeChangeState(end=now.end, logs=now.logs[-kept:], peak=now.peak))

    def state(self) -> RegimeChangeState:
        """All that was learned, at most 4 KiB as JSON."""
        return self._now

    @classmethod
    def from_state(cls, state: RegimeChangeState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls()
        detector._keep(state)
        return detector

    def _keep(self, state: RegimeChangeState) -> None:
        self._now = state
        self._known = len(state.logs) - state.logs.count(None)

    def _bar(self) -> int:
        return min(BAR_MAX, max(ENOUGH, self._now.peak * OVER_PEAK // 100))

    def _expected(self, hour: int) -> int:
        logs = self._now.logs
        # The place of the hour, counted from the end of what is known.
        place = len(logs) + (hour - self._now.end) // HOUR
        same = [log for log in logs[place % 24 : place : 24] if log is not None] if place > 0 else []
        return _median(same[-7:] if len(same) >= SAME_HOUR_MIN else [log for log in logs if log is not None])

    def _level(self, hour: int, log: int, since: int) -> int:
        """The middle of the hours since a change began, this one included."""
        hours = min(24, max(0, (self._now.end - max(since, 0)) // HOUR))
        found = self._now.logs[-hours:] if hours else []
        return _median([*(each for each in found if each is not None), log])

    def _tested(self, hour: int, deviation: int) -> RegimeChangeState:
        now = self._now
        scale = now.scale or self._first_scale()
        # A mean deviation is four fifths of a standard one.
        z = max(-CLIP, min(CLIP, deviation * _MILLI * 4 // (5 * scale)))
        up, down = min(SUM_MAX, max(0, now.up + z - SLACK)), min(SUM_MAX, max(0, now.down - z - SLACK))
        calm = now.calm + 1 if abs(z) <= SLACK else 0
        peak, top = now.peak - now.peak // PEAK_FADE, max(now.top, up, down)
        if calm >= CALM_HOURS or not (up or down):
            # What was a change raises the bar for the next one as well, but by no more than the bar was.
            peak, top, up, down = max(peak, min(top, self._bar())), 0, 0, 0
        return msgspec.structs.replace(
            now, scale=scale, up=up, down=down, calm=calm, peak=peak, top=top,
            up_since=now.up_since if now.up and up else hour,
            down_since=now.down_since if now.down and down else hour,
        )  # fmt: skip

    def _first_scale(self) -> int:
        logs = [log for log in self._now.logs if log is not None]
        middle = _median(logs)
        return max(SCALE_MIN, sum(abs(log - middle) for log in logs) // len(logs))


def _median(logs: list[int]) -> int:
    ordered = sorted(logs)
    return ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) // 2


def _log(value: object) -> int | None:
    if whole(value) is None or value < 0:  # type: ignore[operator]
        return None
    return round(math.log(min(float(value), _LARGEST) + ZERO) * _MILLI)  # type: ignore[arg-type]


def _millionths(log: int) -> int:
    return max(0, round((math.exp(log / _MILLI) - ZERO) * 10**6))
