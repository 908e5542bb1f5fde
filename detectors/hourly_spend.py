"""Expected spend of an hour: the median of the same hour of day over the last seven days, by River.

Cold start: an hour is scored once three earlier days have that hour in memory. Before that there is no score,
and so no page. Hours that were found anomalous are learned as holes: they count neither as spend nor as zero,
and an incident does not raise the bar for the next one.
"""

from typing import ClassVar, Self

import msgspec
from river.stats import RollingQuantile

from detectors.base import Observation, Score, check_version, compare, whole
from schemas.instants import DAY, HOUR, hour_of

DAYS = 7
#: Same-hour observations without which there is no expectation.
OBSERVATIONS_MIN = 3
#: Seven days, and half a day more, so that an hour corrected late still finds its week.
HOURS_KEPT = 7 * 24 + 12


class HourlySpendState(msgspec.Struct, frozen=True):
    """Consecutive hours that end before ``end``; nanodollars each, None for a hole."""

    v: int = 1
    end: int = 0
    nanos: list[int | None] = []


class HourlySpend:
    """Learns one total per closed hour and scores an hour against the same hour of the days before.

    ``Observation.start`` names the hour and ``value`` is nanodollars. A running hour can be scored at any
    time: its total so far is a lower bound of what it will be. An hour without an observation between two
    known ones spent nothing; an observation of None is a hole.

    >>> spend, day = HourlySpend(), 24 * HOUR
    >>> for n in range(3):
    ...     spend.learn_one(Observation(n * day, n * day + HOUR, 2_000_000_000))
    >>> spend.score_one(Observation(3 * day, 3 * day + HOUR, 5_000_000_000))
    Score(observed=5000000000, expected=2000000000, excess=3000000000, ratio_percent=250)
    """

    name: ClassVar[str] = "hourly_spend"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self) -> None:
        self._end = 0
        self._nanos: list[int | None] = []

    def ready(self, x: Observation) -> bool:
        """Whether three earlier days have this hour in memory."""
        return len(self._same_hour(hour_of(x.start))) >= OBSERVATIONS_MIN

    def score_one(self, x: Observation) -> Score | None:
        """Compare the hour's total so far with the median of its own hour; None during the cold start."""
        observed = whole(x.value)
        same_hour = self._same_hour(hour_of(x.start))
        if observed is None or len(same_hour) < OBSERVATIONS_MIN:
            return None
        return compare(observed, max(0, _median(same_hour)))

    def learn_one(self, x: Observation) -> None:
        """Set the hour's total; a later call for the same hour corrects it, and hours before memory are
        ignored.
        """
        hour, nanos = hour_of(x.start), whole(x.value)
        if not self._nanos:
            self._nanos, self._end = [nanos], hour + HOUR
            return
        index = len(self._nanos) - (self._end - hour) // HOUR
        if index >= len(self._nanos):
            gap = index - len(self._nanos)
            if gap >= HOURS_KEPT:
                self._nanos, gap = [], HOURS_KEPT - 1
            self._nanos += [0] * gap
            self._nanos.append(nanos)
            del self._nanos[:-HOURS_KEPT]
            self._end = hour + HOUR
        elif index >= 0:
            self._nanos[index] = nanos
        elif len(self._nanos) - index <= HOURS_KEPT:
            self._nanos[:0] = [nanos, *[0] * (-index - 1)]

    def state(self) -> HourlySpendState:
        """All that was learned, at most 4 KiB as JSON."""
        return HourlySpendState(end=self._end, nanos=list(self._nanos))

    @classmethod
    def from_state(cls, state: HourlySpendState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls()
        detector._end, detector._nanos = state.end, list(state.nanos)
        return detector

    def _same_hour(self, hour: int) -> list[int]:
        first = self._end - len(self._nanos) * HOUR
        found = []
        for days_back in range(1, DAYS + 1):
            earlier = hour - days_back * DAY
            if first <= earlier < self._end:
                nanos = self._nanos[(earlier - first) // HOUR]
                if nanos is not None:
                    found.append(nanos)
        return found


def _median(nanos: list[int]) -> int:
    """River's quantile over the window, in whole microdollars.

    River computes in doubles. An expectation is an estimate and no amount of money, but it is shown beside
    amounts: in microdollars a double holds every hour up to four billion dollars, and the half between two,
    exactly.
    """
    median = RollingQuantile(0.5, DAYS)
    for each in nanos:
        median.update(float(each // 1_000))
    found = median.get()
    return 0 if found is None else round(found * 2) * 500
