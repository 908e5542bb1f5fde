"""Incidents put into a recorded series, at a known time and of a known kind.

Amounts are multiples of the mean hourly spend of the week before: ``x5`` makes an average hour cost five of them, on
top of what the hour cost anyway. Inside a naturally bursty series a small multiple is hidden by nature.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from streams.evaluation.traces import WEEK_HOURS, Amounts, Panel

#: An hour above this multiple of the median of its own hour is a burst: nothing is put there or right behind it.
BURST_RATIO, CALM_HOURS = 1.5, 6


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of change. ``extra``: what is added in each of its hours, from what is there and the week's mean."""

    name: str
    hours: int
    extra: Callable[[Amounts, float], Amounts]
    #: Whether somebody should be paged; if not, every page is false (of a launch, every page after the first).
    is_incident: bool = True
    #: Hours behind it that still belong to it: the way back to normal must not page either.
    after: int = 0


def _times(factor: float) -> Callable[[Amounts, float], Amounts]:
    return lambda there, mean: np.full(len(there), (factor - 1) * mean)


def _storm(there: Amounts, mean: float) -> Amounts:
    return (1.6 ** np.arange(1, len(there) + 1) - 1) * mean


def _ramp(there: Amounts, mean: float) -> Amounts:
    return 0.1 * np.arange(1, len(there) + 1) * mean


def _share(kept: float) -> Callable[[Amounts, float], Amounts]:
    return lambda there, mean: (kept - 1) * there


SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("x2/3h", 3, _times(2)),
        Shape("x3/3h", 3, _times(3)),
        Shape("x5/3h", 3, _times(5)),
        Shape("x10/1h", 1, _times(10)),
        Shape("x3/24h", 24, _times(3)),
        Shape("storm", 6, _storm),
        Shape("ramp", 36, _ramp),
        Shape("dip", 6, _share(0.2), is_incident=False, after=6),
        Shape("launch", 72, _times(3), is_incident=False),
        Shape("weekend", 48, _share(0.4), is_incident=False, after=24),
    )
}
INCIDENTS = tuple(shape.name for shape in SHAPES.values() if shape.is_incident)


@dataclass(frozen=True, slots=True)
class Injection:
    """One change of one series: ``rows`` replace those from ``start`` on, up to the end of what belongs to it."""

    series: str
    shape: Shape
    start: int
    #: Where the change itself ends, and where what belongs to it ends; rows, not included.
    end: int
    until: int
    rows: Amounts
    #: What was added in each row of ``rows``.
    extra: Amounts


def usual(hours: Amounts) -> Amounts:
    """The median of the same hour over the seven days before, for each hour; NaN on the first day.

    >>> float(usual(np.array([1.0] * 24 + [3.0] * 24 + [9.0] * 24))[48])
    2.0
    """
    lagged = np.full((7, len(hours)), np.nan)
    for day in range(1, 8):
        if 24 * day < len(hours):
            lagged[day - 1, 24 * day :] = hours[: -24 * day]
    found = np.full(len(hours), np.nan)
    if len(hours) > 24:
        found[24:] = np.nanmedian(lagged[:, 24:], axis=0)
    return found


def starts(hours: Amounts, shape: Shape, floor: float) -> list[int]:
    """The hours at which it may begin: warmed up, calm before, and room to its end."""
    expected = usual(hours)
    burst = (hours > BURST_RATIO * expected) & (hours - expected > floor)
    last = len(hours) - shape.hours - shape.after
    fits = range(WEEK_HOURS, last + 1)
    calm = [hour for hour in fits if not burst[hour - CALM_HOURS : hour + 1].any()]
    return calm or [hour for hour in fits if not burst[hour]] or list(fits)


def place(panel: Panel, name: str, shape: Shape, seed: int, floor: float) -> Injection | None:
    """Where this seed puts it into this series, always the same; None where the series is too short."""
    amounts, per_hour = panel.series[name], panel.rows_per_hour
    hours = amounts[: len(amounts) // per_hour * per_hour].reshape(-1, per_hour).sum(axis=1)
    possible = starts(hours, shape, floor)
    if not possible:
        return None
    # The same hour whatever the step: an hourly series and its ten-minute rows tell of the same incident.
    hour = random.Random(f"{name}|{shape.name}|{seed}").choice(possible)
    mean = float(hours[hour - WEEK_HOURS : hour].mean())
    return put(amounts, per_hour, name, shape, hour, mean)


def put(amounts: Amounts, per_hour: int, name: str, shape: Shape, hour: int, mean: float) -> Injection:
    """The series with the change from ``hour`` on; what an hour gets is spread evenly over its rows."""
    start, end = hour * per_hour, (hour + shape.hours) * per_hour
    until = min(len(amounts), end + shape.after * per_hour)
    there = amounts[start:end].reshape(-1, per_hour)
    added = shape.extra(there.sum(axis=1), mean)
    if added.min() < 0:  # a share of what is there is taken away from each row
        whole = there.sum(axis=1)
        spread = there * np.where(whole > 0, added / np.where(whole > 0, whole, 1), 0)[:, None]
    else:
        spread = np.repeat(added[:, None] / per_hour, per_hour, axis=1)
    extra = np.concatenate([spread.ravel(), np.zeros(until - end)])
    return Injection(name, shape, start, end, until, amounts[start:until] + extra, extra)


def place_all(panel: Panel, seeds: Iterable[int], floor: float, shapes: Iterable[str] = SHAPES) -> list[Injection]:
    """Every shape in every series, once for each seed."""
    wanted = [SHAPES[name] for name in shapes]
    found = [place(panel, name, shape, seed, floor) for name in panel.series for shape in wanted for seed in seeds]
    return [each for each in found if each is not None]
