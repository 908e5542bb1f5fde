"""The private names of Faust and aiokafka that streams/transport stands on. One missing here means: read the new
release, compare with docs/transport.md, and only then move the pin in pyproject.toml."""

import inspect
from collections import OrderedDict
from importlib.metadata import version
from types import SimpleNamespace

import faust
import faust.streams
import faust.transport.drivers.aiokafka as driver
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import BaseCoordinator, GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.tables.table import Table
from faust.transport.consumer import Consumer, Fetcher

from streams.transport import BatchSchema, make_app
from streams.transport.consumer import BatchConsumer
from streams.transport.driver import QUEUED_BATCHES, UNDER_WAY, require_c_extension
from streams.transport.fetching import Unread, hand_out_unread
from streams.transport.producer import BatchProducer
from streams.transport.recovery import BatchRecovery, BatchTableManager

#: What is read of a record batch before its records are.
BATCH_NAMES = (
    "base_offset", "next_offset", "max_timestamp", "producer_id", "is_control_batch", "is_transactional", "validate_crc",
)  # fmt: skip


def test_a_group_coordinator_keeps_its_errors_where_they_are_looked_for():
    source = inspect.getsource(GroupCoordinator)
    for line in ("self._pending_exception = exc", "self._coordination_task = create_task(", "self._error_consumed_fut"):
        assert line in source
    assert "self._coordinator" in inspect.getsource(AIOKafkaConsumer.start)


def test_a_consumer_has_its_fetcher_once_it_has_started_and_hands_on_what_that_gives():
    assert "self._fetcher = Fetcher(" in inspect.getsource(AIOKafkaConsumer.start)
    source = inspect.getsource(AIOKafkaConsumer.getmany)
    assert "records = await self._fetcher.fetched_records(" in source
    assert "return records" in source


def test_a_fetch_that_waits_can_be_woken_and_then_looks_at_everything_it_has():
    source = inspect.getsource(fetcher.Fetcher.fetched_records)
    assert source.index("while True:") < source.index("for tp in list(self._records.keys()):")
    assert source.index("for tp in list(self._records.keys()):") < source.index("self._create_fetch_waiter()")
    assert "if partitions and tp not in partitions:" in source
    assert "self._fetch_waiters.add(fut)" in inspect.getsource(fetcher.Fetcher._create_fetch_waiter)
    assert "future.set_result(None)" in inspect.getsource(fetcher.Fetcher._notify)
    # What is held back is taken out of the very set that a fetch under way asks.
    assert "return tps" in inspect.getsource(Consumer._get_active_partitions)
    for name, change in (("on_buffer_full", "discard"), ("on_buffer_drop", "add")):
        assert f"active_partitions.{change}(tp)" in inspect.getsource(getattr(Consumer, name))


def test_the_end_of_a_partition_lies_where_it_is_looked_for():
    source = inspect.getsource(AIOKafkaConsumer.highwater)
    assert "assert self._subscription.is_assigned(partition)" in source  # which is why it is not called
    assert "assignment = self._subscription.subscription.assignment" in source
    assert "return assignment.state_value(partition).highwater" in source
    assert "self._tp_state.get(tp)" in inspect.getsource(Assignment.state_value)


@pytest.mark.parametrize(
    ("partition", "end"),
    [
        pytest.param(0, 0, id="0 before the first fetch"),
        pytest.param(1, 77, id="what the last fetch said"),
        pytest.param(2, None, id="nothing for a partition that is not ours"),
    ],
)
async def test_the_end_of_a_partition_is(app, partition, end):
    thread = app.consumer._thread
    thread._consumer = SimpleNamespace(_subscription=SubscriptionState())
    assert thread.end_of(TopicPartition("t", partition)) is None
    thread._consumer._subscription.assign_from_user([TopicPartition("t", 0), TopicPartition("t", 1)])
    thread._consumer._subscription.subscription.assignment.state_value(TopicPartition("t", 1)).highwater = 77
    assert app.consumer.end_of("t", partition) == end


def test_the_pinned_versions_are_the_ones_this_was_written_against():
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")


def test_the_c_extension_is_there():
    require_c_extension()
    assert faust.streams._CStreamIterator is not None


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Consumer, "_wait_next_records"),
        (Consumer, "_add_gap"),
        (Consumer, "_new_offset"),
        (Consumer, "_filter_tps_with_pending_acks"),
        (Consumer, "perform_seek"),
        (Consumer, "ack"),
        (Consumer, "getmany"),
        (Consumer, "_drain_messages"),
        (Consumer, "wait_first"),
        (faust.App, "FlowControlQueue"),
        (Consumer, "on_partitions_revoked"),
        (Consumer, "wait_empty"),
        (Consumer, "_clean_unacked_messages"),
        (faust.Sensor, "on_stream_event_in"),
        (Consumer, "_is_changelog_tp"),
        (driver.Consumer, "_to_message"),
        (driver.Consumer, "_new_consumer_thread"),
        (driver.Consumer, "create_topic"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (driver.AIOKafkaConsumerThread, "_fetch_records"),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer"),
        (driver.AIOKafkaConsumerThread, "call_thread"),
        (driver.Producer, "_settings_extra"),
        (driver.Producer, "_ensure_producer"),
        (Recovery, "_restart_recovery"),
        (Recovery, "_slurp_changelogs"),
        (Recovery, "_wait"),
        (Recovery, "_set_recovery_started"),
        (Recovery, "_set_recovery_ended"),
        (Recovery, "flush_buffers"),
        (TableManager, "recovery"),
        (Table, "persisted_offset"),
        (AIOKafkaProducer, "create_batch"),
        (AIOKafkaProducer, "send_batch"),
        (driver.Producer, "send_and_wait"),
        (GroupCoordinator, "_do_heartbeat"),
        (GroupCoordinator, "check_errors"),
        (fetcher.FetchResult, "getall"),
        (fetcher.FetchResult, "check_assignment"),
        (fetcher.FetchResult, "has_more"),
        (fetcher.FetchResult, "_update_position"),
        (fetcher.PartitionRecords, "_unpack_records"),
        (fetcher.PartitionRecords, "_consume_aborted_up_to"),
        (fetcher.PartitionRecords, "_contains_abort_marker"),
        (fetcher.Fetcher, "fetched_records"),
        (fetcher.Fetcher, "seek_to"),
        (MemoryRecords, "has_next"),
        (MemoryRecords, "next_batch"),
        *((DefaultRecordBatch, name) for name in BATCH_NAMES),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_name_that_the_transport_overrides_or_calls_exists(owner, name):
    assert hasattr(owner, name)


@pytest.fixture
async def app():
    return make_app("contract", {"bootstrap_servers": "127.0.0.1:1"}, partitions=2, fetch_wait_ms=77)


async def test_an_application_uses_this_consumer_producer_and_recovery(app):
    assert isinstance(app.consumer, BatchConsumer)
    assert isinstance(app.producer, BatchProducer)
    assert isinstance(app.tables, BatchTableManager)
    assert isinstance(app.tables.recovery, BatchRecovery)


def test_what_is_fetched_is_handed_out_by_one_loop_of_the_consumer_that_stops_with_the_flow():
    assert "await consumer._drain_messages(self)" in inspect.getsource(Fetcher)
    source = inspect.getsource(Consumer._drain_messages)
    for line in (
        "callback = self.callback",
        "callback(message), self.suspend_flow.wait()",
        "self.consumer_stopped_errors",
    ):
        assert line in source


async def test_an_agents_queue_has_room_for_what_is_under_way_in_each_partition_when_fetching_stops(app):
    topic = app.topic("t", schema=BatchSchema())
    queue = topic.queue
    assert (queue.maxsize, queue.pressure_high_size) == (QUEUED_BATCHES + 2 * UNDER_WAY, QUEUED_BATCHES)
    held, dropped = [], []
    for number in range(queue.maxsize):
        queue.put_nowait_enhanced(number, on_pressure_high=lambda: held.append(True), on_pressure_drop=_drop(dropped))
    assert (len(held), dropped) == (queue.maxsize - QUEUED_BATCHES, [])
    while not queue.empty():
        await queue.get()
    assert dropped


def _drop(dropped):
    return lambda: dropped.append(True)


async def test_recovery_runs_our_tasks_in_place_of_fausts(app):
    assert BatchRecovery._restart_recovery is not Recovery._restart_recovery
    assert issubclass(RebalanceAgain, Exception)
    assert issubclass(ServiceStopped, Exception)


async def test_the_fetch_wait_reaches_the_consumer(app):
    source = inspect.getsource(AIOKafkaConsumer.start)
    assert "self._fetch_max_wait_ms" in source
    consumer = app.consumer._thread._create_worker_consumer(app.transport)
    assert consumer._fetch_max_wait_ms == 77


async def test_the_producer_is_idempotent_and_waits_for_all_replicas(app):
    assert app.producer._settings_extra() == {"acks": "all", "enable_idempotence": True}


def test_a_heartbeat_is_of_the_generation_and_the_member_that_recovery_asks_about():
    source = inspect.getsource(GroupCoordinator._do_heartbeat)
    assert "HeartbeatRequest(self.group_id, self.generation, self.member_id)" in source
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(AIOKafkaConsumer.start)


def test_the_coordinator_waits_until_somebody_has_heard_of_its_errors():
    assert "self._pending_exception = exc" in inspect.getsource(GroupCoordinator._push_error_to_user)
    assert "await self._push_error_to_user(exc)" in inspect.getsource(
        GroupCoordinator._GroupCoordinator__coordination_routine
    )


PLACE = TopicPartition("usage.events.v1", 0)


def _fetch_result(position: int) -> fetcher.FetchResult:
    """What aiokafka's fetcher makes of ten records in one batch, the offset asked for being ``position``."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1_000_000,
    )  # fmt: skip
    for offset in range(10):
        builder.append(offset, 1_000 + offset, None, b"v", [])
    subscriptions = SubscriptionState()
    subscriptions.assign_from_user([PLACE])
    assignment = subscriptions.subscription.assignment
    assignment.state_value(PLACE).seek(position)
    records = MemoryRecords(bytes(builder.build()))
    source = fetcher.PartitionRecords(PLACE, records, [], position, None, None, True, fetcher.READ_COMMITTED)
    return fetcher.FetchResult(PLACE, assignment=assignment, partition_records=source, backoff=0)


async def test_a_fetch_keeps_what_is_read_of_it_under_these_names():
    result = _fetch_result(0)
    source = result._partition_records
    assert result._topic_partition == PLACE
    assert (source._tp, source.next_fetch_offset, source._isolation_level) == (PLACE, 0, fetcher.READ_COMMITTED)
    assert (source._check_crcs, source._aborted_producers) == (True, set())
    batch = source._records.next_batch()
    assert (batch.base_offset, batch.next_offset, batch.max_timestamp) == (0, 10, 1_009)
    assert (batch.producer_id, batch.is_control_batch, batch.is_transactional) == (-1, False, False)


def test_a_fetcher_keeps_its_results_in_a_dictionary_and_asks_them_for_all_they_have():
    assert "self._records = collections.OrderedDict()" in inspect.getsource(fetcher.Fetcher.__init__)
    fetched = inspect.getsource(fetcher.Fetcher.fetched_records)
    assert "type(res_or_error) is FetchResult" in fetched
    assert "res_or_error.getall(max_records)" in fetched
    assert "if not records:" in fetched
    assert "del self._records[tp]" in inspect.getsource(fetcher.Fetcher.seek_to)


@pytest.mark.parametrize("position", [0, 4])
async def test_a_fetch_is_handed_over_unread_and_says_the_same_as_aiokafkas_own_reading(position):
    plain, unread = _fetch_result(position), _fetch_result(position)
    # A fetcher's only part in it is its dictionary: what was there before is taken over, what comes later as well.
    owner = SimpleNamespace(_records=OrderedDict({PLACE: unread}))
    hand_out_unread(owner)
    taken = owner._records[PLACE].getall(None)
    assert isinstance(taken, Unread)
    expected = plain.getall()
    assert [record.offset for chunk in taken.chunks() for record in chunk] == [record.offset for record in expected]
    assert (taken.first, taken.end, taken.timestamp) == (position, 10, 1_009)
    for result in (plain, unread):
        assert not result.has_more()
        assert result._assignment.state_value(PLACE).position == 10


async def test_a_fetch_that_was_sought_away_from_hands_nothing_over():
    result = _fetch_result(0)
    owner = SimpleNamespace(_records=OrderedDict({PLACE: result}))
    hand_out_unread(owner)
    result._assignment.state_value(PLACE).seek(3)
    assert owner._records[PLACE].getall(None) == []


async def test_the_agents_of_a_topic_are_counted_where_faust_keeps_them(app):
    for name in ("one", "two"):

        async def agent(stream):
            """Never run here."""

        app.agent(app.topic("shared", schema=BatchSchema()), name=name, concurrency=1)(agent)
    for agent in app.agents.values():
        app.topics.add(agent.channel)
    await app.topics._update_indices()
    assert len(app.topics._topic_name_index["shared"]) == 2


def test_a_leader_that_knew_no_topics_looks_again_within_seconds():
    conf = make_app("metadata", {"bootstrap_servers": "127.0.0.1:1"}, partitions=1).conf
    assert conf.consumer_metadata_max_age_ms == 10_000, "a group that was given nothing would wait for five minutes"
    source = inspect.getsource(driver.AIOKafkaConsumerThread._create_worker_consumer)
    assert "metadata_max_age_ms=conf.consumer_metadata_max_age_ms" in source
    assert "self._on_metadata_change()" in inspect.getsource(BaseCoordinator._handle_metadata_update)
