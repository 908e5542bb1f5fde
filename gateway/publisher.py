"""What a gateway embeds to tell Sluice of its calls: never in the way of a call, never lossy in silence.

Events go to Kafka in order (acks=all, idempotent) by a background task. With a ``spill_dir`` each is on disk before
``publish`` returns, and leaves it when the broker has acknowledged it: an outage, a full memory and ``kill -9`` lose
none. Memory and disk are bounded; when both are full ``publish`` raises and counts. What a crash left is sent at the
next start; an event may so arrive twice under its id, which Sluice counts once.
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from gateway.clock import now_micros
from gateway.journal import Journal, JournalFullError
from schemas.cloudevents import binary_headers
from schemas.events import UNATTRIBUTED, USAGE_TYPE, UsageEvent
from schemas.instants import format_instant
from schemas.topics import USAGE_EVENTS

log = logging.getLogger(__name__)

BACKOFF_S = 1.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_encode = msgspec.json.Encoder().encode


#: Read from the disk at once.
CHUNK = 500
#: How long a producer that lost a delivery is waited for to bring the others to an end.
SETTLE_S = 2.0


class BufferFullError(Exception):
    """Neither memory nor disk takes another event; this one was dropped, and counted."""


class Outgoing(NamedTuple):
    """One record on its way."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Outgoing).decode


class Waiting(NamedTuple):
    """A record in memory: its turn among all, and where it is on disk."""

    turn: int
    record: Outgoing
    journal: "Journal | None" = None
    position: int = 0


class PublisherStats(msgspec.Struct):
    """Since the start: events taken, acknowledged by the broker, and lost, with the reasons for loss."""

    accepted: int = 0
    delivered: int = 0
    #: Memory and disk were full.
    dropped: int = 0
    #: The broker refuses them for good: larger than the topic takes.
    refused: int = 0
    #: Found on disk at the start: an earlier process ended before they were acknowledged.
    recovered: int = 0
    #: Damaged on disk.
    damaged: int = 0
    #: Taken into memory alone, because the disk failed.
    unkept: int = 0


def new_producer(connection: Mapping[str, Any], linger_ms: int = 5) -> AIOKafkaProducer:
    """A producer whose acknowledgement means that every in-sync replica has the record, once."""
    return AIOKafkaProducer(
        **{
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "lz4",
            "linger_ms": linger_ms,
            "max_batch_size": 131_072,
            **connection,
        }
    )


async def close_producer(producer: AIOKafkaProducer, timeout_s: float) -> None:
    """Stop a producer; after ``timeout_s`` without its unsent records, for which aiokafka waits for ever."""
    try:
        async with asyncio.timeout(timeout_s):
            await producer.stop()
    except TimeoutError:
        if producer._sender is not None:
            await producer._sender.close()
        await producer.client.close()
    except (KafkaError, OSError) as error:
        log.warning("the Kafka producer did not stop cleanly: %r", error)


class UsagePublisher:
    """Publishes usage events from a gateway.

    Args:
        connection: aiokafka's keyword arguments.
        source: the CloudEvents source of events that are published without one, such as ``//gateway/litellm/eu-1``.
        buffer_max: so many events are kept in memory.
        spill_dir: where events are kept until they are acknowledged; None: in memory only. Processes may share it.
        spill_bytes_max: so many bytes of it are used by each process.
        fsync_interval_s: so much a loss of power may cost; the end of the process alone costs nothing. 0: each event is
            on the disk itself before ``publish`` returns.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        *,
        source: str = "//gateway",
        buffer_max: int = 20_000,
        spill_dir: Path | str | None = None,
        spill_bytes_max: int = 1 << 30,
        fsync_interval_s: float = 1.0,
        clock: Callable[[], int] = now_micros,
    ) -> None:
        self._connection = dict(connection)
        self._source = source
        self._buffer_max = buffer_max
        self._spill_dir = None if spill_dir is None else Path(spill_dir)
        self._spill_bytes_max = spill_bytes_max
        self._fsync_interval_s = fsync_interval_s
        self._clock = clock
        self._journals: list[Journal] = []
        self._own: Journal | None = None
        #: By journal: positions that were taken into memory, in order, and those of them that are done.
        self._taken: dict[Journal, deque[int]] = {}
        self._done: dict[Journal, set[int]] = {}
        self._turn = 0
        self._queue: deque[Waiting] = deque()
        self._in_flight: dict[asyncio.Future[Any], Waiting] = {}
        self._failed: list[Waiting] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._broken = False
        self._tasks: list[asyncio.Task[None]] = []
        self.stats = PublisherStats()

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet, in memory and on disk."""
        in_memory = len(self._queue) + len(self._in_flight) + len(self._failed)
        return in_memory + sum(journal.unread for journal in self._journals)

    @property
    def slot(self) -> str:
        """Which of the processes that share ``spill_dir`` this is; the same after a restart. 0 without one."""
        return "0" if self._own is None else self._own.folder.name

    async def start(self) -> None:
        """Begin sending in the background; a broker that is away is tried again and again.

        Raises:
            gateway.journal.JournalError: ``spill_dir`` cannot be used.
        """
        if self._tasks:
            return
        if self._spill_dir is not None and self._own is None:
            bounds = {"bytes_max": self._spill_bytes_max, "segment_bytes": max(self._spill_bytes_max // 64, 4096)}
            self._own, left = await asyncio.to_thread(Journal.claim, self._spill_dir, **bounds)
            self._journals = [*left, self._own]
            for journal in self._journals:
                self._taken[journal], self._done[journal] = deque(), set()
            self.stats.recovered = sum(journal.unread for journal in self._journals)
            self.stats.damaged = sum(journal.lost for journal in self._journals)
            if self.stats.recovered:
                log.warning("%d usage events of an earlier process are sent now", self.stats.recovered)
                self._idle.clear()
            if self._fsync_interval_s > 0:
                self._tasks.append(asyncio.create_task(self._sync(), name="sluice-usage-fsync"))
        self._tasks.append(asyncio.create_task(self._run(), name="sluice-usage-publisher"))

    async def stop(self, timeout_s: float = 5.0) -> int:
        """Send what waits, at most ``timeout_s``, and end; returns how many events were not acknowledged."""
        left = await self.flush(timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for journal in self._journals:
            journal.close()
        # What is on disk is read from there by the next start.
        self._queue = deque(one for one in self._queue if one.journal is None)
        self._journals, self._own, self._taken, self._done = [], None, {}, {}
        if left and self._spill_dir is None:
            log.error("%d usage events were not acknowledged before the gateway stopped, and are lost", left)
        elif left:
            log.warning("%d usage events wait in %s for the next start", left, self._spill_dir)
        return left

    async def flush(self, timeout_s: float = 5.0) -> int:
        """Wait until all events are acknowledged, at most ``timeout_s``; returns how many are not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self.waiting

    def publish(self, event: UsageEvent, *, id: str, source: str | None = None, time: int | None = None) -> None:
        """Take one event; never waits for the broker. ``id`` must be the same whenever this call is told again.

        Args:
            time: when the call ended, microseconds since 1970; default: now.

        Raises:
            BufferFullError: as many events wait as may wait.
        """
        headers = binary_headers(
            id=id,
            source=source or self._source,
            type=USAGE_TYPE,
            time=format_instant(self._clock() if time is None else time),
            subject=event.team_id,
        )
        key = (event.team_id or UNATTRIBUTED).encode()
        self._take(Outgoing(USAGE_EVENTS, key, _encode(event), headers))
        self.stats.accepted += 1
        self._idle.clear()
        self._wake.set()

    def _take(self, record: Outgoing) -> None:
        """To disk, and into memory where there is room and nothing on disk goes before it."""
        has_room = len(self._queue) + len(self._in_flight) + len(self._failed) < self._buffer_max
        journal = self._own
        if journal is None:
            if not has_room:
                self._drop("check the broker, or raise buffer_max")
            self._enqueue(record, None, 0)
            return
        try:
            position = journal.append(_pack(record))
            if self._fsync_interval_s <= 0:
                journal.sync()
        except JournalFullError as error:
            self._drop(f"{error}; check the broker, or raise spill_bytes_max")
        except OSError as error:
            self.stats.unkept += 1
            log.error("usage events cannot be kept on disk and wait in memory alone: %s", error)
            if not has_room:
                self._drop("the disk fails, and memory is full")
            self._enqueue(record, None, 0)
            return
        if has_room and sum(one.unread for one in self._journals) == 1:
            journal.skip()
            self._enqueue(record, journal, position)

    def _drop(self, what_to_do: str) -> None:
        self.stats.dropped += 1
        raise BufferFullError(
            f"{self.waiting} usage events wait for Kafka ({self.stats.dropped} dropped so far): {what_to_do}"
        )

    def _enqueue(self, record: Outgoing, journal: Journal | None, position: int) -> None:
        self._turn += 1
        self._queue.append(Waiting(self._turn, record, journal, position))
        if journal is not None:
            self._taken[journal].append(position)

    def _load(self) -> None:
        """Take the next ones from disk into memory."""
        for journal in self._journals:
            if journal.unread:
                for position, packed in journal.read(min(CHUNK, self._buffer_max)):
                    self._enqueue(_unpack(packed), journal, position)
                return

    async def _run(self) -> None:
        while True:
            producer = new_producer(self._connection)
            try:
                await producer.start()
                self._broken = False
                await self._send_all(producer)
                # What is under way may still succeed; what does would go twice.
                if self._in_flight:
                    await asyncio.wait(list(self._in_flight), timeout=SETTLE_S)
            except (KafkaError, OSError) as error:
                log.warning("usage events wait, Kafka can't be used: %r (%d wait)", error, self.waiting)
            finally:
                await asyncio.shield(close_producer(producer, 1.0))
                # What the producer took and never acknowledged goes again, in its turn; ids make that safe.
                again = sorted([*self._failed, *self._in_flight.values()])
                self._queue.extendleft(reversed(again))
                self._in_flight.clear()
                self._failed.clear()
            await asyncio.sleep(BACKOFF_S)

    async def _send_all(self, producer: AIOKafkaProducer) -> None:
        """Send whatever comes; returns after a delivery failed, because the producer may be beyond repair."""
        while not self._broken:
            if not self._queue:
                self._load()
            while self._queue and not self._broken:
                waiting = self._queue[0]
                record = waiting.record
                try:
                    delivery = await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
                except KafkaTimeoutError:
                    continue  # The broker is away; this producer goes on where it was when it is back.
                except _TOO_LARGE as error:
                    self._queue.popleft()
                    self._refuse(waiting, error)
                    continue
                self._queue.popleft()
                self._in_flight[delivery] = waiting
                delivery.add_done_callback(self._delivered)
            self._wake.clear()
            if not self._queue and not self._broken and not any(journal.unread for journal in self._journals):
                await self._wake.wait()

    def _delivered(self, delivery: asyncio.Future[Any]) -> None:
        error = None if delivery.cancelled() else delivery.exception()
        waiting = self._in_flight.pop(delivery, None)
        if waiting is None:
            return  # Its producer was given up, and the record is in the queue again.
        if error is None and not delivery.cancelled():
            self.stats.delivered += 1
            self._settle(waiting)
        elif isinstance(error, _TOO_LARGE):
            self._refuse(waiting, error)
        else:
            self._failed.append(waiting)
            self._broken = True
            self._wake.set()
        self._note_idle()

    def _refuse(self, waiting: Waiting, error: BaseException) -> None:
        self.stats.refused += 1
        log.error("a usage event of %d bytes was refused for good: %r", len(waiting.record.value), error)
        self._settle(waiting)
        self._note_idle()

    def _settle(self, waiting: Waiting) -> None:
        """Let the disk forget all up to the first that is not done."""
        journal = waiting.journal
        if journal is None or journal not in self._journals:
            return
        taken, done = self._taken[journal], self._done[journal]
        done.add(waiting.position)
        before = None
        while taken and taken[0] in done:
            before = taken.popleft() + 1
            done.discard(before - 1)
        if before is None:
            return
        try:
            journal.acknowledge(before)
        except OSError as error:
            log.error("the disk does not take what was acknowledged; it may be sent again: %s", error)

    def _note_idle(self) -> None:
        if self.waiting == 0:
            self._idle.set()

    async def _sync(self) -> None:
        """Bring to the disk itself what is with the kernel, without holding up anybody."""
        while True:
            await asyncio.sleep(self._fsync_interval_s)
            file = None if self._own is None else self._own.unsynced()
            if file is None:
                continue
            try:
                await asyncio.to_thread(os.fdatasync, file)
            except OSError as error:
                log.error("the disk of waiting usage events fails: %s", error)
            finally:
                os.close(file)
