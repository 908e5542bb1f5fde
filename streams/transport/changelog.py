"""Reading changelog partitions whole: the newest value of every key, as the bytes that they are.

A changelog holds many times more than what counts in it, so its records are read as fetches are read (``fetching.py``):
without an object of aiokafka's for each, and without decoding what is superseded.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.transport.fetching import Unread, hand_out_unread

FETCH_BYTES = 8 * 1_048_576


class Newest(NamedTuple):
    """What was read: by partition the newest value of every key that is not deleted, and how much that took."""

    entries: dict[int, dict[bytes, bytes]]
    records: int
    #: Of keys and values; what the broker sent was compressed.
    size: int


async def read_newest(
    connection: Mapping[str, Any], topic: str, partitions: set[int], until: Mapping[int, int] | None = None
) -> Newest:
    """The newest value of every key of each partition, up to the offset ``until`` or else the present end."""
    consumer = AIOKafkaConsumer(
        **connection,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    try:
        hand_out_unread(consumer._fetcher)
        tps = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        consumer.assign(tps)
        ends = {tp: until[tp.partition] for tp in tps} if until else await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        return await _read_until(consumer, ends)
    finally:
        await consumer.stop()


async def _read_until(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> Newest:
    entries: dict[int, dict[bytes, bytes]] = {tp.partition: {} for tp in ends}
    remaining = {tp for tp, end in ends.items() if end > 0}
    count = size = 0
    while remaining:
        # Position, not the last record seen: compaction can leave a tail without records.
        done = {tp for tp in remaining if await consumer.position(tp) >= ends[tp]}
        remaining -= done
        if done:
            consumer.pause(*done)
        if not remaining:
            break
        for tp, unread in (await consumer.getmany(*remaining, timeout_ms=200)).items():
            added, length = _take(unread, ends[tp], entries[tp.partition])
            count, size = count + added, size + length
            # A fetch is tens of thousands of records: what else this process does gets its turn.
            await asyncio.sleep(0)
    return Newest(entries, count, size)


def _take(unread: Unread, end: int, newest: dict[bytes, bytes]) -> tuple[int, int]:
    """Let the records below ``end`` replace what they supersede; returns how many they were, and how long."""
    count = size = 0
    for records in unread.chunks():
        if records[-1].offset >= end:
            # Written since: by whoever was overtaken, or by us in a later life.
            records = [record for record in records if record.offset < end]
        for record in records:
            key, value = record.key, record.value
            if value is None:
                newest.pop(key, None)
                size += len(key)
            else:
                newest[key] = value
                size += len(key) + len(value)
        count += len(records)
    return count, size
