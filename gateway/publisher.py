"""What a gateway embeds to tell Sluice of its calls: never in the way of a call, never lossy in silence.

Events wait in a bounded buffer and a background task takes them to Kafka (acks=all, idempotent). While the
broker is away they wait; when the buffer is full ``publish`` raises and counts. An event may arrive twice
under its id, which Sluice counts once.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from gateway.clock import now_micros
from schemas.cloudevents import binary_headers
from schemas.events import UNATTRIBUTED, USAGE_TYPE, UsageEvent
from schemas.instants import format_instant
from schemas.topics import USAGE_EVENTS

log = logging.getLogger(__name__)

BACKOFF_S = 1.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_encode = msgspec.json.Encoder().encode


class BufferFullError(Exception):
    """The buffer is full because the broker does not take events; this one was dropped, and counted."""


class Outgoing(NamedTuple):
    """One record on its way."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class PublisherStats(msgspec.Struct):
    """Since the start: events taken, acknowledged by the broker, and lost, with the two reasons for loss."""

    accepted: int = 0
    delivered: int = 0
    #: The buffer was full.
    dropped: int = 0
    #: The broker refuses them for good: larger than the topic takes.
    refused: int = 0


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

    ``connection`` holds aiokafka's keyword arguments. ``source`` is the CloudEvents source of events that are
    published without one, such as ``//gateway/litellm/eu-1``. At most ``buffer_max`` events are kept.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        *,
        source: str = "//gateway",
        buffer_max: int = 20_000,
        clock: Callable[[], int] = now_micros,
    ) -> None:
        self._connection = dict(connection)
        self._source = source
        self._buffer_max = buffer_max
        self._clock = clock
        self._queue: deque[Outgoing] = deque()
        self._in_flight: dict[asyncio.Future[Any], Outgoing] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._broken = False
        self._task: asyncio.Task[None] | None = None
        self.stats = PublisherStats()

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet."""
        return len(self._queue) + len(self._in_flight)

    async def start(self) -> None:
        """Begin sending in the background; a broker that is away is tried again and again."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="sluice-usage-publisher")

    async def stop(self, timeout_s: float = 5.0) -> int:
        """Send what waits, at most ``timeout_s``, and end; returns how many events were not acknowledged."""
        left = await self.flush(timeout_s)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if left:
            log.error("%d usage events were not acknowledged before the gateway stopped", left)
        return left

    async def flush(self, timeout_s: float = 5.0) -> int:
        """Wait until all events are acknowledged, at most ``timeout_s``; returns how many are not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self.waiting

    def publish(self, event: UsageEvent, *, id: str, source: str | None = None, time: int | None = None) -> None:
        """Take one event; never waits. ``id`` must be the same whenever this call is told again.

        Args:
            time: when the call ended, microseconds since 1970; default: now.

        Raises:
            BufferFullError: ``buffer_max`` events wait already.
        """
        if self.waiting >= self._buffer_max:
            self.stats.dropped += 1
            raise BufferFullError(
                f"{self.waiting} usage events wait for Kafka ({self.stats.dropped} dropped so far): "
                "check the broker, or raise buffer_max"
            )
        headers = binary_headers(
            id=id,
            source=source or self._source,
            type=USAGE_TYPE,
            time=format_instant(self._clock() if time is None else time),
            subject=event.team_id,
        )
        key = (event.team_id or UNATTRIBUTED).encode()
        self._queue.append(Outgoing(USAGE_EVENTS, key, _encode(event), headers))
        self.stats.accepted += 1
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            producer = new_producer(self._connection)
            try:
                await producer.start()
                self._broken = False
                await self._send_all(producer)
            except (KafkaError, OSError) as error:
                log.warning("usage events wait, Kafka can't be used: %r (%d wait)", error, self.waiting)
            finally:
                await asyncio.shield(close_producer(producer, 1.0))
                # What the producer took and never acknowledged goes again; ids make that safe.
                self._queue.extendleft(reversed(self._in_flight.values()))
                self._in_flight.clear()
            await asyncio.sleep(BACKOFF_S)

    async def _send_all(self, producer: AIOKafkaProducer) -> None:
        """Send whatever comes; returns after a delivery failed, because the producer may be beyond repair."""
        while not self._broken:
            while self._queue and not self._broken:
                record = self._queue[0]
                try:
                    delivery = await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
                except KafkaTimeoutError:
                    continue  # The broker is away; this producer goes on where it was when it is back.
                except _TOO_LARGE as error:
                    self._queue.popleft()
                    self._refuse(record, error)
                    continue
                self._queue.popleft()
                self._in_flight[delivery] = record
                delivery.add_done_callback(self._delivered)
            self._wake.clear()
            if not self._queue and not self._broken:
                await self._wake.wait()

    def _delivered(self, delivery: asyncio.Future[Any]) -> None:
        error = None if delivery.cancelled() else delivery.exception()
        record = self._in_flight.pop(delivery, None)
        if record is None:
            return  # Its producer was given up, and the record is in the queue again.
        if error is None and not delivery.cancelled():
            self.stats.delivered += 1
        elif isinstance(error, _TOO_LARGE):
            self._refuse(record, error)
        else:
            self._queue.append(record)
            self._broken = True
            self._wake.set()
        self._note_idle()

    def _refuse(self, record: Outgoing, error: BaseException) -> None:
        self.stats.refused += 1
        log.error("a usage event of %d bytes was refused for good: %r", len(record.value), error)
        self._note_idle()

    def _note_idle(self) -> None:
        if self.waiting == 0:
            self._idle.set()
