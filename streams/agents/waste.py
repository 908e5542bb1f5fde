"""WASTE's shell: once an hour one worker looks through the ledger's days, and tells what money buys nothing.

Far from the way of events: a pass reads the database, decides in pure functions, and writes alerts. Whoever takes the
turn of an hour looks; if it dies in between, its hold runs out and another one says the same under the same ids.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from schemas.instants import DAY, HOUR, MINUTE
from streams.agents.keyed import alert_record
from streams.agents.shell import fail_stop
from streams.clock import Clock
from streams.core.resources import DAYS_KEPT, Day, History, Resource, day_of
from streams.core.waste import RULES, WastePolicy, find, of_alerts, stated
from streams.history_ports import ResourceRow, Resources, StoreError
from streams.transport import Outgoing

logger = logging.getLogger("sluice.waste")

INTERVAL_S = 60.0
#: A pass takes seconds; a worker that died in one holds up the others for so long.
HOLD_US = 10 * MINUTE
#: Late events correct days that are over: the last few each hour, all that are looked at once a day.
LATE_DAYS = 3
#: Alerts that ended are remembered for so long, so that what comes again is a further episode.
REMEMBERED_US = 90 * DAY

Say = Callable[[Sequence[Outgoing]], Awaitable[None]]


class WasteLoop:
    """Looks once an hour."""

    def __init__(
        self, store: Resources, say: Say, clock: Clock, policy: WastePolicy, interval_s: float = INTERVAL_S
    ) -> None:
        self._store = store
        self._say = say
        self._clock = clock
        self._policy = policy
        self._interval_s = interval_s
        self._whole_day = -1

    async def run_background(self) -> None:
        """Look for the turn every minute."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.look()
            except asyncio.CancelledError:
                raise
            except StoreError as error:
                logger.warning("the ledger cannot be looked through, and will be in a minute: %s", error)
            except Exception as error:
                fail_stop("WASTE", error)

    async def look(self) -> int:
        """Take the turn of this hour, if it is there to be taken; returns how many alerts were said."""
        heard = await self._store.heard_until()
        if heard is None:
            return 0
        # Where nothing is heard, nothing is known to be unused: time stands still with the ledger.
        now = min(self._clock.now(), heard)
        if not await self._store.take_turn(now, HOLD_US):
            return 0
        today = day_of(now)
        is_whole = self._whole_day == today
        await self._store.refresh(today - (LATE_DAYS if is_whole else DAYS_KEPT))
        self._whole_day = today
        rows = await self._store.read(today - DAYS_KEPT)
        told = of_alerts(await self._store.told(RULES, now - REMEMBERED_US))
        histories = [history_of(row) for row in rows]
        # Pure and off the event loop: a large ledger takes a second, and gates wait behind this thread's work.
        alerts = await asyncio.to_thread(
            lambda: stated(find(histories, told, now, self._policy), told, now, self._policy)
        )
        if alerts:
            await self._say([alert_record(alert) for alert in alerts])
        await self._store.end_turn(now)
        logger.info("%d resources, %d alerts about waste as of hour %d", len(rows), len(alerts), now // HOUR)
        return len(alerts)


def history_of(row: ResourceRow) -> History:
    """A resource of the store as the core reads it."""
    return History(Resource(*row.names), row.first_day, row.last_use, [Day(*day) for day in row.days])
