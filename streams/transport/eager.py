"""Going on without a turn of the event loop, where nothing has to be waited for.

A worker's loop is shared by agents that fold in slices: under load one turn of it takes tens of milliseconds. Faust
gives the loop a turn for every message that it hands out and for every event that an agent takes, so the last of a few
dozen partitions would be looked at a second late.
"""

from collections.abc import AsyncIterator, Awaitable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Turns that something may ask for before it counts as waiting: one that polls would never end otherwise.
TURNS_PASSED_OVER = 4


class Begun(Generic[T]):
    """Something awaitable, run up to where it has to wait; await it for the rest.

    ``is_done`` says whether it came to its end by then, ``value`` with what. What it raises before that is raised here.
    asyncio's eager tasks do the same from Python 3.12 on, but for the turns.
    """

    def __init__(self, whole: Awaitable[T]) -> None:
        self._steps: Any = whole.__await__()
        self._waiting_for: Any = None
        self.is_done, self.value = False, None
        try:
            for _ in range(TURNS_PASSED_OVER + 1):
                self._waiting_for = self._steps.send(None)
                if self._waiting_for is not None:
                    break
        except StopIteration as end:
            self.is_done, self.value = True, end.value

    def __await__(self) -> Generator[Any, Any, T]:
        while not self.is_done:
            try:
                try:
                    sent = yield self._waiting_for
                except BaseException as error:
                    self._waiting_for = self._steps.throw(error)
                else:
                    self._waiting_for = self._steps.send(sent)
            except StopIteration as end:
                self.is_done, self.value = True, end.value
        return self.value  # type: ignore[return-value]


async def events_together(stream: Any) -> AsyncIterator[list[Any]]:
    """A stream's events, each time all that wait in the agent's queue, without acknowledging them."""
    events, queue = stream.noack().events(), stream.channel.queue
    async for event in events:
        found = [event]
        while not queue.empty():
            found.append(await Begun(anext(events)))
        yield found
