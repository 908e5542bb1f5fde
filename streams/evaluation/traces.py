"""Recorded traces as series: what is needed of the folder of traces, in the units in which judges read it."""

import csv
import gzip
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.instants import HOUR, MINUTE, parse_instant

#: A Monday: traces count from their own beginning.
START = parse_instant("2026-01-05T00:00:00Z")
WEEK_HOURS = 168
#: A feature is dense where it spends a dollar an hour, and hardly ever nothing.
HOURLY_MIN, ZERO_SHARE_MAX = 1.0, 0.05
TEAMS, TEAM_SIZE, TEAM_MEMBER_MIN = 40, 8, 0.2
GPU_HOUR_USD = 2.5

Amounts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """Series of one step; dollars in each row, from ``START`` on, no row missing."""

    name: str
    step_us: int
    series: Mapping[str, Amounts]

    @property
    def rows_per_hour(self) -> int:
        return HOUR // self.step_us


@dataclass(frozen=True, slots=True)
class Samples:
    """Utilisation (0..1) of one GPU at points in time."""

    at_us: list[int]
    busy: list[float]


def servegen_hours(data: Path) -> dict[str, Amounts]:
    """Dollars an hour of every client that was seen over the two weeks; empty where the trace is not here."""
    path = data / "servegen" / "servegen_hourly.csv.gz"
    hours: dict[str, dict[int, float]] = defaultdict(dict)
    if path.is_file():
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                hours[f"{row['model']}/{row['client']}"][int(row["hour"])] = float(row["usd"] or 0)
    length = 2 * WEEK_HOURS
    return {
        name: np.array([spent.get(hour, 0.0) for hour in range(length)])
        for name, spent in sorted(hours.items())
        if max(spent) >= length - 2
    }


def dense(hours: Mapping[str, Amounts]) -> dict[str, Amounts]:
    """Those that spend a dollar an hour and hardly ever nothing."""
    return {
        name: spent
        for name, spent in hours.items()
        if spent.mean() >= HOURLY_MIN and (spent == 0).mean() < ZERO_SHARE_MAX
    }


def ten_minutes(data: Path, hours: Mapping[str, Amounts]) -> dict[str, Amounts]:
    """The same series in six rows an hour, by when the requests came; each hour's rows add up to the hour."""
    path = data / "servegen" / "servegen_10min.csv.gz"
    if not path.is_file():
        return {}
    rates = {name: np.zeros(6 * len(spent)) for name, spent in hours.items()}
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            found = rates.get(f"{row['model']}/{row['client']}")
            place = int(row["t_s"]) // 600
            if found is not None and place < len(found):
                found[place] = float(row["requests_per_s"] or 0)
    return {name: _spread(hours[name], rate.reshape(-1, 6)) for name, rate in rates.items()}


def _spread(spent: Amounts, rates: Amounts) -> Amounts:
    whole = rates.sum(axis=1, keepdims=True)
    shares = np.where(whole > 0, rates / np.where(whole > 0, whole, 1), 1 / rates.shape[1])
    return (spent[:, None] * shares).ravel()


def teams(hours: Mapping[str, Amounts]) -> dict[str, Amounts]:
    """Random features together, as teams have them: mixed bursts, the hardest series there are."""
    dice = random.Random(1)
    names = sorted(name for name, spent in hours.items() if spent.mean() >= TEAM_MEMBER_MIN)
    if not names:
        return {}
    chosen = {f"team {n}": dice.sample(names, min(TEAM_SIZE, len(names))) for n in range(TEAMS)}
    return {team: np.sum([hours[name] for name in own], axis=0) for team, own in chosen.items()}


def helios(data: Path) -> dict[str, Amounts]:
    """GPUs that ran, by virtual cluster and hour, at one price."""
    path = data / "helios" / "earth_vc_hourly.csv.gz"
    found: dict[str, list[float]] = defaultdict(list)
    if path.is_file():
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                found[row["vc"]].append(float(row["running_gpu_num"] or 0) * GPU_HOUR_USD)
    return {name: np.array(spent) for name, spent in sorted(found.items()) if np.mean(spent) >= HOURLY_MIN}


def panels(data: Path) -> list[Panel]:
    """Every panel of spend for which the trace is here."""
    hours = servegen_hours(data)
    features = dense(hours)
    found = [
        Panel("features, hourly", HOUR, features),
        Panel("features, ten-minute", 10 * MINUTE, ten_minutes(data, features)),
        Panel("teams, hourly", HOUR, teams(hours)),
        Panel("clusters, hourly", HOUR, helios(data)),
    ]
    return [panel for panel in found if panel.series]


def gpus(data: Path) -> dict[str, Samples]:
    """Duty cycles of inference pods; empty where the trace is not here."""
    path = data / "alibaba-genai-2026" / "pod_gpu_duty_cycle.csv.gz"
    rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
    if path.is_file():
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                rows[row["pod"]].append((int(row["unix_s"]), float(row["duty_cycle_percent"]) / 100))
    found = {}
    for pod, samples in sorted(rows.items()):
        by_time = dict(sorted(samples))
        found[pod] = Samples([at * 1_000_000 for at in by_time], list(by_time.values()))
    return found


def long_contexts(data: Path) -> list[tuple[int, int]]:
    """When (microseconds) and of how many tokens the requests of the long-context trace were."""
    path = data / "mooncake" / "synthetic_requests.csv.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt") as file:
        return sorted(
            (START + int(row["timestamp_ms"]) * 1_000, int(row["input_length"]) + int(row["output_length"]))
            for row in csv.DictReader(file)
        )


def short_contexts(data: Path) -> list[tuple[int, int]]:
    """The same of the coding service, whose requests all stay below the limit."""
    path = data / "azure-llm-2023" / "AzureLLMInferenceTrace_code.csv"
    if not path.is_file():
        return []
    found = []
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            at = parse_instant(row["TIMESTAMP"].strip().replace(" ", "T")[:26] + "Z")
            found.append((at, int(row["ContextTokens"]) + int(row["GeneratedTokens"])))
    return sorted(found)
