"""A Faust table whose state is exactly what its changelog says, per partition, written in batches.

The memory of a table is dropped at every rebalance and read back from the changelog with a reader of its own (whole
batches, hundreds of thousands of records a second), so no partition ever holds what somebody else has moved on from.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from streams.transport.producer import Outgoing

RESTORE_TIMEOUT_S = 600.0


class StateTable(faust.Table):  # type: ignore[type-arg]
    """Raw keys and values by partition. Agents keep decoded state; the table keeps it durable.

    ``on_load(partition, entries)`` is called with everything the changelog holds once a partition is ours and read,
    before the first record is delivered; ``on_drop(partitions)`` when partitions are taken away.
    ``start_of(topic, partition)`` may ask for reading to start below the committed offset.
    """

    on_load: Callable[[int, dict[bytes, bytes]], None] | None = None
    on_drop: Callable[[set[int]], None] | None = None
    start_of: Callable[[str, int], int | None] | None = None

    def _changelog_topic_name(self) -> str:
        return f"{self.app.state_of}-{self.name}-changelog"  # type: ignore[attr-defined]

    def persisted_offset(self, tp: TP) -> int | None:
        """Nothing is kept beside the changelog."""
        return None

    def start_offset(self, tp: TP) -> int | None:
        """Where this table needs the source partition to be read from; None for no wish."""
        return self.start_of(tp.topic, tp.partition) if self.start_of is not None else None

    async def write(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Write changed entries to the changelog partition and wait until they are durable; None deletes."""
        topic = self.changelog_topic_name
        records = (Outgoing(topic, partition, key, value) for key, value in entries)
        written: int = await self.app.producer.write(records, self.app.partitions)
        return written

    def drop(self, partitions: set[int]) -> None:
        """Forget partitions that are no longer ours."""
        if self.on_drop is not None and partitions:
            self.on_drop(partitions)

    async def restore(self, partitions: set[int], still_ours: Callable[[], bool] = lambda: True) -> None:
        """Read the changelog of these partitions from its beginning to its present end, and hand it over.

        Nothing is handed over once ``still_ours`` says no: partitions that were revoked while they were read would
        live on here beside their new owner.

        Raises:
            TimeoutError: the end was not reached within ``RESTORE_TIMEOUT_S``.
        """
        if not partitions or self.on_load is None:
            return
        topic = self.changelog_topic_name
        entries: dict[int, dict[bytes, bytes]] = {partition: {} for partition in partitions}
        consumer = AIOKafkaConsumer(
            **self.app.connection,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=8 * 1_048_576,
        )
        await consumer.start()
        try:
            tps = [TopicPartition(topic, partition) for partition in sorted(partitions)]
            consumer.assign(tps)
            async with asyncio.timeout(RESTORE_TIMEOUT_S):
                ends = await consumer.end_offsets(tps)
                await consumer.seek_to_beginning(*tps)
                await _read_until(consumer, ends, entries)
        finally:
            await consumer.stop()
        if still_ours():
            for partition, found in entries.items():
                self.on_load(partition, found)


async def _read_until(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int], entries: dict[int, dict[bytes, bytes]]
) -> None:
    remaining = {tp for tp, end in ends.items() if end > 0}
    while remaining:
        # Position, not the last record seen: compaction can leave a tail without records.
        done = {tp for tp in remaining if await consumer.position(tp) >= ends[tp]}
        remaining -= done
        if done:
            consumer.pause(*done)
        if not remaining:
            return
        for tp, records in (await consumer.getmany(*remaining, timeout_ms=200)).items():
            found = entries[tp.partition]
            for record in records:
                if record.value is None:
                    found.pop(record.key, None)
                else:
                    found[record.key] = record.value
