"""What the shipped detectors must beat: the fixed rules, simple statistics, River's own models, a daily bill watcher.

Each is a model of one series' hours, asked about the running hour and told of it when it is over. `HourJudge` gives
all of them what the shipped detector has as well: partial sums, the floor in money, one page for each incident.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from river import anomaly, time_series

from detectors.judging import UNKNOWN, Verdict
from schemas.instants import HOUR, hour_of
from streams.evaluation.incidents import QUIET_HOURS, RATIO
from streams.evaluation.traces import WEEK_HOURS

#: Dollars; keeps a ratio to nothing finite.
CENT = 0.01
KEPT = WEEK_HOURS + 24


class HourModel(Protocol):
    """A model of consecutive hours."""

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """What the running hour should come to, and how strange this much of it is; changes nothing."""
        ...

    def learn(self, total: float) -> None:
        """Take in the hour that is over."""
        ...


class HourJudge:
    """A model as a judge. With ``bar``, it pages where the score is above it and the excess above the floor;
    ``floored`` leaves out the score where the excess is not.
    """

    def __init__(self, model: HourModel, floor: float, bar: float | None = None, floored: bool = False) -> None:
        self._model, self._floor, self._bar, self._floored = model, floor, bar, floored
        self._hour, self._sum = -1, 0.0
        self._hot_at = -QUIET_HOURS * 2 * HOUR

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge the running hour with this row in it."""
        hour = hour_of(timestamp_us)
        while self._hour < hour:
            if self._hour < 0:
                self._hour = hour
                break
            self._model.learn(self._sum)
            self._hour, self._sum = self._hour + HOUR, 0.0
        if value is None or not math.isfinite(value):
            return UNKNOWN
        self._sum += value
        expected, score = self._model.ask(self._sum)
        if self._floored and expected is not None and self._sum - expected <= self._floor:
            score = None
        if self._bar is None or score is None or expected is None:
            return Verdict(expected, score, False, False)
        is_hot = score > self._bar and self._sum - expected > self._floor
        opens = is_hot and hour - self._hot_at > QUIET_HOURS * HOUR
        if is_hot:
            self._hot_at = hour
        return Verdict(expected, score, opens, False)


class _Remembering:
    """The newest hours, newest last."""

    def __init__(self) -> None:
        self.hours: list[float] = []

    def learn(self, total: float) -> None:
        self.hours.append(total)
        del self.hours[:-KEPT]

    def ago(self, hours: int) -> float | None:
        return self.hours[-hours] if len(self.hours) >= hours else None


class Ratio(_Remembering):
    """The hour against the one so many hours before: "above the previous hour", "above the same hour yesterday"."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self._lag = lag

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is how many times what was expected."""
        expected = self.ago(self._lag)
        return (None, None) if expected is None else (expected, so_far / max(expected, CENT))


class UsualRatio(_Remembering):
    """The hour against the median of its own hour over the last seven days."""

    def __init__(self) -> None:
        super().__init__()
        self._expected: float | None = None

    def learn(self, total: float) -> None:
        """Take in an hour, and look at the next one's own hour."""
        super().learn(total)
        own = [self.hours[-24 * day] for day in range(1, 8) if len(self.hours) >= 24 * day]
        self._expected = float(np.median(own)) if len(own) >= 3 else None

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is how many times what was expected."""
        expected = self._expected
        return (None, None) if expected is None else (expected, so_far / max(expected, CENT))


class SeasonalNaive(_Remembering):
    """The same hour yesterday; scored in deviations of what that was wrong by in the last week."""

    def __init__(self) -> None:
        super().__init__()
        self._wrong: list[float] = []
        self._spread = 0.0

    def learn(self, total: float) -> None:
        """Take in an hour, and what yesterday had said of it."""
        yesterday = self.ago(24)
        if yesterday is not None:
            self._wrong.append(total - yesterday)
            del self._wrong[:-WEEK_HOURS]
            self._spread = float(np.std(self._wrong))
        super().learn(total)

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is a z."""
        expected = self.ago(24)
        if expected is None or len(self._wrong) < 24:
            return expected, None
        return expected, (so_far - expected) / max(self._spread, CENT)


class TrailingZ(_Remembering):
    """Mean and deviation of the trailing seven days."""

    def __init__(self) -> None:
        super().__init__()
        self._mean = self._spread = 0.0

    def learn(self, total: float) -> None:
        """Take in an hour."""
        super().learn(total)
        self._mean, self._spread = float(np.mean(self.hours[-WEEK_HOURS:])), float(np.std(self.hours[-WEEK_HOURS:]))

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is a z."""
        if len(self.hours) < 24:
            return None, None
        return self._mean, (so_far - self._mean) / max(self._spread, CENT)


class HoltWinters:
    """River's HoltWinters with a season of a day on logarithms; scored in deviations of its residuals.

    Its traps: a first season of zeros divides by zero, so one is added to every logarithm; the first season is taken
    as factors even where it is additive, so it is put right; there is no forecast before the first season.
    """

    def __init__(self) -> None:
        self._model = time_series.HoltWinters(alpha=0.3, beta=1e-9, gamma=0.1, seasonality=24)
        self._first: list[float] = []
        self._forecast: float | None = None
        self._variance, self._seen = 0.0, 0

    def learn(self, total: float) -> None:
        """Take in an hour."""
        log = 1 + math.log1p(max(0.0, total))
        if self._forecast is not None:
            self._seen += 1
            weight = max(1 / self._seen, 1 / WEEK_HOURS)
            self._variance += weight * ((log - self._forecast) ** 2 - self._variance)
        self._model.learn_one(log)
        if len(self._first) < 24:
            self._first.append(log)
            if len(self._first) < 24:
                return
            mean = sum(self._first) / 24
            self._model.season.clear()
            self._model.season.extend(each - mean for each in self._first)
        self._forecast = self._model.forecast(horizon=1)[0]

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is a z of logarithms."""
        if self._forecast is None:
            return None, None
        expected = math.expm1(min(50.0, max(0.0, self._forecast - 1)))
        if self._seen < 24:
            return expected, None
        off = 1 + math.log1p(max(0.0, so_far)) - self._forecast
        return expected, off / max(math.sqrt(self._variance), 0.01)


class Multivariate(_Remembering):
    """A River anomaly model over four features of an hour: size, change, change to yesterday, change to the day's mean.

    Each is squashed into (0, 1): a scaler that learns its bounds is blind for good after one huge hour.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._river = model
        self._log_mean = 0.0
        self._day = 0.0

    def learn(self, total: float) -> None:
        """Take in an hour."""
        if len(self.hours) >= 24:
            self._river.learn_one(self._features(total))
        super().learn(total)
        self._log_mean = float(np.mean(np.log1p(np.maximum(0, self.hours[-WEEK_HOURS:]))))
        self._day = float(np.mean(self.hours[-24:]))

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is River's; what is below the day's mean is nothing to page."""
        if len(self.hours) < 48:
            return None, None
        score = float(self._river.score_one(self._features(so_far)))
        return self._day, score if so_far > self._day and math.isfinite(score) else 0.0

    def _features(self, total: float) -> dict[str, float]:
        log = math.log1p(max(0.0, total))
        return {
            "size": _squash(log - self._log_mean),
            "change": _squash(log - math.log1p(max(0.0, self.hours[-1]))),
            "yesterday": _squash(log - math.log1p(max(0.0, self.hours[-24]))),
            "day": _squash(log - math.log1p(max(0.0, self._day))),
        }


def _squash(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class DailyBill:
    """A watcher of the daily bill, as the cloud vendors have: it looks three times a day at the day so far, against
    mean and deviation of the last fourteen days.
    """

    LOOKS = 8

    def __init__(self) -> None:
        self._days: list[float] = []
        self._today: list[float] = []
        self._mean = self._spread = 0.0

    def learn(self, total: float) -> None:
        """Take in an hour."""
        self._today.append(total)
        if len(self._today) == 24:
            self._days.append(sum(self._today))
            del self._days[:-14]
            self._today = []
            self._mean, self._spread = float(np.mean(self._days)), float(np.std(self._days))

    def ask(self, so_far: float) -> tuple[float | None, float | None]:
        """The score is a z of the day's bill so far; none between two looks."""
        if len(self._days) < 3 or (len(self._today) + 1) % self.LOOKS:
            return None, None
        spent = sum(self._today) + so_far
        # What is expected of this hour is what the expected day leaves for it: the excess is the day's.
        return so_far - (spent - self._mean), (spent - self._mean) / max(self._spread, 0.05 * self._mean, CENT)


def _trees() -> HourModel:
    return Multivariate(anomaly.HalfSpaceTrees(n_trees=25, height=6, window_size=84, seed=1))


def _loda() -> HourModel:
    return Multivariate(anomaly.LODA(n_bins=10, n_random_cuts=50, seed=1))


#: By name: the model, and the bar above which it pages as it is; None where it has none of its own.
BASELINES: dict[str, tuple[Callable[[], HourModel], float | None]] = {
    "rule: previous hour": (lambda: Ratio(1), RATIO),
    "rule: same hour yesterday": (lambda: Ratio(24), RATIO),
    "rule: expectation": (UsualRatio, RATIO),
    "seasonal naive": (SeasonalNaive, None),
    "z-score 7 d": (TrailingZ, 3.0),
    "River HoltWinters": (HoltWinters, 3.0),
    "River HalfSpaceTrees": (_trees, None),
    "River LODA": (_loda, None),
    "daily bill": (DailyBill, 3.0),
}
#: Slow, or without a meaning for part of an hour: judged on closed hours only.
HOURLY_ONLY = frozenset({"River LODA", "River HalfSpaceTrees", "daily bill"})
#: What looks at another period than the hour cannot be held to the hour's own bar.
UNGATED = frozenset({"daily bill"})
