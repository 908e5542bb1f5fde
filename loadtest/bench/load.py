"""A steady background of usage events in real time, open loop: what is due is sent, however slow anybody is.

Run as a process of its own::

    python -m loadtest.bench.load '{"bootstrap": …, "seconds": 60}'

It prints one JSON line at its end: how many events were sent, and how far it was behind its own schedule at worst.
"""

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
from aiokafka.producer.message_accumulator import BatchBuilder

from loadtest.bench.events import Made, Shape, Stream
from loadtest.bench.sending import BatchSender
from schemas.instants import SECOND, format_instant
from schemas.topics import USAGE_EVENTS
from streams.clock import WallClock

#: What is due is sent this often, as a gateway's producer with some linger would.
TICK_S = 0.01


class LoadOrder(msgspec.Struct, kw_only=True):
    """Events at ``shape.rate`` a second for ``seconds`` from ``start`` (microseconds since 1970, wall clock).

    With ``speed`` 60 event time runs sixty times as fast as the wall clock, from ``event_start`` on.
    ``is_prepared``: all batches are filled before ``start``, so that the load takes little of the cores on which others
    are measured; they wait in memory, some 700 bytes an event.
    """

    bootstrap: str
    partitions: int
    start: int
    seconds: float
    shape: Shape
    speed: float = 1.0
    event_start: int = 0
    is_prepared: bool = False


class LoadReport(msgspec.Struct, kw_only=True):
    """What was sent, and how late at worst in milliseconds."""

    sent: int
    behind_ms_max: float


class Ready(NamedTuple):
    """What is due within one tick, in batches by partition."""

    #: The tick's end, and when its first event was due.
    at: int
    first: int
    count: int
    batches: list[tuple[int, BatchBuilder]]


def prepared(order: LoadOrder, new_batch: Callable[[], BatchBuilder]) -> Iterator[Ready]:
    """All ticks of the order, filled; ticks in which nothing is due are left out."""
    end, tick_us = order.start + int(order.seconds * SECOND), int(TICK_S * SECOND)
    stream = Stream(order.shape, order.partitions, order.start)
    events = schedule(stream, 0)
    at, made = next(events)
    while at < end:
        tick, first, count = at - at % tick_us + tick_us, at, 0
        open_batches: dict[int, BatchBuilder] = {}
        batches: list[tuple[int, BatchBuilder]] = []
        while at < tick:
            batch = open_batches.get(made.partition)
            if batch is None or not _append(batch, made):
                batch = open_batches[made.partition] = new_batch()
                batches.append((made.partition, batch))
                _append(batch, made)
            count += 1
            at, made = next(events)
        yield Ready(tick, first, count, batches)


def _append(batch: BatchBuilder, made: Made) -> bool:
    return batch.append(key=made.key, value=made.value, timestamp=None, headers=made.headers) is not None


async def run_prepared(order: LoadOrder) -> LoadReport:
    """Fill all batches, and send each when it is due."""
    clock, sent, behind = WallClock(), 0, 0
    async with BatchSender(order.bootstrap, USAGE_EVENTS, order.partitions) as sender:
        ticks = deque(prepared(order, sender.new_batch))
        # What was made stays: nothing of it is garbage before it is sent.
        gc.freeze()
        while ticks:
            ready = ticks.popleft()
            await asyncio.sleep(max(0.0, (ready.at - clock.now()) / SECOND))
            behind = max(behind, clock.now() - ready.first)
            for partition, batch in ready.batches:
                await sender.put(partition, batch)
            sent += ready.count
            sender.check()
    return LoadReport(sent=sent, behind_ms_max=behind / 1_000)


async def run(order: LoadOrder) -> LoadReport:
    """Send until the time is over."""
    if order.is_prepared:
        return await run_prepared(order)
    clock = WallClock()
    stream = Stream(order.shape, order.partitions, order.start)
    due: deque[tuple[int, Made]] = deque()
    sent, behind = 0, 0
    end = order.start + int(order.seconds * SECOND)
    async with BatchSender(order.bootstrap, USAGE_EVENTS, order.partitions) as sender:
        while (now := clock.now()) < end:
            while not due or due[-1][0] <= now:
                due += schedule(stream.chunk(), due[-1][0] if due else 0)
            while due[0][0] <= now:
                at, made = due.popleft()
                behind = max(behind, now - at)
                await sender.add(made, None if order.speed == 1.0 else _at(made, _event_time(made, order)))
                sent += 1
            await sender.flush()
            sender.check()
            await asyncio.sleep(TICK_S)
    return LoadReport(sent=sent, behind_ms_max=behind / 1_000)


def schedule(events: Iterable[Made], not_before: int) -> Iterator[tuple[int, Made]]:
    """When each event is due, in order: at its time; a repeat, whose time is its original's, with its neighbours."""
    at = not_before
    for made in events:
        at = max(at, made.time)
        yield at, made


def _event_time(made: Made, order: LoadOrder) -> int:
    return order.event_start + int((made.time - order.start) * order.speed)


def _at(made: Made, time: int) -> list[tuple[str, bytes]]:
    text = format_instant(time).encode()
    return [(name, text if name == "ce_time" else value) for name, value in made.headers]


if __name__ == "__main__":
    report = asyncio.run(run(msgspec.json.decode(sys.argv[1], type=LoadOrder)))
    print(msgspec.json.encode(report).decode())
