"""Any series, judged row by row: how surprising a value is, up or down, in the series' own measure.

Six residuals are watched: against the last rows; the last rows against the level of a longer while; against the same
time of the days before (of bills by the day, the same day of the weeks before), in parts of what that time usually
varies by; the means of that over three and twelve rows, for what goes on; and how often a value repeats, for what is
stuck. Each is turned into a surprise, the negative logarithm of how often the series has shown as much (its own
quantile, and an exponential tail above it), so that one threshold means the same in a series of counts, latencies or
percent. The score is half of the largest and half of their mean: what several see is an anomaly sooner than what one
does. After a surprise only a larger one counts in full for a while: an alarm that lasts is one alarm.
"""

import math

from detectors.judging import UNKNOWN, Verdict
from schemas.instants import DAY, HOUR

#: Rows that the two levels remember, about.
SHORT, LONG = 6, 288
#: What is above the same time of other days is averaged over so many rows.
WINDOWS = (3, 12)
#: Rows before anything is said.
ROWS_MIN = 60
#: The share of rows above the quantile behind which the tail begins, of rows shorter than an hour and of others: there
#: are fewer of them to learn from. And how many rows the tail remembers.
TAIL_SHORT, TAIL_LONG, MEMORY = 0.02, 0.05, 2_000
#: The surprise (a natural logarithm) that is a score of 1, and the score from which a ticket is sent.
BAR, TICKET = 14.0, 1.0
SURPRISE_MAX = 9_000.0
#: For so many rows behind a surprise only a larger one is news; what is none keeps so much of its score.
COOL_ROWS, NO_NEWS = 100, 0.5
#: Rows of a rhythm before it is known what it varies by.
SEASON_MIN = 24
#: Nothing is divided by less.
LEAST = 1e-150
#: Places of a day that the seasonal level has at most, and days that it remembers, about.
PLACES_MAX, SAME_DAYS = 288, 5


class Tail:
    """How often a series has shown a residual of this size: a running quantile with an exponential tail above it."""

    __slots__ = ("_bound", "_excess", "_rows", "_scale", "_share")

    def __init__(self, share: float) -> None:
        self._share = share
        self._rows, self._scale, self._bound, self._excess = 0, 0.0, 0.0, 0.0

    def surprise(self, size: float, least: float) -> float:
        """The negative logarithm of the share of rows at least this large; 0 for the usual ones.

        ``least`` is what rounding alone may come to, in a series that hardly moves.
        """
        if size <= self._bound or self._rows < ROWS_MIN:
            return 0.0
        surprise = -math.log(self._share) + (size - self._bound) / max(self._excess, 0.05 * self._bound, least)
        return min(surprise, SURPRISE_MAX)

    def learn(self, size: float, least: float) -> None:
        """Take in a residual; a wild one counts as the largest that is still believable."""
        self._rows += 1
        weight = max(1 / self._rows, 1 / MEMORY)
        if self._rows > ROWS_MIN:
            size = min(size, self._bound + 8 * max(self._excess, 0.25 * self._bound, least))
        self._scale += weight * (size - self._scale)
        if self._rows == 1:
            self._bound = size
        # A stochastic step towards the quantile, as large as the residuals are.
        pace = 3 * self._scale * max(1 / self._rows, 5 / MEMORY)
        above = 1 - self._share if size > self._bound else -self._share
        self._bound = max(0.0, self._bound + pace * above / (1 - self._share))
        if size > self._bound:
            share = max(1 / self._rows, 1 / (self._share * MEMORY))
            self._excess += share * (size - self._bound - self._excess)


class _Place:
    """What one time of the day, or of the week, usually is, and how far off."""

    __slots__ = ("off", "seen", "usual")

    def __init__(self) -> None:
        self.seen, self.usual, self.off = 0, 0.0, -1.0

    def learn(self, value: float, off_usual: float, weight: float) -> None:
        """Take in a row; ``off_usual`` is how far off rows are in general."""
        if self.seen >= 2:
            self.off = off_usual if self.off < 0 else self.off
            self.off += (abs(value - self.usual) - self.off) / SAME_DAYS
        self.seen += 1
        self.usual += max(1 / self.seen, weight) * (value - self.usual)


class _Season:
    """A rhythm: what its places usually are, how far off, and how well it foretells once the level is put right."""

    __slots__ = ("_forgets", "_level", "_places", "error", "off", "place", "rows")

    def __init__(self, forgets: float) -> None:
        self._places: dict[int, _Place] = {}
        self._forgets, self._level, self.rows = forgets, 0.0, 0
        self.error, self.off = 0.0, 0.0
        self.place = _Place()

    def look_at(self, number: int) -> bool:
        """Turn to the place of the row that comes; whether it is known."""
        self.place = self._places.setdefault(number, _Place())
        return self.place.seen >= 2

    def learn(self, value: float) -> None:
        """Take in the row."""
        if self.place.seen >= 2:
            self.rows += 1
            off = value - self.place.usual
            weight = max(1 / self.rows, 1 / 200)
            self.error += weight * (abs(off - self._level) - self.error)
            self.off += max(1 / self.rows, 1 / 500) * (abs(off) - self.off)
            self._level += (off - self._level) / SHORT
        self.place.learn(value, self.off, self._forgets)


class SeriesJudge:
    """Implements ``detectors.judging.Judge`` for rows of any unit; it never pages: what a surprise is worth is not
    known where the unit is not.
    """

    def __init__(self, step_us: int) -> None:
        self._is_daily = step_us >= DAY
        self._width, self._wide = max(step_us, DAY // PLACES_MAX), max(step_us, HOUR)
        self._rows = 0
        self._short = self._long = 0.0
        self._day, self._week = _Season(1 / SAME_DAYS), _Season(0.3 if step_us >= HOUR else 0.05)
        share = TAIL_SHORT if step_us < HOUR else TAIL_LONG
        self._tails = tuple(Tail(share) for _ in range(4 + len(WINDOWS)))
        self._means = [0.0] * len(WINDOWS)
        self._last, self._repeats = math.nan, 0
        self._peaks: list[tuple[int, float]] = []
        #: The score of the last ticket, and its row.
        self._told, self._told_row = 0.0, 0

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one row, then learn it."""
        if value is None or isinstance(value, bool) or not math.isfinite(value):
            return UNKNOWN
        value = max(-1e100, min(1e100, float(value)))
        if not self._rows:
            self._short = self._long = value
        day, season = self._look_at(timestamp_us)
        expected = self._short if season is None else (self._short + season.place.usual) / 2
        least = max(1e-6 * abs(self._long), LEAST)
        sizes = self._residuals(value, day, season)
        leasts = (least, least, 1e-6, 0.3, *(least for _ in WINDOWS))
        surprises = [
            0.0 if size is None else tail.surprise(size, floor)
            for tail, size, floor in zip(self._tails, sizes, leasts, strict=True)
        ]
        self._learn(value, sizes, leasts)
        if self._rows <= ROWS_MIN:
            return Verdict(expected, 0.0, False, False)
        score = (max(surprises) / 2 + sum(surprises) / len(surprises)) / BAR
        is_news = self._is_news(score)
        return Verdict(expected, score if is_news else NO_NEWS * score, False, self._is_told(score))

    def _look_at(self, timestamp_us: int) -> tuple[_Season | None, _Season | None]:
        """The rhythm of the day, and the one that foretells best; None where too little is known."""
        if self._is_daily:
            return (self._day, self._day) if self._day.look_at(timestamp_us // DAY % 7) else (None, None)
        by_day = self._day.look_at(timestamp_us % DAY // self._width)
        by_week = self._week.look_at(timestamp_us % (7 * DAY) // self._wide)
        if not by_day:
            return None, None
        is_weekly = by_week and 0 < self._week.error < self._day.error
        return self._day, self._week if is_weekly else self._day

    def _residuals(self, value: float, day: _Season | None, season: _Season | None) -> list[float | None]:
        """How far the row is off, in each of the ways; None where that is unknown. Keeps means and repeats."""
        off = value - (self._long if season is None else season.place.usual)
        self._means = [mean + (off - mean) / rows for mean, rows in zip(self._means, WINDOWS, strict=True)]
        self._repeats = self._repeats + 1 if value == self._last else 0
        self._last = value
        by_time = None
        if season is not None and season.rows >= SEASON_MIN:
            place = season.place
            varies = (season.off + (place.off if place.off >= 0 else season.off)) / 2
            by_time = abs(value - place.usual) / max(varies, 1e-9 * abs(self._long), LEAST)
        return [
            abs(value - self._short),
            abs(self._short + (value - self._short) / SHORT - self._long),
            by_time,
            float(max(0, self._repeats - 1)),
            *(abs(mean) if season is not None else None for mean in self._means),
        ]

    def _learn(self, value: float, sizes: list[float | None], leasts: tuple[float, ...]) -> None:
        self._rows += 1
        for tail, size, least in zip(self._tails, sizes, leasts, strict=True):
            if size is not None:
                tail.learn(size, min(least, 1e-6))
        self._short += max(1 / self._rows, 1 / SHORT) * (value - self._short)
        self._long += max(1 / self._rows, 1 / LONG) * (value - self._long)
        self._day.learn(value)
        self._week.learn(value)

    def _is_told(self, score: float) -> bool:
        """Whether a ticket is sent: one for an alarm, and again where it is three times as large."""
        if self._rows - self._told_row > COOL_ROWS:
            self._told = 0.0
        if score < max(TICKET, 3 * self._told):
            return False
        self._told, self._told_row = score, self._rows
        return True

    def _is_news(self, score: float) -> bool:
        """Whether nothing as large was said a while ago."""
        self._peaks = [(row, peak) for row, peak in self._peaks if row > self._rows - COOL_ROWS and peak > score]
        self._peaks.append((self._rows, score))
        return len(self._peaks) == 1
