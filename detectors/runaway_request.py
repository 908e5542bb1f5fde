"""A single request that used more tokens than the limit: exact, from the first event on.

The rule needs no model. What River learns is context for people: how large the oversized requests of this
feature usually are, so that the page can say whether this one is of the usual kind. A quantile of all
requests would be a better bar, but this detector is only shown the requests above the limit.
"""

from typing import ClassVar, Self

import msgspec
from river.stats import RollingQuantile

from detectors.base import Observation, Score, check_version, whole

#: How many oversized requests are remembered, and how many there must be before "usual" means anything.
RECENT_MAX = 128
RECENT_MIN = 5


class RunawayRequestState(msgspec.Struct, frozen=True):
    """Tokens of the newest oversized requests, oldest first."""

    v: int = 1
    limit: int = 50_000
    recent: list[int] = []


class RunawayRequest:
    """Scores one request: ``value`` is its tokens, ``excess`` how many are above the limit.

    ``expected`` is the median of the oversized requests seen before, or None while fewer than five are known.
    It never moves the rule, so that learning an anomaly cannot hide the next one.

    >>> RunawayRequest(limit=50_000).score_one(Observation(0, 0, 61_000))
    Score(observed=61000, expected=None, excess=11000, ratio_percent=None)
    """

    name: ClassVar[str] = "runaway_request"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._recent: list[int] = []

    def ready(self, x: Observation) -> bool:
        """Always: the rule is exact."""
        return True

    def score_one(self, x: Observation) -> Score | None:
        """Compare the tokens with the limit and with the usual oversized request; None where there is no
        number.
        """
        tokens = whole(x.value)
        if tokens is None:
            return None
        usual = self._usual()
        ratio = tokens * 100 // usual if usual else None
        return Score(observed=tokens, expected=usual, excess=tokens - self._limit, ratio_percent=ratio)

    def learn_one(self, x: Observation) -> None:
        """Remember the request if it is above the limit."""
        tokens = whole(x.value)
        if tokens is not None and tokens > self._limit:
            self._recent.append(tokens)
            del self._recent[:-RECENT_MAX]

    def state(self) -> RunawayRequestState:
        """All that was learned, at most 4 KiB as JSON."""
        return RunawayRequestState(limit=self._limit, recent=list(self._recent))

    @classmethod
    def from_state(cls, state: RunawayRequestState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls(state.limit)
        detector._recent = list(state.recent)
        return detector

    def _usual(self) -> int | None:
        if len(self._recent) < RECENT_MIN:
            return None
        median = RollingQuantile(0.5, RECENT_MAX)
        for tokens in self._recent:
            median.update(float(tokens))
        found = median.get()
        return None if found is None else round(found)
