"""What is committed on a real broker: what was acknowledged, in the order of the log, and nothing else."""

import asyncio

import msgspec
import pytest

from streams.agents.shell import decoded
from tests.integration.transport_parts import Scene, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def scene(kafka_url, topics, app_id, tmp_path):
    async with Scene(kafka_url, topics, app_id, tmp_path) as scene:
        yield scene


async def test_what_an_agent_acknowledged_is_committed(scene):
    topic = await scene.topic()
    await scene.append(topic, [b"a", b"b"])
    member = await scene.running(topic)
    await scene.commits(topic, 2)
    assert member.offsets() == [0, 1]


async def test_an_agent_that_raises_commits_nothing_of_its_batch_and_the_successor_reads_it_again(scene):
    topic = await scene.topic()
    await scene.append(topic, [b"good"])

    async def fails_at_bad(event, seen):
        if b"bad" in seen.values:
            raise RuntimeError("as a defect would")
        event.ack()

    failing = await scene.running(topic, fails_at_bad)
    await scene.commits(topic, 1)
    await scene.append(topic, [b"fine", b"bad", b"fine"])
    await until(lambda: failing.app.crashed)
    assert "as a defect would" in repr(failing.app.crash_reason)
    await failing.stop()
    assert await scene.committed(topic) == 1
    successor = await scene.running(topic)
    await scene.commits(topic, 4)
    assert successor.offsets() == [1, 2, 3]


async def test_a_batch_acknowledged_before_an_earlier_one_is_not_committed_until_the_earlier_one_is(scene):
    topic = await scene.topic()
    held = []

    async def hold(event, seen):
        held.append(event)

    await scene.append(topic, [b"a", b"b"])
    member = await scene.running(topic, hold)
    await until(lambda: len(held) == 1)
    await scene.append(topic, [b"c"])
    await until(lambda: len(held) == 2)
    held[1].ack()
    await member.app.consumer.commit()
    assert await scene.committed(topic) is None
    held[0].ack()
    await scene.commits(topic, 3)


@pytest.mark.parametrize(("is_finished", "kept"), [(True, 2), (False, 1)], ids=["and is committed", "unless it fails"])
async def test_a_stop_waits_for_the_batch_in_hands_and_leaves_what_is_queued_uncommitted(scene, is_finished, kept):
    topic = await scene.topic()
    go = asyncio.Event()

    async def second_is_slow(event, seen):
        if 1 in seen.offsets:
            await go.wait()
            if not is_finished:
                raise RuntimeError("as a defect would")
        event.ack()

    await scene.append(topic, [b"acknowledged"])
    member = await scene.running(topic, second_is_slow)
    await until(lambda: member.offsets() == [0])
    await scene.append(topic, [b"in hands"])
    await until(lambda: member.offsets() == [0, 1])
    await scene.append(topic, [b"queued"])
    await until(lambda: member.unread(topic) >= 2)
    stopping = asyncio.create_task(member.stop())
    await until(lambda: member.app.consumer.should_stop or not member.app.flow_control.is_active())
    go.set()
    await stopping
    assert await scene.committed(topic) == kept
    successor = await scene.running(topic)
    await scene.commits(topic, 3)
    assert successor.offsets() == list(range(kept, 3))


async def test_a_value_that_does_not_decode_does_not_lose_its_neighbours(scene):
    topic = await scene.topic()
    read = []

    async def decode(event, seen):
        read.extend((record.offset, value) for record, value in decoded(seen.records, msgspec.json.decode))
        event.ack()

    await scene.append(topic, [b"1", None, b'"cut off', b"2"])
    await scene.append(topic, [b"3"])
    await scene.running(topic, decode)
    await scene.commits(topic, 5)
    assert read == [(0, 1), (3, 2), (4, 3)]
