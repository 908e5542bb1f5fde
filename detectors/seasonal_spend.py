"""Expected spend of the hours to come: the usual course of a day or a week, by River's means, at the present level.

Chosen by a backtest on recorded traces (``python -m loadtest.forecast``): River's own ``HoltWinters`` and ``SNARIMAX``
learn from each hour once and project a trend for weeks, and lost to means of the same hour; what won is the mean of
each hour of the day over seven days, times how the last day compares with it, a comparison that fades over two days.
The week's course takes the day's place once three weeks are known, where it would have told the last week better.

Hours are UTC hours. An hour that nobody observed between two known ones spent nothing; None is a hole.
"""

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, exp
from typing import ClassVar, NamedTuple, Self

import msgspec
from river.stats import Mean

from detectors.base import SIZE_MAX, Observation, Score, check_version, compare, whole
from schemas.instants import HOUR, hour_of

#: Hours kept: four weeks.
HOURS_KEPT = 4 * 168
#: Known hours without which nothing is expected.
HOURS_MIN = 72
_DAY, _WEEK = 24, 168
_WEEKS_MIN = 3 * _WEEK
#: What a hole is kept as; no amount is so small.
_HOLE = -(2**63)
#: How long what the last day had more, or less, than usual is expected to last.
FADE = exp(-1 / 48)
#: The last day counts as if a quarter of a usual day lay beside it, and never as more than this many times the usual.
_CALM, _LIFT_MAX = 0.25, 3.0
#: A week's course must have told the last week this much better than a day's.
_BETTER = 0.95


class SeasonalSpendState(msgspec.Struct, frozen=True):
    """Consecutive hours that end before ``end``: nanodollars, eight bytes each, little-endian."""

    v: int = 1
    end: int = 0
    nanos: bytes = b""


class Course(NamedTuple):
    """What is expected of every hour from ``start`` (a UTC hour) on: the usual course, lifted at first."""

    start: int
    #: Nanodollars of the first so many hours, as usual; one more than the course is long. They never fall.
    plain: tuple[float, ...]
    #: The same of what fades: each hour a little less than the one before.
    fading: tuple[float, ...]
    #: What the first hour is expected to have, in parts of the usual; it fades to 1.
    lift: float

    def until(self, end: int) -> float:
        """Nanodollars expected between ``start`` and ``end``."""
        count, rest = divmod(max(0, end - self.start), HOUR)
        found = self._sum(count)
        return found + self._hour(count) * (rest / HOUR) if rest else found

    def between(self, start: int, end: int) -> float:
        """Nanodollars expected between two instants from ``self.start`` on."""
        return max(0.0, self.until(end) - self.until(start))

    def reaches(self, nanos: int, start: int, end: int) -> int | None:
        """The first instant at which so much is expected to be spent since ``start``; None: not until ``end``."""
        wanted = self.until(start) + nanos
        if self.until(end) < wanted:
            return None
        low, high = (start - self.start) // HOUR, -(-(end - self.start) // HOUR)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._sum(middle) >= wanted else (middle, high)
        within = self._hour(low)
        part = (wanted - self._sum(low)) / within if within > 0 else 0.0
        return max(start, min(end, self.start + low * HOUR + ceil(part * HOUR)))

    def _hour(self, n: int) -> float:
        place = n % (len(self.plain) - 1)
        return (self.plain[place + 1] - self.plain[place]) * (1 + (self.lift - 1) * FADE**n)

    def _sum(self, count: int) -> float:
        """The first ``count`` hours: the usual and what fades, each a sum over whole courses and a piece of one."""
        length = len(self.plain) - 1
        courses, piece = divmod(count, length)
        usual = courses * self.plain[-1] + self.plain[piece]
        if self.lift == 1:
            return usual
        shrink = FADE**length
        faded: float = self.fading[-1] * (1 - shrink**courses) / (1 - shrink) + self.fading[piece] * shrink**courses
        return usual + (self.lift - 1) * faded


def course_of(start: int, usual: Sequence[float], lift: float) -> Course:
    """A course from ``start`` on. ``usual`` is of each hour of a day or week, by hours since 1970 modulo its length."""
    first = start // HOUR % len(usual)
    turned = [*usual[first:], *usual[:first]]
    fading = [each * FADE**place for place, each in enumerate(turned)]
    return Course(start, tuple(accumulate(turned, initial=0.0)), tuple(accumulate(fading, initial=0.0)), lift)


class SeasonalSpend:
    """Learns hourly totals and expects the hours to come.

    ``Observation.start`` names the hour and ``value`` is nanodollars; a later one of the same hour corrects it.

    >>> spend = SeasonalSpend()
    >>> for n in range(72):
    ...     spend.learn_one(Observation(n * HOUR, n * HOUR + HOUR, 2_000_000_000))
    >>> course = spend.course(72 * HOUR)
    >>> round(course.between(72 * HOUR, 96 * HOUR))
    48000000000
    """

    name: ClassVar[str] = "seasonal_spend"
    state_bytes_max: ClassVar[int] = 8192

    def __init__(self) -> None:
        self._end = 0
        self._nanos: array[int] = array("q")

    @property
    def start(self) -> int:
        """The first hour that is known; 0 where none is."""
        return self._end - len(self._nanos) * HOUR

    def ready(self, x: Observation) -> bool:
        """Whether three days before this hour are known."""
        return sum(each != _HOLE for each in self._before(hour_of(x.start))) >= HOURS_MIN

    def score_one(self, x: Observation) -> Score | None:
        """Compare the hour's total so far with what is expected of it; None during the cold start."""
        observed = whole(x.value)
        if observed is None:
            return None
        hour = hour_of(x.start)
        course = self.course(hour)
        if course is None:
            return None
        return compare(observed, min(SIZE_MAX, round(course.between(hour, hour + HOUR))))

    def learn_one(self, x: Observation) -> None:
        """Set the hour's total; hours before memory are ignored."""
        nanos = whole(x.value)
        self._set(hour_of(x.start), _HOLE if nanos is None else nanos)

    def add(self, instant: int, nanos: int) -> None:
        """Add to the hour of an instant; an hour before memory is ignored."""
        hour = hour_of(instant)
        place = len(self._nanos) - (self._end - hour) // HOUR
        held = self._nanos[place] if 0 <= place < len(self._nanos) else 0
        self._set(hour, max(-SIZE_MAX, min(SIZE_MAX, (0 if held == _HOLE else held) + nanos)))

    def spent(self, start: int, end: int) -> tuple[int, int]:
        """What was spent between two instants, as far as it is known: nanodollars, and how many microseconds are.

        An hour that is cut counts in proportion; the running one is known up to ``end``.
        """
        begin = self.start
        first, last = (max(start, begin) - begin) // HOUR, min(len(self._nanos), -(-(end - begin) // HOUR))
        if first >= last:
            return 0, 0
        within = self._nanos[first:last]
        holes = within.count(_HOLE)
        nanos, known = sum(within) - holes * _HOLE, (len(within) - holes) * HOUR
        for place in {first, last - 1}:
            each, hour = self._nanos[place], begin + place * HOUR
            if each == _HOLE:
                continue
            covered = min(hour + HOUR, end) - max(hour, start)
            # What the running hour has, it has spent by ``end``.
            length = min(hour + HOUR, end) - hour if place == len(self._nanos) - 1 else HOUR
            nanos += each * covered // length - each
            known += covered - HOUR
        return nanos, known

    def course(self, now: int) -> Course | None:
        """What is expected from the hour of ``now`` on, by the hours before it; None during the cold start."""
        hour = hour_of(now)
        before = self._before(hour)
        if sum(each != _HOLE for each in before) < HOURS_MIN:
            return None
        usual = _usual(before, hour, _DAY)
        if len(before) >= _WEEKS_MIN:
            held_out, test_from = before[-_WEEK:], hour - _WEEK * HOUR
            train = before[:-_WEEK]
            by_week = _missed(_usual(train, test_from, _WEEK), held_out, test_from)
            if by_week < _BETTER * _missed(_usual(train, test_from, _DAY), held_out, test_from):
                usual = _usual(before, hour, _WEEK)
        return course_of(hour, usual, _lift(before, hour, len(usual)))

    def state(self) -> SeasonalSpendState:
        """All that was learned, at most 8 KiB as JSON."""
        return SeasonalSpendState(end=self._end, nanos=_little_endian(self._nanos).tobytes())

    @classmethod
    def from_state(cls, state: SeasonalSpendState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls()
        detector._end = state.end
        detector._nanos = _little_endian(array("q", state.nanos))
        return detector

    def _before(self, hour: int) -> "array[int]":
        """The known hours up to ``hour``, with zeros between the last of them and it."""
        cut = (self._end - hour) // HOUR
        if cut >= 0:
            return self._nanos[: max(0, len(self._nanos) - cut)]
        quiet = min(-cut, HOURS_KEPT) if self._nanos else 0
        return (self._nanos + array("q", bytes(8 * quiet)))[-HOURS_KEPT:]

    def _set(self, hour: int, nanos: int) -> None:
        if not self._nanos:
            self._nanos, self._end = array("q", [nanos]), hour + HOUR
            return
        place = len(self._nanos) - (self._end - hour) // HOUR
        if place >= len(self._nanos):
            quiet = min(place - len(self._nanos), HOURS_KEPT)
            self._nanos += array("q", bytes(8 * quiet))
            self._nanos.append(nanos)
            del self._nanos[:-HOURS_KEPT]
            self._end = hour + HOUR
        elif place >= 0:
            self._nanos[place] = nanos
        elif len(self._nanos) - place <= HOURS_KEPT:
            self._nanos = array("q", [nanos, *[0] * (-place - 1)]) + self._nanos


def _usual(hours: "array[int]", end: int, length: int) -> tuple[float, ...]:
    """The mean of each hour of a day over seven days; or of a week over all, at the level of the last seven days."""
    recent = hours[-_WEEK:] if length == _DAY else hours
    means = [Mean() for _ in range(length)]
    first = end // HOUR - len(recent)
    for place, each in enumerate(recent, first):
        if each != _HOLE:
            means[place % length].update(float(each))
    overall = Mean()
    for mean in means:
        if mean.n:
            overall.update(mean.get())
    level = max(0.0, overall.get())
    usual = tuple(max(0.0, mean.get()) if mean.n else level for mean in means)
    if length == _DAY:
        return usual
    known = [float(each) for each in hours[-_WEEK:] if each != _HOLE]
    total = sum(usual)
    scale = max(0.0, sum(known)) / len(known) * _WEEK / total if known and total > 0 else 1.0
    return tuple(each * scale for each in usual)


def _missed(usual: tuple[float, ...], hours: "array[int]", start: int) -> float:
    """How far a course was from the hours that came, in all."""
    first = start // HOUR
    return sum(abs(each - usual[place % len(usual)]) for place, each in enumerate(hours, first) if each != _HOLE)


def _lift(before: "array[int]", hour: int, length: int) -> float:
    """The last day in parts of what was usual before it, drawn towards 1."""
    if len(before) < HOURS_MIN + _DAY:
        return 1.0
    usual = _usual(before[:-_DAY], hour - _DAY * HOUR, length)
    first = hour // HOUR - _DAY
    last_day = [(place, each) for place, each in enumerate(before[-_DAY:], first) if each != _HOLE]
    expected = sum(usual[place % length] for place, _ in last_day)
    if expected <= 0:
        return 1.0
    actual = float(sum(each for _, each in last_day))
    ratio = (max(0.0, actual) + _CALM * expected) / ((1 + _CALM) * expected)
    return max(1 / _LIFT_MAX, min(_LIFT_MAX, ratio))


def _little_endian(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "little":
        return numbers
    swapped = numbers[:]
    swapped.byteswap()
    return swapped
