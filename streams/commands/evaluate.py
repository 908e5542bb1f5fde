"""``sluice eval``: what the detectors are worth on recorded traces, or what they say of any series."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from detectors.judging import Kind
from streams.commands.printing import print_line
from streams.evaluation.csv_series import SeriesError, judge_rows, read_series, write_scores
from streams.evaluation.report import show
from streams.evaluation.run import evaluate

#: Beside a working copy; an installed Sluice is told with --data.
DATA = Path(__file__).parents[3] / "shared" / "data"


def judged(data: Path | None, quick: bool, out: Console) -> dict[str, Any] | None:
    """Judge the detectors on the traces of a folder and print what was found; None where it is not there."""
    folder = data or DATA
    if not folder.is_dir():
        print_line(out, f"{folder} is not here: give the folder of recorded traces with --data", "red")
        return None
    result = evaluate(folder, quick, lambda text: print_line(out, f"... {text}"))
    show(result, out)
    return result


def run(data: Path | None, quick: bool, json_file: Path | None, out: Console) -> int:
    """Print the evaluation, and write it to ``json_file`` where one is given; 2 where there are no traces."""
    result = judged(data, quick, out)
    if result is None:
        return 2
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print_line(out, f"written to {json_file}")
    return 0


def judge_file(file: Path, kind: Kind, floor: float | None, scores: Path, out: Console) -> int:
    """Judge one series row by row and write the scores; 1 where the file cannot be read as a series."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = read_series(lines)
    except (SeriesError, UnicodeDecodeError) as error:
        print_line(out, f"{file}: {error}", "red")
        return 1
    found = judge_rows(rows, kind, floor)
    with scores.open("w", encoding="utf-8", newline="") as lines:
        write_scores(rows, found.verdicts, lines)
    for remark in found.remarks:
        print_line(out, f"{file}: {remark}", "yellow")
    pages, tickets = sum(each.page for each in found.verdicts), sum(each.ticket for each in found.verdicts)
    minutes = found.step_us / 60_000_000
    print_line(out, f"{len(rows)} rows of {minutes:g} min, {pages} pages, {tickets} tickets: {scores}")
    return 0
