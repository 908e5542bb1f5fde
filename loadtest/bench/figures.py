"""The arithmetic of the rigs: rates from samples, percentiles, medians, ratios, slopes. Pure."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from statistics import median
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """What was seen of a contender at one moment."""

    #: Seconds on a monotonic clock.
    at: float
    #: Events whose state is durable.
    durable: int
    #: CPU seconds that the process has used since its start.
    cpu_s: float


class Rate(NamedTuple):
    """Steady-state work between two moments at which durable progress was seen."""

    events: int
    seconds: float
    events_per_s: float
    cpu_s_per_million: float


#: So much of the topic ends a warm-up in any case: who reads it all within seconds is warm by then.
WARM_SHARE = 0.1


def steady(samples: Sequence[Sample], warm_up_s: float, total: int, until: float = 0.97) -> Rate | None:
    """The rate between the first and the last step of durable progress after the warm-up.

    Commits come in steps, so only the moments at which a step was seen are compared: between two of them, exactly the
    events between their offsets became durable. The end of the topic is left out (``until``, a share of ``total``),
    where some partitions are empty already. None when there were not two such steps.
    """
    steps = [new for old, new in pairwise(samples) if new.durable > old.durable]
    if not steps:
        return None
    warm_at = steps[0].at + warm_up_s
    steady_steps = [
        step
        for step in steps
        if (step.at >= warm_at or step.durable >= WARM_SHARE * total) and step.durable <= until * total
    ]
    if len(steady_steps) < 2:
        return None
    first, last = steady_steps[0], steady_steps[-1]
    events, seconds = last.durable - first.durable, last.at - first.at
    return Rate(events, seconds, events / seconds, (last.cpu_s - first.cpu_s) / events * 1e6)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed (nearest rank).

    >>> percentile([30.0, 10.0, 20.0], 50), percentile([1.0, 2.0], 99)
    (20.0, 2.0)
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, ceil(percent / 100 * len(ordered)) - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Count, p50, p90, p99 and the largest of some latencies, in their own unit."""
    return {"samples": len(values)} | {
        name: round(percentile(values, percent), 3)
        for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100))
    }


def middle(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every figure over repetitions, and the whole range of ``events_per_s``."""
    figures: dict[str, Any] = {
        name: round(median(run[name] for run in runs), 2)
        for name in runs[0]
        if isinstance(runs[0][name], (int, float)) and not isinstance(runs[0][name], bool)
    }
    speeds = [run["events_per_s"] for run in runs]
    return figures | {"events_per_s_range": [round(min(speeds)), round(max(speeds))], "repetitions": len(runs)}


def ratios(speeds: Mapping[str, float], ours: str = "sluice") -> dict[str, float]:
    """How many times as fast as each other contender we are.

    >>> ratios({"sluice": 100.0, "plain_faust": 4.0})
    {'plain_faust': 25.0}
    """
    return {name: round(speeds[ours] / speed, 3) for name, speed in speeds.items() if _is_other(name, ours, speeds)}


def cpu_ratios(costs: Mapping[str, float], ours: str = "sluice") -> dict[str, float]:
    """How many times our CPU time each other contender takes for the same work.

    >>> cpu_ratios({"sluice": 10.0, "plain_faust": 400.0})
    {'plain_faust': 40.0}
    """
    return {name: round(cost / costs[ours], 3) for name, cost in costs.items() if _is_other(name, ours, costs)}


def _is_other(name: str, ours: str, all_: Mapping[str, float]) -> bool:
    # What begins with our name is another setting of ours, and does more work.
    return ours in all_ and not name.startswith(ours)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope through (x, y); 0.0 where all x are the same.

    >>> slope([(0, 1), (1, 3), (2, 5)])
    2.0
    """
    n = len(points)
    if not n:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
