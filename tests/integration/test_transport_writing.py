"""What is written to a changelog on a real broker: all of it is in the log before anything is acknowledged."""

import asyncio
import random

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from streams.transport.producer import Outgoing
from tests.integration.transport_parts import Scene, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def scene(kafka_url, topics, app_id, tmp_path):
    async with Scene(kafka_url, topics, app_id, tmp_path) as scene:
        yield scene


async def test_a_write_that_the_broker_refuses_raises_to_the_writer_and_nothing_is_acknowledged(scene):
    topic = await scene.topic()
    changelog = await scene.changelog(max_message_bytes="10000")

    async def write_and_acknowledge(event, seen):
        # Bytes that do not compress.
        entries = [(b"%d" % record.offset, random.Random(0).randbytes(int(record.value))) for record in seen.records]
        await table.write(0, entries)
        event.ack()

    member = scene.member(topic, write_and_acknowledge)
    table = member.table(on_load=lambda partition, entries: None)
    await (await member.start()).ready()
    await scene.append(topic, [b"100"])
    await scene.commits(topic, 1)
    await scene.append(topic, [b"20000"])
    await until(lambda: member.app.crashed)
    assert isinstance(member.app.crash_reason, MessageSizeTooLargeError)
    await member.stop()
    assert await scene.committed(topic) == 1
    assert [record.key for record in await scene.log(changelog)] == [b"0"]


async def test_what_a_write_returned_from_can_be_read_from_the_log_in_the_order_it_was_written(scene):
    topic = await scene.topic()
    changelog = await scene.changelog(cleanup_policy="delete")
    found = []

    async def write_and_look(event, seen):
        entries = [(b"%d" % number, random.Random(number).randbytes(300)) for number in range(5_000)]
        written = await table.write(0, entries)
        found.append((written, await scene.log(changelog), entries))
        event.ack()

    await scene.append(topic, [b"go"])
    member = scene.member(topic, write_and_look)
    table = member.table(on_load=lambda partition, entries: None)
    await member.start()
    await scene.commits(topic, 1)
    ((written, records, entries),) = found
    assert written == 5_000
    assert [(record.key, record.value) for record in records] == entries


async def test_many_writers_of_one_partition_wait_for_each_other_and_none_gives_up(scene):
    topic, out = await scene.topic(), await scene.topic("out")
    member = await scene.running(topic)
    # aiokafka adds up what each of those who wait for a place has waited so far, at each of their turns: a hundred that
    # take 3 ms each are 15 s by that count.
    member.app.producer._ensure_producer()._request_timeout_ms = 2_000
    noise = random.Random(0).randbytes(200_000)
    writes = [member.app.producer.write([Outgoing(out, 0, b"%d" % number, noise)], 1) for number in range(100)]
    assert await asyncio.gather(*writes) == [1] * 100
    assert [record.key for record in await scene.log(out)] == [b"%d" % number for number in range(100)]
