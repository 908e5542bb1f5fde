"""A caller that runs away: an agent's task, a session or a key, against the busy callers of its feature.

Learned is how busy the busy callers of a feature are in a window: what 99 % of such windows stay within, of calls and
of money, by bounded histograms that forget. A loop is scored first, and not learned before the like of it has come for
a day.
"""

from typing import ClassVar, Self

import msgspec

from detectors.base import Observation, Score, check_version, whole
from detectors.tail import Acceptance, Held, bucket_of, faded, upper_quantile, with_weight
from schemas.instants import DAY

ONE = 100
#: The share of busy windows that may be busier than the usual.
ABOVE = 0.01
#: So many windows have to be known before they say what is usual.
KNOWN_MIN = 30
BAR_PERCENT = 200
#: So many strange windows, over at least so long, are the usual from then on; a day without one forgets them.
ACCEPTANCE = Acceptance(30 * ONE, DAY, DAY)


class RunawayLoopState(msgspec.Struct, frozen=True):
    """Numbers of busy windows by bucket with their weights, and what is held back."""

    v: int = 1
    #: Above this a window of a feature that is not known yet is strange.
    cold: int = 600
    day: int = 0
    weights: dict[int, int] = {}
    held: dict[int, int] = {}
    held_from: int = 0
    held_until: int = 0


class LoopScore(Score, frozen=True):
    """``expected`` is what 99 % of the busy windows stay within; ``excess`` is above ``bar``."""

    bar: int


class RunawayLoop:
    """Scores one window of one caller: ``value`` is how many calls, or how much money, it had.

    >>> loop = RunawayLoop(cold=600)
    >>> loop.score_one(Observation(0, 0, 1_000)).excess
    400
    """

    name: ClassVar[str] = "runaway_loop"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self, cold: int = 600) -> None:
        self._now = RunawayLoopState(cold=cold)

    def ready(self, x: Observation) -> bool:
        """Always: of an unknown feature by a fixed bar."""
        return True

    def score_one(self, x: Observation) -> LoopScore | None:
        """Compare a window with the usual one; None where there is no number."""
        value = whole(x.value)
        if value is None:
            return None
        usual, bar = self._bar()
        return LoopScore(
            observed=value, expected=usual, excess=value - bar,
            ratio_percent=value * 100 // usual if usual else None, bar=bar,
        )  # fmt: skip

    def learn_one(self, x: Observation) -> None:
        """Learn a window, or hold it back where it is strange."""
        value = whole(x.value)
        if value is None:
            return
        now, day, place = self._now, x.start // DAY, bucket_of(value)
        if now.day and day > now.day:
            now = msgspec.structs.replace(now, weights=faded(now.weights, day - now.day))
        now = msgspec.structs.replace(now, day=max(day, now.day))
        if value > self._bar()[1]:
            held = Held(now.weights, now.held, now.held_from, now.held_until).hold(place, ONE, x.start, ACCEPTANCE)
            self._now = msgspec.structs.replace(now, **held._asdict())
        else:
            self._now = msgspec.structs.replace(now, weights=with_weight(dict(now.weights), place, ONE))

    def state(self) -> RunawayLoopState:
        """All that was learned, at most 4 KiB as JSON."""
        return self._now

    @classmethod
    def from_state(cls, state: RunawayLoopState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls(state.cold)
        detector._now = state
        return detector

    def _bar(self) -> tuple[int | None, int]:
        now = self._now
        usual = upper_quantile(now.weights, ONE, ABOVE)
        if usual is None or sum(now.weights.values()) < KNOWN_MIN * ONE:
            return None, now.cold
        return usual, max(1, usual * BAR_PERCENT // 100)
