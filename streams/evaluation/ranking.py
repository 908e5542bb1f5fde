"""What a score is worth on labelled series, whatever the bar: precision over recall, events, and one bar for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.evaluation.traces import Amounts

Windows = Sequence[tuple[int, int]]
#: Alarms closer than this share of a series are one episode.
EPISODE = 0.01
BARS = 200


@dataclass(frozen=True, slots=True)
class Judgement:
    """The scores of one labelled series, from the end of its probation on."""

    scores: Amounts
    windows: Windows


def labels(count: int, windows: Windows) -> NDArray[np.bool_]:
    """Which rows are part of an anomaly.

    >>> labels(4, [(1, 3)]).astype(int).tolist()
    [0, 1, 1, 0]
    """
    found = np.zeros(count, dtype=bool)
    for start, end in windows:
        found[start:end] = True
    return found


def average_precision(scores: Amounts, wanted: NDArray[np.bool_]) -> float:
    """The mean precision over all recalls; rows of one score come together.

    >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.8333333333333333
    """
    if not wanted.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(wanted[order])[last]
    seen = (np.arange(len(scores)) + 1)[last]
    recall = hits / wanted.sum()
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * hits / seen))


def episodes(hot: NDArray[np.bool_], apart: int) -> list[tuple[int, int]]:
    """First and last row of each run of alarms; those at most ``apart`` rows from each other are one.

    >>> episodes(np.array([True, False, True, False, False, True]), 2)
    [(0, 2), (5, 5)]
    """
    places = np.flatnonzero(hot)
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) > apart)
    firsts, lasts = np.append(0, cuts + 1), np.append(cuts, len(places) - 1)
    return [(int(places[first]), int(places[last])) for first, last in zip(firsts, lasts, strict=True)]


def events(scores: Amounts, windows: Windows, bar: float) -> tuple[int, int]:
    """How many windows have an alarm, and how many episodes of alarms touch none. Right behind a window it is late
    and no false alarm.
    """
    apart = max(1, round(EPISODE * len(scores)))
    hot = scores >= bar
    found = sum(bool(hot[start:end].any()) for start, end in windows)
    for start, end in windows:
        hot[start : end + max(apart, end - start)] = False
    # An alarm that goes on and on is not one.
    return found, sum(1 + (last - first) // (5 * apart) for first, last in episodes(hot, apart))


def best_event_f1(judged: Sequence[Judgement]) -> tuple[float, float]:
    """The best F1 of events that one bar for all of these series reaches, and the bar."""
    every = np.unique(np.concatenate([each.scores for each in judged]))[::-1]
    places = np.unique(np.geomspace(1, len(every), BARS).astype(int)) - 1
    wanted = sum(len(each.windows) for each in judged)
    best = (0.0, float("inf"))
    for bar in every[places][every[places] > 0]:
        counts = [events(each.scores, each.windows, float(bar)) for each in judged]
        found, false = sum(each[0] for each in counts), sum(each[1] for each in counts)
        f1 = 2 * found / (wanted + found + false) if found else 0.0
        best = max(best, (f1, float(bar)))
    return best
