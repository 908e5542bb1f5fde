"""Several habits of a scope at once: hours whose numbers, taken together, are unlike all that the scope has done.

LODA (Pevný 2016) with another measure of strangeness. As in River's ``LODA`` there is a histogram for each sparse
random projection of the vector; but it is asked how far beyond all that it holds a number is, and not how dense it is
there. Own sums, since of River's (the oracle of tests/unit/test_multivariate.py; docs/detection-multivariate.md):

* a number beyond all bins costs 27.6 whether it is just beyond or a hundredfold, so one burst that was a little higher
  than the last is as strange as a runaway: on real traces that finds next to nothing at a bearable number of tickets;
* fifty histograms of adaptive bins are 24 kB of floats, without a plain form to come back from;
* nothing is forgotten; features and weights are drawn with Python's dice when the first hour is learned. Here they
  follow from SHA-256, for ever the same, so that a state means the same to every later program.

Before it, each number is made a deviation: its logarithm, against the same hour of the day and the level of the last
hours, in units of its own usual deviation. Strange hours move neither, until they have been so for a day, and count as
one.

Whole thousandths throughout, so that every path gives the same numbers. Hours are judged once, when they are over:
about 0.1 ms an hour and key, whatever the number of events.
"""

import math
from bisect import bisect_right
from hashlib import sha256
from typing import ClassVar, Self

import msgspec

from detectors.base import SIZE_MAX, Observation, Score, check_version, whole
from schemas.instants import DAY, HOUR, hour_of

#: How many numbers an hour may have; each is a projection, and there are mixes, each of so many numbers.
WIDTH, MIXES, MIXED = 7, 14, 3
#: Three days.
KNOWN_MIN = 72
#: What is added before the logarithm: differences far below a percent are none.
ZERO = 0.01
_MILLI = 1_000
#: How fast the level of the last hours follows, in hours; the hour of the day, in days; the usual deviation, in hours.
LEVEL_FOLLOWS, DAY_FOLLOWS, SCALE_FOLLOWS = 8, 7, 48
#: A number that hardly moves has this deviation all the same (8 %); larger deviations than ``Z_MAX`` are that.
SCALE_MIN, Z_MAX = 80, 400_000
#: Upper edges of the bins on either side of zero, in thousandths of the usual deviation.
SIDE = (1_000, 2_000, 3_000, 4_000, 6_000, 9_000, 14_000, 20_000, 30_000, 45_000, 70_000, 100_000)
_BINS = len(SIDE) + 1
#: Each bin is halved once in so many days, each on a day of its own: what was rare is gone by then.
FORGET_DAYS = 42
#: What was seen once in so many hours, or more seldom, is never seen; less than ``LEAST`` deviations is always seen.
SEEN_HOURS, LEAST = 240, 4_000
#: How much less likely the double of the most is: 2 to this power.
TAIL = 3
#: Thousandths of a nat, in the mean of the strangest projections: more than twice the most of the last weeks.
ENOUGH, STRANGEST = 8_200, 2
#: After so many strange hours in a row they are the usual ones.
ACCEPT_HOURS = 24
_LARGEST = 10**12


class MultivariateState(msgspec.Struct, frozen=True):
    """All that is known of hours before ``end``; logarithms and deviations in thousandths."""

    v: int = 1
    end: int = 0
    #: Hours that were learned.
    known: int = 0
    #: Of each number, by hour of the day; None while nothing is known.
    day: list[list[int | None]] = []
    #: How far from that the last hours have been, and the usual deviation from both; 0 while there is none.
    level: list[int] = []
    scale: list[int] = []
    #: Of each projection, how many hours fell into each bin: those below zero from zero on, then those above.
    counts: list[list[int]] = []
    #: How many strange hours there have been in a row, and how strange the strangest of them was and by what.
    strange: int = 0
    cost: int = 0
    worst: list[int] = []


class HourVector(Observation, frozen=True):
    """One hour in up to ``WIDTH`` numbers of at least 0: ``value``, then ``rest``; None where one could not be made.

    An hour whose ``value`` is None is a hole altogether.
    """

    rest: tuple[float | None, ...] = ()


class Part(msgspec.Struct, frozen=True):
    """One number of an hour: its place, its deviation in thousandths, and what it is and usually is, in millionths."""

    place: int
    deviation: int
    observed: int
    expected: int


class MultivariateScore(Score, frozen=True):
    """``observed`` and ``expected`` are millionths of the first number."""

    #: Thousandths: 1000 and above is unlike all that is known.
    strangeness: int
    #: All numbers, the farthest from usual first.
    parts: tuple[Part, ...]


class Multivariate:
    """Learns a vector an hour.

    >>> calls = Multivariate()
    >>> for n in range(200):
    ...     calls.learn_one(HourVector(n * HOUR, n * HOUR + HOUR, 900 + n % 7, (0.5, 0.02)))
    >>> score = calls.score_one(HourVector(200 * HOUR, 201 * HOUR, 2_000, (0.1, 0.3)))
    >>> score.strangeness >= 1_000, [part.place for part in score.parts]
    (True, [2, 1, 0])
    """

    name: ClassVar[str] = "multivariate"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self) -> None:
        self._now = MultivariateState()

    def ready(self, x: Observation) -> bool:
        """Whether three days of hours are known."""
        return self._now.known >= KNOWN_MIN

    def score_one(self, x: Observation) -> MultivariateScore | None:
        """How unlike all that is known the hour is; None while not ready, or for a hole."""
        logs = _logs(x)
        if logs is None or not self.ready(x):
            return None
        hour = hour_of(x.start)
        found = self._deviations(hour, logs)
        parts = [
            Part(place, z, _millionths(log), _millionths(self._expected(place, hour)))
            for place, (log, z) in enumerate(zip(logs, found, strict=True))
            if log is not None
        ]
        first = parts[0]
        return MultivariateScore(
            observed=first.observed, expected=first.expected, excess=first.observed - first.expected,
            ratio_percent=first.observed * 100 // first.expected if first.expected > 0 else None,
            strangeness=self._cost(found) * _MILLI // ENOUGH,
            parts=tuple(sorted(parts, key=lambda part: (-abs(part.deviation), part.place))),
        )  # fmt: skip

    def learn_one(self, x: Observation) -> None:
        """Take an hour in; a hole, and one that is known or older, is ignored."""
        logs, hour, now = _logs(x), hour_of(x.start), self._now
        if logs is None or hour < now.end:
            return
        found = self._deviations(hour, logs)
        cost = self._cost(found) if self.ready(x) else 0
        counts = _aged(now.counts, now.end, hour)
        if cost >= ENOUGH and now.strange < ACCEPT_HOURS:
            is_worst = cost > now.cost
            self._now = msgspec.structs.replace(
                now, end=hour + HOUR, known=now.known + 1, counts=counts, strange=now.strange + 1,
                cost=max(cost, now.cost), worst=found if is_worst else now.worst,
            )  # fmt: skip
            return
        counts = _counted(counts, now.worst) if now.worst else counts
        learned = self._moved(hour, logs, is_accepted=cost >= ENOUGH)
        self._now = msgspec.structs.replace(
            learned, end=hour + HOUR, known=now.known + 1, strange=0, cost=0, worst=[],
            counts=_counted(counts, found) if any(now.scale) and cost < ENOUGH else counts,
        )  # fmt: skip

    def accept(self) -> None:
        """If hours are strange at present, what they are like is the usual from the next one on."""
        if self._now.strange:
            self._now = msgspec.structs.replace(self._now, strange=ACCEPT_HOURS)

    def state(self) -> MultivariateState:
        """All that was learned, at most 4 KiB as JSON."""
        return self._now

    @classmethod
    def from_state(cls, state: MultivariateState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls()
        detector._now = state
        return detector

    def _expected(self, place: int, hour: int) -> int | None:
        """The usual logarithm; None while nothing is known of this number."""
        if place >= len(self._now.day):
            return None
        day = self._now.day[place]
        own = day[hour // HOUR % 24]
        if own is None:
            known = sorted(each for each in day if each is not None)
            if not known:
                return None
            own = known[len(known) // 2]
        return own + self._now.level[place]

    def _deviations(self, hour: int, logs: list[int | None]) -> list[int]:
        """Of each number, 0 where nothing can be said."""
        found = []
        for place, log in enumerate(logs):
            expected = self._expected(place, hour)
            scale = self._now.scale[place] if expected is not None else 0
            is_known = log is not None and expected is not None and scale > 0
            found.append(_within((log - expected) * _MILLI // scale, Z_MAX) if is_known else 0)  # type: ignore[operator]
        return found

    def _cost(self, deviations: list[int]) -> int:
        """How unlikely the strangest projections are, in the mean, in thousandths of a nat."""
        counts = self._now.counts
        if not counts:
            return 0
        hours = min(SEEN_HOURS, sum(counts[0]) + 1)
        costs = []
        for own, z in zip(counts, _projected(deviations), strict=True):
            size, side = abs(z), own[_BINS:] if z >= 0 else own[:_BINS]
            place = bisect_right(SIDE, size)
            as_large = sum(side[place:])
            if as_large:
                costs.append(max(0.0, math.log(hours / as_large)))
            else:
                most = max((SIDE[n] for n in range(place) if side[n]), default=0)
                costs.append(math.log(hours) + TAIL * math.log(max(1.0, size / max(LEAST, most))))
        return round(sum(sorted(costs)[-STRANGEST:]) / STRANGEST * _MILLI)

    def _moved(self, hour: int, logs: list[int | None], is_accepted: bool) -> MultivariateState:
        """With the hour in what is usual; one that is accepted is the level from now on."""
        now, at = self._now, hour // HOUR % 24
        day = [list(each) for each in now.day] or [[None] * 24 for _ in range(WIDTH)]
        level, scale = list(now.level) or [0] * WIDTH, list(now.scale) or [0] * WIDTH
        for place, log in enumerate(logs):
            if log is None:
                continue
            own, expected = day[place][at], self._expected(place, hour)
            if own is None:
                day[place][at] = log - level[place]
            if expected is None:
                continue
            off, known = log - expected, scale[place]
            if is_accepted:
                level[place] += off
                continue
            moved = known + (min(abs(off), 3 * known) - known) // SCALE_FOLLOWS if known else abs(off)
            scale[place] = max(SCALE_MIN, moved)
            level[place] += _within(off, 3 * scale[place]) // LEVEL_FOLLOWS
            if own is not None:
                day[place][at] = own + _within(log - own, 6 * scale[place]) // DAY_FOLLOWS
        return msgspec.structs.replace(now, day=day, level=level, scale=scale)


def _drawn() -> tuple[tuple[tuple[int, int], ...], ...]:
    """Places and weights of each projection, of length 1000: the numbers alone, then mixes of some of them."""
    found: list[tuple[tuple[int, int], ...]] = [((place, _MILLI),) for place in range(WIDTH)]
    for number in range(MIXES):
        dice = [int.from_bytes(sha256(f"{number}|{place}".encode()).digest()[:8], "big") for place in range(WIDTH)]
        chosen = sorted(range(WIDTH), key=lambda place: dice[place])[:MIXED]
        # From a quarter to one, either way.
        weights = [(250 + dice[place] // 2 % 751) * (1 if dice[place] % 2 else -1) for place in chosen]
        length = math.isqrt(sum(weight * weight for weight in weights))
        found.append(tuple((place, weight * _MILLI // length) for place, weight in zip(chosen, weights, strict=True)))
    return tuple(found)


PROJECTIONS = _drawn()


def _projected(deviations: list[int]) -> list[int]:
    return [sum(deviations[place] * weight for place, weight in each) // _MILLI for each in PROJECTIONS]


def _counted(counts: list[list[int]], deviations: list[int]) -> list[list[int]]:
    found = [list(each) for each in counts] or [[0] * (2 * _BINS) for _ in PROJECTIONS]
    for own, z in zip(found, _projected(deviations), strict=True):
        own[bisect_right(SIDE, abs(z)) + (_BINS if z >= 0 else 0)] += 1
    return found


def _aged(counts: list[list[int]], end: int, hour: int) -> list[list[int]]:
    """What is left of the counts: each day has a bin that is halved then."""
    first, last = (end - 1) // DAY, hour // DAY
    bins = {day % FORGET_DAYS for day in range(max(first, last - FORGET_DAYS) + 1, last + 1)}
    if not counts or bins.isdisjoint(range(2 * _BINS)):
        return counts
    return [[each // 2 if place in bins else each for place, each in enumerate(own)] for own in counts]


def _within(number: int, most: int) -> int:
    return max(-most, min(most, number))


def _logs(x: Observation) -> list[int | None] | None:
    """The logarithms of all numbers, ``WIDTH`` of them; None for a hole."""
    first = _log(x.value)
    if first is None:
        return None
    rest = x.rest[: WIDTH - 1] if isinstance(x, HourVector) else ()
    return [first, *(_log(value) for value in rest), *[None] * (WIDTH - 1 - len(rest))]


def _log(value: object) -> int | None:
    if whole(value) is None or value < 0:  # type: ignore[operator]
        return None
    return round(math.log(min(float(value), _LARGEST) + ZERO) * _MILLI)  # type: ignore[arg-type]


def _millionths(log: int | None) -> int:
    return 0 if log is None else max(0, min(SIZE_MAX, round((math.exp(log / _MILLI) - ZERO) * 10**6)))
