"""Several numbers of an hour at once: what no number shows alone, in a small memory, beside River's LODA as the oracle."""

import random

import msgspec
import pytest
from river.anomaly import LODA

from detectors.multivariate import (
    ACCEPT_HOURS,
    FORGET_DAYS,
    PROJECTIONS,
    WIDTH,
    HourVector,
    Multivariate,
)
from schemas.instants import DAY, HOUR

KNOWN = 24 * 9
USUAL = (1_000.0, 20.0, 900.0, 0.25, 0.4, 0.02, 22.0)


def vector(n: int, *factors: float, dice: random.Random | None = None) -> HourVector:
    """An ordinary hour, each number wobbling by a few percent, times what makes it strange."""
    wobble = random.Random(n) if dice is None else dice
    busy = 1.5 if n % 24 in range(8, 18) else 1.0
    numbers = [usual * (1 + wobble.uniform(-0.08, 0.08)) for usual in USUAL]
    numbers = [each * factor for each, factor in zip(numbers, [*factors, *[1.0] * WIDTH], strict=False)]
    return HourVector(n * HOUR, (n + 1) * HOUR, numbers[0] * busy, (numbers[1] * busy, *numbers[2:]))


def taught(hours: int = KNOWN) -> Multivariate:
    detector = Multivariate()
    for n in range(hours):
        detector.learn_one(vector(n))
    return detector


def strangeness(detector: Multivariate, x: HourVector) -> int:
    score = detector.score_one(x)
    assert score is not None
    return score.strangeness


@pytest.mark.parametrize(
    ("factors", "leading"),
    [
        pytest.param((4.0, 4.0), {0, 1}, id="four times the requests"),
        pytest.param((0.4, 1.0, 2.5), {0, 2}, id="fewer requests that are longer, for the same money"),
        pytest.param((1.0, 1.6, 1.0, 1.0, 0.1, 1.0, 1.6), {4, 6}, id="the prompt cache is lost"),
        pytest.param((1.5, 1.0, 0.3, 1.0, 1.0, 15.0), {2, 5}, id="short calls that fail"),
        pytest.param((1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 3.0), {1, 6}, id="a dearer model"),
    ],
)
def test_an_hour_unlike_all_others_is_strange_and_says_by_which_numbers(factors, leading):
    score = taught().score_one(vector(KNOWN, *factors))
    assert score.strangeness >= 1_000
    assert {part.place for part in score.parts[:2]} <= leading


@pytest.mark.parametrize("seed", range(4))
def test_two_weeks_of_ordinary_hours_are_not_strange(seed):
    detector, dice, strangest = taught(), random.Random(seed), 0
    for n in range(KNOWN, KNOWN + 14 * 24):
        x = vector(n, dice=dice)
        strangest = max(strangest, strangeness(detector, x))
        detector.learn_one(x)
    assert strangest < 1_000


def test_an_hour_like_one_that_was_strange_is_known_and_one_much_farther_is_strange_again():
    detector = taught()
    detector.learn_one(vector(KNOWN, 4.0, 4.0))
    for n in range(KNOWN + 1, KNOWN + 24):
        detector.learn_one(vector(n))
    again = KNOWN + 24
    assert strangeness(detector, vector(again, 4.0, 4.0)) < 1_000 <= strangeness(detector, vector(again, 90.0, 90.0))


def test_what_was_seen_once_is_forgotten_within_weeks():
    detector = taught()
    detector.learn_one(vector(KNOWN, 4.0, 4.0))
    for n in range(KNOWN + 1, KNOWN + 24 * (FORGET_DAYS + 1)):
        detector.learn_one(vector(n))
    assert strangeness(detector, vector(detector.state().end // HOUR, 4.0, 4.0)) >= 1_000


def test_a_level_that_lasts_a_day_is_the_usual_one_and_what_was_before_is_strange():
    detector = taught()
    for n in range(KNOWN, KNOWN + ACCEPT_HOURS):
        assert strangeness(detector, vector(n, 4.0, 4.0)) >= 1_000
        detector.learn_one(vector(n, 4.0, 4.0))
    for n in range(KNOWN + ACCEPT_HOURS, KNOWN + ACCEPT_HOURS + 3):
        detector.learn_one(vector(n, 4.0, 4.0))
    n = KNOWN + ACCEPT_HOURS + 3
    assert strangeness(detector, vector(n, 4.0, 4.0)) < 1_000
    assert abs(detector.score_one(vector(n)).parts[0].deviation) > 4_000


def test_what_is_accepted_is_the_usual_from_the_next_hour_on():
    detector = taught()
    for n in range(KNOWN, KNOWN + 2):
        detector.learn_one(vector(n, 4.0, 4.0))
        detector.accept()
    assert strangeness(detector, vector(KNOWN + 2, 4.0, 4.0)) < 1_000


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf"), -1.0, True, "7"])
def test_a_number_that_is_none_is_left_out_and_the_others_are_judged(value):
    odd = vector(KNOWN, 4.0, 4.0)
    odd = msgspec.structs.replace(odd, rest=(odd.rest[0], value, *odd.rest[2:]))
    detector = taught()
    assert strangeness(detector, odd) >= 1_000
    assert 2 not in {part.place for part in detector.score_one(odd).parts}
    detector.learn_one(odd)
    assert strangeness(detector, vector(KNOWN + 1)) < 1_000


def test_constant_numbers_and_zeros_do_not_drown_the_one_that_moves():
    detector = Multivariate()
    for n in range(KNOWN):
        detector.learn_one(HourVector(n * HOUR, (n + 1) * HOUR, 100 + n % 9, (0.0, 5.0, 0.0, 0.0, 0.0, 1.0)))
    odd = HourVector(KNOWN * HOUR, (KNOWN + 1) * HOUR, 103, (0.0, 5.0, 0.0, 0.0, 0.5, 1.0))
    assert strangeness(detector, odd) >= 1_000
    usual = msgspec.structs.replace(odd, rest=(0.0, 5.0, 0.0, 0.0, 0.0, 1.0))
    assert strangeness(detector, usual) < 1_000


def test_restarts_between_strange_hours_change_nothing():
    straight, restarted = taught(), taught()
    for n in range(KNOWN, KNOWN + 60):
        x = vector(n, *((5.0, 5.0) if n % 20 < 4 else ()))
        restarted = Multivariate.from_state(
            msgspec.json.decode(msgspec.json.encode(restarted.state()), type=type(straight.state()))
        )
        assert restarted.score_one(x) == straight.score_one(x)
        straight.learn_one(x)
        restarted.learn_one(x)
        assert restarted.state() == straight.state()


def test_the_state_of_a_year_of_wild_hours_is_small():
    detector, dice, largest = Multivariate(), random.Random(3), 0
    for n in range(365 * 24):
        numbers = [10 ** dice.uniform(-6, 11) for _ in range(WIDTH)]
        detector.learn_one(HourVector(n * HOUR, (n + 1) * HOUR, numbers[0], tuple(numbers[1:])))
        if n % 50 == 0:
            largest = max(largest, len(msgspec.json.encode(detector.state())))
    assert largest <= Multivariate.state_bytes_max


def test_hours_without_calls_for_months_are_survived():
    detector = taught()
    far = KNOWN + 24 * 400
    assert strangeness(detector, vector(far)) < 1_000
    detector.learn_one(vector(far))
    assert detector.state().end == (far + 1) * HOUR
    assert far * HOUR // DAY > FORGET_DAYS


def test_the_projections_are_what_they_were():
    digest = sum((n + 1) * (place + 1) * weight for n, each in enumerate(PROJECTIONS) for place, weight in each)
    assert digest == DIGEST


#: A state that is kept has counts of these very projections: others would need another version of the state.
DIGEST = -67802


def test_hours_that_rivers_loda_finds_strange_are_strange_here():
    """The oracle: over the same deviations, what River ranks above all ordinary hours is ranked so here."""
    ours, river = taught(), LODA(n_bins=10, n_random_cuts=50, seed=7)

    def deviations(x: HourVector) -> dict[str, float]:
        score = ours.score_one(x)
        return {str(part.place): part.deviation / 1_000 for part in score.parts}

    for n in range(KNOWN, KNOWN + 200):
        x = vector(n)
        river.learn_one(deviations(x))
        ours.learn_one(x)
    dice = random.Random(11)
    n = KNOWN + 200
    ordinary = [vector(n, dice=dice) for _ in range(60)]
    odd = [vector(n, *(dice.choice((0.2, 5.0)) for _ in range(WIDTH)), dice=dice) for _ in range(60)]
    bar_river = max(river.score_one(deviations(x)) for x in ordinary)
    bar_ours = max(strangeness(ours, x) for x in ordinary)
    found_by_river = [x for x in odd if river.score_one(deviations(x)) > bar_river]
    assert len(found_by_river) >= 55
    assert all(strangeness(ours, x) > bar_ours for x in found_by_river)
