"""Following a compacted topic without a consumer group: every process has all of it, and goes on where it was."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

logger = logging.getLogger("sluice.following")

BACKOFF_S = 1.0
POLL_MS = 500


class TopicFollower:
    """Hands every record of a topic to ``take``, in batches: first all that is there at the start, in one batch, then
    what comes. It never goes back to what was handed over, and is never behind for good.
    """

    def __init__(
        self, connection: Mapping[str, Any], topic: str, partitions: int, take: Callable[[Sequence[Any]], None]
    ) -> None:
        self._connection = dict(connection)
        self._topic = topic
        self._places = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._take = take
        self._positions: dict[TopicPartition, int] = {}
        self._ready = asyncio.Event()

    async def ready(self) -> None:
        """Wait until everything was handed over that was there at the start."""
        await self._ready.wait()

    async def run_background(self) -> None:
        """Follow until cancelled; a broker that is away is asked again."""
        while True:
            consumer = AIOKafkaConsumer(
                **self._connection, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except (KafkaError, OSError) as error:
                logger.warning("%s cannot be read, what is known holds: %r", self._topic, error)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await asyncio.shield(consumer.stop())
            await asyncio.sleep(BACKOFF_S)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while not await self._is_there(consumer):
            await asyncio.sleep(BACKOFF_S)
        places = self._places
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            position = self._positions.get(place, 0)
            if position > ends[place]:
                logger.error("%s was made anew: it is read from its beginning", place)
                position = 0
            if position:
                consumer.seek(place, position)
            else:
                await consumer.seek_to_beginning(place)
        first: list[Any] = []
        while True:
            if not self._ready.is_set() and all([await consumer.position(p) >= ends[p] for p in places]):
                self._hand_over(first)
                self._ready.set()
            found = await consumer.getmany(timeout_ms=POLL_MS)
            records = [record for batch in found.values() for record in batch]
            if not self._ready.is_set():
                first += records
            elif records:
                self._hand_over(records)

    def _hand_over(self, records: Sequence[Any]) -> None:
        self._take(records)
        for record in records:
            self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1

    async def _is_there(self, consumer: AIOKafkaConsumer) -> bool:
        """Asked for by name it might come into being, kept as the broker likes."""
        if self._topic in await consumer.topics():
            return True
        logger.warning("there is no topic %s: run `sluice topics create`", self._topic)
        return False
