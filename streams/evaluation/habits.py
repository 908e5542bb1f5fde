"""What the detector of unusual hours is worth.

Clients of the ServeGen trace alone, and random teams of six of them: requests, tokens and money are recorded, so that a
team's tokens for a request, output to input and price move as its mix does. The trace has neither failures nor caches:
these wander by a tenth, and tokens by a few percent, drawn with fixed seeds. The first week is learned, in the second
changes are put in, each into a copy of what is known. River's LODA gets the same deviations; its bar is set where it
gives as many tickets on the first half of the series as the shipped detector may, 0.3 a week.
"""

import copy
import csv
import gzip
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from river.anomaly import LODA

from detectors.multivariate import HourVector, Multivariate
from schemas.instants import HOUR
from schemas.money import NANOS
from streams.core.detect_multivariate_words import vector_of
from streams.core.detect_regime_ratios import REQUESTS_MIN, HourTotals
from streams.evaluation.traces import START

WEEK, QUIET_HOURS, BUDGET = 168, 3, 0.3
TEAMS, TEAM_SIZE, SEEDS = 60, 6, 2


class Row(NamedTuple):
    """One hour."""

    requests: float
    input: float
    output: float
    usd: float
    cached: float = 0.35
    errors: float = 0.02

    def vector(self, n: int) -> HourVector:
        requests = round(self.requests)
        return vector_of(
            START + n * HOUR,
            HourTotals(
                requests=requests,
                errors=round(requests * min(1.0, self.errors)),
                input_tokens=round(self.input),
                cached_tokens=round(self.input * min(1.0, self.cached)),
                output_tokens=round(self.output),
                cost_nanos=round(self.usd * NANOS),
            ),
        )

    def times(self, requests: float = 1, input_: float = 1, output: float = 1, price: float = 1, **put: float) -> "Row":
        """So many times the requests, and the tokens of each; ``put`` replaces shares."""
        fed, made = self.input * requests * input_, self.output * requests * output
        tokens = self.input + self.output
        usd = self.usd * (fed + made) / tokens * price if tokens else 0.0
        return self._replace(requests=self.requests * requests, input=fed, output=made, usd=usd, **put)

    def plus(self, mean: float, factor: float) -> "Row":
        """With so many times the week's mean of requests on top."""
        return self.times((self.requests + factor * mean) / max(1.0, self.requests))


class Change(NamedTuple):
    """What is put in: ``at(row, the week's mean of requests, which hour of it)``."""

    hours: int
    at: Callable[[Row, float, int], Row]


SPEND: Mapping[str, Change] = {
    "x2/3h": Change(3, lambda row, mean, _: row.plus(mean, 1)),
    "x3/3h": Change(3, lambda row, mean, _: row.plus(mean, 2)),
    "x5/3h": Change(3, lambda row, mean, _: row.plus(mean, 4)),
    "x10/1h": Change(1, lambda row, mean, _: row.plus(mean, 9)),
    "x3/24h": Change(24, lambda row, mean, _: row.plus(mean, 2)),
    "storm": Change(
        6, lambda row, mean, n: row.plus(mean, 1.6 ** (n + 1) - 1)._replace(errors=min(0.9, 0.1 * 1.6 ** (n + 1)))
    ),
    "ramp": Change(36, lambda row, mean, n: row.plus(mean, 0.1 * (n + 1))),
}
HABITS: Mapping[str, Change] = {
    "half the calls, twice as long": Change(6, lambda row, *_: row.times(0.5, 2, 2)),
    "cache lost": Change(6, lambda row, *_: row.times(price=1.4, cached=0.03)),
    "agent loop": Change(3, lambda row, *_: row.times(1.5, 3, 0.5)),
    "dearer model": Change(6, lambda row, *_: row.times(output=1.5, price=3)),
    "short calls that fail": Change(3, lambda row, *_: row.times(1.5, 0.4, 0.3, errors=0.3)),
}
QUIET: Mapping[str, Change] = {"dip": Change(6, lambda row, *_: row.times(0.2))}
CHANGES = {**SPEND, **HABITS, **QUIET}


def panels(data: Path) -> dict[str, dict[str, list[Row]]]:
    """Series of two weeks by panel and name; none where the trace is not here."""
    trace = data / "servegen" / "servegen_hourly.csv.gz"
    if not trace.exists():
        return {}
    hours: dict[str, dict[int, Row]] = defaultdict(dict)
    with gzip.open(trace, "rt") as file:
        for each in csv.DictReader(file):
            calls, usd = float(each["requests"] or 0), float(each["usd"] or 0)
            row = Row(calls, calls * float(each["mean_in"] or 0), calls * float(each["mean_out"] or 0), usd)
            if row.input > 0 and usd > 0:
                hours[f"{each['model']}/{each['client']}"][int(each["hour"])] = row
    nothing = Row(0, 0, 0, 0)
    whole = {
        name: [found.get(n, nothing) for n in range(2 * WEEK)]
        for name, found in sorted(hours.items())
        if max(found) >= 2 * WEEK - 6 and len(found) > 200
    }
    dice, teams = random.Random(1), {}
    if len(whole) >= TEAM_SIZE:
        for n in range(TEAMS):
            teams[f"team {n}"] = _together([whole[name] for name in dice.sample(sorted(whole), TEAM_SIZE)])
    lively = {"clients": _lively(whole), "teams": _lively(teams)}
    # A bar is set on one half and measured on the other.
    return {panel: series for panel, series in lively.items() if len(series) > 1}


def _together(members: Sequence[Sequence[Row]]) -> list[Row]:
    return [Row(*(sum(row[n] for row in rows) for n in range(4))) for rows in zip(*members, strict=True)]


def _lively(series: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Those that hardly ever have too few calls, with what the trace does not have."""
    found = {}
    for name, rows in series.items():
        if sum(row.requests < REQUESTS_MIN for row in rows) >= 0.1 * len(rows):
            continue
        dice, wander, made = random.Random(name), [0.0, 0.0, 0.0], []
        for row in rows:
            wander = [0.8 * each + dice.gauss(0, 0.1) for each in wander]
            tokens = math.exp(wander[2] / 2)
            row = row.times(1, tokens * math.exp(dice.gauss(0, 0.03)), tokens * math.exp(dice.gauss(0, 0.05)))
            made.append(row._replace(
                cached=min(0.9, 0.35 * math.exp(wander[0])), errors=0.02 * math.exp(wander[1] + dice.gauss(0, 0.1))
            ))  # fmt: skip
        found[name] = made
    return found


class Judge(Protocol):
    """Gives an hour a number, then learns it."""

    def step(self, x: HourVector) -> float: ...


class Shipped:
    """The shipped detector; 1 is its bar."""

    def __init__(self) -> None:
        self._detector = Multivariate()

    def step(self, x: HourVector) -> float:
        score = self._detector.score_one(x)
        self._detector.learn_one(x)
        return 0.0 if score is None else score.strangeness / 1_000


class River:
    """River's LODA over the same deviations."""

    def __init__(self) -> None:
        self._detector, self._loda = Multivariate(), LODA(n_bins=10, n_random_cuts=50, seed=1)

    def step(self, x: HourVector) -> float:
        score, found = self._detector.score_one(x), 0.0
        self._detector.learn_one(x)
        if score is not None:
            deviations = {str(part.place): part.deviation / 1_000 for part in score.parts}
            found = self._loda.score_one(deviations)
            self._loda.learn_one(deviations)
        return found


class Played(NamedTuple):
    """Scores: of the second week, by series; and the highest of each change that was put in."""

    clean: dict[str, list[float]]
    put: dict[str, list[tuple[str, float]]]


def play(make: Callable[[], Judge], series: Mapping[str, Sequence[Row]]) -> Played:
    """Every series, clean, and from copies of what was known with each change."""
    clean: dict[str, list[float]] = {}
    put: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for name, rows in series.items():
        judge, dice = make(), random.Random(f"at {name}")
        at: dict[int, list[str]] = defaultdict(list)
        for kind, change in CHANGES.items():
            for _ in range(SEEDS):
                at[dice.randrange(WEEK + 2, 2 * WEEK - change.hours)].append(kind)
        scores = []
        for n, row in enumerate(rows):
            for kind in at[n]:
                mean, other, change = (
                    statistics.fmean(each.requests for each in rows[n - WEEK : n]),
                    copy.deepcopy(judge),
                    CHANGES[kind],
                )
                highest = max(other.step(change.at(rows[n + k], mean, k).vector(n + k)) for k in range(change.hours))
                put[kind].append((name, highest))
            scores.append(judge.step(row.vector(n)))
        clean[name] = scores[WEEK:]
    return Played(clean, put)


def tickets(scores: Sequence[float], bar: float) -> int:
    """How many alerts there are: one ends after quiet hours."""
    count, last = 0, -99
    for n, score in enumerate(scores):
        if score >= bar:
            count += n - last > QUIET_HOURS
            last = n
    return count


def rate(played: Played, names: Sequence[str], bar: float) -> float:
    """Tickets a series-week on the clean trace."""
    return sum(tickets(played.clean[name], bar) for name in names) / len(names)


def bar_for(played: Played, names: Sequence[str]) -> float:
    """The lowest that keeps within the budget."""
    bars = sorted({score for name in names for score in played.clean[name]})
    low, high = 0, len(bars) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if rate(played, names, bars[middle]) <= BUDGET else (middle + 1, high)
    return bars[low]


def judge_habits(series_of: Mapping[str, Mapping[str, Sequence[Row]]], quick: bool) -> dict[str, dict[str, Any]]:
    """Tickets a series-week on the clean trace and recall of each change, by panel and contender.

    Everything is of one half of the series; bars that are not the shipped one are set on the other. ``quick`` leaves
    River's LODA out, which is slow.
    """
    found: dict[str, dict[str, Any]] = {}
    for panel, series in series_of.items():
        set_on, reported_on = sorted(series)[::2], sorted(series)[1::2]
        shipped = play(Shipped, series)
        found[f"{panel}, shipped"] = _figures(shipped, reported_on, 1.0)
        found[f"{panel}, at {BUDGET}"] = _figures(shipped, reported_on, bar_for(shipped, set_on))
        if not quick:
            river = play(River, series)
            found[f"{panel}, LODA at {BUDGET}"] = _figures(river, reported_on, bar_for(river, set_on))
    return found


def _figures(played: Played, names: Sequence[str], bar: float) -> dict[str, Any]:
    found = {
        kind: statistics.fmean(score >= bar for name, score in scores if name in names)
        for kind, scores in played.put.items()
    }
    return {
        "series": len(names),
        "tickets_a_series_week": round(rate(played, names, bar), 3),
        **{
            f"recall_of_{group}": round(statistics.fmean(found[kind] for kind in kinds), 3)
            for group, kinds in {"habits": HABITS, "spend": SPEND}.items()
        },
        **{kind: round(found[kind], 3) for kind in CHANGES},
    }
