"""One Kafka producer for all sources: a record counts as published when every in-sync replica has it.

At least once: a caller that gets ``RetryableError`` sends the same records again under the same CloudEvents
ids, and METER drops what arrived twice (rule 4).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from streams.ports import PermanentError, RetryableError

log = logging.getLogger(__name__)

Headers = list[tuple[str, bytes]]
Delivery = asyncio.Future[Any]
RECORD_BYTES_MAX = 4_194_304
RETRY_AFTER_S = 5.0
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Record(NamedTuple):
    """What goes to Kafka: CloudEvents binary mode, ``headers`` the envelope, ``value`` the data."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


class UsagePublishing:
    """An idempotent producer that starts when first needed, and anew after a fatal error.

    ``connection`` holds aiokafka's keyword arguments (``bootstrap_servers``, security). At most
    ``in_flight_max`` records wait for the broker; ``timeout_s`` bounds every publish.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        *,
        in_flight_max: int = 20_000,
        timeout_s: float = 10.0,
        linger_ms: int = 3,
        idempotence: bool = True,
        new_producer: Callable[..., AIOKafkaProducer] = AIOKafkaProducer,
    ) -> None:
        self._connection = dict(connection)
        self._timeout_s = timeout_s
        self._linger_ms = linger_ms
        self._idempotence = idempotence
        self._new_producer = new_producer
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(in_flight_max)
        self.published = 0
        self.failed = 0

    async def start(self) -> None:
        """Connect now rather than with the first record.

        Raises:
            RetryableError: no broker answers.
        """
        await self._connected()

    async def stop(self) -> None:
        """Wait for what is in flight, at most ``timeout_s``, and disconnect."""
        await self._disconnect(self._producer)

    async def publish(self, topic: str, key: bytes, value: bytes, headers: Headers) -> None:
        """Publish one record and wait until the broker has acknowledged it.

        Raises:
            RetryableError: the broker did not take it in time; it may have arrived all the same.
            PermanentError: the record is larger than the broker accepts.
        """
        await self.publish_all([Record(topic, key, value, headers)])

    async def publish_all(self, records: Iterable[Record]) -> int:
        """Publish records and wait until all are acknowledged; returns their number.

        Raises:
            RetryableError: not all were acknowledged in time; any of them may have arrived.
            PermanentError: a record is larger than the broker accepts.
        """
        deliveries: list[Delivery] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                for record in records:
                    deliveries.append(await self.send(record))
                if deliveries:
                    await asyncio.wait(deliveries)
        except TimeoutError as error:
            waiting = sum(not delivery.done() for delivery in deliveries)
            raise RetryableError(
                f"the broker did not acknowledge within {self._timeout_s:g} s ({waiting} records wait)",
                RETRY_AFTER_S,
            ) from error
        for delivery in deliveries:
            failure = delivery.exception()
            if failure is not None:
                raise _as_delivery_error(failure) from failure
        return len(deliveries)

    async def send(self, record: Record) -> Delivery:
        """Hand one record to the producer, waiting only for a place; the future ends when it is acknowledged.

        Raises:
            RetryableError: no broker answers.
            PermanentError: the record is larger than the broker accepts.
        """
        await self._places.acquire()
        try:
            producer = await self._connected()
            delivery: Delivery = await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
        except KafkaError as error:
            self._places.release()
            self.failed += 1
            await self._replace_if_broken(error)
            raise _as_delivery_error(error) from error
        except BaseException:
            self._places.release()
            raise
        delivery.add_done_callback(self._delivered)
        return delivery

    def _delivered(self, delivery: Delivery) -> None:
        self._places.release()
        # Reading the exception here keeps asyncio from reporting futures whose callers gave up waiting.
        if delivery.cancelled() or delivery.exception() is not None:
            self.failed += 1
        else:
            self.published += 1

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        async with self._starting:
            if self._producer is not None:
                return self._producer
            producer = self._new_producer(
                **{
                    "acks": "all",
                    "enable_idempotence": self._idempotence,
                    "compression_type": "lz4",
                    "linger_ms": self._linger_ms,
                    "max_batch_size": 262_144,
                    "max_request_size": RECORD_BYTES_MAX,
                    **self._connection,
                }
            )
            try:
                await producer.start()
            except BaseException as error:
                await asyncio.shield(_quietly_stop(producer, 1.0))
                if isinstance(error, KafkaError | OSError):
                    raise RetryableError(f"no Kafka broker answers: {error}", RETRY_AFTER_S) from error
                raise
            self._producer = producer
            return producer

    async def _replace_if_broken(self, error: KafkaError) -> None:
        """After a fatal error aiokafka refuses everything for ever; the next record gets a new producer."""
        if isinstance(error, (*TOO_LARGE, KafkaTimeoutError)) or getattr(error, "retriable", False):
            return
        log.warning("the Kafka producer failed and is replaced: %r", error)
        await self._disconnect(self._producer)

    async def _disconnect(self, producer: AIOKafkaProducer | None) -> None:
        if producer is None or producer is not self._producer:
            return
        self._producer = None
        await _quietly_stop(producer, self._timeout_s)


async def _quietly_stop(producer: AIOKafkaProducer, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await producer.stop()
    except TimeoutError:
        # aiokafka flushes for ever while the broker is away; what is left was acknowledged to nobody.
        log.warning("the broker did not take what was in flight; closing the Kafka producer without it")
        if producer._sender is not None:
            await producer._sender.close()
        await producer.client.close()
    except (KafkaError, OSError) as error:
        log.warning("the Kafka producer did not stop cleanly: %r", error)


def _as_delivery_error(error: BaseException) -> PermanentError | RetryableError:
    if isinstance(error, TOO_LARGE):
        return PermanentError(f"larger than the broker accepts: {error}")
    return RetryableError(f"the broker did not take it: {error!r}", RETRY_AFTER_S)
