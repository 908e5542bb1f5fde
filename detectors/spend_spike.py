"""How strange an hour's spend is: three fixed rules, and a bar learned from the series' own excesses.

What is expected of an hour is the median of the same hour of the seven days before, and half of it that of the same
hour of the week once three weeks are known. How far spend is above it over one, three and twelve hours is compared
with the largest such excess that the series has shown, and with how the series scatters. Hours that were found
anomalous stay out of the expectation, and count for the bar: what a series does all the time is no news, found or not.
Hours that people confirmed as an incident, or planned, count for nothing.

Everything here follows from the hours that are kept; an ``Outlook`` is what they say about one hour, made once.
"""

from collections.abc import Sequence
from typing import ClassVar, Self

import msgspec
import numpy as np

from detectors.base import Observation, Score, check_version, whole
from detectors.hour_ring import HOURS_KEPT, HourRing
from detectors.spend_bars import HOURS_MIN, LEVELS, SCALES, WEEK, Floats, Record, excess_of, expectations, record
from schemas.instants import DAY, HOUR

_DAY = 24
#: What each scale's excess counts: a half day above the usual is rarely news by itself.
SHARES = (1.0, 1.0, 0.5)
#: How much each of these counts: the excess against the largest known, the spend itself against the largest known,
#: and how far the hour is from the mean of its week, in so many deviations.
EXCESS_WEIGHT, LEVEL_WEIGHT, SCATTER_WEIGHT, SCATTER = 0.4, 0.4, 0.1, 5.0
#: At this strangeness an hour is anomalous (in the bar's own measure, 1 is about the largest of two weeks).
BAR = 0.97
#: What was answered ``no`` is quiet up to so much of it, what was answered ``yes`` is found from so much of it on; a
#: plan is quiet up to so much of what was declared.
NO_MARGIN, YES_MARGIN, PLAN_MARGIN = 1.25, 0.9, 1.5
ANSWERS_MAX = 8
STRANGENESS_MAX = 1_000.0
#: However quiet a series, nothing below this share of its mean hour is strange.
LEAST_SHARE = 0.05
#: Own hours that a young scope's level is.
COLD_MIN = 6


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What people said of the hours ``[start, end)``."""

    #: ``no``: this is normal here. ``yes``: this was an incident. ``planned``: ``nanos`` more than usual were declared
    #: for all of these hours. ``within``: they were, for a part of this scope or for what it is a part of.
    kind: str
    start: int
    end: int
    #: Of ``planned``, what was declared.
    nanos: int = 0
    #: Of ``no`` and ``yes``, the largest excess of each scale.
    peaks: tuple[int, ...] = ()


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """What was declared for the hours from ``start`` on, and how much of it was used up to a day before the hour."""

    start: int
    nanos: int
    #: Excess until a day ago, less what is usual of the hours since and of this one.
    used_before: int
    #: Whether what is beyond it is strange by itself.
    raises: bool = True

    def hours(self, hour: int) -> int:
        """How many of the 24 hours before are of the plan."""
        return min(_DAY, (hour - self.start) // HOUR)


class Outlook(msgspec.Struct, frozen=True, array_like=True):
    """What is known about an hour before it comes."""

    hour: int
    #: What is expected of it, and of the three and twelve hours that end with it, nanodollars.
    usual: tuple[int, ...]
    #: The largest excess over as many hours that a fortnight should bring, and the largest spend of one hour and of
    #: three, nanodollars; and the power that says what it means to be above each of these.
    bars: tuple[float, ...]
    levels: tuple[float, ...]
    powers: tuple[float, ...]
    #: Mean and standard deviation of an hour, nanodollars.
    mean: float
    spread: float
    #: The bars are those of siblings: nothing here may wake anybody.
    is_cold: bool = False
    plan: Plan | None = None


class Siblings(msgspec.Struct, frozen=True):
    """What scopes of the same kind are like, for one that is too young to have a bar of its own."""

    #: What an hour of one of them usually costs, nanodollars.
    mean: float
    #: Their bars and their scatter, in mean hours.
    bars: tuple[float, ...]
    spread: float


class SpendScore(Score, frozen=True):
    """``observed``, ``expected`` and ``excess`` are nanodollars of the hour; the fixed rules compare three numbers."""

    #: The hour before, and the same hour yesterday, nanodollars; None where they are not known.
    previous: int | None
    yesterday: int | None
    #: How strange it is, in thousandths of the bar: 1000 is at the bar.
    strangeness: int
    #: The excess of the twelve hours that end with this one, nanodollars.
    half_day_excess: int = 0
    is_cold: bool = False
    is_planned: bool = False

    def rules(self, ratio_percent: int) -> tuple[str, ...]:
        """The fixed rules that it breaks, exactly: above ``ratio_percent`` of each known number."""
        compared = (("previous_hour", self.previous), ("yesterday", self.yesterday), ("expected", self.expected))
        return tuple(
            name
            for name, nanos in compared
            if nanos is not None and self.observed > 0 and self.observed * 100 > ratio_percent * max(0, nanos)
        )


class SpendSpikeState(msgspec.Struct, frozen=True):
    """Consecutive hours that end before ``end``, as ``HourRing`` packs them, and what people said."""

    v: int = 1
    end: int = 0
    older: bytes = b""
    recent: bytes = b""
    #: A bit for each hour that was anomalous.
    left_out: bytes = b""
    answers: tuple[Answer, ...] = ()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was spent in any hour that is kept."""
        return not self.older.strip(b"\0") and not self.recent.strip(b"\0")


class SpendSpike:
    """Learns one total per closed hour, and says of any hour how strange its total so far is.

    ``Observation.start`` names the hour and ``value`` is nanodollars; a later one of the same hour corrects it. An hour
    without an observation between two known ones spent nothing; None is a hole.

    >>> spend = SpendSpike()
    >>> for n in range(96):
    ...     spend.learn_one(Observation(n * HOUR, n * HOUR + HOUR, 2_000_000_000))
    >>> score = spend.score_one(Observation(96 * HOUR, 97 * HOUR, 5_000_000_000))
    >>> score.expected, score.rules(150), score.strangeness > 1_000
    (2000000000, ('previous_hour', 'yesterday', 'expected'), True)
    """

    name: ClassVar[str] = "spend_spike"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self) -> None:
        self.ring = HourRing()
        self.answers: tuple[Answer, ...] = ()
        self._memo: Outlook | None = None

    def ready(self, x: Observation) -> bool:
        """Whether three days before this hour are known."""
        return self.ring.known_before(x.start - x.start % HOUR) >= HOURS_MIN

    def score_one(self, x: Observation) -> SpendScore | None:
        """Compare the hour's total so far; None during the cold start, or where there is no number."""
        observed, hour = whole(x.value), x.start - x.start % HOUR
        if observed is None:
            return None
        outlook = self._memo
        if outlook is None or outlook.hour != hour:
            outlook = self._memo = self.outlook(hour)
        return None if outlook is None else score(outlook, observed, self.ring.recent(hour), self.answers)

    def learn_one(self, x: Observation) -> None:
        """Set the hour's total, as anomalous where it is that."""
        found = self.score_one(x)
        self.learn(x, found is not None and found.strangeness >= 1_000)

    def learn(self, x: Observation, is_anomalous: bool) -> None:
        """Set the hour's total, with the caller's verdict."""
        self.ring.set(x.start - x.start % HOUR, whole(x.value), is_anomalous)
        self._memo = None

    def outlook(self, hour: int, siblings: Siblings | None = None) -> Outlook | None:
        """What is known about an hour; None while too little is, and no siblings help out."""
        if self.ring.known_before(hour) < HOURS_MIN:
            return None if siblings is None else self._cold(hour, siblings)
        values, left_out = self.ring.before(hour)
        expected = expectations(values, left_out)
        known = values[-WEEK:][np.isfinite(values[-WEEK:])]
        mean, spread = (float(known.mean()), float(known.std())) if known.size else (0.0, 0.0)
        # A hole is no excess, and no lack; of the first days nothing was expected, and they are taken as usual.
        tail = np.where(np.isfinite(np.append(values, 0.0)), np.where(np.isfinite(expected), expected, mean), 0.0)
        usual = tuple(round(float(tail[-scale:].sum())) for scale in SCALES)
        bars, levels = self._records(hour, values, expected[:-1], max(LEAST_SHARE * mean, 1.0))
        return Outlook(
            hour,
            usual,
            tuple(each.largest for each in bars),
            tuple(each.largest for each in levels),
            tuple(each.power for each in (*bars, *levels)),
            mean,
            spread,
            plan=self._plan(hour, values, expected),
        )

    def accept(self, since: int, until: int) -> None:
        """Take the hours ``[since, until)`` as the new level: what was before is lifted, or lowered, to it."""
        hours = range(max(since, until - DAY), until, HOUR)
        spent = sum(self.ring.at(hour) or 0 for hour in hours)
        usual = sum(found.usual[0] for hour in hours if (found := self.outlook(hour)) is not None)
        self.ring.lift(since, spent / usual if usual > 0 and spent > 0 else 0.0, spent // max(1, len(hours)))
        self.ring.mark(since, until, False)
        self._memo = None

    def answer(self, answer: Answer) -> None:
        """Take in what people said; ``peaks`` are those of hours that are not learned yet. The newest word holds."""
        self._memo = None
        kept = [each for each in self.answers if (each.kind, each.start) != (answer.kind, answer.start)]
        if answer.kind != "planned":
            known = self.peaks(answer.start, answer.end)
            peaks = tuple(map(max, known, answer.peaks)) if answer.peaks else known
            answer = msgspec.structs.replace(answer, peaks=peaks)
            self.ring.mark(answer.start, answer.end, answer.kind == "yes")
            kept = [each for each in kept if not _contradicts(answer, each)]
        self.answers = tuple(sorted([*kept, answer], key=lambda each: (each.end, each.start))[-ANSWERS_MAX:])

    def peaks(self, start: int, end: int) -> tuple[int, ...]:
        """The largest excess of each scale in the hours of ``[start, end)``, nanodollars."""
        found = [0] * len(SCALES)
        first = max(start - start % HOUR, self.ring.end - HOURS_KEPT * HOUR)
        for hour in range(first, min(end, self.ring.end), HOUR):
            outlook, nanos = self.outlook(hour), self.ring.at(hour)
            if outlook is None or nanos is None:
                continue
            sums = excesses(outlook, nanos, self.ring.recent(hour))
            found = [max(old, new) for old, new in zip(found, sums, strict=True)]
        return tuple(found)

    def state(self) -> SpendSpikeState:
        """All that was learned, at most 4 KiB as JSON."""
        older, recent, left_out = self.ring.pack()
        return SpendSpikeState(end=self.ring.end, older=older, recent=recent, left_out=left_out, answers=self.answers)

    @classmethod
    def from_state(cls, state: SpendSpikeState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 1)
        detector = cls()
        detector.ring = HourRing.unpack(state.end, state.older, state.recent, state.left_out)
        detector.answers = state.answers
        return detector

    def _plan(self, hour: int, values: Floats, expected: Floats) -> Plan | None:
        """What was declared for this hour, and how much of it was used up to a day ago."""
        for each in self.answers:
            if each.kind in ("planned", "within") and each.start <= hour < each.end:
                hours = (hour - each.start) // HOUR
                over = np.append(values, 0.0) - expected  # of the last day totals may change: who scores adds them
                over[-_DAY - 1 :] = -expected[-_DAY - 1 :]
                used = np.nan_to_num(over[-hours - 1 :]).sum()
                return Plan(each.start, each.nanos, round(float(used)), each.kind == "planned")
        return None

    def _records(self, hour: int, values: Floats, expected: Floats, least: float) -> tuple[list[Record], list[Record]]:
        """The bars of excess, and of spend itself, without what people confirmed or planned."""
        excess, spent = excess_of(values, expected), np.nan_to_num(values)
        first = hour - len(values) * HOUR
        for each in self.answers:
            if each.kind != "no":
                start, end = (max(0, (edge - first) // HOUR) for edge in (each.start, each.end))
                spent[start:end] -= np.maximum(excess[start:end], 0.0)
                excess[start:end] = np.minimum(excess[start:end], 0.0)
        return [record(excess, scale, least) for scale in SCALES], [record(spent, hours, least) for hours in LEVELS]

    def _cold(self, hour: int, siblings: Siblings) -> Outlook:
        """By siblings: how much an hour may vary, and what it costs where fewer than six own ones are known."""
        values, left_out = self.ring.before(hour)
        own = values[np.isfinite(values) & ~left_out]
        mean = max(0.0, float(np.median(own)) if own.size >= COLD_MIN else siblings.mean)
        # What came before is not held against so young a scope: only this hour's own excess counts.
        sums = [round(mean + float(np.nan_to_num(values[-scale + 1 :]).sum())) for scale in SCALES[1:]]
        bars = tuple(share * mean for share in siblings.bars)
        levels = tuple(bar + hours * mean for bar, hours in zip(bars, LEVELS, strict=False))
        powers = (1.0,) * (len(bars) + len(levels))
        plan = self._plan(hour, values, np.full(len(values) + 1, mean))
        spread = siblings.spread * mean
        return Outlook(hour, (round(mean), *sums), bars, levels, powers, mean, spread, is_cold=True, plan=plan)


def excesses(outlook: Outlook, observed: int, recent: Sequence[int | None]) -> list[int]:
    """How far the one, three and twelve hours that end with this one are above what is usual, nanodollars.

    ``recent`` are the totals of the 24 hours before, the newest last; None is a hole.
    """
    found = [observed - outlook.usual[0]]
    for scale, usual in zip(SCALES[1:], outlook.usual[1:], strict=True):
        found.append(observed - usual + sum(nanos for nanos in recent[-scale + 1 :] if nanos))
    return found


def score(
    outlook: Outlook,
    observed: int,
    recent: Sequence[int | None],
    answers: Sequence[Answer] = (),
    floor: int = 0,
) -> SpendScore:
    """An hour's total so far against its outlook; what was expected is never below zero.

    Excess far below ``floor`` nanodollars is never strange, however quiet the series.
    """
    sums = excesses(outlook, observed, recent)
    strange = _strangeness(outlook, observed, recent, sums, floor) / BAR
    plan = outlook.plan
    if plan is not None:
        within = recent[len(recent) - plan.hours(outlook.hour) :]
        used = plan.used_before + observed + sum(nanos for nanos in within if nanos)
        share = used / max(1.0, PLAN_MARGIN * plan.nanos)
        strange = 0.0 if share <= 1 else max(strange, share * plan.raises)
        answers = () if plan.raises or share <= 1 else answers
    for each in answers:
        if each.kind == "no" and _hides(each, sums):
            strange = 0.0
        elif each.kind == "yes" and sums[0] >= YES_MARGIN * each.peaks[0] > 0:
            strange = max(strange, 1.0)
    expected = max(0, outlook.usual[0])
    return SpendScore(
        observed=observed,
        expected=expected,
        excess=observed - expected,
        ratio_percent=observed * 100 // expected if expected > 0 else None,
        previous=recent[-1],
        yesterday=recent[-_DAY],
        strangeness=int(1_000 * min(strange, STRANGENESS_MAX)),
        half_day_excess=sums[-1],
        is_cold=outlook.is_cold,
        is_planned=plan is not None,
    )


def _strangeness(
    outlook: Outlook, observed: int, recent: Sequence[int | None], sums: Sequence[int], floor: int
) -> float:
    """How strange an hour's total is, in about the bar's measure."""
    least = max(floor / 2, LEAST_SHARE * outlook.mean, 1.0)
    scatter = max(outlook.spread, LEAST_SHARE * outlook.mean, floor / (2 * SCATTER), 1.0)
    deviations = (observed - outlook.mean) / (SCATTER * scatter)
    if deviations <= 0 or sums[0] <= 0:
        return 0.0
    above = [share * excess for share, excess in zip(SHARES, sums, strict=True)]
    spent = [observed + sum(nanos for nanos in recent[len(recent) - hours + 1 :] if nanos) for hours in LEVELS]
    bars = (*outlook.bars, *outlook.levels)
    ratios = [
        (max(0.0, nanos) / max(bar, least)) ** power
        for nanos, bar, power in zip([*above, *spent], bars, outlook.powers, strict=True)
    ]
    excess, level = max(ratios[: len(SCALES)]), max(ratios[len(SCALES) :])
    return float(excess**EXCESS_WEIGHT * level**LEVEL_WEIGHT * deviations**SCATTER_WEIGHT)


def _hides(answer: Answer, sums: Sequence[int]) -> bool:
    """Whether so much was answered ``no`` before."""
    return all(excess <= NO_MARGIN * peak for excess, peak in zip(sums, answer.peaks, strict=True))


def _contradicts(new: Answer, old: Answer) -> bool:
    """Whether one says of the same, or more, that it is normal, and the other that it is not."""
    if {new.kind, old.kind} != {"yes", "no"}:
        return False
    yes, no = (new, old) if new.kind == "yes" else (old, new)
    return _hides(no, yes.peaks)
