"""Long work on the event loop, a slice at a time: a command on its way to a gate must not wait behind it."""

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from streams.clock import elapsed_s

#: A slice of what people wait for, and of what gates wait for.
SLICE_S = 0.002
URGENT_SLICE_S = 0.005
#: Turns of the loop between two slices: a request to the broker takes seven, and each agent may be at work in each.
TURNS = 4

Each = TypeVar("Each")


async def give_way() -> None:
    """Let others go on."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def in_slices(steps: Iterable[Each]) -> list[Each]:
    """All that an iterator makes, giving way every two milliseconds."""
    found: list[Each] = []
    turn_at = elapsed_s() + SLICE_S
    for each in steps:
        found.append(each)
        if elapsed_s() >= turn_at:
            await give_way()
            turn_at = elapsed_s() + SLICE_S
    return found
