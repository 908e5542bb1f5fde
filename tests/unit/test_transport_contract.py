"""The private names of Faust and aiokafka that streams/transport stands on. One missing here means: read the new
release, compare with docs/transport.md, and only then move the pin in pyproject.toml."""

import inspect
from importlib.metadata import version

import faust
import faust.streams
import faust.transport.drivers.aiokafka as driver
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.tables.table import Table
from faust.transport.consumer import Consumer

from streams.transport import make_app
from streams.transport.consumer import BatchConsumer
from streams.transport.driver import require_c_extension
from streams.transport.producer import BatchProducer
from streams.transport.recovery import BatchRecovery, BatchTableManager


def test_a_group_coordinator_keeps_its_errors_where_they_are_looked_for():
    source = inspect.getsource(GroupCoordinator)
    for line in ("self._pending_exception = exc", "self._coordination_task = create_task(", "self._error_consumed_fut"):
        assert line in source
    assert "self._coordinator" in inspect.getsource(AIOKafkaConsumer.start)


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
