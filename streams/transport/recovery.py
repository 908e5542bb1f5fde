"""Recovery: read every table of the new assignment, set the reading positions, then let records flow, in this order.

Replaces Faust's recovery, which resumes partitions before it seeks, restores record by record, swallows errors in its
changelog reader, and can wait for ever for a record that compaction took away.
"""

import asyncio
import logging
from typing import Any, NamedTuple

from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.types import TP
from mode import Service

from streams.transport.phases import Phases

logger = logging.getLogger("sluice.restart")

#: How often the coordinator is asked again while it does not answer.
CONFIRM_EVERY_S = 0.2


class Membership(NamedTuple):
    """What the group's coordinator knows us as."""

    generation: int
    member_id: str


class BatchRecovery(Recovery):
    """One task: wait for a rebalance, restore, seek, resume."""

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):  # type: ignore[arg-type]
                return
            self.signal_recovery_start.clear()
            generation = self._generation_id
            try:
                await self._wait(self._recover(generation))
            except RebalanceAgain:
                continue
            except ServiceStopped:
                return

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Changelog partitions stay paused: tables read them with a consumer of their own."""

    async def _recover(self, generation: int) -> None:
        app: Any = self.app
        consumer = app.consumer
        epoch = app.tables.revocations
        self._set_recovery_started()
        membership = await _membership(consumer)
        actives = set(app.assignor.assigned_actives())
        phases = Phases()
        logger.info("the group has given us %d partitions; restoring %d tables", len(actives), len(self.tables))

        def still_ours() -> bool:
            return bool(app.tables.revocations == epoch and app.consumer_generation_id == generation)

        async def confirm() -> bool:
            while still_ours():
                confirmed = await _confirm(consumer, membership)
                if confirmed is not None:
                    return confirmed and still_ours()
                await asyncio.sleep(CONFIRM_EVERY_S)
            return False

        for table in self.tables.values():
            topic = table.changelog_topic_name
            mine = {tp.partition for tp in actives if tp.topic == topic}
            await table.restore(mine, still_ours, confirm)  # type: ignore[attr-defined]
            phases.ended(str(table.name))
        self._set_recovery_ended()
        if not still_ours():
            return  # a newer rebalance is on its way and signals for itself
        await app.on_rebalance_complete.send()
        await consumer.perform_seek()
        phases.ended("setting where to read")
        if not still_ours():
            return
        consumer.resume_partitions({tp for tp in consumer.assignment() if not self._is_changelog_tp(tp)})
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()
        logger.info("all tables restored in %.2f s: %s; reading begins", phases.total_s, phases)

    def flush_buffers(self) -> None:
        """Nothing is buffered."""


def _coordinator(consumer: Any) -> Any:
    return consumer._thread._ensure_consumer()._coordinator


async def _membership(consumer: Any) -> Membership:
    """As which member we were given what is assigned now."""

    async def ask() -> Membership:
        coordinator = _coordinator(consumer)
        return Membership(coordinator.generation, coordinator.member_id)

    found: Membership = await consumer._thread.call_thread(ask)
    return found


async def _confirm(consumer: Any, membership: Membership) -> bool | None:
    """Whether the coordinator still knows us as this member of its present generation; None while it does not answer.

    A heartbeat of an earlier generation, or of a member that was evicted or replaced, is refused.

    Raises:
        KafkaError: the group cannot be coordinated any more. aiokafka does nothing for it until whoever fetches has
            heard of that, and nobody fetches while tables are restored.
    """

    async def ask() -> bool | None:
        coordinator = _coordinator(consumer)
        coordinator.check_errors()
        if (coordinator.generation, coordinator.member_id) != membership:
            return False
        is_known = await coordinator._do_heartbeat()
        if (coordinator.generation, coordinator.member_id) != membership:
            return False
        return True if is_known else None

    found: bool | None = await consumer._thread.call_thread(ask)
    return found


class BatchTableManager(TableManager):
    """Faust's table manager with this recovery, dropping state as soon as partitions are revoked."""

    #: How often partitions were revoked: a recovery that began before the last time is void.
    revocations = 0

    @property
    def recovery(self) -> Recovery:
        """The recovery service, made at first use."""
        if self._recovery is None:
            self._recovery = BatchRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    def drop_revoked(self, revoked: set[TP]) -> None:
        """Forget the state of revoked partitions, after their in-flight batches were committed."""
        self.revocations += 1
        for table in self.values():
            topic = table.changelog_topic_name
            table.drop({tp.partition for tp in revoked if tp.topic == topic})  # type: ignore[attr-defined]
