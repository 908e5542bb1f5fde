"""Long work on the event loop, a slice at a time: a command on its way to a gate must not wait behind it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from streams.clock import elapsed_s

#: A slice of what people wait for, and of what gates wait for.
SLICE_S = 0.002
URGENT_SLICE_S = 0.005
#: Turns of the loop between two slices: a request to the broker takes seven, and each agent may be at work in each.
TURNS = 4
#: So long what people wait for stands back after each slice while something is under way that gates wait for. It has to
#: come to its end as well.
STAND_BACK_MAX_S = 0.05

Each = TypeVar("Each")


class Precedence:
    """Who goes first: while something is under way that gates wait for, other long work stands back."""

    def __init__(self) -> None:
        self._under_way = 0
        self._standing_back: set[asyncio.Future[None]] = set()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, something is under way that gates wait for."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                for each in self._standing_back:
                    each.set_result(None)
                self._standing_back.clear()

    async def stand_back(self) -> None:
        """Wait until nothing of that kind is under way, for ``STAND_BACK_MAX_S`` at most."""
        if self._under_way:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._standing_back.add(waiting)
            try:
                await asyncio.wait([waiting], timeout=STAND_BACK_MAX_S)
            finally:
                self._standing_back.discard(waiting)


#: Of this process, since its agents share one event loop.
GATES_FIRST = Precedence()


async def give_turns() -> None:
    """Let others go on, between slices of what gates wait for."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def give_way() -> None:
    """Let others go on, and whatever gates wait for come to its end."""
    await give_turns()
    await GATES_FIRST.stand_back()


class Pace(NamedTuple):
    """How an agent works through what may be long."""

    slice_s: float
    #: Awaited between two slices.
    between: Callable[[], Awaitable[None]]
    #: Around all that follows from a batch.
    taken: Callable[[], contextlib.AbstractContextManager[None]]


URGENT = Pace(URGENT_SLICE_S, give_turns, GATES_FIRST.taken)
IN_BACKGROUND = Pace(SLICE_S, give_way, contextlib.nullcontext)


async def in_slices(steps: Iterable[Each], pace: Pace = IN_BACKGROUND) -> list[Each]:
    """All that an iterator makes, a slice at a time."""
    found: list[Each] = []
    turn_at = elapsed_s() + pace.slice_s
    for each in steps:
        found.append(each)
        if elapsed_s() >= turn_at:
            await pace.between()
            turn_at = elapsed_s() + pace.slice_s
    return found
