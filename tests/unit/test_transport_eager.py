"""Going on without a turn of the event loop: what is handed over at once, and what has to wait."""

import asyncio
from types import SimpleNamespace

import pytest

from streams.transport.eager import TURNS_PASSED_OVER, Begun, events_together


async def _after(turns, value="value"):
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def _fails(turns):
    await _after(turns)
    raise LookupError("it")


async def _turns_while(awaitable):
    """What came of it, and how many turns of the loop others had meanwhile."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    found = await awaitable
    counting.cancel()
    return found, turns


@pytest.mark.parametrize("turns", [0, 1, TURNS_PASSED_OVER])
async def test_what_does_not_wait_is_done_at_once_and_takes_no_turn(turns):
    begun = Begun(_after(turns))
    assert (begun.is_done, begun.value) == (True, "value")
    assert await _turns_while(begun) == ("value", 0)


async def test_what_asks_for_turns_again_and_again_counts_as_waiting_and_gets_them():
    begun = Begun(_after(TURNS_PASSED_OVER + 3))
    assert not begun.is_done
    found, turns = await _turns_while(begun)
    assert found == "value"
    assert turns >= 2


async def test_what_waits_goes_on_when_that_has_come():
    future = asyncio.get_running_loop().create_future()

    async def wait():
        return [await future, await _after(2)]

    begun = Begun(wait())
    assert not begun.is_done
    future.set_result("came")
    assert await begun == ["came", "value"]
    assert await begun == ["came", "value"]


async def test_what_it_raises_is_raised_where_it_gets_there():
    with pytest.raises(LookupError):
        Begun(_fails(0))
    late = Begun(_fails(TURNS_PASSED_OVER + 1))
    with pytest.raises(LookupError):
        await late


async def test_cancelling_whoever_awaits_the_rest_cancels_it():
    cleaned = []

    async def wait():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    begun = Begun(wait())
    task = asyncio.ensure_future(begun)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


async def test_a_task_may_be_made_of_the_rest():
    begun = Begun(_after(TURNS_PASSED_OVER + 2))
    done, _ = await asyncio.wait([asyncio.ensure_future(begun)])
    assert [task.result() for task in done] == ["value"]


class Stream:
    """As Faust's streams: a turn of the loop for each event, taken from the channel's queue."""

    def __init__(self):
        self.channel = SimpleNamespace(queue=asyncio.Queue())
        self.acknowledges = True

    def noack(self):
        self.acknowledges = False
        return self

    async def events(self):
        while True:
            await asyncio.sleep(0)
            yield await self.channel.queue.get()


async def test_all_that_wait_in_an_agents_queue_come_together_in_order():
    stream = Stream()
    for number in range(5):
        stream.channel.queue.put_nowait(number)
    together = events_together(stream)
    assert await anext(together) == [0, 1, 2, 3, 4]
    assert not stream.acknowledges
    coming = asyncio.ensure_future(anext(together))
    await _after(3)
    assert not coming.done()
    stream.channel.queue.put_nowait(5)
    assert await coming == [5]
