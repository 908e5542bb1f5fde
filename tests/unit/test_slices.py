"""Long work gives way: who waits for the loop gets several turns, and what gates wait for goes first."""

import asyncio

import pytest

from streams.agents import slices


@pytest.fixture
def slow(monkeypatch):
    """Every look at the clock is a slice later."""
    now = iter(range(1_000_000))
    monkeypatch.setattr(slices, "elapsed_s", lambda: float(next(now)))


@pytest.mark.parametrize("pace", [slices.IN_BACKGROUND, slices.URGENT])
async def test_all_of_it_comes_in_its_order_while_others_take_turns(slow, pace):
    turns = []

    async def other():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await slices.in_slices(iter(range(10)), pace) == list(range(10))
    task.cancel()
    assert len(turns) >= 10 * slices.TURNS


async def test_what_is_short_is_done_at_once(monkeypatch):
    monkeypatch.setattr(slices, "elapsed_s", lambda: 0.0)
    others = asyncio.create_task(asyncio.sleep(0))
    assert await slices.in_slices(range(100)) == list(range(100))
    assert not others.done()
    await others


async def test_background_work_stands_back_until_what_gates_wait_for_is_done(slow, monkeypatch):
    monkeypatch.setattr(slices, "STAND_BACK_MAX_S", 60.0)
    taken = []

    def steps():
        for number in range(3):
            taken.append(number)
            yield number

    with slices.GATES_FIRST.taken():
        background = asyncio.create_task(slices.in_slices(steps()))
        with slices.GATES_FIRST.taken():
            assert await slices.in_slices(range(5), slices.URGENT) == list(range(5))
        await asyncio.sleep(0.01)
        assert taken == [0]
    async with asyncio.timeout(10):
        assert await background == [0, 1, 2]


async def test_background_work_comes_to_its_end_while_gates_always_wait_for_something(slow, monkeypatch):
    monkeypatch.setattr(slices, "STAND_BACK_MAX_S", 0.001)
    with slices.GATES_FIRST.taken():
        assert await slices.in_slices(range(3)) == [0, 1, 2]


async def test_what_fails_is_no_longer_under_way(slow, monkeypatch):
    monkeypatch.setattr(slices, "STAND_BACK_MAX_S", 60.0)
    with pytest.raises(ValueError), slices.GATES_FIRST.taken():
        raise ValueError
    async with asyncio.timeout(10):
        assert await slices.in_slices(range(3)) == [0, 1, 2]
