"""Writing records in batches, with delivery awaited: what is acknowledged later was durable before.

Faust's own table writes go through a buffer whose flush is no barrier and whose failures are warnings
(docs/transport.md); state and statements of Sluice are written here instead.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import faust.transport.drivers.aiokafka as driver
from aiokafka.partitioner import murmur2


class Outgoing(NamedTuple):
    """One record to write. ``partition`` None lets the key decide, as every Kafka client does (murmur2)."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a key.

    >>> partition_of(b"team:search", 4) == partition_of(b"team:search", 4)
    True
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class BatchProducer(driver.Producer):
    """Faust's producer made idempotent with acks from all replicas, and able to write whole batches."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": self.app.idempotence}

    async def write(self, records: Iterable[Outgoing], partitions: int) -> int:
        """Write the records and wait until the broker has acknowledged every one; return how many.

        Order is kept within a partition. ``partitions`` is the partition count of the topics written.

        Raises:
            KafkaError: a record was not taken; what was written before it stays written.
        """
        producer = self._ensure_producer()
        open_batches: dict[tuple[str, int], Any] = {}
        pending: list[asyncio.Future[Any]] = []
        count = 0
        for record in records:
            count += 1
            partition = record.partition
            if partition is None:
                partition = partition_of(record.key, partitions)
            where = (record.topic, partition)
            batch = open_batches.get(where)
            if batch is None:
                batch = open_batches[where] = producer.create_batch()
            if not _append(batch, record):
                pending.append(await producer.send_batch(batch, record.topic, partition=partition))
                batch = open_batches[where] = producer.create_batch()
                _append(batch, record)
        for (topic, partition), batch in open_batches.items():
            pending.append(await producer.send_batch(batch, topic, partition=partition))
        # gather would leave the others unobserved after a first failure
        for outcome in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return count


def _append(batch: Any, record: Outgoing) -> bool:
    taken = batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
    return taken is not None
