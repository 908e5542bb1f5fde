"""The release of every gate, straight on the gates' topic: it passes by BUDGET, and so works while tables recover."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from schemas.cloudevents import binary_headers
from schemas.commands import RELEASE_KEY, THROTTLE_TYPE, ThrottleCommand
from schemas.readers import COMMANDS
from schemas.topics import GATEWAY_COMMANDS
from streams.dead_letters.log import LogReader
from streams.ports import RetryableError

_encode = msgspec.json.Encoder().encode


class Publisher(Protocol):
    """Takes one record and returns once the broker has it (``streams.sources.publisher.UsagePublishing``)."""

    async def publish(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        """Raises DeliveryError."""
        ...


class KafkaReleases:
    """Implements ``streams.ports.ReleaseSwitch``. ``connection`` holds aiokafka's keyword arguments."""

    def __init__(self, connection: Mapping[str, Any], publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher

    async def current(self) -> ThrottleCommand | None:
        """The last record under the release key; its partition alone is read."""
        try:
            return await self._read()
        except (KafkaError, OSError, TimeoutError) as error:
            raise RetryableError(f"the throttle commands cannot be read: {error!r}", 5.0) from error

    async def _read(self) -> ThrottleCommand | None:
        found: bytes | None = None
        key = RELEASE_KEY.encode()
        async with LogReader(self._connection, committed=False) as log:
            count = (await log.partitions([GATEWAY_COMMANDS])).get(GATEWAY_COMMANDS)
            if not count:
                raise RetryableError(f"there is no topic {GATEWAY_COMMANDS}: run `sluice topics create`")
            # As Kafka's default partitioner places it, which is how it is written.
            place = TopicPartition(GATEWAY_COMMANDS, (murmur2(key) & 0x7FFFFFFF) % count)
            async for record in log.read(await log.ends([place]), {}):
                if record.key == key:
                    found = record.value
        return COMMANDS.decode(found) if found is not None else None

    async def say(self, command: ThrottleCommand) -> None:
        """Write it under the release key; with every in-sync replica once this returns."""
        headers = binary_headers(
            id=command.command_id,
            source="//sluice",
            type=THROTTLE_TYPE,
            time=command.issued_at,
            subject=command.target.key(),
            extensions={"sequence": command.revision, "expirytime": command.expires_at},
        )
        await self._publisher.publish(GATEWAY_COMMANDS, RELEASE_KEY.encode(), _encode(command), headers)
