"""Every detector of the registry keeps the same promises. A new detector is tested by being registered."""

import copy
import math

import msgspec
import pytest

from detectors.base import SIZE_MAX, Observation, StateError
from detectors.gpu_utilisation import GpuUtilisation
from detectors.hourly_spend import HourlySpend
from detectors.multivariate import Multivariate
from detectors.regime_change import RegimeChange
from detectors.registry import DETECTORS, create
from detectors.runaway_loop import RunawayLoop
from detectors.runaway_request import RunawayRequest
from detectors.seasonal_spend import SeasonalSpend
from detectors.spend_spike import SpendSpike
from schemas.instants import HOUR, MINUTE, SECOND

START = 1_800_000_000_000_000 // HOUR * HOUR
LENGTH = 24 * 9

#: How long one observation of each detector is, and what a plain number 0..1 means to it.
SHAPES = {
    HourlySpend.name: (HOUR, lambda level: int(level * 100_000_000_000)),
    RegimeChange.name: (HOUR, lambda level: level),
    RunawayLoop.name: (0, lambda level: int(level * 1_000)),
    RunawayRequest.name: (0, lambda level: int(level * 200_000)),
    GpuUtilisation.name: (MINUTE, lambda level: level),
    SeasonalSpend.name: (HOUR, lambda level: int(level * 100_000_000_000)),
    SpendSpike.name: (HOUR, lambda level: int(level * 100_000_000_000)),
    Multivariate.name: (HOUR, lambda level: int(level * 10_000)),
}


def wave(n: int) -> float:
    return 0.5 + 0.4 * math.sin(n * 2 * math.pi / 24) + 0.05 * math.sin(n * 2.7)


SERIES = {
    "a daily wave": wave,
    "all zeros": lambda n: 0.0,
    "a constant": lambda n: 0.3,
    "a spike of hundredfold": lambda n: 0.9 if n == LENGTH - 3 else 0.009,
    "a step up": lambda n: 0.1 if n < LENGTH // 2 else 0.9,
}


def observe(name: str, n: int, level: float) -> Observation:
    length, to_value = SHAPES[name]
    start = START + n * (length or MINUTE)
    return Observation(start, start + length, to_value(level))


def replace_value(x: Observation, value: object) -> Observation:
    return Observation(x.start, x.end, value)  # type: ignore[arg-type]


def encoded(thing: object) -> bytes:
    return msgspec.json.encode(thing)


@pytest.fixture(params=sorted(DETECTORS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=sorted(SERIES))
def series(request: pytest.FixtureRequest, name: str) -> list[Observation]:
    return [observe(name, n, SERIES[request.param](n)) for n in range(LENGTH)]


def reborn(detector):
    """The detector as a restarted process would have it: through JSON."""
    state = detector.state()
    return type(detector).from_state(msgspec.json.decode(encoded(state), type=type(state)))


def test_every_registered_detector_has_a_shape_here():
    assert set(SHAPES) == set(DETECTORS)


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(LookupError, match="hourly_spend"):
        create("hourly_spent")


def test_not_ready_is_none_and_ready_is_a_score(name, series):
    detector = create(name)
    for x in series:
        assert (detector.score_one(x) is None) == (not detector.ready(x))
        detector.learn_one(x)
    assert detector.ready(series[-1]), "nine days of samples must be enough for any detector"


def test_scoring_changes_nothing_however_often(name, series):
    detector = create(name)
    for x in series:
        before = encoded(detector.state())
        first = encoded(detector.score_one(x))
        assert encoded(detector.score_one(x)) == first
        assert encoded(detector.state()) == before
        detector.learn_one(x)


def test_inputs_are_left_as_they_were(name, series):
    detector, original = create(name), copy.deepcopy(series)
    for x in series:
        detector.score_one(x)
        detector.learn_one(x)
    assert series == original


def test_a_restart_at_any_point_changes_no_further_score(name, series):
    straight, restarted = create(name), create(name)
    for x in series:
        restarted = reborn(restarted)
        assert encoded(restarted.score_one(x)) == encoded(straight.score_one(x))
        straight.learn_one(x)
        restarted.learn_one(x)
        assert encoded(restarted.state()) == encoded(straight.state())


def test_a_state_that_was_given_does_not_change_afterwards(name, series):
    detector = create(name)
    for x in series[:100]:
        detector.learn_one(x)
    state = detector.state()
    before = encoded(state)
    other = type(detector).from_state(state)
    for x in series[100:]:
        detector.learn_one(x)
        other.learn_one(x)
    assert encoded(state) == before


@pytest.mark.parametrize(
    "value",
    [None, math.nan, math.inf, -math.inf, 2.0**63, -1.0, -(10**30), 10**30, True, "7"],
    ids=["none", "nan", "inf", "-inf", "dcgm blank", "negative", "-10^30", "10^30", "bool", "text"],
)
def test_no_input_breaks_a_detector_or_its_next_score(name, value):
    detector = create(name)
    for n in range(LENGTH):
        x = observe(name, n, wave(n))
        bad = replace_value(x, value)
        detector.score_one(bad)
        detector.learn_one(bad if n % 24 == 5 else x)
    detector = reborn(detector)
    score = detector.score_one(observe(name, LENGTH, 0.5))
    assert score is None or abs(score.observed) <= SIZE_MAX
    assert score is None or score.expected is None or 0 <= score.expected <= SIZE_MAX


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_no_score(name, value):
    detector = create(name)
    for n in range(LENGTH):
        detector.learn_one(observe(name, n, wave(n)))
    assert detector.score_one(replace_value(observe(name, LENGTH, 0.5), value)) is None


def test_the_state_is_bounded_whatever_is_learned(name):
    detector = create(name)
    length, _ = SHAPES[name]
    for n in range(3_000):
        start = START + n * (length or MINUTE)
        value = 0.123456 if name == GpuUtilisation.name else SIZE_MAX - n
        detector.learn_one(Observation(start, start + length, value))
        if n % 100 == 0:
            assert len(encoded(detector.state())) <= detector.state_bytes_max
    assert len(encoded(detector.state())) <= detector.state_bytes_max


def test_a_state_of_a_later_version_is_refused_with_what_to_do(name):
    detector = create(name)
    later = msgspec.structs.replace(detector.state(), v=detector.state().v + 1)
    with pytest.raises(StateError, match="run the version that wrote it"):
        type(detector).from_state(later)


def test_the_same_series_gives_the_same_bytes(name, series):
    def run() -> bytes:
        detector, scores = create(name), []
        for x in series:
            scores.append(detector.score_one(x))
            detector.learn_one(x)
        return encoded([scores, detector.state()])

    assert run() == run()


def test_second_long_gpu_samples_fit_into_the_same_state():
    gpu = GpuUtilisation()
    for n in range(2 * 3600):
        gpu.learn_one(Observation(START + n * SECOND, START + (n + 1) * SECOND, 0.2))
    assert len(encoded(gpu.state())) <= gpu.state_bytes_max
