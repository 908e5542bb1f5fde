"""Two real tables over one real changelog: what an overtaken owner writes is never read back, and nothing is lost."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.transport import StateTable, make_app, table
from streams.transport.ownership import NotOwnedError

pytestmark = pytest.mark.integration
#: So that the broker compacts while the test looks on.
EAGER = {
    "cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "100", "min.compaction.lag.ms": "0",
}  # fmt: skip
DEADLINE_S = 60.0


class Owner:
    """A process as the changelog sees it: an application with its table, restored when it is told to."""

    def __init__(self, broker, app_id: str) -> None:
        self.app = make_app(
            app_id, {"bootstrap_servers": broker.bootstrap}, partitions=1, idempotence=broker.is_real_kafka
        )
        self.table = StateTable(self.app, name="states", partitions=1)
        self.table.fenced = True
        self.table.on_load = self._load
        self.found: dict[bytes, bytes] | None = None

    def _load(self, partition: int, found: dict[bytes, bytes]) -> None:
        self.found = dict(found)

    async def __aenter__(self) -> "Owner":
        await self.app.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.producer.stop()

    async def take_over(self, **more) -> dict[bytes, bytes] | None:
        self.found = None
        await self.table.restore({0}, **more)
        return self.found


async def _held(owner: Owner) -> tuple[int, int]:
    """How many records the log holds now, and how many keys that are not deleted."""
    tp = TopicPartition(owner.table.changelog_topic_name, 0)
    consumer = AIOKafkaConsumer(**owner.app.connection, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        newest: dict[bytes, bytes | None] = {}
        records = 0
        while await consumer.position(tp) < end:
            for record in (await consumer.getmany(tp, timeout_ms=200)).get(tp, []):
                newest[record.key] = record.value
                records += 1
        return records, len([value for value in newest.values() if value is not None])
    finally:
        await consumer.stop()


@pytest.fixture
async def owners(broker, topics, app_id, monkeypatch):
    name = await topics("changelog", config=EAGER)
    monkeypatch.setattr(StateTable, "changelog_topic_name", name)
    async with Owner(broker, app_id) as first, Owner(broker, app_id) as second:
        yield first, second


async def test_what_an_overtaken_owner_writes_is_not_read_back(owners):
    first, second = owners
    assert await first.take_over() == {}
    await first.table.write(0, [(b"a", b"1"), (b"b", b"1"), (b"gone", b"1")])
    await first.table.write(0, [(b"gone", None)])
    assert await second.take_over() == {b"a": b"1", b"b": b"1"}
    await second.table.write(0, [(b"a", b"2"), (b"b", None)])
    # The first one wakes up and knows of nothing.
    await first.table.write(0, [(b"a", b"late"), (b"b", b"late"), (b"c", b"late")])
    assert await first.take_over() == {b"a": b"2"}
    await second.table.write(0, [(b"a", b"late")])
    assert await second.take_over() == {b"a": b"2"}


async def test_what_overtaken_owners_left_is_compacted_away_and_nothing_else(owners):
    first, second = owners
    expected = {b"%d" % number: b"1" for number in range(50)}
    await first.take_over()
    await first.table.write(0, expected.items())
    written = 0
    async with asyncio.timeout(DEADLINE_S):
        while True:
            # Each turn is an ownership of its own, over whatever compaction has left of the last ones.
            for late, owner in ((first, second), (second, first)):
                assert await owner.take_over() == expected
                await late.table.write(0, [(b"7", b"late"), (b"8", None), (b"new", b"late")])
                written += 150
            records, keys = await _held(first)
            assert keys < 150
            if records < written / 2:
                return
            await asyncio.sleep(0.2)


async def test_an_owner_that_the_coordinator_does_not_confirm_takes_nothing_over(owners):
    first, second = owners
    await second.take_over()
    await second.table.write(0, [(b"a", b"1")])

    async def refused() -> bool:
        return False

    # Its claim comes after the rightful owner's, as from a process that was stalled before it.
    assert await first.take_over(confirm=refused) is None
    with pytest.raises(NotOwnedError):
        await first.table.write(0, [(b"a", b"late")])
    await second.table.write(0, [(b"a", b"2")])
    assert await first.take_over() == {b"a": b"2"}


async def test_a_partition_that_was_dropped_cannot_be_written(owners):
    first, _ = owners
    await first.take_over()
    first.table.drop({0})
    with pytest.raises(NotOwnedError):
        await first.table.write(0, [(b"a", b"1")])


async def test_ten_thousand_states_are_taken_over_in_seconds(owners):
    first, second = owners
    await first.take_over()
    await first.table.write(0, [(b"%d" % number, b"x" * 500) for number in range(10_000)])
    started = time.monotonic()
    assert len(await second.take_over()) == 10_000
    assert time.monotonic() - started < 20


async def test_a_take_over_that_hangs_says_what_it_had_done(owners, monkeypatch):
    first, _ = owners
    monkeypatch.setattr(table, "STEP_TIMEOUT_S", 2.0)

    async def unanswered() -> bool:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(
        TimeoutError, match=r"table states is not taken over after \d+ s: .* drawing numbers, .* reading"
    ):
        await first.take_over(confirm=unanswered)
    assert first.found is None
