"""What is written to a changelog on a real broker: all of it is in the log before anything is acknowledged."""

import random

import pytest
from aiokafka.errors import MessageSizeTooLargeError

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
