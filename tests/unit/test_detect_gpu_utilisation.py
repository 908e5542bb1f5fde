"""The trailing mean of a GPU: weighted by time, gaps unknown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Observation
from detectors.gpu_utilisation import FULL, GpuUtilisation
from schemas.instants import HOUR, MINUTE, SECOND

START = 20_000 * 24 * HOUR


def windows(*parts: tuple[int, float | None], length: int = MINUTE) -> list[Observation]:
    """Back-to-back windows: ``(seconds, utilisation)`` each, cut into pieces of ``length``."""
    found, at = [], START
    for seconds, busy in parts:
        end = at + seconds * SECOND
        while at < end:
            found.append(Observation(at, min(at + length, end), busy))
            at = found[-1].end
    return found


def last_score(samples: list[Observation]):
    gpu, score = GpuUtilisation(), None
    for x in samples:
        score = gpu.score_one(x)
        gpu.learn_one(x)
    return score


@pytest.mark.parametrize(
    ("samples", "mean_percent"),
    [
        (windows((3600, 0.10)), 10),
        (windows((3540, 0.10)), None),
        (windows((1800, 0.0), (1800, 1.0)), 50),
        (windows((3600, 1.0), (3600, 0.0)), 0),
        (windows((1800, 0.0), (180, None), (1800, 0.2)), 10.52),
        (windows((1800, 0.0), (240, None), (1800, 0.2)), None),
        (windows((1800, 0.0), (240, float("nan")), (3600, 0.2)), 20),
        (windows((3000, 0.0), (600, 1.0), length=600 * SECOND), 16.66),
    ],
    ids=[
        "an hour is enough",
        "59 minutes are not",
        "the mean is weighted by time",
        "what is older than an hour is forgotten",
        "a gap of 180 s is left out of the mean",
        "a longer gap restarts the hour",
        "a blank is a gap, not idleness",
        "long windows are cut at the hour",
    ],
)
def test_trailing_mean(samples: list[Observation], mean_percent: float | None):
    score = last_score(samples)
    if mean_percent is None:
        assert score is None
    else:
        assert score is not None
        assert score.observed / FULL * 100 == pytest.approx(mean_percent, abs=0.35)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(5, 170), st.floats(0, 1)), min_size=60, max_size=150))
def test_the_mean_equals_a_plain_recount_over_the_same_hour(parts: list[tuple[int, float]]):
    samples = windows(*parts, length=HOUR)
    gpu = GpuUtilisation()
    for x in samples:
        gpu.learn_one(x)
    end = samples[-1].end
    start = max((end - HOUR) // MINUTE * MINUTE, START)
    weight = known = 0
    for x in samples:
        inside = max(0, x.end - max(x.start, start))
        weight, known = weight + inside * round(x.value * FULL), known + inside
    assert gpu.recent().observed == weight // known
    assert gpu.recent().known_us == known


def test_a_window_that_is_not_newer_is_ignored_and_an_overlap_counts_once():
    gpu = GpuUtilisation()
    gpu.learn_one(Observation(START, START + MINUTE, 0.0))
    before = gpu.state()
    gpu.learn_one(Observation(START, START + MINUTE, 1.0))
    assert gpu.state() is before
    gpu.learn_one(Observation(START + 30 * SECOND, START + 2 * MINUTE, 1.0))
    assert gpu.recent().known_us == 2 * MINUTE
    assert gpu.recent().observed == FULL // 2


def test_a_window_of_no_length_is_never_ready_and_never_learned():
    gpu = GpuUtilisation()
    point = Observation(START, START, 0.5)
    gpu.learn_one(point)
    assert gpu.score_one(point) is None
    assert gpu.recent() is None
