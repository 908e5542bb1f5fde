"""The spend detector as a judge of one series: whatever its step, its unit and its sign.

Rows shorter than an hour are added up to the running hour; longer ones are hours of their own. A series that is not
known to be money has no floor in dollars: it gets one from how it scatters. Below zero nothing is spend: such a series
is lifted until it is not.
"""

import math

from detectors.base import SIZE_MAX, Observation
from detectors.judging import UNKNOWN, Verdict
from detectors.spend_spike import Outlook, SpendScore, SpendSpike, score
from schemas.instants import HOUR

#: How the detector's hours are made of a series' own time.
RATIO_PERCENT, STEPS = 150, (300, 1_000)
#: An incident is over after so many hours below the fixed rule.
QUIET_HOURS = 3
#: After so many hours what is still high is the new level.
ACCEPT_AFTER = 24
#: Nanodollars in a dollar; of another unit, what makes its first amount a hundred dollars.
NANOS, HUNDRED = 1_000_000_000, 100_000_000_000
#: Without a floor, so much of the deviation of an hour is one.
FLOOR_SPREADS = 1.0


class SpendJudge:
    """Pages where an hour breaks the fixed rule, the floor and the learned bar; one page an incident and step."""

    def __init__(self, step_us: int, floor: float | None) -> None:
        self._spend = SpendSpike()
        self._floor = floor
        #: An hour of the detector in microseconds of the series.
        self._width = max(HOUR, step_us)
        self._unit = float(NANOS) if floor is not None else 0.0
        self._hour: int | None = None
        self._sum, self._is_known = 0.0, False
        self._outlook: Outlook | None = None
        self._recent: tuple[int | None, ...] = ()
        self._opened: int | None = None
        self._last_hot, self._step = 0, 0

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge the running hour with this row in it."""
        hour = timestamp_us // self._width * HOUR
        if hour != self._hour:
            self._turn(hour)
        if value is None or isinstance(value, bool) or not math.isfinite(value):
            return UNKNOWN
        if not self._unit and value:
            self._unit = HUNDRED / abs(value)
        self._sum += value
        self._is_known = True
        outlook = self._outlook
        if outlook is None:
            return UNKNOWN
        found = self._score(outlook)
        page = self._is_paged(hour, found)
        return Verdict(outlook.usual[0] / self._unit if self._unit else 0.0, found.strangeness / 1_000, page, False)

    def _nanos(self) -> int:
        return round(max(-SIZE_MAX, min(SIZE_MAX, self._sum * self._unit)))

    def _score(self, outlook: Outlook) -> SpendScore:
        return score(outlook, self._nanos(), self._recent, (), round(self._least(outlook)))

    def _least(self, outlook: Outlook) -> float:
        return self._floor * self._unit if self._floor is not None else FLOOR_SPREADS * outlook.spread

    def _is_paged(self, hour: int, found: SpendScore) -> bool:
        assert self._outlook is not None and found.expected is not None
        is_hot = found.excess > self._least(self._outlook) and found.observed * 100 > RATIO_PERCENT * found.expected
        if not is_hot or (self._opened is None and found.strangeness < 1_000):
            return False
        self._last_hot = hour
        usual = max(found.expected, self._least(self._outlook), 1)
        step = sum(found.observed * 100 >= step * usual for step in STEPS)
        is_new = self._opened is None or step > self._step
        self._opened, self._step = (hour if self._opened is None else self._opened), max(step, self._step)
        return is_new

    def _turn(self, hour: int) -> None:
        """Learn the hour that is over, end what is over, and look at the one that begins."""
        if self._hour is not None:
            found = self._score(self._outlook) if self._outlook is not None and self._is_known else None
            is_odd = self._opened is not None and self._last_hot == self._hour and found is not None
            nanos = self._nanos() if self._is_known else None
            self._spend.learn(Observation(self._hour, self._hour + HOUR, nanos), is_odd)
            for missing in range(max(self._hour + HOUR, hour - 600 * HOUR), hour, HOUR):
                # A row that is missing is no zero.
                self._spend.learn(Observation(missing, missing + HOUR, None), False)
        if self._opened is not None:
            if self._last_hot - self._opened >= ACCEPT_AFTER * HOUR:
                self._spend.accept(self._opened, hour)
                self._opened, self._step = None, 0
            elif hour - self._last_hot > QUIET_HOURS * HOUR:
                self._opened, self._step = None, 0
        self._hour, self._sum, self._is_known = hour, 0.0, False
        self._outlook, self._recent = self._spend.outlook(hour), self._spend.ring.recent(hour)
