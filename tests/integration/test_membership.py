"""Asking a real coordinator whether we are still who we were when partitions were assigned."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from streams.transport.recovery import _confirm, _membership

pytestmark = pytest.mark.integration
DEADLINE_S = 60.0


class Member:
    """A member of a group, reached as recovery reaches it: through the thread of its consumer, which is this one."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self._thread = self

    def _ensure_consumer(self) -> AIOKafkaConsumer:
        return self.consumer

    async def call_thread(self, ask):
        return await ask()


@asynccontextmanager
async def stalled(stalls: Member):
    """As a process that is stopped: no heartbeat leaves it until it goes on."""
    coordinator = stalls.consumer._coordinator
    beat, coordinator._do_heartbeat = coordinator._do_heartbeat, asyncio.Event().wait
    yield
    coordinator._do_heartbeat = beat


@asynccontextmanager
async def member(kafka_url: str, group: str, topic: str, instance: str | None = None):
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka_url, group_id=group, group_instance_id=instance, session_timeout_ms=6_000
    )
    await consumer.start()
    try:
        yield Member(consumer)
    finally:
        await consumer.stop()


async def test_a_member_of_the_present_generation_is_confirmed(kafka_url, topics, app_id):
    async with member(kafka_url, app_id, await topics("t")) as ours:
        assert await _confirm(ours, await _membership(ours)) is True


async def test_a_member_replaced_under_its_own_name_is_not_though_the_generation_is_the_same(kafka_url, topics, app_id):
    topic = await topics("t")
    async with member(kafka_url, app_id, topic, "worker-1") as old:
        known = await _membership(old)
        async with AsyncExitStack() as stack:
            async with stalled(old):
                new = await stack.enter_async_context(member(kafka_url, app_id, topic, "worker-1"))
                assert await _confirm(new, await _membership(new)) is True
                assert (await _membership(new)).generation == known.generation
            assert await _confirm(old, known) is False


async def test_a_member_that_was_silent_for_longer_than_its_session_is_not(kafka_url, topics, app_id):
    topic = await topics("t")
    async with member(kafka_url, app_id, topic) as silent:
        known = await _membership(silent)
        async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
            async with stalled(silent):
                other = await stack.enter_async_context(member(kafka_url, app_id, topic))
                while not other.consumer.assignment():
                    await asyncio.sleep(0.05)
            assert await _confirm(silent, known) is False


async def test_a_generation_that_is_over_is_not_confirmed(kafka_url, topics, app_id):
    async with member(kafka_url, app_id, await topics("t")) as ours:
        known = await _membership(ours)
        assert await _confirm(ours, known._replace(generation=known.generation - 1)) is False


async def test_what_the_coordinator_waits_to_tell_is_heard(kafka_url, topics, app_id):
    async with member(kafka_url, app_id, await topics("t")) as ours:
        known, coordinator = await _membership(ours), ours.consumer._coordinator
        telling = asyncio.create_task(coordinator._push_error_to_user(KafkaError("the group is gone")))
        await asyncio.sleep(0)
        with pytest.raises(KafkaError, match="the group is gone"):
            await _confirm(ours, known)
        async with asyncio.timeout(DEADLINE_S):
            await telling
        assert await _confirm(ours, known) is True
