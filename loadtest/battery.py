"""What the score of any series is worth, on made-up labelled series of nineteen kinds; some two minutes.

python -m loadtest.battery --seeds 3
"""

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
from rich.console import Console

from detectors.judges import make_judge
from loadtest.bench.machine import describe, store
from streams.commands.printing import print_line, print_table
from streams.evaluation.battery import SEEDS, Labelled, battery
from streams.evaluation.ranking import Judgement, average_precision, best_event_f1, labels


def main() -> int:
    """Judge every series, print a line for each family, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="series of each family")
    parser.add_argument("--no-store", action="store_true", help="print only")
    given = parser.parse_args()
    out = Console(width=140)
    families: dict[str, list[tuple[Labelled, Judgement, list[int]]]] = defaultdict(list)
    for each in battery(given.seeds):
        families[each.family].append((each, *_judged(each)))
    found = {name: _figures(own) for name, own in families.items()}
    found["all, one bar"] = _figures([each for own in families.values() for each in own])
    columns = ("family", "series", "AP", "event F1", "at", "told", "windows told", "windows", "pages per series-week")
    rows = [
        (name, *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in own.values())) for name, own in found.items()
    ]
    print_line(out, "AP: mean average precision by row; event F1: the best of one bar for the line's series")
    print_table(out, columns, rows, numbers=columns[1:])
    if not given.no_store:
        out.print(f"stored in {store('battery', {'machine': describe('none'), 'families': found})}")
    return 0


def _shown(figure: float) -> str:
    return f"{figure:.2f}" if isinstance(figure, float) else str(figure)


def _judged(series: Labelled) -> tuple[Judgement, list[int]]:
    """The scores of a series, and the rows at which something was sent."""
    judge, scores, sent, pages = make_judge("spend", series.step_us), np.zeros(len(series.values)), [], 0
    for row, (at, value) in enumerate(zip(series.at_us, series.values, strict=True)):
        said = judge.step(at, value)
        scores[row] = said.score or 0.0
        if said.page or said.ticket:
            sent.append(row)
        pages += said.page
    return Judgement(scores, series.windows), [pages, *sent]


def _figures(own: list[tuple[Labelled, Judgement, list[int]]]) -> dict[str, Any]:
    judged = [judgement for _, judgement, _ in own]
    f1, bar = best_event_f1(judged)
    told = sum(any(a <= row < b for row in sent[1:]) for each, _, sent in own for a, b in each.windows)
    weeks = sum(len(each.values) * each.step_us for each, _, _ in own) / (7 * 86_400_000_000)
    return {
        "series": len(own),
        "ap": float(np.mean([average_precision(j.scores, labels(len(j.scores), j.windows)) for j in judged])),
        "event_f1": f1,
        "bar": bar,
        "told": sum(len(sent) - 1 for _, _, sent in own),
        "windows_told": told,
        "windows": sum(len(each.windows) for each, _, _ in own),
        "pages_per_series_week": sum(sent[0] for _, _, sent in own) / weeks,
    }


if __name__ == "__main__":
    raise SystemExit(main())
