"""A spend scope's detector during one step: unpacked only where its three weeks are asked for."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec.structs import replace

from detectors.base import Observation
from detectors.hour_ring import HOLE
from detectors.spend_bars import SCALES
from detectors.spend_spike import (
    ANSWERS_MAX,
    Answer,
    Outlook,
    Siblings,
    SpendScore,
    SpendSpike,
    excesses,
    score,
)
from schemas.instants import HOUR, MINUTE
from streams.core.detect_spike_policy import SpikePolicy, is_strange
from streams.core.detect_spike_state import SpikeState, total

#: What scopes of the same kind are like around an hour; None where too few are known.
SiblingsOf = Callable[[int], Siblings | None]
_DAY = 24


class Memory:
    """What is known of a scope's hours. A step asks and teaches it, and takes the rest over with ``kept``."""

    def __init__(self, state: SpikeState, policy: SpikePolicy, siblings: SiblingsOf | None = None) -> None:
        self._given, self._policy, self._siblings = state.history, policy, siblings
        self._unpacked: SpendSpike | None = None
        self._outlooks: dict[int, Outlook | None] = dict(state.outlooks)
        self._newest: list[int] | None = None
        self._has_learned = False
        self._totals = {hour: total(slots) for hour, slots in state.hours.items()}

    @property
    def is_empty(self) -> bool:
        """Whether no hour has been learned."""
        return (self._given if self._unpacked is None else self._unpacked.ring).end == 0

    def total(self, hour: int) -> int:
        """What an open hour has cost so far."""
        return self._totals.get(hour, 0)

    def score(self, hour: int) -> SpendScore | None:
        """An hour's total so far against what is known; None during the cold start."""
        outlook = self._outlook(hour)
        if outlook is None:
            return None
        return score(outlook, self.total(hour), self._recent(hour), self._answers(), self._policy.floor_nanos)

    def range(self, hour: int) -> tuple[int, int] | None:
        """Between which amounts an hour usually ends, nanodollars: two deviations around what is expected."""
        outlook = self._outlook(hour)
        if outlook is None:
            return None
        usual, twice = outlook.usual[0], round(2 * outlook.spread)
        return max(0, usual - twice), usual + twice

    def learn(self, hour: int) -> None:
        """Score first, learn after: what was strange, or planned, says little about what is usual."""
        found = self.score(hour)
        is_odd = is_strange(found, self._policy) or (found is not None and found.is_planned)
        self._detector().learn(Observation(hour, hour + HOUR, self.total(hour)), is_odd)
        self._changed(hour)

    def accept(self, since: int, until: int) -> None:
        """Take the hours of an incident as the new level."""
        self._detector().accept(since, until)
        self._changed(0)

    def plan(self, plans: Sequence[Answer]) -> None:
        """Take the plans that hold, in place of those before; hours of theirs that are learned count for nothing."""
        detector, before = self._detector(), self._answers()
        said = [each for each in before if each.kind in ("yes", "no")]
        detector.answers = tuple(sorted([*said, *plans], key=lambda each: (each.end, each.start))[-ANSWERS_MAX:])
        for each in plans:
            if each not in before:
                detector.ring.mark(each.start, each.end, True)
        self._changed(0)

    def forget(self, start: int) -> None:
        """Let go of what was answered about hours from ``start`` on."""
        detector = self._detector()
        detector.answers = tuple(
            each for each in detector.answers if each.kind not in ("yes", "no") or each.start != start
        )
        self._changed(0)

    def answer(self, answer: Answer, at: int = 0) -> None:
        """Take in what people said; where ``at`` lies in an open hour, that hour counts with its pace until then."""
        peaks = [0] * len(SCALES)
        for hour in self._totals:
            outlook = self._outlook(hour) if answer.start <= hour < answer.end else None
            if outlook is not None:
                # Within the first ten minutes a pace says little.
                passed = min(HOUR, max(at - hour, 10 * MINUTE)) if hour <= at else HOUR
                observed = self.total(hour) * HOUR // passed
                peaks = list(map(max, peaks, excesses(outlook, observed, self._recent(hour))))
        before = self._answers()
        self._detector().answer(replace(answer, peaks=tuple(peaks)))
        if self._answers() != before:
            self._changed(0)

    def kept(self, state: SpikeState) -> SpikeState:
        """The state with what was learned, and the outlooks of hours that are still open."""
        history = self._detector().state() if self._has_learned else state.history
        outlooks = {hour: found for hour, found in sorted(self._outlooks.items()) if hour in state.hours}
        if not self._has_learned and outlooks == state.outlooks:
            return state
        return replace(state, history=history, outlooks=outlooks)

    def _outlook(self, hour: int) -> Outlook | None:
        if hour not in self._outlooks:
            siblings = self._siblings(hour) if self._siblings is not None else None
            self._outlooks[hour] = self._detector().outlook(hour, siblings)
        return self._outlooks[hour]

    def _detector(self) -> SpendSpike:
        if self._unpacked is None:
            self._unpacked = SpendSpike.from_state(self._given)
        return self._unpacked

    def _changed(self, hour: int) -> None:
        self._has_learned = True
        self._newest = None
        self._outlooks = {other: found for other, found in self._outlooks.items() if other <= hour}

    def _answers(self) -> tuple[Answer, ...]:
        return self._given.answers if self._unpacked is None else self._unpacked.answers

    def _recent(self, hour: int) -> list[int | None]:
        """The totals of the day before an hour; open hours as they stand, though they may not be learned yet."""
        if self._unpacked is not None:
            known = list(self._unpacked.ring.recent(hour))
        else:
            if self._newest is None:
                self._newest = np.frombuffer(self._given.recent, "<i8").tolist()
            place = len(self._newest) - (self._given.end - hour) // HOUR
            if not _DAY <= place <= len(self._newest):
                known = list(self._detector().ring.recent(hour))
            else:
                known = [nanos if nanos != HOLE else None for nanos in self._newest[place - _DAY : place]]
        for other, nanos in self._totals.items():
            back = (hour - other) // HOUR
            if 1 <= back <= _DAY:
                known[_DAY - back] = nanos
        return known
