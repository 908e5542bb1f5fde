"""Long work gives way: who waits for the loop gets several turns every two milliseconds."""

import asyncio

from streams.agents import slices


async def test_all_of_it_comes_in_its_order_while_others_take_turns(monkeypatch):
    # Every look at the clock is a slice later.
    now = iter(range(1_000))
    monkeypatch.setattr(slices, "elapsed_s", lambda: float(next(now)))
    turns = []

    async def other():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await slices.in_slices(iter(range(10))) == list(range(10))
    task.cancel()
    assert len(turns) >= 10 * slices.TURNS


async def test_what_is_short_is_done_at_once(monkeypatch):
    monkeypatch.setattr(slices, "elapsed_s", lambda: 0.0)
    others = asyncio.create_task(asyncio.sleep(0))
    assert await slices.in_slices(range(100)) == list(range(100))
    assert not others.done()
    await others
