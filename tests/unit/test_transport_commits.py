"""Commit positions: the acknowledged prefix of what was delivered, and never anything else."""

import pytest
from faust.types import TP

from streams.transport import RecordBatch, make_app
from tests.unit.records import unread

PLACE = TP("usage.events.v1", 0)


@pytest.fixture
async def consumer():
    return make_app("commits", {"bootstrap_servers": "127.0.0.1:1"}, partitions=1).consumer


async def test_nothing_is_committed_before_the_first_batch_is_acknowledged(consumer):
    consumer._to_batch(PLACE, unread(0, last=9))
    assert list(consumer._filter_tps_with_pending_acks()) == []


async def test_an_acknowledged_batch_is_committed_up_to_its_end(consumer):
    message = consumer._to_batch(PLACE, unread(0, last=9))
    consumer.ack(message)
    assert list(consumer._filter_tps_with_pending_acks()) == [PLACE]
    assert consumer._new_offset(PLACE) == 10


async def test_a_later_batch_waits_for_the_earlier_one(consumer):
    first = consumer._to_batch(PLACE, unread(0, last=9))
    second = consumer._to_batch(PLACE, unread(10, last=19))
    consumer.ack(second)
    assert list(consumer._filter_tps_with_pending_acks()) == []
    consumer.ack(first)
    assert consumer._new_offset(PLACE) == 20


async def test_gaps_left_by_compaction_or_transactions_do_not_hold_commits_back(consumer):
    message = consumer._to_batch(PLACE, unread(5, last=12, gaps=(6, 7, 11)))
    consumer.ack(message)
    assert consumer._new_offset(PLACE) == 13


async def test_a_first_fetch_of_one_record_at_offset_zero_does_not_stop_commits(consumer):
    consumer.ack(consumer._to_batch(PLACE, unread(0)))
    assert consumer._new_offset(PLACE) == 1
    consumer.ack(consumer._to_batch(PLACE, unread(1, last=5)))
    assert consumer._new_offset(PLACE) == 6


async def test_a_batch_fetched_again_supersedes_the_earlier_delivery(consumer):
    lost = consumer._to_batch(PLACE, unread(100, last=150))
    again = consumer._to_batch(PLACE, unread(100, last=120))
    assert consumer.ack(lost)
    assert list(consumer._filter_tps_with_pending_acks()) == []
    consumer.ack(again)
    assert consumer._new_offset(PLACE) == 121


async def test_an_acknowledgement_given_twice_counts_once(consumer):
    message = consumer._to_batch(PLACE, unread(0, last=9))
    assert (consumer.ack(message), consumer.ack(message)) == (True, False)


async def test_a_batch_says_where_the_one_before_it_ended(consumer):
    first: RecordBatch = consumer._to_batch(PLACE, unread(0, last=9)).value
    second: RecordBatch = consumer._to_batch(PLACE, unread(15, last=19)).value
    assert ((first.begin, first.end), (second.begin, second.end)) == ((0, 10), (10, 20))
