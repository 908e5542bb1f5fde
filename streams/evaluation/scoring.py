"""What a contender's trails are worth: recall, pages, time and money lost, at a bar set on other series."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.instants import HOUR, MINUTE
from streams.evaluation.incidents import NEVER, QUIET_HOURS, Flags, opens, over
from streams.evaluation.injections import INCIDENTS, SHAPES
from streams.evaluation.traces import WEEK_HOURS, Amounts
from streams.evaluation.trials import Trials

BARS_MAX = 160
SPLITS = 5
#: Hours before an injection that are looked at for an incident that is still open.
BEFORE = 2 * (QUIET_HOURS + 1)

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts at every bar of a list: columns are bars, rows are series or injections."""

    bars: Amounts
    names: tuple[str, ...]
    weeks: Amounts
    #: By series and bar.
    clean_pages: Places
    #: By injection: which series and shape it is.
    series: Places
    shapes: Sequence[str]
    #: By injection and bar: the row of the first page from its beginning on, or -1; how many pages; and whether the
    #: clean series pages in the same hours, as luck would have it.
    first: Places
    pages: Places
    luck: Flags
    #: By injection: what it had added by the end of each row.
    added: Sequence[Amounts]
    step_us: int


def bars_of(trials: Trials) -> Amounts:
    """Bars worth trying: scores of the clean series, closer to each other where they are high."""
    warm = WEEK_HOURS * trials.panel.rows_per_hour
    scores = np.unique(np.concatenate([trail.scores[warm:] for trail in trials.clean.values()]))
    scores = scores[np.isfinite(scores)][::-1]
    if not len(scores):
        return np.array([0.0])
    places = np.unique(np.geomspace(1, len(scores), BARS_MAX).astype(int)) - 1
    return np.concatenate([scores[places], [scores[-1] - 1.0]])


def at_bars(trials: Trials) -> Tally:
    """Count pages and detections for every bar: scores above the bar, one page an incident."""
    panel, bars = trials.panel, bars_of(trials)
    per_hour = panel.rows_per_hour
    clean_opens = {name: opens(over(trail.scores, bars), per_hour) for name, trail in trials.clean.items()}

    def judged(number: int) -> tuple[Flags, Flags]:
        each, trail = trials.injected[number]
        before = min(each.start, BEFORE * per_hour)
        scores = np.concatenate([trials.clean[each.series].scores[each.start - before : each.start], trail.scores])
        opened = opens(over(scores, bars), per_hour)[:, before:]
        return opened, clean_opens[each.series][:, each.start : each.until]

    return _tally(trials, bars, clean_opens, judged)


def as_shipped(trials: Trials, tickets: bool = False) -> Tally:
    """Count what the contender itself sent: pages, or with ``tickets`` pages and tickets. One column."""
    bars = np.array([0.0])

    def sent(trail: Any) -> Flags:
        return (trail.pages | trail.tickets if tickets else trail.pages)[None, :]

    clean_opens = {name: sent(trail) for name, trail in trials.clean.items()}

    def judged(number: int) -> tuple[Flags, Flags]:
        each, trail = trials.injected[number]
        return sent(trail), clean_opens[each.series][:, each.start : each.until]

    return _tally(trials, bars, clean_opens, judged)


def _tally(
    trials: Trials, bars: Amounts, clean_opens: dict[str, Flags], judged: Callable[[int], tuple[Flags, Flags]]
) -> Tally:
    panel = trials.panel
    warm, names = WEEK_HOURS * panel.rows_per_hour, tuple(trials.clean)
    count = len(trials.injected)
    first = np.full((count, len(bars)), -1)
    pages = np.zeros((count, len(bars)), dtype=np.int64)
    luck = np.zeros((count, len(bars)), dtype=bool)
    for number, (each, _) in enumerate(trials.injected):
        opened, by_luck = judged(number)
        length = each.end - each.start
        lasting = opened[:, :length]
        first[number] = np.where(lasting.any(axis=1), lasting.argmax(axis=1), -1)
        pages[number] = opened.sum(axis=1)
        luck[number] = by_luck[:, :length].any(axis=1)
    return Tally(
        bars=bars,
        names=names,
        weeks=np.array([(len(panel.series[n]) - warm) * panel.step_us / (WEEK_HOURS * HOUR) for n in names]),
        clean_pages=np.array([clean_opens[name][:, warm:].sum(axis=1) for name in names]),
        series=np.array([names.index(each.series) for each, _ in trials.injected], dtype=np.int64),
        shapes=[each.shape.name for each, _ in trials.injected],
        first=first,
        pages=pages,
        luck=luck,
        added=[np.cumsum(each.extra) for each, _ in trials.injected],
        step_us=panel.step_us,
    )


def figures(tally: Tally, bar: int, chosen: Sequence[int] | None = None) -> dict[str, Any]:
    """All figures at one bar, of the series with these numbers; None is all of them. Times are minutes."""
    series = np.arange(len(tally.names)) if chosen is None else np.array(chosen)
    rows = np.flatnonzero(np.isin(tally.series, series))
    pages = float(tally.clean_pages[series, bar].sum() / tally.weeks[series].sum())
    by_shape = {name: [row for row in rows if tally.shapes[row] == name] for name in SHAPES}
    kinds = {name: _kind(tally, bar, own) for name, own in by_shape.items() if own}
    incidents = [kinds[name]["recall"] for name in INCIDENTS if name in kinds]
    tenfold = kinds.get("x10/1h", {}).get("recall")
    return {
        "pages_per_series_week": pages,
        "recall_mean": _mean(incidents),
        "precision": None if tenfold is None or tenfold + pages == 0 else tenfold / (tenfold + pages),
        "luck": _mean([kinds[name]["luck"] for name in INCIDENTS if name in kinds]),
        "kinds": kinds,
    }


def _kind(tally: Tally, bar: int, rows: Sequence[int]) -> dict[str, Any]:
    found = tally.first[rows, bar]
    minutes = [int(row + 1) * tally.step_us / MINUTE for row in found if row >= 0]
    escaped = total = 0.0
    for row, first in zip(rows, found, strict=True):
        added = tally.added[row]
        total += abs(added[-1])
        escaped += abs(added[first if first >= 0 else -1])
    return {
        "cases": len(rows),
        "recall": float((found >= 0).mean()),
        "minutes_median": float(np.median(minutes)) if minutes else None,
        "minutes_p90": float(np.percentile(minutes, 90, method="inverted_cdf")) if minutes else None,
        "escaped_share": escaped / total if total else None,
        "escaped_usd_mean": escaped / len(rows),
        "pages_per_case": float(tally.pages[rows, bar].mean()),
        "luck": float(tally.luck[rows, bar].mean()),
    }


def for_pages(tally: Tally, chosen: Sequence[int], budget: float) -> int:
    """The lowest bar at which these series page at most ``budget`` times a week each."""
    rates = tally.clean_pages[chosen].sum(axis=0) / tally.weeks[chosen].sum()
    # Scores fall along the bars: the last one within the budget, where all before it are too.
    broken = np.flatnonzero(rates > budget)
    return int(broken[0] - 1) if len(broken) and broken[0] else (0 if len(broken) else len(tally.bars) - 1)


def for_recall(tally: Tally, chosen: Sequence[int], recall: float) -> int | None:
    """The highest bar at which these series have this mean recall; None where none has."""
    own = np.isin(tally.series, chosen)
    shapes = np.array(tally.shapes)
    means = [(tally.first[own & (shapes == name)] >= 0).mean(axis=0) for name in INCIDENTS if (shapes == name).any()]
    enough = np.flatnonzero(np.mean(means, axis=0) >= recall) if means else np.array([])
    return int(enough[0]) if len(enough) else None


def held_out(tally: Tally, choose: Callable[[Sequence[int]], int | None]) -> dict[str, Any] | None:
    """Figures with the bar chosen on one half of the series and measured on the other: the mean over five random
    halvings, both ways. None where a half finds no bar.
    """
    found = []
    for split in range(SPLITS):
        order = random.Random(split).sample(range(len(tally.names)), len(tally.names))
        halves = sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])
        for one, other in (halves, halves[::-1]):
            bar = choose(one) if one else None
            if bar is None:
                return None
            found.append(figures(tally, bar, other) | {"bar": float(tally.bars[bar])})
    return _merged(found)


def _merged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of every number; what is missing somewhere is left out of its mean."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in found for name in each):
        values = [each[name] for each in found if name in each]
        merged[name] = _merged(values) if isinstance(values[0], dict) else _mean(values)
    return merged


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


__all__ = ["NEVER", "Tally", "as_shipped", "at_bars", "figures", "for_pages", "for_recall", "held_out"]
