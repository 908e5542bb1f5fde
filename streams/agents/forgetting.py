"""What was delivered long ago is removed, a few rows at a time, so that nothing else waits for it."""

import asyncio
import logging

from schemas.instants import to_datetime
from streams import metrics
from streams.clock import Clock
from streams.delivering import History

logger = logging.getLogger("sluice.notify")

EVERY_S = 3600.0
ROWS_AT_ONCE = 500
#: Between two batches: who delivers goes first.
PAUSE_S = 0.2


class Forgetting:
    """Removes delivery history beyond an age. Every worker that notifies has one; they take turns."""

    def __init__(self, history: History, clock: Clock, keep_us: int, *, rows: int = ROWS_AT_ONCE) -> None:
        self._history = history
        self._clock = clock
        self._keep_us = keep_us
        self._rows = rows

    async def run_background(self) -> None:
        """Until cancelled; a database that does not answer is asked again, since nothing here holds up money."""
        while True:
            try:
                await self.sweep()
            except asyncio.CancelledError:
                raise
            except Exception:
                logger.exception("old deliveries are looked through again in %.0f s", EVERY_S)
            await asyncio.sleep(EVERY_S)

    async def sweep(self) -> dict[str, int]:
        """Look through everything that is old enough, once; what was removed of each table.

        It ends early where another worker is at it.
        """
        before = to_datetime(self._clock.now() - self._keep_us)
        removed = dict.fromkeys(self._history.tables, 0)
        for table in self._history.tables:
            after = None
            while True:
                found = await self._history.forget(table, before, after, self._rows)
                if found is None:
                    return removed
                removed[table] += found.removed
                metrics.DELIVERIES_FORGOTTEN.labels(table=table).inc(found.removed)
                if found.next is None:
                    break
                after = found.next
                await asyncio.sleep(PAUSE_S)
        if any(removed.values()):
            said = ", ".join(f"{count} {table}" for table, count in removed.items())
            logger.info("removed deliveries from before %s: %s", before.date(), said)
        return removed
