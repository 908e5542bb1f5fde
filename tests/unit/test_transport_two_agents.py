"""A topic that two agents read: a revocation waits for what is in their hands, and not for what it threw away itself."""

import asyncio
from types import SimpleNamespace

import pytest
from faust.types import TP

from streams.transport import make_app
from tests.unit.records import unread

PLACE = TP("spend.scopes.v1", 1)
SOON_S = 2.0
NOT_YET_S = 0.2


@pytest.fixture
async def consumer(monkeypatch):
    consumer = make_app("hands", {"bootstrap_servers": "127.0.0.1:1"}, partitions=2).consumer

    async def commit(*args, **kwargs):
        return False

    # There is no broker: what is committed is test_transport_commits.py's matter.
    monkeypatch.setattr(consumer, "commit", commit)
    monkeypatch.setattr(consumer, "commit_and_end_transactions", commit)
    return consumer


def _delivered(consumer, agents: int, first: int = 0):
    """A batch as the conductor hands it to the queues of so many agents."""
    message = consumer._to_batch(PLACE, unread(first))
    message.incref(agents)
    return message


def _take(consumer, message) -> None:
    """What a stream does when its agent gets the event."""
    if not message.tracked:
        message.tracked = True
        consumer._unacked_messages.add(message)
    stream = SimpleNamespace()
    event = SimpleNamespace(app=consumer.app, message=message)
    consumer.app.sensors.on_stream_event_in(PLACE, message.offset, stream, event)


async def _still_waits(task: asyncio.Task) -> bool:
    done, _ = await asyncio.wait({task}, timeout=NOT_YET_S)
    return not done


async def _comes_to_an_end(consumer, waiting: asyncio.Task) -> bool:
    done, _ = await asyncio.wait({waiting}, timeout=SOON_S)
    # Faust's wait swallows a cancellation: this alone ends it for the tests that follow.
    consumer._unacked_messages.clear()
    return bool(done)


async def test_a_copy_that_was_cleared_from_the_other_agents_queue_is_not_waited_for(consumer):
    message = _delivered(consumer, agents=2)
    _take(consumer, message)
    message.ack(consumer)
    assert await _comes_to_an_end(consumer, asyncio.create_task(consumer.wait_empty()))
    assert list(consumer._filter_tps_with_pending_acks()) == []


async def test_a_batch_in_one_agents_hands_is_waited_for_although_the_others_copy_is_gone(consumer):
    message = _delivered(consumer, agents=2)
    _take(consumer, message)
    waiting = asyncio.create_task(consumer.wait_empty())
    assert await _still_waits(waiting)
    message.ack(consumer)
    assert await _comes_to_an_end(consumer, waiting)


async def test_a_batch_in_both_agents_hands_is_waited_for_until_both_are_done(consumer):
    message = _delivered(consumer, agents=2)
    _take(consumer, message)
    _take(consumer, message)
    message.ack(consumer)
    waiting = asyncio.create_task(consumer.wait_empty())
    assert await _still_waits(waiting)
    message.ack(consumer)
    assert await _comes_to_an_end(consumer, waiting)
    assert list(consumer._filter_tps_with_pending_acks()) == [PLACE]


async def test_the_only_agent_of_a_topic_is_waited_for(consumer):
    message = _delivered(consumer, agents=1)
    _take(consumer, message)
    waiting = asyncio.create_task(consumer.wait_empty())
    assert await _still_waits(waiting)
    message.ack(consumer)
    assert await _comes_to_an_end(consumer, waiting)


async def test_what_belonged_to_revoked_partitions_is_not_waited_for_at_the_next_revocation(consumer, monkeypatch):
    async def revoke(self, revoked):
        """Faust's part needs a running application."""

    monkeypatch.setattr("faust.transport.consumer.Consumer.on_partitions_revoked", revoke)
    message = _delivered(consumer, agents=1)
    _take(consumer, message)
    await consumer.on_partitions_revoked({PLACE})
    assert await _comes_to_an_end(consumer, asyncio.create_task(consumer.wait_empty()))
