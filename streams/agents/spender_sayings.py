"""METER's partitions say who spent: for people, and more rarely than totals, since the ledger has a row for each."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from streams.agents import entries
from streams.clock import elapsed_s
from streams.core.meter import PartitionState
from streams.transport import Outgoing

#: Blocks that are said at once, some milliseconds' work; and how much of the time it may take.
AT_ONCE, SHARE = 100, 0.05
#: Between two rounds of it.
INTERVAL_S = 10.0
Write = Callable[[Sequence[Outgoing]], Awaitable[None]]


class SpenderSayings:
    """Says what changed, a few blocks at a time, and then rests.

    ``busy`` is held while something is on its way: what leaves memory meanwhile could be deleted before it is said.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._rest_until = 0.0
        self.busy = asyncio.Lock()

    async def step(self, all_states: Mapping[Any, PartitionState], writer: str) -> float:
        """Say something of every partition; returns the seconds until it should be called again."""
        if elapsed_s() < self._rest_until:
            return self._rest_until - elapsed_s()
        took, is_over, states = 0.0, True, list(all_states.values())
        async with self.busy:
            for state in states:
                began = elapsed_s()
                records = said(state, writer, AT_ONCE)
                took = max(took, elapsed_s() - began)
                await self._write(records)
                is_over = is_over and not state.spenders.is_unsaid
        if is_over:
            self._rest_until = elapsed_s() + INTERVAL_S
            return INTERVAL_S
        return len(states) * took / SHARE


def said(state: PartitionState, writer: str, most: int) -> list[Outgoing]:
    """The records of so many blocks at most of what changed."""
    return [entries.cell_record(rows, writer) for rows in state.spenders.say(state.revision, state.next_offset, most)]
