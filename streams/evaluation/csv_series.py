"""Any series as a CSV of ``timestamp,value``, and what a judge says of it, row by row, with the times as given."""

import csv
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from detectors.judges import make_judge
from detectors.judging import UNKNOWN, Kind, Verdict
from schemas.instants import DAY, HOUR, MINUTE, to_micros

COLUMNS = ("timestamp", "value", "expected", "score", "page", "ticket")
#: Written for a value that is not there.
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "inf", "-inf", "+inf", "infinity", "-infinity"})
#: Epoch numbers below each bound are seconds, milliseconds, microseconds, nanoseconds; of the year 5138 and so on.
EPOCHS = ((1e11, 1_000_000.0), (1e14, 1_000.0), (1e17, 1.0), (1e20, 0.001))
#: Utilisation is a share; a series that goes beyond this is taken to be in percent.
SHARE_MAX = 1.5


class SeriesError(ValueError):
    """The file cannot be read as a series; the message names the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file: as it is written, and what it means. A missing value is None."""

    timestamp: str
    text: str
    at_us: int
    value: float | None


def read_series(lines: Iterable[str]) -> list[Row]:
    """The rows of a CSV in the order of the file. Further columns are passed over; so are empty lines.

    Raises:
        SeriesError: a column is missing, or a time or value is none; with the line.
    """
    reader = csv.reader(lines)
    try:
        header = [name.strip().lstrip("\ufeff").lower() for name in next(reader, [])]
        missing = [name for name in COLUMNS[:2] if name not in header]
        if missing:
            found = ", ".join(header)[:80] or "nothing"
            raise SeriesError(f"line 1: no column {' and no column '.join(missing)}; the header has {found}")
        time, value = header.index("timestamp"), header.index("value")
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = reader.line_num
            if len(cells) <= max(time, value):
                raise SeriesError(f"line {line}: {len(cells)} cells, and the header has {len(header)}")
            rows.append(Row(cells[time], cells[value], _instant(cells[time], line), _number(cells[value], line)))
    except csv.Error as error:
        raise SeriesError(f"line {reader.line_num}: {error}") from error
    if not rows:
        raise SeriesError("the file has a header and no rows")
    return rows


def step_of(rows: Sequence[Row]) -> int:
    """The step of a series, microseconds: the median time from row to row, from a minute to a day."""
    times = sorted({row.at_us for row in rows})
    steps = [after - before for before, after in itertools.pairwise(times)]
    return max(MINUTE, min(DAY, round(statistics.median(steps)))) if steps else HOUR


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict for each row, in the order of the file, and what had to be put right on the way."""

    verdicts: list[Verdict]
    step_us: int
    remarks: list[str]


def judge_rows(rows: Sequence[Row], kind: Kind, floor: float | None = None) -> Judged:
    """Judge a series in the order of time. Rows of one time are one row with the last value that is there; of
    requests each is one of its own.

    ``floor`` is the excess in the unit of the values below which nothing is sent; None: it scales with the series.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place].at_us)
    remarks = [] if order == list(range(len(rows))) else ["the rows are not in order of time: judged in that order"]
    scale, said = _scale(rows, kind)
    remarks += said
    step_us = step_of(rows)
    judge, verdicts = make_judge(kind, step_us, floor), [UNKNOWN] * len(rows)
    groups = [[place] for place in order] if kind == "requests" else list(_by_time(rows, order))
    if len(groups) < len(rows):
        remarks.append(f"{len(rows) - len(groups)} rows repeat a time: the last value of each time counts")
    for places in groups:
        known = [value for place in places if (value := rows[place].value) is not None]
        verdict = judge.step(rows[places[0]].at_us, known[-1] * scale if known else None)
        expected = None if verdict.expected is None else verdict.expected / scale
        verdicts[places[0]] = verdict._replace(expected=expected)
        for place in places[1:]:
            verdicts[place] = verdict._replace(expected=expected, page=False, ticket=False)
    return Judged(verdicts, step_us, remarks)


def write_scores(rows: Sequence[Row], verdicts: Sequence[Verdict], file: TextIO) -> None:
    """Write a line for each row. A row of which nothing can be said has no expectation and the score 0."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, said in zip(rows, verdicts, strict=True):
        score = said.score if said.score is not None and math.isfinite(said.score) else 0.0
        expected = "" if said.expected is None or not math.isfinite(said.expected) else f"{said.expected:.10g}"
        writer.writerow((row.timestamp, row.text, expected, f"{score:.9g}", int(said.page), int(said.ticket)))


def _by_time(rows: Sequence[Row], order: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for place in order:
        if group and rows[place].at_us != rows[group[0]].at_us:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _scale(rows: Sequence[Row], kind: Kind) -> tuple[float, list[str]]:
    """What values are multiplied with, so that a utilisation in percent is a share."""
    largest = max((row.value for row in rows if row.value is not None and row.value <= 100), default=0.0)
    if kind == "gpu" and largest > SHARE_MAX:
        return 0.01, ["the values are taken to be percent"]
    return 1.0, []


def _number(text: str, line: int) -> float | None:
    stripped = text.strip()
    if stripped.lower() in MISSING:
        return None
    try:
        value = float(stripped)
    except ValueError as error:
        raise SeriesError(f"line {line}: {stripped[:32]!r} is no number; leave it empty where it is missing") from error
    return value if math.isfinite(value) else None


def _instant(text: str, line: int) -> int:
    """ISO 8601 (without an offset it is UTC) or a number since 1970 in s, ms, us or ns by its size; microseconds."""
    stripped = text.strip()
    try:
        number = float(stripped)
    except ValueError:
        return _iso(stripped, line)
    for bound, micros in EPOCHS:
        if abs(number) < bound:
            return round(number * micros)
    raise SeriesError(f"line {line}: {stripped[:32]!r} is no time since 1970")


def _iso(text: str, line: int) -> int:
    try:
        moment = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError as error:
        raise SeriesError(
            f"line {line}: {text[:40]!r} is no time; write 2026-11-21 09:00:00, 2026-11-21T09:00:00Z or epoch seconds"
        ) from error
    return to_micros(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
