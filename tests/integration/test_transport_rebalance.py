"""Partitions that change hands on a real broker: every record is read once where that can be, and never not at all."""

import asyncio
from collections import Counter

import pytest

from tests.integration.transport_parts import Scene, acknowledge, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def scene(kafka_url, topics, app_id, tmp_path):
    async with Scene(kafka_url, topics, app_id, tmp_path) as scene:
        yield scene


def _shared(topic, *members):
    """Whether two members have a partition each, and records flow in both."""
    return all(len(m.assigned(topic)) == 1 and m.app.consumer.flow_active for m in members) and (
        members[0].assigned(topic) != members[1].assigned(topic)
    )


async def test_a_tidy_hand_over_commits_what_was_acknowledged_and_nothing_is_read_twice(scene):
    topic = await scene.topic(partitions=2)
    first = scene.member(topic, partitions=2)
    # Nothing is committed by the clock.
    first.app.conf.broker_commit_interval = 3600.0
    await first.start()
    for partition in (0, 1):
        await scene.append(topic, [b"early"] * 10, partition)
    await until(lambda: len(first.offsets(0) + first.offsets(1)) == 20)
    assert await scene.committed(topic, 0) is None
    second = await scene.member(topic, partitions=2).start()
    await until(lambda: _shared(topic, first, second))
    assert [await scene.committed(topic, partition) for partition in (0, 1)] == [10, 10]
    for partition in (0, 1):
        await scene.append(topic, [b"shared"] * 10, partition)
    await until(lambda: all(len(first.offsets(p) + second.offsets(p)) >= 20 for p in (0, 1)))
    await first.stop()
    await until(lambda: second.assigned(topic) == {0, 1} and second.app.consumer.flow_active)
    for partition in (0, 1):
        await scene.append(topic, [b"late"] * 10, partition)
        await scene.commits(topic, 30, partition)
        assert first.offsets(partition) + second.offsets(partition) == list(range(30))


async def test_a_revocation_waits_for_the_batch_in_hands_and_the_successor_does_not_read_it(scene):
    topic = await scene.topic(partitions=2)
    go = asyncio.Event()

    async def slow(event, seen):
        await go.wait()
        event.ack()

    for partition in (0, 1):
        await scene.append(topic, [b"in hands or queued"] * 5, partition)
    first = await scene.running(topic, slow, partitions=2)
    await until(lambda: first.seen[0])
    held = first.seen[0][0].partition
    second = scene.member(topic, partitions=2)
    # Joining takes until everybody has let go.
    joining = asyncio.create_task(second.start())
    await until(lambda: not first.app.consumer.flow_active)
    assert not joining.done()
    assert await scene.committed(topic, held) is None
    go.set()
    await joining
    await until(lambda: _shared(topic, first, second))
    for partition in (0, 1):
        await scene.commits(topic, 5, partition)
    # The other partition's batch was in the queue or at the broker, and is read by whoever has the partition now.
    assert first.offsets(held) == list(range(5))
    assert second.offsets(held) == []
    assert [first.offsets(1 - held), second.offsets(1 - held)].count([0, 1, 2, 3, 4]) == 1


async def test_of_two_agents_ones_cleared_copy_delays_no_revocation_and_is_read_again_by_both(scene):
    topic = await scene.topic()
    go = asyncio.Event()

    async def slow(event, seen):
        await go.wait()
        event.ack()

    await scene.append(topic, [b"both have it"])
    first = await scene.running(topic, acknowledge, slow)
    await until(lambda: all(first.seen))
    await scene.append(topic, [b"one has it"])
    await until(lambda: first.offsets(agent=0) == [0, 1])
    second = scene.member(topic, acknowledge, acknowledge)
    joining = asyncio.create_task(second.start())
    await until(lambda: not first.app.consumer.flow_active)
    go.set()
    await joining
    await scene.commits(topic, 2)
    assert Counter(first.offsets(agent=0) + second.offsets(agent=0)) == {0: 1, 1: 2}
    assert Counter(first.offsets(agent=1) + second.offsets(agent=1)) == {0: 1, 1: 1}
