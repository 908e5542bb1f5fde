"""``make bench-forecast``: how wrong the forecasts of budgets are on recorded traces, and what they cost.

Every series (features of ServeGen, teams made of eight of them, virtual clusters of Helios at a price an hour) is a
budget of a day, a week or of all that is recorded. At several points of each period every method says what the period
will cost, knowing what lies before and nothing else, and what came judges it. River's own seasonal models are asked
beside the three that Sluice shows. Means are of errors cut at 100 percent: a budget that spends a cent and then a
thousand dollars is beyond any of them, and would be all that a mean says.

    python -m loadtest.forecast --data ../shared/data
"""

import argparse
import asyncio
import csv
import gzip
import random
import resource
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from river import time_series

from detectors.base import Observation
from detectors.seasonal_spend import SeasonalSpend
from loadtest.bench.machine import describe, load_average, store
from schemas.instants import DAY, HOUR, parse_instant
from streams.agents.forecast import ForecastLoop
from streams.clock import elapsed_s
from streams.core.forecast import METHODS, Counter, Standing, project

DATA = Path(__file__).parents[2] / "shared" / "data"
#: A Monday.
START = parse_instant("2026-01-05T00:00:00Z")
NANOS = 1_000_000_000
GPU_HOUR_NANOS = 5 * NANOS // 2
#: Features that cost less an hour are left out: their budgets are noise.
HOURLY_MIN = NANOS // 5
TEAMS, TEAM_SIZE = 40, 8
Series = dict[str, list[int]]


class Ask(NamedTuple):
    """One question: at hour ``at``, what will the hours ``start`` to ``end`` have cost?"""

    kind: str
    start: int
    end: int
    at: int


def servegen(data: Path) -> Series:
    """Hourly nanodollars of each client that was seen over the two weeks."""
    hours: dict[str, dict[int, int]] = defaultdict(dict)
    last: dict[str, int] = defaultdict(int)
    with gzip.open(data / "servegen" / "servegen_hourly.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            hours[f"{row['model']}/{row['client']}"][int(row["hour"])] = round(float(row["usd"] or 0) * NANOS)
            last[row["model"]] = max(last[row["model"]], int(row["hour"]))
    found = {}
    for name, spent in sorted(hours.items()):
        series = [spent.get(hour, 0) for hour in range(last[name.partition("/")[0]] + 1)]
        if len(series) >= 14 * 24 - 2 and sum(series) >= HOURLY_MIN * len(series):
            found[name] = series
    return found


def teams(features: Series) -> Series:
    """Features of one length together, as a team's budget sees them."""
    dice = random.Random(1)
    length = statistics.mode(len(series) for series in features.values())
    names = sorted(name for name, series in features.items() if len(series) == length)
    chosen = {f"team {n}": dice.sample(names, min(TEAM_SIZE, len(names))) for n in range(TEAMS)}
    return {team: [sum(hour) for hour in zip(*(features[n] for n in own), strict=True)] for team, own in chosen.items()}


def helios(data: Path) -> Series:
    """GPUs that ran, by virtual cluster and hour, at one price."""
    found: Series = defaultdict(list)
    with gzip.open(data / "helios" / "earth_vc_hourly.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            found[row["vc"]].append(round(float(row["running_gpu_num"] or 0) * GPU_HOUR_NANOS))
    return {name: series for name, series in sorted(found.items()) if sum(series) > 100 * NANOS}


def asks(length: int) -> Iterator[Ask]:
    """The questions of one series, from its fourth day on: some of the days, all weeks, and all of it."""
    for day in range(3, length // 24):
        yield Ask("day", day * 24, day * 24 + 24, day * 24 + (6, 12, 18)[day % 3])
    for week in range(length // 168):
        for day in (2, 4, 6):
            if week * 168 + day * 24 >= 72:
                yield Ask("week", week * 168, week * 168 + 168, week * 168 + day * 24)
    whole = length // 24 * 24
    for quarter in (1, 2, 3):
        if whole * quarter // 4 >= 72:
            yield Ask("all", 0, whole, whole * quarter // 4)


def say(series: Sequence[int], ask: Ask, learned: SeasonalSpend, limit: int) -> dict[str, tuple[int, int | None]]:
    """What each method says: the period's cost, and when it reaches ``limit``."""
    now, spent = START + ask.at * HOUR, sum(series[ask.start : ask.at])
    start, end = START + ask.start * HOUR, START + ask.end * HOUR
    standing = Standing("b", "", start, end, spent, limit, (Counter(start, end, spent),))
    found = project(standing, learned, learned.course(now), START, {}, now)
    said: dict[str, tuple[int, int | None]] = {e.method: (e.projected_nanos, e.exhausts_at) for e in found.estimates}
    left = ask.end - ask.at
    for name, forecast in RIVER.items():
        said[name] = (spent + max(0, round(sum(forecast(series[: ask.at], left)))), None)
    return said


def _holt_winters(season: int) -> Callable[[Sequence[int], int], list[float]]:
    def forecast(series: Sequence[int], hours: int) -> list[float]:
        scale = sum(series) / len(series)
        if scale <= 0 or len(series) < 2 * season or not sum(series[:season]):
            return _flat(series, hours)  # it divides by its first season's mean
        model = time_series.HoltWinters(alpha=0.1, beta=1e-9, gamma=0.1, seasonality=season)
        for each in series:
            model.learn_one(each / scale)
        return [max(0.0, each) * scale for each in model.forecast(horizon=hours)]

    return forecast


def _snarimax(series: Sequence[int], hours: int) -> list[float]:
    scale = sum(series) / len(series)
    if scale <= 0:
        return _flat(series, hours)
    model = time_series.SNARIMAX(p=1, d=0, q=0, m=24, sp=1, sq=0)
    for each in series:
        model.learn_one(each / scale)
    return [min(50.0, max(0.0, each)) * scale for each in model.forecast(horizon=hours)]


def _flat(series: Sequence[int], hours: int) -> list[float]:
    recent = series[-168:]
    return [sum(recent) / len(recent)] * hours


RIVER: dict[str, Callable[[Sequence[int], int], list[float]]] = {
    "river HoltWinters 24": _holt_winters(24),
    "river HoltWinters 168": _holt_winters(168),
    "river SNARIMAX m=24": _snarimax,
}


def backtest(panel: Series) -> dict[str, dict[str, Any]]:
    """By kind of period: the errors of every method."""
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    off: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for series in panel.values():
        learned, known = SeasonalSpend(), 0
        for ask in sorted(asks(len(series)), key=lambda ask: ask.at):
            for hour in range(known, ask.at):
                at = START + hour * HOUR
                learned.learn_one(Observation(at, at + HOUR, series[hour]))
            known = max(known, ask.at)
            came = sum(series[ask.start : ask.end])
            if came < NANOS:
                continue
            limit = came * 9 // 10
            reached = _reached(series, ask, limit)
            for method, (nanos, exhausts) in say(series, ask, learned, limit).items():
                errors[ask.kind][method].append((nanos - came) / came)
                if reached is not None and exhausts is not None:
                    off[ask.kind][method].append(abs(exhausts - reached) / HOUR)
    return {
        kind: {
            method: _summary(found) | {"exhaustion_off_hours_median": _median(off[kind][method])}
            for method, found in methods.items()
        }
        for kind, methods in errors.items()
    }


def _reached(series: Sequence[int], ask: Ask, limit: int) -> int | None:
    """When the limit was reached in truth; None where it was before anybody asked."""
    spent = sum(series[ask.start : ask.at])
    if spent >= limit:
        return None
    for hour in range(ask.at, ask.end):
        spent += series[hour]
        if spent >= limit:
            return START + (hour + 1) * HOUR
    return None


def _summary(errors: list[float]) -> dict[str, Any]:
    cut = [max(-1.0, min(1.0, error)) for error in errors]
    return {
        "asked": len(errors),
        "error_percent_mean": round(100 * statistics.mean(map(abs, cut)), 2),
        "error_percent_median": round(100 * statistics.median(map(abs, errors)), 2),
        "bias_percent_mean": round(100 * statistics.mean(cut), 2),
    }


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


class _Nowhere:
    """A store that takes everything and keeps nothing but counts."""

    def __init__(self) -> None:
        self.rows = self.states = self.bytes = 0

    async def load(self, keys: Any) -> dict[Any, bytes]:
        return {}

    async def keep(self, states: Any, rows: Any, outcomes: Any) -> None:
        self.rows += len(rows)
        self.states += len(states)
        self.bytes += sum(len(state.state) for state in states)

    async def forget(self, now: int) -> int:
        return 0

    async def hourly_spend(self, match: Any, since: int, until: int) -> None:
        return None


class _Clock:
    time = START

    def now(self) -> int:
        return self.time

    def observe(self, event_time: int, source: str = "") -> None:
        pass


async def cost(budgets: int) -> dict[str, Any]:
    """What a worker pays for so many budgets: rounds within an hour and over its turn, storage, memory."""
    clock, nowhere, dice = _Clock(), _Nowhere(), random.Random(2)
    rates = [dice.randrange(NANOS // 100, 50 * NANOS) for _ in range(budgets)]

    def standings(now: int) -> Iterator[Standing]:
        for n, rate in enumerate(rates):
            start = START + 28 * DAY
            spent = rate * ((now - START) // HOUR + n % 7)
            counter = Counter(start, start + 31 * DAY, spent)
            yield Standing(f"budget-{n}", "", start, start + 31 * DAY, spent, 700 * rate, (counter,))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop = ForecastLoop(standings, lambda key: None, nowhere, clock)
    hours = {START + hour * HOUR: 1 for hour in range(28 * 24)}
    clock.time = START + 28 * DAY
    await loop.refresh()
    for n, forecaster in enumerate(loop._known.values()):
        forecaster.know({hour: rates[n] * (1 + (hour // HOUR) % 24) for hour in hours}, clock.time)
    rounds = []
    for minute in range(1, 66):
        clock.time = START + 28 * DAY + minute * 60_000_000
        began = elapsed_s()
        await loop.refresh()
        rounds.append(elapsed_s() - began)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "budgets": budgets,
        "round_s_median": round(statistics.median(rounds), 3),
        "round_s_max": round(max(rounds), 3),
        "cpu_percent": round(100 * sum(rounds) / (60 * len(rounds)), 2),
        "rows_per_round": nowhere.rows // len(rounds),
        "states_per_hour": nowhere.states,
        "state_bytes_mean": nowhere.bytes // max(1, nowhere.states),
        "memory_mib": round((after - before) / 1024, 1),
    }


def show(panels: dict[str, dict[str, dict[str, Any]]], out: Console) -> None:
    """One line for each panel, period and method."""
    table = Table("panel", "period", "method", "asked", "error %", "median %", "bias %", "exhaustion off, h")
    for panel, kinds in panels.items():
        for kind, methods in kinds.items():
            ranked = sorted(methods.items(), key=lambda item: item[1]["error_percent_mean"])
            for method, found in ranked:
                style = "bold" if method in METHODS else None
                table.add_row(panel, kind, method, *(str(each) for each in found.values()), style=style)
    out.print(table)


def main() -> int:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of recorded traces")
    parser.add_argument("--budgets", type=int, default=10_000, help="so many for what it costs")
    parser.add_argument("--no-store", action="store_true", help="print only")
    given = parser.parse_args()
    out = Console(width=140)
    if not given.data.is_dir():
        out.print(f"{given.data} is not here: give the folder of recorded traces with --data")
        return 2
    features = servegen(given.data)
    panels = {"ServeGen features": features, "ServeGen teams": teams(features), "Helios clusters": helios(given.data)}
    judged = {name: backtest(panel) for name, panel in panels.items()}
    show(judged, out)
    paid = asyncio.run(cost(given.budgets))
    out.print(paid)
    if not given.no_store:
        result = {
            "machine": describe("none"),
            "load_average": load_average(),
            "series": {name: len(panel) for name, panel in panels.items()},
            "backtest": judged,
            "cost": paid,
        }
        out.print(f"stored in {store('forecast', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
