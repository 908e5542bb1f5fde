"""Fills a topic with usage events as a busy fleet of gateways would: lz4 batches of up to 128 KiB, acks=all.

Run as a process of its own, several of which fill one topic together::

    python -m loadtest.bench.fill '{"bootstrap": …}'
"""

import asyncio
import sys

import msgspec
from aiokafka import AIOKafkaProducer

from loadtest.bench.events import Shape, Stream
from schemas.topics import USAGE_EVENTS

#: Batches on their way at any time, over all partitions.
IN_FLIGHT = 32


class Order(msgspec.Struct, kw_only=True):
    """What to fill: ``count`` events (repeats included) of part ``part`` of ``parts``, from ``start`` on."""

    bootstrap: str
    partitions: int
    start: int
    count: int
    part: int = 0
    parts: int = 1
    topic: str = USAGE_EVENTS
    shape: Shape = Shape()


async def fill(order: Order) -> int:
    """Send the events; returns how many there were once all are acknowledged."""
    producer = AIOKafkaProducer(
        bootstrap_servers=order.bootstrap,
        acks="all",
        enable_idempotence=True,
        # As gateway.publisher.new_producer has it.
        compression_type="lz4",
        max_batch_size=131_072,
    )
    await producer.start()
    sent, flying = 0, asyncio.Semaphore(IN_FLIGHT)
    tasks: list[asyncio.Task[None]] = []

    async def send(batch: object, partition: int) -> None:
        async with flying:
            await (await producer.send_batch(batch, order.topic, partition=partition))

    try:
        stream = Stream(order.shape, order.partitions, order.start, order.part, order.parts)
        open_batches = [producer.create_batch() for _ in range(order.partitions)]
        while sent < order.count:
            for made in stream.chunk()[: order.count - sent]:
                sent += 1
                batch = open_batches[made.partition]
                if batch.append(key=made.key, value=made.value, timestamp=None, headers=made.headers) is None:
                    tasks.append(asyncio.create_task(send(batch, made.partition)))
                    batch = open_batches[made.partition] = producer.create_batch()
                    batch.append(key=made.key, value=made.value, timestamp=None, headers=made.headers)
            while len(tasks) > 2 * IN_FLIGHT:
                await tasks.pop(0)
            await asyncio.sleep(0)
        tasks += [
            asyncio.create_task(send(batch, partition))
            for partition, batch in enumerate(open_batches)
            if batch.record_count()
        ]
        await asyncio.gather(*tasks)
    finally:
        await producer.stop()
    return sent


if __name__ == "__main__":
    print(asyncio.run(fill(msgspec.json.decode(sys.argv[1], type=Order))))
