"""One GPU's series is judged as DETECT judges a GPU."""

import pytest

from detectors.gpu_judge import GpuJudge
from schemas.instants import HOUR, MINUTE, SECOND

START = 20_000 * 24 * HOUR


def judged(*parts: tuple[int, float | None], step: int = MINUTE) -> list[tuple[int, str]]:
    """Minutes after the start of each page and ticket; ``(minutes, utilisation)`` each, -1 for rows that are missing."""
    judge, at, told = GpuJudge(step), START, []
    for minutes, value in parts:
        for _ in range(minutes * MINUTE // step):
            if value != -1:
                verdict = judge.step(at, value)
                told += [((at - START) // MINUTE, "page")] * verdict.page
                told += [((at - START) // MINUTE, "ticket")] * verdict.ticket
            at += step
    return told


BURSTS = [(9, 0.0), (1, 1.0)] * 18


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([(200, 0.05)], [(59, "page")]),
        ([(120, 0.9), (120, 0.0)], [(179, "page")]),
        ([(50, 0.0), (4, -1), (59, 0.0)], []),
        ([(50, 0.0), (4, None), (59, 0.0)], []),
        ([(50, 0.0), (4, float("nan")), (59, 0.0)], []),
        ([(50, 0.0), (4, 2.0**63), (59, 0.0)], []),
        ([(30, 0.0), (3, -1), (57, 0.0)], [(59, "page")]),
        ([(200, 0.25)], []),
        (BURSTS, [(119, "ticket")]),
        ([(60, 0.0), (60, 0.9), (60, 0.0)], [(59, "page"), (179, "page")]),
        ([(60, 0.0), (120, 0.25), (61, 0.0)], [(59, "page")]),
        ([(60, 90.0), (120, 3.0)], [(119, "page")]),
    ],
    ids=[
        "an hour without work pages once",
        "after work the hour begins anew",
        "nothing across a gap",
        "a missing value is a gap",
        "so is what is not a number",
        "and DCGM's blank",
        "three minutes are no gap",
        "a quarter is work",
        "bursts are a ticket after an hour below the bar",
        "work in between, and it pages again",
        "between the bars it goes on",
        "percent is understood",
    ],
)
def test_a_series(parts: list[tuple[int, float | None]], told: list[tuple[int, str]]):
    assert judged(*parts) == told


@pytest.mark.parametrize("step", [30 * SECOND, 5 * MINUTE, 10 * MINUTE], ids=lambda step: f"{step // SECOND} s")
def test_rows_of_any_length_are_judged_within_62_minutes_or_their_next_row(step: int):
    [(minutes, what)] = judged((120, 0.9), (120, 0.0), step=step)
    assert what == "page"
    assert minutes * MINUTE + step - 120 * MINUTE <= max(62 * MINUTE, HOUR + step)


def test_the_score_is_higher_the_idler_and_none_while_nothing_is_known():
    def last(util: float) -> float | None:
        judge, verdict = GpuJudge(MINUTE), None
        for minute in range(60):
            verdict = judge.step(START + minute * MINUTE, util)
        return verdict.score

    assert last(0.0) > last(0.1) > last(0.5) > last(1.0)
    assert GpuJudge(MINUTE).step(START, 0.0).score is None
