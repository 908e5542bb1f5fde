"""Who spent, written to the ledger beside the cells: it is for people, and must hold up no total."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from schemas.statements import SpenderStatement, Watermark
from streams import metrics
from streams.agents.shell import fail_stop
from streams.clock import elapsed_s
from streams.ports import Ledger

#: Blocks in one statement to the database: some five hundred rows, since encoding them holds the event loop.
AT_ONCE = 30
#: Between two rounds; and of the time, at most this part is spent on writing: more comes at once then.
PAUSE_S, SHARE = 1.0, 0.25

#: Cell, slot, segment and number.
_Block = tuple[str, str, int, int]


class LedgerSpenders:
    """Writes the newest of each block, and acknowledges what it came with afterwards."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._newest: dict[_Block, SpenderStatement] = {}
        self._written_up_to: dict[str, int] = {}
        self._events: list[Any] = []

    def keep(self, event: Any, statements: Iterable[SpenderStatement], watermarks: Sequence[Watermark]) -> None:
        """Take a batch whose cells are written: it is acknowledged here, at once if it says nothing of spenders."""
        statements = list(statements)
        for each in statements:
            self._newest[each.cell_id, each.source.slot(), each.segment, each.block] = each
        # Kept in order: what is written covers all that came before it.
        self._written_up_to.update({mark.source.slot(): mark.next_offset for mark in watermarks})
        if statements:
            self._events.append(event)
        else:
            event.ack()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            began = elapsed_s()
            try:
                await self.write()
            except Exception as error:
                fail_stop("LEDGER spenders", error)
            took = elapsed_s() - began
            await asyncio.sleep(max(PAUSE_S, took * (1 / SHARE - 1)))

    async def write(self) -> None:
        """Write all that is kept, and acknowledge it."""
        newest, self._newest = self._newest, {}
        offsets, self._written_up_to = self._written_up_to, {}
        events, self._events = self._events, []
        blocks = iter([newest[key] for key in sorted(newest)])
        while part := list(islice(blocks, AT_ONCE)):
            await self._ledger.write_spenders(part)
        await self._ledger.mark_spenders(offsets)
        metrics.SPENDERS_WRITTEN.inc(len(newest))
        for event in events:
            event.ack()
