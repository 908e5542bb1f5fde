"""Reading topics whole, from their beginning to their present end, outside any consumer group."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

#: Without a record for this long the broker is taken for gone.
SILENT_S = 30.0
#: The broker gives a record that is larger than this all the same, one at a time.
FETCH_BYTES = 4 * 1_048_576


class LogReader:
    """Use as a context. ``committed`` leaves out what transactions aborted; METER reads those too."""

    def __init__(self, connection: Mapping[str, Any], *, committed: bool) -> None:
        self._admin = AIOKafkaAdminClient(**connection, request_timeout_ms=15_000)
        self._consumer = AIOKafkaConsumer(
            **connection,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=FETCH_BYTES,
            isolation_level="read_committed" if committed else "read_uncommitted",
        )

    async def __aenter__(self) -> Self:
        try:
            await self._admin.start()
            await self._consumer.start()
            # A consumer that is stopped before its tasks took their first step raises their cancellation as ours.
            await asyncio.sleep(0)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def partitions(self, names: Sequence[str]) -> dict[str, int]:
        """The partition count of each topic that exists."""
        # Listed first: some brokers create what is described.
        present = sorted(set(await self._admin.list_topics()) & set(names))
        if not present:
            return {}
        described = await self._admin.describe_topics(present)
        return {entry["topic"]: len(entry["partitions"]) for entry in described}

    async def begins(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that is still there, of each partition."""
        return dict(await self._consumer.beginning_offsets(list(places))) if places else {}

    async def ends(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last offset, of each partition."""
        return dict(await self._consumer.end_offsets(list(places))) if places else {}

    async def at(self, places: Sequence[TopicPartition], milliseconds: int) -> dict[TopicPartition, int]:
        """The first offset of each partition that arrived at this time or later; its end where none did."""
        if not places:
            return {}
        found = await self._consumer.offsets_for_times(dict.fromkeys(places, milliseconds))
        ends = await self.ends(places)
        return {place: place_found.offset if (place_found := found.get(place)) else ends[place] for place in places}

    async def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Any]:
        """Every record below ``ends``, partition after partition; from ``starts`` where given.

        Raises:
            TimeoutError: the broker fell silent.
        """
        for place, end in sorted(ends.items()):
            self._consumer.assign([place])
            begin = (await self._consumer.beginning_offsets([place]))[place]
            self._consumer.seek(place, max(begin, starts.get(place, 0)))
            # Position, not the last record: compaction and transaction markers leave tails without records.
            while await self._consumer.position(place) < end:
                async with asyncio.timeout(SILENT_S):
                    batch = await self._some(place, end)
                for record in batch:
                    if record.offset < end:
                        yield record

    async def _some(self, place: TopicPartition, end: int) -> list[Any]:
        while await self._consumer.position(place) < end:
            fetched = await self._consumer.getmany(place, timeout_ms=200, max_records=2_000)
            if found := fetched.get(place):
                return list(found)
        return []


def places_of(partitions: Mapping[str, int]) -> list[TopicPartition]:
    """Every partition of these topics."""
    return [TopicPartition(topic, number) for topic, count in sorted(partitions.items()) for number in range(count)]
