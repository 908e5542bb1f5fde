"""A series of one GPU's utilisation, judged as DETECT judges a GPU that is all its owner has.

Strictly idle for an hour (no known sample reached the bar, and no gap) is a page; a mean that has been below the bar
for an hour is a ticket, since the GPU works in bursts. Both end above the exit bar. DETECT itself asks besides what the
idleness costs, and only reports what works in bursts; a series has no price.
"""

import math

from detectors.base import Observation
from detectors.gpu_utilisation import FULL, GpuUtilisation
from detectors.judging import UNKNOWN, Verdict
from schemas.instants import HOUR, MINUTE

#: A ratio never exceeds this; what does, up to a hundred, is percent.
_RATIO_MAX = 1.05
#: How much of the trailing hour must be known before idleness may end: one busy sample is not work.
_SETTLE_US = 10 * MINUTE
#: Where rows come more rarely, up to a gap, the row closest to the full hour decides.
_RARE_US, _GAP_US = 2 * MINUTE, 3 * MINUTE


class GpuJudge:
    """Implements ``detectors.judging.Judge``.

    Values are 0..1; a series in which one is above 1.05 is taken for percent from there on. What fits neither (DCGM's
    blanks are huge) is missing.
    """

    def __init__(self, step_us: int, enter: float = 0.2, leave: float = 0.3) -> None:
        self._step_us, self._enter, self._leave = step_us, enter * FULL, leave * FULL
        self._gpu = GpuUtilisation()
        self._scale = 1.0
        self._busy_until = 0
        self._low_since = 0
        self._said = ""

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one row, then learn it."""
        seen = Observation(timestamp_us, timestamp_us + self._step_us, self._ratio(value))
        waited = seen.end - self._gpu.state().end
        score = self._gpu.score_one(seen)
        self._gpu.learn_one(seen)
        state = self._gpu.state()
        if state.end != seen.end or seen.value is None:
            return UNKNOWN
        if seen.value * FULL >= self._enter:
            self._busy_until = seen.end
        recent = self._gpu.recent()
        if recent is not None and recent.known_us >= _SETTLE_US and recent.observed > self._leave:
            self._said = ""
        if score is None:
            self._low_since = 0
            return UNKNOWN
        is_low = score.observed < self._enter
        self._low_since = (self._low_since or seen.end) if is_low else 0
        idle_us = seen.end - max(state.since, self._busy_until)
        idle_us += waited // 2 if _RARE_US < waited <= _GAP_US else 0
        page = idle_us >= HOUR and self._said != "page"
        ticket = bool(not page and not self._said and self._low_since and seen.end - self._low_since >= HOUR)
        self._said = "page" if page else "ticket" if ticket else self._said
        return Verdict(None, 1 - (score.observed + score.peak) / (2 * FULL), page, ticket)

    def _ratio(self, value: float | None) -> float | None:
        if value is None or not math.isfinite(value) or not 0 <= value <= 100:
            return None
        if value > _RATIO_MAX:
            self._scale = 100.0
        return min(1.0, value / self._scale)
