"""Fills a topic with usage events as a busy fleet of gateways would: lz4 batches of up to 128 KiB, acks=all.

Run as a process of its own, several of which fill one topic together::

    python -m loadtest.bench.fill '{"bootstrap": …}'
"""

import asyncio
import sys

import msgspec

from loadtest.bench.events import Shape, Stream
from loadtest.bench.sending import BatchSender
from schemas.topics import USAGE_EVENTS

#: Batches of a partition that may wait: events are made quicker than they are sent.
WAITING_MAX = 4


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
    sent = 0
    stream = Stream(order.shape, order.partitions, order.start, order.part, order.parts)
    async with BatchSender(order.bootstrap, order.topic, order.partitions, WAITING_MAX) as sender:
        while sent < order.count:
            for made in stream.chunk()[: order.count - sent]:
                await sender.add(made)
                sent += 1
            sender.check()
            await asyncio.sleep(0)
    return sent


if __name__ == "__main__":
    print(asyncio.run(fill(msgspec.json.decode(sys.argv[1], type=Order))))
