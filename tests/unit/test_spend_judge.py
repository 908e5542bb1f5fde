"""The spend detector as a judge: any step, any unit, holes and hostile numbers."""

import math
import random

import pytest

from detectors.judges import make_judge
from detectors.judging import UNKNOWN
from detectors.spend_judge import SpendJudge
from schemas.instants import DAY, HOUR, MINUTE

START = 20_000 * DAY


def wave(at: int, seed: int = 0) -> float:
    dice = random.Random(at * 31 + seed)
    return 20 + 8 * math.sin(at / DAY * 2 * math.pi) + dice.uniform(-2, 2)


def run(step: int, days: float, change=lambda at, value: value, floor: float | None = 5.0):
    """The verdicts by microseconds since the start; ``value`` is what an hour would be at that rate."""
    judge = make_judge("spend", step, floor)
    found = {}
    for at in range(0, round(days * DAY), step):
        found[at] = judge.step(START + at, change(at, wave(at)) * min(step, HOUR) / HOUR)
    return found


def pages(found) -> list[int]:
    return [at for at, verdict in found.items() if verdict.page]


@pytest.mark.parametrize("step", [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR], ids=["a minute", "ten", "an hour", "six"])
def test_a_tenfold_hour_pages_once_whatever_the_step_and_a_calm_series_never_does(step):
    days = 20 if step > HOUR else 6
    begins = (days - 1) * DAY

    def tenfold(at: int, value: float) -> float:
        return value * 10 if begins <= at < begins + max(step, HOUR) else value

    assert pages(run(step, days)) == []
    found = pages(run(step, days, tenfold))
    assert found[0] - begins < max(step, 20 * MINUTE)
    assert len(found) <= 2


def test_a_day_is_an_hour_of_its_own():
    def high(at: int, value: float) -> float:
        return value * 5 if at == 100 * DAY else value

    assert pages(run(DAY, 110, high)) == [100 * DAY]


def test_a_running_hour_is_judged_by_its_sum_so_far_and_what_is_expected_is_the_whole_hour():
    found = run(10 * MINUTE, 5)
    last = found[4 * DAY + 50 * MINUTE]
    assert last.expected == pytest.approx(20, abs=3)
    assert found[4 * DAY].score <= last.score


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e15], ids=["tiny", "plain", "huge"])
def test_without_dollars_the_unit_makes_no_difference(factor):
    def change(at: int, value: float) -> float:
        return factor * (value * 6 if 5 * DAY <= at < 5 * DAY + 2 * HOUR else value)

    found = run(HOUR, 6, change, floor=None)
    assert pages(found) == [5 * DAY]
    assert found[5 * DAY].score == pytest.approx(
        run(HOUR, 6, lambda at, v: change(at, v) / factor, None)[5 * DAY].score, rel=0.01
    )


def test_a_low_is_told_by_the_score_of_a_series_that_is_not_known_to_be_money_and_never_paged():
    def low(at: int, value: float) -> float:
        return 0 if 9 * DAY <= at < 9 * DAY + 3 * HOUR else value

    found = run(HOUR, 10, low, floor=None)
    usual = max(verdict.score for at, verdict in found.items() if verdict.score is not None and at < 9 * DAY)
    assert max(found[9 * DAY + n * HOUR].score for n in range(3)) > usual
    assert pages(found) == []
    assert max(run(HOUR, 10, low)[9 * DAY + n * HOUR].score for n in range(3)) == 0


@pytest.mark.parametrize(
    "values",
    [
        [0.0], [7.0], [-5.0], [None], [math.nan, 5.0], [math.inf], [-math.inf, 1.0], [1e308], [-1e308, 1e308],
        [5e-324], [0.0, 0.0, 1e12], [None, 3.0], [True, 2.0], [-1.0, 1.0],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("step", [MINUTE * 30, HOUR, DAY], ids=["half an hour", "an hour", "a day"])
@pytest.mark.parametrize("floor", [None, 5.0], ids=["no floor", "dollars"])
def test_no_value_breaks_it(values, step, floor):
    judge = SpendJudge(step, floor)
    for n in range(260):
        verdict = judge.step(START + n * step, values[n % len(values)])
        assert verdict.score is None or 0 <= verdict.score <= 1_000
        assert verdict.expected is None or math.isfinite(verdict.expected)


def test_a_missing_row_says_nothing_and_a_long_gap_is_no_zero():
    judge = SpendJudge(HOUR, 5.0)
    for n in range(200):
        judge.step(START + n * HOUR, 20 + n % 3)
    assert judge.step(START + 200 * HOUR, None) == UNKNOWN
    verdict = judge.step(START + 260 * HOUR, 21)
    assert (verdict.expected, verdict.page) == (pytest.approx(21, abs=1), False)
    assert judge.step(START + 9_000 * HOUR, 21) == UNKNOWN


def test_a_new_level_pages_once_and_is_then_what_is_expected():
    found = run(HOUR, 12, lambda at, value: value * 3 if at >= 8 * DAY else value)
    assert pages(found) == [8 * DAY]
    assert found[10 * DAY].expected == pytest.approx(60, abs=10)
