"""What the transport's tests share: applications with agents of a test's own, and the log as others see it.

Everything runs on the session's broker, on topics and in a consumer group of the test's own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupCoordinatorNotAvailableError
from faust.types import TP

from streams.clock import elapsed_s
from streams.transport import BatchSchema, StateTable, make_app

DEADLINE_S = 20.0
#: The shortest that a broker allows.
SESSION_S = 6.0
RECORD_BYTES_MAX = 5 * 1_048_576


class Seen(NamedTuple):
    """A batch as an agent got it."""

    partition: int
    begin: int
    end: int
    records: list[Any]

    @property
    def offsets(self) -> list[int]:
        """Of its records."""
        return [record.offset for record in self.records]

    @property
    def values(self) -> list[bytes | None]:
        """Of its records, as they came."""
        return [record.value for record in self.records]


Work = Callable[[Any, Seen], Awaitable[None]]


async def acknowledge(event: Any, seen: Seen) -> None:
    """What an agent does that has nothing else to do."""
    event.ack()


async def until(check: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """What ``check`` returns, or what it returns when awaited, as soon as it is true."""
    started = elapsed_s()
    while True:
        found = check()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert elapsed_s() - started < deadline_s, f"did not come true within {deadline_s:g} s"
        await asyncio.sleep(0.02)


class Member:
    """A worker: an application with one agent, or several on the same topic, that remember what they got."""

    def __init__(self, scene: "Scene", topic: str, works: Sequence[Work], **settings: Any) -> None:
        self.app: Any = make_app(
            scene.group,
            {"bootstrap_servers": scene.url},
            state_of=f"{scene.group}.of",
            folder=scene.folder / f"member-{len(scene.members)}",
            **{"partitions": 1, "session_timeout_s": SESSION_S, "rebalance_timeout_s": 20.0} | settings,
        )
        # Ten times as often as in production: tests wait for them.
        self.app.conf.broker_commit_interval = 0.1
        self.app.conf.broker_heartbeat_interval = 0.2
        #: By agent.
        self.seen: list[list[Seen]] = []
        for work in works:
            self.bind(topic, work)

    def bind(self, topic: str, work: Work) -> None:
        """One agent more."""
        number = len(self.seen)
        self.seen.append([])

        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                batch = event.value
                seen = Seen(batch.partition, batch.begin, batch.end, batch.records)
                self.seen[number].append(seen)
                await work(event, seen)

        self.app.agent(self.app.topic(topic, schema=BatchSchema()), name=f"agent-{number}", concurrency=1)(agent)

    def table(self, **attributes: Any) -> StateTable:
        """A table of this worker; its changelog is ``scene.changelog()``."""
        table = StateTable(self.app, name="states", partitions=self.app.partitions)
        for name, value in attributes.items():
            setattr(table, name, value)
        self.app.tables.add(table)
        return table

    async def start(self) -> Self:
        """Start without waiting: see ``ready``."""
        self.app.finalize()
        await self.app.start()
        return self

    async def ready(self) -> Self:
        """Wait until records flow."""
        await until(lambda: self.app.started and self.app.tables.actives_ready and self.app.consumer.flow_active)
        return self

    async def stop(self, deadline_s: float = DEADLINE_S) -> None:
        """Leave in an orderly way."""
        stopping = asyncio.create_task(self.app.stop())
        done, _ = await asyncio.wait({stopping}, timeout=deadline_s)
        # Faust's wait for what is in an agent's hands swallows a cancellation: this alone ends it after a failed test.
        self.app.consumer._unacked_messages.clear()
        await asyncio.wait({stopping}, timeout=deadline_s)
        assert done, f"did not stop within {deadline_s:g} s"

    def offsets(self, partition: int = 0, agent: int = 0) -> list[int]:
        """The offsets of all records that an agent got, as it got them."""
        return [offset for seen in self.seen[agent] if seen.partition == partition for offset in seen.offsets]

    def assigned(self, topic: str) -> set[int]:
        """The partitions that this worker has now."""
        return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == topic}

    def unread(self, topic: str) -> int:
        """Batches that were fetched and wait for an agent: in queues, and in hands while they are not acknowledged."""
        return len(self.app.consumer._spans[TP(topic, 0)])

    def is_held_back(self, topic: str, partition: int = 0) -> bool:
        """Whether nothing more is fetched since too much waits for an agent."""
        return TP(topic, partition) in self.app.consumer._buffered_partitions

    def has_fetched(self, topic: str, partition: int = 0) -> bool:
        """Whether there is a fetch that was not taken."""
        fetcher = self.app.consumer._thread._consumer._fetcher
        return TopicPartition(topic, partition) in fetcher._records


class Scene:
    """One test's group, topics and workers. Use as a context; it stops the workers that still run."""

    def __init__(self, url: str, make_topic: Any, group: str, folder: Path) -> None:
        self.url, self.group, self.folder = url, group, folder
        self._make_topic = make_topic
        self.members: list[Member] = []
        self.admin = AIOKafkaAdminClient(bootstrap_servers=url)

    async def __aenter__(self) -> Self:
        await self.admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*(member.stop() for member in self.members if not member.app._stopped.is_set()))
        finally:
            await self.admin.close()

    async def topic(self, hint: str = "in", partitions: int = 1, **config: str) -> str:
        """A topic of this test's own; underscores in the settings' names stand for dots."""
        named = {name.replace("_", "."): value for name, value in config.items()}
        return str(await self._make_topic(hint, partitions=partitions, config=named))

    async def changelog(self, **config: str) -> str:
        """The changelog of the workers' table."""
        return await self.topic("of-states-changelog", **{"cleanup_policy": "compact"} | config)

    def member(self, topic: str, *works: Work, **settings: Any) -> Member:
        """A worker that is not started yet; its agents acknowledge what they get unless told otherwise."""
        member = Member(self, topic, works or (acknowledge,), **settings)
        self.members.append(member)
        return member

    async def running(self, topic: str, *works: Work, **settings: Any) -> Member:
        """A worker, once records flow."""
        return await (await self.member(topic, *works, **settings).start()).ready()

    async def append(
        self, topic: str, values: Sequence[bytes | None], partition: int = 0, *,
        keys: Sequence[bytes] = (), compression: str | None = None,
    ) -> int:  # fmt: skip
        """Write one record batch; return its first offset."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.url, compression_type=compression, max_batch_size=RECORD_BYTES_MAX,
            max_request_size=RECORD_BYTES_MAX,
        )  # fmt: skip
        await producer.start()
        try:
            batch = producer.create_batch()
            for key, value in zip(keys or [b"k"] * len(values), values, strict=True):
                assert batch.append(key=key, value=value, timestamp=None) is not None
            sent = await (await producer.send_batch(batch, topic, partition=partition))
            return int(sent.offset)
        finally:
            await producer.stop()

    async def append_each(self, topic: str, values: Sequence[bytes]) -> None:
        """Write each value as a record batch of its own."""
        producer = AIOKafkaProducer(bootstrap_servers=self.url)
        await producer.start()
        try:
            for value in values:
                await producer.send_and_wait(topic, value, partition=0)
        finally:
            await producer.stop()

    @asynccontextmanager
    async def eager_cleaner(self) -> AsyncIterator[None]:
        """Let the broker look for what it can compact all the time, not every 15 seconds."""
        await self.admin.alter_configs(
            [ConfigResource(ConfigResourceType.BROKER, "1", {"log.cleaner.backoff.ms": "100"})]
        )
        try:
            yield
        finally:
            await self.admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", {})])

    async def remake(self, topic: str) -> None:
        """Delete a topic of one partition and make it anew."""
        await self.admin.delete_topics([topic])

        async def made() -> bool:
            response = await self.admin.create_topics([NewTopic(topic, 1, 1)])
            return not any(entry[1] for entry in response.topic_errors)

        await until(made)

    async def committed(self, topic: str, partition: int = 0) -> int | None:
        """The group's committed offset, as the coordinator has it."""
        try:
            found = await self.admin.list_consumer_group_offsets(self.group)
        except GroupCoordinatorNotAvailableError:
            # The broker makes its topic of offsets when the first group comes.
            return None
        place = found.get(TopicPartition(topic, partition))
        return None if place is None or place.offset < 0 else int(place.offset)

    async def commits(self, topic: str, wanted: int, partition: int = 0) -> None:
        """Wait until the group's committed offset is this one."""

        async def there() -> bool:
            crashed = [member.app.crash_reason for member in self.members[-1:] if member.app.crashed]
            assert not crashed, f"the last worker crashed: {crashed}"
            return await self.committed(topic, partition) == wanted

        await until(there)

    async def commit(self, topic: str, offset: int, partition: int = 0) -> None:
        """Commit for the group, which must have no members."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.url, group_id=self.group, enable_auto_commit=False)
        await consumer.start()
        try:
            place = TopicPartition(topic, partition)
            consumer.assign([place])
            await consumer.commit({place: offset})
        finally:
            await consumer.stop()

    async def end(self, topic: str, partition: int = 0) -> int:
        """Where the log of a partition ends, markers included."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.url)
        await consumer.start()
        try:
            place = TopicPartition(topic, partition)
            return int((await consumer.end_offsets([place]))[place])
        finally:
            await consumer.stop()

    async def log(self, topic: str, partition: int = 0) -> list[Any]:
        """All records of a partition up to its present end."""
        place = TopicPartition(topic, partition)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.url, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50
        )
        await consumer.start()
        try:
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            await consumer.seek_to_beginning(place)
            records: list[Any] = []
            while await consumer.position(place) < end:
                records += (await consumer.getmany(place, timeout_ms=200)).get(place, [])
            return records
        finally:
            await consumer.stop()
