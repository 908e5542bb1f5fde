"""NOTIFY's shell: alerts into their groups, and what groups say into the outbox; ``delivering`` brings it to people.

An alert is acknowledged once PostgreSQL has it in its groups; a group speaks by a timer of its own. So a receiver that
is down delays nobody, and a crash neither loses a message nor sends it under another name.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.alerts import Alert
from schemas.readers import ALERTS
from streams import metrics
from streams.agents.shell import decoded, fail_stop
from streams.clock import elapsed_s
from streams.core.inhibition import Inhibitors, Source, may_inhibit
from streams.core.notify_pipeline import Flushed, Member, flush
from streams.core.placing import Group, Placement, due_at, placements
from streams.core.routes import Routes
from streams.delivering import Batch, Decided, DueGroup, Groups, Round

logger = logging.getLogger("sluice.notify")

#: How often it is asked which groups are due; what is recorded here wakes the dispatcher at once.
POLL_S = 0.25
GROUPS_AT_ONCE = 25


class Woken:
    """Wakes a loop before its timer."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Whoever waits goes on."""
        self._event.set()

    async def wait(self, at_most_s: float) -> bool:
        """Until somebody wakes us, or for so long; says which."""
        try:
            await asyncio.wait_for(self._event.wait(), at_most_s)
        except TimeoutError:
            return False
        self._event.clear()
        return True


class ByRoutes:
    """Implements ``streams.delivering.Placing`` by the routes."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def placements(self, alert: Alert) -> Sequence[Placement]:
        """The groups of a firing alert."""
        return placements(alert, self._routes)

    def due_at(self, placement: Placement, alert: Alert, flushed_at: int | None, now: int) -> int:
        """When the group has to speak for it."""
        return due_at(placement, alert, flushed_at, now)

    def may_inhibit(self, alert: Alert) -> bool:
        """Whether it may silence others."""
        return not alert.historic and may_inhibit(alert, self._routes)


class NotifyAgent:
    """The alerts of this worker's partitions, into their groups."""

    def __init__(self, groups: Groups, routes: Routes, epoch: int, woken: Woken) -> None:
        self._groups = groups
        self._placing = ByRoutes(routes)
        self._epoch = epoch
        self._woken = woken

    async def run(self, stream: Any) -> None:
        """``alerts``: store each statement and place its alert."""
        async for event in stream.noack().events():
            read = event.value
            try:
                alerts = [(record.offset, alert) for record, alert in decoded(read.records, ALERTS.decode)]
                source = f"{read.topic}@{self._epoch}-{read.partition}"
                await self._groups.record(Batch(source, read.end, alerts), self._placing)
            except Exception as error:
                fail_stop("NOTIFY", error)
            self._woken.wake()
            event.ack()

    async def run_background(self) -> None:
        """Once: what is open is told as the routes have it now."""
        try:
            await self._groups.place_again(self._placing)
        except Exception as error:
            fail_stop("NOTIFY routes", error)
        self._woken.wake()


class Dispatcher:
    """Lets groups speak when they are due. Workers share the groups."""

    def __init__(self, groups: Groups, routes: Routes, woken: Woken, outbox_woken: Woken) -> None:
        self._groups = groups
        self._routes = routes
        self._woken = woken
        self._outbox_woken = outbox_woken

    async def run_background(self) -> None:
        """Until cancelled."""
        while True:
            started = elapsed_s()
            try:
                said = await self._groups.flush(GROUPS_AT_ONCE, self.decide)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop("NOTIFY groups", error)
            if said:
                metrics.NOTIFY_FLUSH_SECONDS.observe(elapsed_s() - started)
                for each in said:
                    metrics.NOTIFICATIONS_OWED.labels(receiver=each.receiver, reason=each.reason).inc()
                self._outbox_woken.wake()
            else:
                await self._woken.wait(POLL_S)

    def decide(self, due: Round) -> Mapping[str, Decided]:
        """What each group says. One that cannot be decided is left for later, loudly: it must not stop the others."""
        inhibitors = Inhibitors(self._routes, [Source(alert, ended_at) for alert, ended_at in due.sources])
        found = {}
        for group in due.groups:
            try:
                found[group.key] = _decided(self._flush(group, due, inhibitors))
            except Exception:
                logger.exception("the group %s cannot be told; it is tried again", group.key)
                metrics.NOTIFY_GROUPS_FAILED.inc()
        return found

    def _flush(self, group: DueGroup, due: Round, inhibitors: Inhibitors) -> Flushed:
        members = [
            Member(alert=each.alert, since=each.since, receivers=each.receivers, departed=each.departed)
            for each in group.members
        ]
        return flush(
            msgspec.convert(group.body, Group),
            members,
            group.told,
            due.silences,
            group.acknowledgements,
            inhibitors,
            self._routes,
            due.now,
        )


def _decided(flushed: Flushed) -> Decided:
    return Decided(flushed.notifications, flushed.told, flushed.due, [each._asdict() for each in flushed.mutes])
