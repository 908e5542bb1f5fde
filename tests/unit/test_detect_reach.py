"""How far event time has come for a scope: nothing is over while a part is missing, in a replay as in real time."""

import pytest

from schemas.instants import HOUR, MINUTE
from streams.core.detect_reach import Reach, advance, reached


@pytest.mark.parametrize(
    ("reaches", "now", "at"),
    [
        pytest.param({}, 5 * HOUR, 0, id="nobody has spoken"),
        pytest.param({"a": Reach(HOUR, HOUR)}, 2 * HOUR, 2 * HOUR, id="time goes on after the last word"),
        pytest.param({"a": Reach(HOUR, 9 * HOUR)}, 9 * HOUR + MINUTE, HOUR + MINUTE, id="a backlog keeps its distance"),
        pytest.param(
            {"a": Reach(HOUR, HOUR), "b": Reach(HOUR, 90 * MINUTE)}, 90 * MINUTE, HOUR, id="the slowest counts"
        ),
        pytest.param(
            {"a": Reach(9 * HOUR, 9 * HOUR), "b": Reach(HOUR, 2 * HOUR)}, 9 * HOUR, 9 * HOUR, id="until it is silent"
        ),
        pytest.param(
            {"a": Reach(9 * HOUR, HOUR)}, 3 * HOUR, 3 * HOUR, id="a leap of now is not added to what is ahead"
        ),
    ],
)
def test_event_time_has_come(reaches: dict[str, Reach], now: int, at: int):
    assert reached(reaches, now) == at


def test_a_source_never_goes_back_and_others_stay_as_they_are():
    reaches = advance(advance({}, "a", HOUR, HOUR), "b", 2 * HOUR, 2 * HOUR)
    assert (
        advance(reaches, "a", HOUR - 1, 3 * HOUR) == reaches == {"a": Reach(HOUR, HOUR), "b": Reach(2 * HOUR, 2 * HOUR)}
    )
