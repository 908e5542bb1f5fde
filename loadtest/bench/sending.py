"""Record batches to a topic, in order within each partition: one batch of a partition is on its way at a time."""

import asyncio
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from loadtest.bench.events import Headers, Made


class BatchSender:
    """``async with BatchSender(…) as sender:`` sends what it was given before the block ends.

    The producer is set as ``gateway.publisher.new_producer`` sets it: acks=all, idempotent, lz4, 128 KiB.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, waiting_max: int = 0) -> None:
        """At most ``waiting_max`` batches of a partition wait to be sent; 0: as many as come."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            max_batch_size=131_072,
        )
        self._topic = topic
        self._queues = [asyncio.Queue[BatchBuilder | None](waiting_max) for _ in range(partitions)]
        self._open: list[BatchBuilder | None] = [None] * partitions
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._producer.start()
        self._tasks = [asyncio.create_task(self._send(partition)) for partition in range(len(self._queues))]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
                for queue in self._queues:
                    await queue.put(None)
                await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._producer.stop()

    async def add(self, made: Made, headers: Headers | None = None) -> None:
        """Append an event to its partition's batch; a full batch goes on its way, and waits here for its turn."""
        batch = self._open[made.partition]
        if batch is None or not self._append(batch, made, headers):
            if batch is not None:
                await self._queues[made.partition].put(batch)
            batch = self._open[made.partition] = self._producer.create_batch()
            self._append(batch, made, headers)

    async def flush(self) -> None:
        """Send open batches as they are."""
        for partition, batch in enumerate(self._open):
            if batch is not None:
                self._open[partition] = None
                await self._queues[partition].put(batch)

    def new_batch(self) -> BatchBuilder:
        """An empty batch, to be filled and ``put``."""
        return self._producer.create_batch()

    async def put(self, partition: int, batch: BatchBuilder) -> None:
        """Send a batch that was filled before."""
        await self._queues[partition].put(batch)

    def check(self) -> None:
        """Raise what a sending task failed with."""
        for task in self._tasks:
            if task.done():
                task.result()

    def _append(self, batch: BatchBuilder, made: Made, headers: Headers | None) -> bool:
        found = batch.append(key=made.key, value=made.value, timestamp=None, headers=headers or made.headers)
        return found is not None

    async def _send(self, partition: int) -> None:
        while (batch := await self._queues[partition].get()) is not None:
            await (await self._producer.send_batch(batch, self._topic, partition=partition))
