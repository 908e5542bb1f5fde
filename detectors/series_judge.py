"""Any series of short rows, judged row by row: how surprising a value is, up or down, in the series' own measure.

Three residuals are watched: against the last rows, against the level of a day, and against the same time of the days
before. Each is turned into a surprise, the negative logarithm of how often the series has shown as much (its own
quantile, and an exponential tail above it), so that one threshold means the same in a series of counts, latencies or
percent. After a surprise only a larger one counts for a while: an alarm that lasts is one alarm.
"""

import math

from detectors.judging import UNKNOWN, Verdict
from schemas.instants import DAY

#: Rows that the two levels remember, about.
SHORT, LONG = 6, 288
#: Rows before anything is said.
ROWS_MIN = 60
#: The share of rows above the quantile behind which the tail begins, and how many rows the tail remembers.
TAIL, MEMORY = 0.02, 2_000
#: The surprise (a natural logarithm) that is a score of 1.
BAR = 9.0
SURPRISE_MAX = 9_000.0
#: For so many rows behind a surprise only a larger one is news.
COOL_ROWS = 100
#: What is no news keeps so much of its score.
NO_NEWS = 0.2
#: Places of a day that the seasonal level has at most.
PLACES_MAX = 288


class Tail:
    """How often a series has shown a residual of this size: a running quantile with an exponential tail above it."""

    __slots__ = ("_bound", "_excess", "_rows", "_scale")

    def __init__(self) -> None:
        self._rows, self._scale, self._bound, self._excess = 0, 0.0, 0.0, 0.0

    def surprise(self, size: float, least: float) -> float:
        """The negative logarithm of the share of rows at least this large; 0 for the usual ones.

        ``least`` is what rounding alone may come to, in a series that hardly moves.
        """
        if size <= self._bound or self._rows < ROWS_MIN:
            return 0.0
        surprise = -math.log(TAIL) + (size - self._bound) / max(self._excess, 0.05 * self._bound, least)
        return min(surprise, SURPRISE_MAX)

    def learn(self, size: float) -> None:
        """Take in a residual; a wild one counts as the largest that is still believable."""
        self._rows += 1
        weight = max(1 / self._rows, 1 / MEMORY)
        if self._rows > ROWS_MIN:
            size = min(size, self._bound + 8 * max(self._excess, 0.25 * self._bound, 1e-12))
        self._scale += weight * (size - self._scale)
        if self._rows == 1:
            self._bound = size
        # A stochastic step towards the quantile, as large as the residuals are.
        pace = 3 * self._scale * max(1 / self._rows, 5 / MEMORY)
        self._bound = max(0.0, self._bound + pace * (1 - TAIL if size > self._bound else -TAIL) / (1 - TAIL))
        if size > self._bound:
            share = max(1 / self._rows, 1 / (TAIL * MEMORY))
            self._excess += share * (size - self._bound - self._excess)


class SeriesJudge:
    """Implements ``detectors.judging.Judge`` for rows of any unit; it sends nothing: what a surprise is worth is not
    known where the unit is not.
    """

    def __init__(self, step_us: int) -> None:
        self._width = max(step_us, DAY // PLACES_MAX)
        self._rows = 0
        self._short = self._long = 0.0
        self._same: dict[int, tuple[int, float]] = {}
        self._tails = Tail(), Tail(), Tail()
        self._peaks: list[tuple[int, float]] = []

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one row, then learn it."""
        if value is None or isinstance(value, bool) or not math.isfinite(value):
            return UNKNOWN
        value = max(-1e100, min(1e100, float(value)))
        place = timestamp_us % DAY // self._width
        days, usual = self._same.get(place, (0, 0.0))
        if not self._rows:
            self._short = self._long = value
        sizes = (
            abs(value - self._short),
            abs(self._short + (value - self._short) / SHORT - self._long),
            abs(value - usual) if days >= 2 else None,
        )
        watched = zip(self._tails, sizes, strict=True)
        least = max(1e-6 * abs(self._long), 1e-12)
        surprises = [0.0 if size is None else tail.surprise(size, least) for tail, size in watched]
        expected = self._short if days < 2 else (self._short + usual) / 2
        self._learn(value, place, sizes)
        if self._rows <= ROWS_MIN:
            return Verdict(expected, 0.0, False, False)
        score = max(surprises) / BAR
        return Verdict(expected, score if self._is_news(score) else NO_NEWS * score, False, False)

    def _learn(self, value: float, place: int, sizes: tuple[float | None, ...]) -> None:
        self._rows += 1
        for tail, size in zip(self._tails, sizes, strict=True):
            if size is not None:
                tail.learn(size)
        self._short += max(1 / self._rows, 1 / SHORT) * (value - self._short)
        self._long += max(1 / self._rows, 1 / LONG) * (value - self._long)
        days, usual = self._same.get(place, (0, 0.0))
        self._same[place] = days + 1, usual + max(1 / (days + 1), 0.2) * (value - usual)

    def _is_news(self, score: float) -> bool:
        """Whether nothing as large was said a while ago."""
        self._peaks = [(row, peak) for row, peak in self._peaks if row > self._rows - COOL_ROWS and peak > score]
        self._peaks.append((self._rows, score))
        return len(self._peaks) == 1
