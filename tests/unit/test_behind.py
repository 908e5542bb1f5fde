"""How far behind METER is, told from offsets."""

import pytest

from streams.agents.behind import Behind

A, B = ("usage.events.v1", 0), ("usage.events.v1", 1)


@pytest.mark.parametrize(
    ("before", "done", "ends", "lag_s"),
    [
        pytest.param({A: 0}, {A: 100}, {A: 100}, 0.0, id="nothing is left"),
        pytest.param({A: 0}, {A: 100}, {A: 500}, 8.0, id="four times what two seconds took is left"),
        pytest.param({A: 0, B: 0}, {A: 50, B: 50}, {A: 50, B: 550}, 10.0, id="what partitions share is one pace"),
        pytest.param({A: 100}, {A: 100}, {A: 500}, 0.0, id="without a pace there is no telling"),
        pytest.param({}, {A: 100}, {A: 500}, 0.0, id="where a partition begins is no pace"),
        pytest.param(
            {A: 0}, {A: 100, B: 7_000}, {A: 100, B: 7_300}, 6.0, id="what has just come is left to read as well"
        ),
        pytest.param({A: 0, B: 9_000}, {A: 100}, {A: 200}, 2.0, id="what has gone counts for nothing"),
        pytest.param({A: 0}, {A: 100}, {A: None}, 0.0, id="an end that is not known is no lag"),
        pytest.param({A: 0}, {A: 100}, {A: 40}, 0.0, id="an end from before what was folded is no lag"),
        pytest.param({A: 200}, {A: 100}, {A: 500}, 0.0, id="what is read again is no pace"),
    ],
)
def test_lag(before, done, ends, lag_s):
    behind = Behind()
    behind.lag_s(10.0, before, before)
    assert behind.lag_s(12.0, done, ends) == lag_s
