"""The spend detector as a judge of one series: whatever its step, its unit and its sign.

Rows shorter than an hour are added up to the running hour; longer ones are hours of their own. A series that is not
known to be money has no floor in dollars: it gets one from how it scatters. What such a series measures is not known
either, so its score tells of lows as well, at half their strangeness and once an hour is whole; and what follows
somebody's alarm within half a day counts half, unless it is stranger. Only what is above ever pages.
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
#: Without a floor: what lows count, and what follows an alarm within so many hours.
LOW_SHARE, AFTER_SHARE, AFTER_HOURS = 0.5, 0.5, 12
#: A silence of more hours than the detector remembers.
FORGOTTEN = 600


class SpendJudge:
    """Pages where an hour breaks the fixed rule, the floor and the learned bar; one page an incident."""

    def __init__(self, step_us: int, floor: float | None) -> None:
        self._floor, self._step_us = floor, step_us
        #: An hour of the detector in microseconds of the series.
        self._width = max(HOUR, step_us)
        self._unit = float(NANOS) if floor is not None else 0.0
        self._sides = [_Side(1)] if floor is not None else [_Side(1), _Side(-1)]
        self._hour: int | None = None
        self._sum, self._is_known = 0.0, False
        self._opened: int | None = None
        self._last_hot, self._is_stepped = 0, False
        #: The largest excess of the open incident; 0 where none is.
        self._peak = 0
        #: The strangest of late, and its hour.
        self._alarm, self._alarm_hour = 0.0, 0

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
        above = self._score(self._sides[0])
        outlook = self._sides[0].outlook
        if above is None or outlook is None:
            return UNKNOWN
        strange = above.strangeness / 1_000
        if len(self._sides) > 1:
            is_whole = (timestamp_us % self._width) + self._step_us >= self._width
            below = self._score(self._sides[1]) if is_whole else None
            strange = max(strange, LOW_SHARE * below.strangeness / 1_000 if below is not None else 0.0)
            strange = self._calmed(hour, strange)
        return Verdict(self._expected(outlook), strange, self._is_paged(hour, above, outlook), False)

    def _expected(self, outlook: Outlook) -> float | None:
        expected = outlook.usual[0] / self._unit if self._unit else 0.0
        return expected if math.isfinite(expected) else None

    def _nanos(self) -> int:
        # A sum of finite numbers may be infinite.
        nanos = self._sum * self._unit
        return round(max(-SIZE_MAX, min(SIZE_MAX, nanos))) if not math.isnan(nanos) else 0

    def _score(self, side: "_Side") -> SpendScore | None:
        if side.outlook is None:
            return None
        least = round(self._least(side.outlook))
        return score(side.outlook, side.sign * self._nanos(), side.recent, (), least)

    def _least(self, outlook: Outlook) -> float:
        return self._floor * self._unit if self._floor is not None else FLOOR_SPREADS * outlook.spread

    def _calmed(self, hour: int, strange: float) -> float:
        """A detector's alarm is told once: what follows counts half, unless it is stranger."""
        if hour - self._alarm_hour > AFTER_HOURS * HOUR:
            self._alarm = 0.0
        if strange > self._alarm:
            self._alarm, self._alarm_hour = strange, hour
            return strange
        return AFTER_SHARE * strange

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
            nanos = self._nanos() if self._is_known else None
            for side in self._sides:
                side.learn(self._hour, nanos, is_odd and side.sign > 0, until=hour)
        if self._opened is not None:
            is_new_level = self._last_hot - self._opened >= ACCEPT_AFTER * HOUR
            if is_new_level:
                self._sides[0].spend.accept(self._opened, hour)
            if is_new_level or hour - self._last_hot > QUIET_HOURS * HOUR:
                self._opened, self._is_stepped, self._peak = None, False, 0
        self._hour, self._sum, self._is_known = hour, 0.0, False
        for side in self._sides:
            side.look_at(hour)


class _Side:
    """The series as it is, or upside down, and what is known about the running hour."""

    def __init__(self, sign: int) -> None:
        self.sign, self.spend = sign, SpendSpike()
        self.outlook: Outlook | None = None
        self.recent: tuple[int | None, ...] = ()

    def learn(self, hour: int, nanos: int | None, is_odd: bool, until: int) -> None:
        """Learn an hour, and that those behind it until the next row are missing: a missing row is no zero."""
        value = None if nanos is None else self.sign * nanos
        self.spend.learn(Observation(hour, hour + HOUR, value), is_odd)
        for missing in range(max(hour + HOUR, until - FORGOTTEN * HOUR), until, HOUR):
            self.spend.learn(Observation(missing, missing + HOUR, None), False)

    def look_at(self, hour: int) -> None:
        """Make the outlook of the hour that begins."""
        self.outlook, self.recent = self.spend.outlook(hour), self.spend.ring.recent(hour)
