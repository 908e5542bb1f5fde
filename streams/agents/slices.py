"""Long work on the event loop, a slice at a time: a command on its way to a gate must not wait behind it."""

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from streams.clock import elapsed_s

#: So long others wait for their turn. A request to the broker takes seven turns, and each agent may be at work in each.
SLICE_S = 0.002

Each = TypeVar("Each")


async def in_slices(steps: Iterable[Each]) -> list[Each]:
    """All that an iterator makes, with a turn for others every two milliseconds."""
    found: list[Each] = []
    turn_at = elapsed_s() + SLICE_S
    for each in steps:
        found.append(each)
        if elapsed_s() >= turn_at:
            await asyncio.sleep(0)
            turn_at = elapsed_s() + SLICE_S
    return found
