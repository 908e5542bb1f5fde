"""The spend detector as a judge of one series: whatever its step, its unit and its sign.

Rows shorter than an hour are added up to the running hour; longer ones are hours of their own. A series that is not
known to be money has no floor in dollars: it gets one from how it scatters. Only what is above ever pages.
"""

import math

from detectors.base import SIZE_MAX, Observation
from detectors.judging import UNKNOWN, Verdict
from detectors.spend_spike import Outlook, SpendScore, SpendSpike, score
from schemas.instants import HOUR

RATIO_PERCENT = 150
#: An open incident pages again at so many percent of what is expected; at three times it is only brought up to date.
STEP_PERCENT = 1_000
#: An incident is over after so many hours that are neither strange nor one in so many parts of its peak.
QUIET_HOURS, STAYS_PARTS = 3, 3
#: After so many hours what is still high is the new level.
ACCEPT_AFTER = 24
#: Nanodollars in a dollar; of another unit, what makes its first amount a hundred dollars.
NANOS, HUNDRED = 1_000_000_000, 100_000_000_000
#: Without a floor, so much of the deviation of an hour is one.
FLOOR_SPREADS = 1.0
#: A silence of more hours than the detector remembers.
FORGOTTEN = 600


class SpendJudge:
    """Pages where an hour breaks the fixed rule, the floor and the learned bar; one page an incident."""

    def __init__(self, step_us: int, floor: float | None) -> None:
        self._floor = floor
        #: An hour of the detector in microseconds of the series.
        self._width = max(HOUR, step_us)
        self._unit = float(NANOS) if floor is not None else 0.0
        self._spend = SpendSpike()
        #: What is known about the running hour.
        self._outlook: Outlook | None = None
        self._recent: tuple[int | None, ...] = ()
        self._hour: int | None = None
        self._sum, self._is_known = 0.0, False
        self._opened: int | None = None
        self._last_hot, self._is_stepped = 0, False
        #: The largest excess of the open incident; 0 where none is.
        self._peak = 0

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge the running hour with this row in it."""
        hour = timestamp_us // self._width * HOUR
        if hour != self._hour:
            self._turn(hour)
        if value is None or isinstance(value, bool) or not math.isfinite(value):
            return UNKNOWN
        if not self._unit and value:
            # Of the smallest numbers there are, the unit itself would be infinite.
            self._unit = HUNDRED / max(abs(value), 1e-200)
        self._sum += value
        self._is_known = True
        outlook = self._outlook
        if outlook is None:
            return UNKNOWN
        found = score(outlook, self._nanos(), self._recent, (), round(self._least(outlook)))
        return Verdict(self._expected(outlook), found.strangeness / 1_000, self._is_paged(hour, found, outlook), False)

    def _expected(self, outlook: Outlook) -> float | None:
        expected = outlook.usual[0] / self._unit if self._unit else 0.0
        return expected if math.isfinite(expected) else None

    def _nanos(self) -> int:
        # A sum of finite numbers may be infinite.
        nanos = self._sum * self._unit
        return round(max(-SIZE_MAX, min(SIZE_MAX, nanos))) if not math.isnan(nanos) else 0

    def _least(self, outlook: Outlook) -> float:
        return self._floor * self._unit if self._floor is not None else FLOOR_SPREADS * outlook.spread

    def _is_paged(self, hour: int, found: SpendScore, outlook: Outlook) -> bool:
        least, expected = self._least(outlook), found.expected or 0
        is_hot = found.excess > least and found.observed * 100 > RATIO_PERCENT * expected
        is_strange = found.strangeness >= 1_000
        if not is_hot or not (is_strange or found.excess * STAYS_PARTS >= self._peak > 0):
            return False
        self._peak = max(self._peak, found.excess)
        self._last_hot = hour
        is_tenfold = found.observed * 100 >= STEP_PERCENT * max(expected, least, 1)
        is_new = self._opened is None or (is_tenfold and not self._is_stepped)
        self._opened = hour if self._opened is None else self._opened
        self._is_stepped = self._is_stepped or is_tenfold
        return is_new

    def _turn(self, hour: int) -> None:
        """Learn the hour that is over, end what is over, and look at the one that begins."""
        if self._hour is not None:
            is_odd = self._opened is not None and self._last_hot == self._hour
            self._learn(self._hour, self._nanos() if self._is_known else None, is_odd)
            # A missing row is no zero.
            for missing in range(max(self._hour + HOUR, hour - FORGOTTEN * HOUR), hour, HOUR):
                self._learn(missing, None, False)
        if self._opened is not None:
            is_new_level = self._last_hot - self._opened >= ACCEPT_AFTER * HOUR
            if is_new_level:
                self._spend.accept(self._opened, hour)
            if is_new_level or hour - self._last_hot > QUIET_HOURS * HOUR:
                self._opened, self._is_stepped, self._peak = None, False, 0
        self._hour, self._sum, self._is_known = hour, 0.0, False
        self._outlook, self._recent = self._spend.outlook(hour), self._spend.ring.recent(hour)

    def _learn(self, hour: int, nanos: int | None, is_odd: bool) -> None:
        self._spend.learn(Observation(hour, hour + HOUR, nanos), is_odd)
