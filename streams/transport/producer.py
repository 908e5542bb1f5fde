"""Writing records in batches, with delivery awaited: what is acknowledged later was durable before.

Faust's own table writes go through a buffer whose flush is no barrier and whose failures are warnings
(docs/transport.md); state and statements of Sluice are written here instead.
"""

import asyncio
from collections import defaultdict
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
    """Faust's producer made idempotent with acks from all replicas, and able to write whole batches.

    aiokafka has one request to a broker under way at a time, so what somebody waits for would queue behind megabytes of
    state. The application's ``express_topics`` have a connection of their own; a topic is always on the same one, which
    keeps the order within its partitions.
    """

    _express: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Held by who hands over a batch of a partition: aiokafka counts the time that several wait for one place again
        #: and again, and gives up after seconds where it was told thirty.
        self._handing_over: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": self.app.idempotence}

    async def on_start(self) -> None:
        """Connect twice."""
        await super().on_start()
        self._express = self._new_producer()
        await self._express.start()

    async def on_stop(self) -> None:
        """Write what is under way, and leave."""
        express, self._express = self._express, None
        if express is not None:
            await express.stop()
        await super().on_stop()

    def _lane(self, topic: str) -> Any:
        bulk = self._ensure_producer()
        return self._express if self._express is not None and topic in self.app.express_topics else bulk

    async def write(self, records: Iterable[Outgoing], partitions: int) -> int:
        """Write the records and wait until the broker has acknowledged every one; return how many.

        Order is kept within a partition. ``partitions`` is the partition count of the topics written.

        Raises:
            KafkaError: a record was not taken; what was written before it stays written.
        """
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
                batch = open_batches[where] = self._lane(record.topic).create_batch()
            if not _append(batch, record):
                pending.append(await self._hand_over(batch, *where))
                batch = open_batches[where] = self._lane(record.topic).create_batch()
                _append(batch, record)
        for where, batch in open_batches.items():
            pending.append(await self._hand_over(batch, *where))
        # gather would leave the others unobserved after a first failure
        for outcome in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return count

    async def _hand_over(self, batch: Any, topic: str, partition: int) -> asyncio.Future[Any]:
        async with self._handing_over[topic, partition]:
            delivery: asyncio.Future[Any] = await self._lane(topic).send_batch(batch, topic, partition=partition)
            return delivery


def _append(batch: Any, record: Outgoing) -> bool:
    taken = batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
    return taken is not None
