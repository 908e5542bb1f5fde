"""How busy a GPU was over its trailing hour, weighted by time; gaps are unknown, and not idle.

Exact integers here, not River: ``river.utils.TimeRolling`` evicts whole events and reverts them from a float
sum, so a mean rebuilt after a restart would differ in its last bits from the one that ran on, and an hour of
one-second samples would be 3 600 entries of state. Integer sums in sixty buckets are the same on every path
and bounded.

Every sample counts, allocated or not: a GPU that nobody has asked for costs the same.
"""

import math
from typing import ClassVar, Self

import msgspec

from detectors.base import Observation, Score, check_version
from schemas.instants import HOUR, SECOND

#: Utilisation is kept in millionths.
FULL = 1_000_000
BUCKETS = 60


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """One sixtieth of the trailing window: how much of it is known, and how busy it was."""

    index: int
    known_us: int
    #: Millionths times microseconds.
    weight: int
    peak: int


class IdleScore(Score, frozen=True):
    """``observed`` is the mean utilisation in millionths, ``peak`` the busiest sample; the rest has no
    meaning here.
    """

    peak: int
    #: How much of the trailing window is known.
    known_us: int


class GpuUtilisationState(msgspec.Struct, frozen=True):
    """The run without a gap since ``since``, known up to ``end``, in buckets of ``idle_us / 60``."""

    v: int = 1
    idle_us: int = HOUR
    gap_us: int = 180 * SECOND
    since: int = 0
    end: int = 0
    buckets: list[Bucket] = []


class GpuUtilisation:
    """Scores the mean of the trailing ``idle_us`` up to the end of the observed window.

    ``value`` is the utilisation, 0..1, over ``[start, end)``. None, NaN and what is outside 0..1 (DCGM's
    blanks are huge numbers) is missing: such a window is not idle, it is a piece of a gap. A gap of more than
    ``gap_us`` restarts the run. Ready when a run is ``idle_us`` long. The trailing window is cut at bucket
    bounds: up to one sixtieth longer. Windows that end at or before what is known are ignored; a window that
    overlaps counts from where it is new.

    >>> gpu = GpuUtilisation()
    >>> for minute in range(60):
    ...     gpu.learn_one(Observation(minute * 60 * SECOND, (minute + 1) * 60 * SECOND, 0.05))
    >>> gpu.score_one(Observation(HOUR, HOUR + 60 * SECOND, 0.11)).observed
    51000
    """

    name: ClassVar[str] = "gpu_utilisation"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self, idle_us: int = HOUR, gap_us: int = 180 * SECOND) -> None:
        if idle_us < BUCKETS or gap_us < 0:
            raise ValueError(f"idle_us must be at least {BUCKETS} and gap_us at least 0")
        self._now = GpuUtilisationState(idle_us=idle_us, gap_us=gap_us)
        #: What was computed last: the state after an observation, and the weight of a state. Scoring, learning and
        #: looking back ask for the same twice, and an hour has sixty buckets.
        self._foreseen: tuple[Observation, GpuUtilisationState] | None = None
        self._weighed: tuple[GpuUtilisationState, IdleScore | None] | None = None

    def ready(self, x: Observation) -> bool:
        """Whether the run without a gap, this window included, is as long as the trailing window."""
        state = self._now
        since = x.start if self._is_cut_off(x) else state.since
        return max(x.end, state.end) - since >= state.idle_us and x.end > x.start

    def score_one(self, x: Observation) -> IdleScore | None:
        """The trailing mean with this window in it; None while the run is too short, or the window is
        missing.
        """
        if not self.ready(x) or _millionths(x.value) is None:
            return None
        after = self._after(x)
        self._foreseen = x, after
        return self._weigh(after)

    def learn_one(self, x: Observation) -> None:
        """Take the window in; a missing one changes nothing."""
        foreseen = self._foreseen
        self._now = foreseen[1] if foreseen is not None and foreseen[0] is x else self._after(x)
        self._foreseen = None

    def recent(self) -> IdleScore | None:
        """The mean of what is known of the trailing window, however short the run; None where nothing is."""
        return self._weigh(self._now)

    def state(self) -> GpuUtilisationState:
        """All that was learned, at most 4 KiB as JSON."""
        return self._now

    @classmethod
    def from_state(cls, state: GpuUtilisationState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls(state.idle_us, state.gap_us)
        detector._now = state
        return detector

    def _is_cut_off(self, x: Observation) -> bool:
        state = self._now
        return not state.buckets or x.start - state.end > state.gap_us

    def _after(self, x: Observation) -> GpuUtilisationState:
        state, busy = self._now, _millionths(x.value)
        if busy is None or x.end <= x.start or (x.end <= state.end and state.buckets):
            return state
        cut_off = self._is_cut_off(x)
        start = x.start if cut_off else max(x.start, state.end)
        width = state.idle_us // BUCKETS
        first = (x.end - state.idle_us) // width
        old = 0
        while not cut_off and old < len(state.buckets) and state.buckets[old].index < first:
            old += 1
        buckets = [] if cut_off else state.buckets[old:]
        at = max(start, first * width)
        while at < x.end:
            index = at // width
            piece = min(x.end, (index + 1) * width) - at
            if buckets and buckets[-1].index == index:
                last = buckets.pop()
                new = Bucket(index, last.known_us + piece, last.weight + busy * piece, max(last.peak, busy))
            else:
                new = Bucket(index, piece, busy * piece, busy)
            buckets.append(new)
            at += piece
        since = start if cut_off else state.since
        return GpuUtilisationState(idle_us=state.idle_us, gap_us=state.gap_us, since=since, end=x.end, buckets=buckets)

    def _weigh(self, state: GpuUtilisationState) -> IdleScore | None:
        if self._weighed is not None and self._weighed[0] is state:
            return self._weighed[1]
        known = weight = peak = 0
        for bucket in state.buckets:
            known += bucket.known_us
            weight += bucket.weight
            if bucket.peak > peak:
                peak = bucket.peak
        score = None
        if known:
            mean = weight // known
            score = IdleScore(
                observed=mean, expected=None, excess=mean - FULL, ratio_percent=None, peak=peak, known_us=known
            )
        self._weighed = state, score
        return score


def _millionths(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(value * FULL) if 0 <= value <= 1 else None
