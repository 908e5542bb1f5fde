"""Made-up series of many kinds with anomalies at known rows, for the score of any series (``sluice eval --series``).

They stand in for labelled series that are not here: metrics of machines, counts with rhythms of days and weeks, bills,
utilisation. Each family has a seed of its own, so that what is measured is the same everywhere. A family is a base
without anomalies and the changes that are put into it; the label of a row says that it is part of one.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from schemas.instants import DAY, HOUR, MINUTE
from streams.evaluation.traces import START, Amounts

#: The first share of a series in which nothing is put: what is usual has to be learned first.
PROBATION = 0.25
SEEDS = 3

Dice = np.random.Generator


@dataclass(frozen=True, slots=True)
class Labelled:
    """One series: None is missing. ``windows`` are rows from and to (not included) of each anomaly."""

    family: str
    name: str
    step_us: int
    at_us: list[int]
    values: list[float | None]
    windows: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of series: its rows, and what is put into it, how often."""

    step_us: int
    rows: int
    base: Callable[[Dice, int, int], Amounts]
    changes: tuple[str, ...]
    #: The share of rows that are missing.
    missing: float = 0.0
    floor: float | None = 0.0


def _day(rows: int, step_us: int, phase: float = 0.0) -> Amounts:
    return np.sin((np.arange(rows) * step_us / DAY + phase) * 2 * math.pi)


def _working(rows: int, step_us: int, weekend: float) -> Amounts:
    """The share of a weekday that a row's day has."""
    days = np.arange(rows) * step_us // DAY % 7
    return np.where(days >= 5, weekend, 1.0)


def _wandering(dice: Dice, rows: int, keeps: float, size: float) -> Amounts:
    """Noise that remembers: each row keeps a share of the one before."""
    found, last = np.empty(rows), 0.0
    for row, push in enumerate(dice.normal(0, size * math.sqrt(1 - keeps**2), rows)):
        last = keeps * last + push
        found[row] = last
    return found


def _cpu(dice: Dice, rows: int, step_us: int) -> Amounts:
    """A machine's load: low, with noise and now and then a busy row."""
    busy = (dice.random(rows) < 0.01) * dice.exponential(3, rows)
    return np.maximum(0, dice.uniform(2, 40) + _wandering(dice, rows, 0.7, 0.6) + dice.normal(0, 0.4, rows) + busy)


def _counts(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Requests: Poisson around a rhythm of the day and the week."""
    rate = 120 * (1 + 0.7 * _day(rows, step_us, dice.random())) * _working(rows, step_us, 0.6)
    return dice.poisson(np.maximum(1, rate * (1 + _wandering(dice, rows, 0.98, 0.08)))).astype(float)


def _bursts(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Mentions: few, clustered, heavy tails."""
    rate = 15 * (1 + 0.5 * _day(rows, step_us)) * np.exp(_wandering(dice, rows, 0.8, 0.35))
    return dice.poisson(rate * (1 + (dice.random(rows) < 0.006) * dice.pareto(1.8, rows) * 2)).astype(float)


def _walk(dice: Dice, rows: int, step_us: int) -> Amounts:
    """A temperature: slow, smooth, never twice the same."""
    return 85 + _wandering(dice, rows, 0.999, 6) + _wandering(dice, rows, 0.9, 0.8) + dice.normal(0, 0.3, rows)


def _pattern(dice: Dice, rows: int, step_us: int) -> Amounts:
    """A square day: high in working hours, low at night, hardly any noise."""
    hours = np.arange(rows) * step_us % DAY / HOUR
    return np.where((hours >= 9) & (hours < 18), 80.0, 20.0) + dice.uniform(-3, 3, rows)


def _weeks(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Journeys: two humps a day, other weekends, little noise."""
    humps = 10 + 5 * _day(rows, step_us, 0.7) + 3 * np.sin(np.arange(rows) * step_us / DAY * 4 * math.pi)
    return 1_000 * humps * _working(rows, step_us, 0.8) * (1 + _wandering(dice, rows, 0.6, 0.05))


def _business(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Sales by the hour: a rhythm that scales with its level, which drifts."""
    level = np.exp(_wandering(dice, rows, 0.998, 0.2))
    rhythm = np.exp(0.9 * _day(rows, step_us, dice.random())) * _working(rows, step_us, 0.7)
    return 300 * level * rhythm * np.exp(dice.normal(0, 0.15, rows))


def _trend(dice: Dice, rows: int, step_us: int) -> Amounts:
    """A line with rhythms of a day and half a day."""
    slope = np.arange(rows) * dice.uniform(-0.2, 0.6)
    return 800 + slope + 150 * _day(rows, step_us) + 60 * _day(rows, step_us // 2, 0.3) + dice.normal(0, 15, rows)


def _failures(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Crashes: mostly few, now and then some."""
    return dice.negative_binomial(2, 0.3, rows) * (1 + 0.3 * _day(rows, step_us))


def _prices(dice: Dice, rows: int, step_us: int) -> Amounts:
    """A price that jumps about: log-normal, with a rhythm."""
    return 0.8 * np.exp(0.2 * _day(rows, step_us) + dice.normal(0, 0.3, rows) + _wandering(dice, rows, 0.9, 0.2))


def _bill(dice: Dice, rows: int, step_us: int) -> Amounts:
    """A bill by the day: grows, weekends are cheaper, the first of a month is dearer."""
    growth = np.exp(np.arange(rows) * dice.uniform(0, 0.003))
    first = 1 + 0.15 * (np.arange(rows) % 30 == 0)
    return 400 * growth * _working(rows, step_us, 0.65) * first * np.exp(dice.normal(0, 0.06, rows))


def _jobs(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Spend of batch jobs: nothing for hours, then a few hours of much, at about the same time each day."""
    hours = (np.arange(rows) * step_us // HOUR) % 24
    runs = (hours >= 2) & (hours < 5)
    extra = dice.random(rows) < 0.03
    return np.where(runs, 40 * np.exp(dice.normal(0, 0.3, rows)), np.where(extra, dice.exponential(15, rows), 0.0))


def _agents(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Spend of agents: log-normal hours that cluster, busier by day."""
    return 20 * np.exp(0.8 * _day(rows, step_us) + _wandering(dice, rows, 0.7, 0.6)) * _working(rows, step_us, 0.4)


def _busy(dice: Dice, rows: int, step_us: int) -> Amounts:
    """Utilisation in percent: long stretches of much and of little."""
    state, found = 1, np.empty(rows)
    for row in range(rows):
        if dice.random() < 0.01:
            state = 1 - state
        found[row] = 88 if state else 25
    return np.clip(found + dice.normal(0, 5, rows), 1, 100)


FAMILIES: Mapping[str, Family] = {
    "cpu, 5 min": Family(5 * MINUTE, 4_000, _cpu, ("spike", "shift", "zero", "noisy")),
    "counts, 5 min": Family(5 * MINUTE, 4_600, _counts, ("spike", "zero", "dip", "high", "contextual")),
    "bursts, 5 min": Family(5 * MINUTE, 5_000, _bursts, ("storm", "storm")),
    "temperature, 5 min": Family(5 * MINUTE, 6_000, _walk, ("drop", "drop")),
    "pattern, 5 min": Family(5 * MINUTE, 4_032, _pattern, ("absent",)),
    "pattern high, 5 min": Family(5 * MINUTE, 4_032, _pattern, ("high",)),
    "weeks, 30 min": Family(30 * MINUTE, 3_400, _weeks, ("quiet day", "busy day", "quiet day")),
    "counts, 1 min": Family(MINUTE, 9_000, _counts, ("spike", "dip", "spike", "zero")),
    "traffic, 10 min": Family(10 * MINUTE, 2_500, _counts, ("zero", "high"), missing=0.2),
    "business, 1 h": Family(HOUR, 1_600, _business, ("high", "dip", "spike", "zero")),
    "trend, 1 h": Family(HOUR, 1_500, _trend, ("spike", "down", "shift", "noisy")),
    "failures, 1 h": Family(HOUR, 1_600, _failures, ("spike", "high", "high")),
    "prices, 1 h": Family(HOUR, 1_600, _prices, ("spike", "spike")),
    "jobs, 1 h": Family(HOUR, 1_200, _jobs, ("contextual", "high")),
    "agents, 1 h": Family(HOUR, 1_200, _agents, ("high", "storm")),
    "stuck, 1 h": Family(HOUR, 1_400, _business, ("stuck", "stuck")),
    "early, 1 h": Family(HOUR, 700, _business, ("spike", "high")),
    "bill, 1 d": Family(DAY, 420, _bill, ("spike", "shift", "dip")),
    "utilisation, 1 min": Family(MINUTE, 5_000, _busy, ("zero",)),
}


def _length(change: str, family: Family, dice: random.Random) -> int:
    """How many rows a change lasts."""
    hours = {"spike": 0.0, "down": 0.0, "absent": 24.0, "quiet day": 24.0, "busy day": 24.0, "shift": 0.0}
    if family.step_us >= DAY:
        return 1 if change == "spike" else 3
    wanted = hours.get(change, dice.choice([2.0, 4.0, 8.0]) if family.step_us >= 5 * MINUTE else 0.5)
    return max(1, round(wanted * HOUR / family.step_us)) if wanted else (1 if family.step_us >= HOUR else 3)


def _put(change: str, values: Amounts, start: int, end: int, family: Family, dice: Dice) -> None:
    """Change the rows, in the measure of how the series varies."""
    there = values[start:end].copy()
    spread = float(np.percentile(values, 90) - np.percentile(values, 10)) + 1e-9
    day = max(1, DAY // family.step_us)
    high = float(np.percentile(values, 99))
    if change == "spike":
        values[start:end] = there + dice.uniform(1.5, 4) * max(spread, 0.3 * high)
    elif change == "down":
        values[start:end] = there - dice.uniform(1.5, 4) * spread
    elif change == "high":
        values[start:end] = there + dice.uniform(0.8, 2) * spread
    elif change == "shift":
        values[start:] += dice.uniform(1, 2) * spread
    elif change == "zero":
        values[start:end] = 0.0
    elif change == "dip":
        values[start:end] = there * dice.uniform(0.1, 0.4)
    elif change == "contextual":
        # What other hours of the day have, at the wrong time.
        values[start:end] = values[np.maximum(0, np.arange(start, end) - day // 2)]
    elif change == "noisy":
        values[start:end] = there + dice.normal(0, 0.8 * spread, end - start)
    elif change == "storm":
        values[start:end] = there * dice.uniform(4, 10)
    elif change == "drop":
        values[start:end] = there - np.linspace(0, dice.uniform(20, 40), end - start)
    elif change == "absent":
        values[start:end] = np.percentile(values, 10) + dice.normal(0, 1, end - start)
    elif change == "quiet day":
        values[start:end] = there * dice.uniform(0.5, 0.75)
    elif change == "busy day":
        values[start:end] = there * dice.uniform(1.35, 1.7)
    elif change == "stuck":
        values[start:end] = there[0]


def series(family_name: str, seed: int) -> Labelled:
    """One series of a family; the same for the same seed."""
    family = FAMILIES[family_name]
    dice, choice = np.random.default_rng([seed, *family_name.encode()]), random.Random(f"{family_name}|{seed}")
    values = family.base(dice, family.rows, family.step_us)
    first = int(PROBATION * family.rows) if "early" not in family_name else 100
    room = (family.rows - first) // len(family.changes)
    windows = []
    # A level that stays comes last: what is behind it is another series.
    for place, change in enumerate(sorted(family.changes, key=lambda each: each == "shift")):
        length = _length(change, family, choice)
        start = first + place * room + choice.randrange(room // 8, max(room // 8 + 1, room - 2 * length))
        _put(change, values, start, start + length, family, dice)
        window = max(length, 12 if change == "shift" else 1)
        windows.append((start, min(family.rows, start + window)))
    if family.floor is not None and values.min() < family.floor:
        values = np.maximum(values, family.floor)
    there = dice.random(family.rows) >= family.missing
    found: list[float | None] = [float(v) if known else None for v, known in zip(values, there, strict=True)]
    at = [START + row * family.step_us for row in range(family.rows)]
    return Labelled(family_name, f"{family_name} {seed}", family.step_us, at, found, windows)


def battery(seeds: int = SEEDS) -> Iterator[Labelled]:
    """Every family, so many of each."""
    for name in FAMILIES:
        for seed in range(1, seeds + 1):
            yield series(name, seed)
