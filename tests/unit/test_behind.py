"""How far behind METER is, told from offsets."""

from types import SimpleNamespace

import pytest

from streams.agents import behind as behind_module
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


@pytest.fixture
def waits(monkeypatch):
    """Counts what was waited for; every look at the clock is a tenth of a second later."""
    waited, now = [], iter(range(1_000))

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(behind_module, "elapsed_s", lambda: next(now) / 10)
    monkeypatch.setattr(behind_module, "CATCH_UP_MAX_S", 1.0)
    monkeypatch.setattr(behind_module, "asyncio", SimpleNamespace(sleep=sleep))
    return waited


@pytest.mark.parametrize(
    ("left", "is_waited"),
    [
        pytest.param(0, False, id="nothing is left"),
        pytest.param(40, False, id="less is left than there always is"),
        pytest.param(500, True, id="what is left is soon read"),
        pytest.param(5_000, False, id="so much is left that others need not wait for it"),
    ],
)
async def test_what_can_wait_lets_it_catch_up(waits, left, is_waited):
    behind = Behind()
    behind.lag_s(0.0, {A: 0}, {A: 0})
    behind.lag_s(1.0, {A: 1_000}, {A: 1_000 + left})
    await behind.caught_up()
    assert (len(waits) > 0) is is_waited
    # For a moment, whatever becomes of it.
    assert len(waits) <= 10


async def test_it_is_over_as_soon_as_it_has_caught_up(monkeypatch):
    behind = Behind()
    behind.lag_s(0.0, {A: 0}, {A: 0})
    behind.lag_s(1.0, {A: 1_000}, {A: 1_500})
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        behind.lag_s(2.0, {A: 2_000}, {A: 2_000})

    monkeypatch.setattr(behind_module, "asyncio", SimpleNamespace(sleep=sleep))
    await behind.caught_up()
    assert len(waits) == 1
