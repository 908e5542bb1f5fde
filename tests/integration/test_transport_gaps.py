"""Offsets without a record, on a real broker: batches join all the same, and commits reach the end of the log."""

from itertools import pairwise

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from streams.transport.consumer import BatchConsumerThread
from tests.integration.transport_parts import Scene, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def scene(kafka_url, topics, app_id, tmp_path):
    async with Scene(kafka_url, topics, app_id, tmp_path) as scene:
        yield scene


@pytest.fixture
async def writer(kafka_url, app_id):
    """A producer of transactions."""
    async with AIOKafkaProducer(bootstrap_servers=kafka_url, transactional_id=app_id) as producer:
        yield producer


def _joined(member) -> list[int]:
    """Where the batches begin and end, once it is seen that each begins where the one before it ended."""
    seen = member.seen[0]
    for one, following in pairwise(seen):
        assert following.begin == one.end
    for one in seen:
        assert all(one.begin <= offset < one.end for offset in one.offsets)
    return [seen[0].begin, seen[-1].end]


async def _transaction(writer, topic, values, *, aborted=False) -> None:
    await writer.begin_transaction()
    for value in values:
        await writer.send_and_wait(topic, value, partition=0)
    await (writer.abort_transaction() if aborted else writer.commit_transaction())


async def test_commits_reach_the_end_over_the_markers_of_transactions_that_are_read_as_they_happen(scene, writer):
    topic = await scene.topic()
    member = await scene.running(topic)
    # Offsets 0 and 1, and a marker.
    await _transaction(writer, topic, [b"a", b"b"])
    await scene.commits(topic, 3)
    await scene.append(topic, [b"c"])
    await _transaction(writer, topic, [b"d"])
    await scene.commits(topic, 6)
    assert await scene.end(topic) == 6
    assert member.offsets() == [0, 1, 3, 4]
    assert _joined(member) == [0, 6]


async def test_commits_reach_the_end_over_markers_that_were_there_before(scene, writer):
    topic = await scene.topic()
    for number in range(10):
        await _transaction(writer, topic, [b"%d" % number])
    member = await scene.running(topic)
    await scene.commits(topic, 20)
    assert member.offsets() == list(range(0, 20, 2))
    assert _joined(member) == [0, 20]


async def test_inputs_are_read_whether_or_not_their_transaction_was_committed(scene, writer):
    topic = await scene.topic()
    await _transaction(writer, topic, [b"a"], aborted=True)
    await _transaction(writer, topic, [b"b"])
    member = await scene.running(topic)
    await scene.commits(topic, 4)
    assert member.offsets() == [0, 2]


async def test_a_consumer_told_to_read_committed_records_passes_over_aborted_ones(scene, writer, monkeypatch):
    topic = await scene.topic()
    make = BatchConsumerThread._create_worker_consumer

    def careful(self, transport):
        consumer = make(self, transport)
        consumer._isolation_level = "read_committed"
        return consumer

    monkeypatch.setattr(BatchConsumerThread, "_create_worker_consumer", careful)
    await _transaction(writer, topic, [b"taken back", b"taken back"], aborted=True)
    await scene.append(topic, [b"plain"])
    await _transaction(writer, topic, [b"kept"])
    await _transaction(writer, topic, [b"taken back"], aborted=True)
    member = await scene.running(topic)
    await scene.commits(topic, 8)
    assert await scene.end(topic) == 8
    await _transaction(writer, topic, [b"taken back"], aborted=True)
    await _transaction(writer, topic, [b"kept"])
    await scene.commits(topic, 12)
    assert [value for seen in member.seen[0] for value in seen.values] == [b"plain", b"kept", b"kept"]
    assert member.offsets() == [3, 4, 10]
    assert _joined(member) == [0, 12]


async def test_batches_join_over_what_compaction_took_away(scene):
    topic = await scene.topic(
        cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001", min_compaction_lag_ms="0"
    )
    keys = [b"%d" % (number % 3) for number in range(10)]

    async def has_holes() -> bool:
        await scene.append(topic, [b"v"] * 10, keys=keys)
        offsets = [record.offset for record in await scene.log(topic)]
        return bool(offsets) and offsets[-1] - offsets[0] >= len(offsets) + 20

    async with scene.eager_cleaner():
        # The cleaner comes when the broker has time for it.
        await until(has_holes, deadline_s=90.0)
        member = await scene.running(topic)
        end = await scene.end(topic)
        await scene.commits(topic, end)
    assert _joined(member)[1] == end
    assert len(member.offsets()) < end
    assert member.offsets() == sorted(set(member.offsets()))


async def test_reading_begins_at_the_earliest_record_when_retention_has_taken_what_came_before(scene):
    topic = await scene.topic()
    await scene.append(topic, [b"old"] * 10)
    await scene.append(topic, [b"new"] * 5)
    await scene.commit(topic, 3)
    await scene.admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=12)})
    member = await scene.running(topic)
    await scene.commits(topic, 15)
    assert member.offsets() == [12, 13, 14]
    assert _joined(member) == [12, 15]
