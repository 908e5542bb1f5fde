"""An error of the consumer group is raised although nobody polls for records."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError

import streams.transport.consumer as transport
from streams.transport import make_app

SOON_S = 2.0
NOT_YET_S = 0.2


@pytest.fixture
async def consumer(monkeypatch):
    monkeypatch.setattr(transport, "COORDINATION_POLL_S", 0.01)
    return make_app("coordination", {"bootstrap_servers": "127.0.0.1:1"}, partitions=1).consumer


async def _membership(consumer, *, ended: BaseException | None = None, pending: BaseException | None = None):
    """aiokafka's coordinator as it is after an error."""

    async def coordinate():
        if ended is not None:
            raise ended
        await asyncio.sleep(60)

    task = asyncio.create_task(coordinate())
    await asyncio.wait({task}, timeout=0.01)
    coordinator = SimpleNamespace(_coordination_task=task, _pending_exception=pending)
    consumer._thread._consumer = SimpleNamespace(_coordinator=coordinator)
    return task


async def _watched(consumer) -> BaseException | None:
    """What the watch raises before long."""
    watching = asyncio.create_task(type(consumer)._watch_coordination.fun(consumer))
    done, _ = await asyncio.wait({watching}, timeout=NOT_YET_S)
    watching.cancel()
    return watching.exception() if done else None


async def test_nothing_is_raised_before_there_is_a_consumer(consumer):
    assert consumer._thread.coordination_error() is None


async def test_nothing_is_raised_while_the_group_is_well(consumer):
    task = await _membership(consumer)
    assert await _watched(consumer) is None
    task.cancel()


async def test_an_error_that_waits_for_somebody_to_poll_is_raised(consumer):
    error = KafkaError("UnknownError()")
    task = await _membership(consumer, pending=error)
    assert await _watched(consumer) is error
    task.cancel()


async def test_the_error_that_ended_the_membership_is_raised(consumer):
    error = KafkaError("unexpected")
    await _membership(consumer, ended=error)
    assert await _watched(consumer) is error


async def test_a_membership_that_was_closed_is_no_error(consumer):
    task = await _membership(consumer)
    task.cancel()
    await asyncio.wait({task})
    assert consumer._thread.coordination_error() is None


async def test_faust_runs_the_watch_with_the_consumer(consumer):
    assert "_watch_coordination" in {task.fun.__name__ for task in consumer._get_tasks()}
