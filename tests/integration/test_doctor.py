"""Each thing that can be wrong with a deployment is broken for real, and the doctor names exactly that."""

import asyncio
import contextlib
import json
import signal
import sys
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import SecretStr

from schemas import topics
from schemas.instants import MINUTE
from schemas.topics import DAY_MS
from streams.clock import WallClock, elapsed_s
from streams.commands import dlq
from streams.commands.doctor import examine
from streams.core.reading import Reason
from streams.doctor.probe import wanted_topics
from streams.embedded.process import free_port
from streams.sinks.postgres import migrate
from streams.topic_admin import ensure_topics
from tests.e2e.conftest import run_service
from tests.integration.letters import bury, forget_records, paper, raw, settings_for, start_sluice, text_of
from tests.integration.reading import connection

MEMBER = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
async def main():
    member = AIOKafkaConsumer("usage.events.v1", bootstrap_servers=sys.argv[1], group_id=sys.argv[2],
        session_timeout_ms=60_000, rebalance_timeout_ms=60_000)
    await member.start()
    while not member.assignment():
        await asyncio.sleep(0.05)
    print("in", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


class Deployment:
    """Topics, a migrated ledger, and a group with one member that reads when it is told to."""

    def __init__(self, settings, member):
        self.settings = settings
        self.member = member

    async def examine(self, clock=None, **bounds):
        """What the doctor answers: its exit code, and level and text by item."""
        out = paper()
        code = await examine(self.settings, clock or WallClock(), out, as_json=True, **bounds)
        answer = json.loads(text_of(out))
        assert answer["ok"] is (code == 0)
        return code, {item["item"]: item for item in answer["items"]}

    async def fails(self, *items, warns=(), **arguments):
        """The only items that fail, and that the doctor says so; returns what it says of the first."""
        code, found = await self.examine(**arguments)
        assert [name for name, item in found.items() if item["level"] == "FAIL"] == list(items), found
        assert [name for name, item in found.items() if item["level"] == "WARN"] == list(warns), found
        assert code == (1 if items else 0)
        assert all(item["todo"] for item in found.values() if item["level"] in ("FAIL", "WARN"))
        return found[(*items, *warns, "broker")[0]]

    async def eventually_fails(self, *items, deadline_s=30.0, **arguments):
        """The same, once what makes it fail is old enough."""
        until = elapsed_s() + deadline_s
        while (await self.examine(**arguments))[0] == 0:
            assert elapsed_s() < until, "the doctor found everything well"
        return await self.fails(*items, **arguments)


@contextlib.asynccontextmanager
async def member_of(url, group):
    """A member of the group, with partitions."""
    member = AIOKafkaConsumer(
        *(topic.name for topic in topics.INPUTS), bootstrap_servers=url, group_id=group, enable_auto_commit=False,
        auto_offset_reset="earliest",
    )  # fmt: skip
    await member.start()
    try:
        async with asyncio.timeout(30):
            while not member.assignment():
                await asyncio.sleep(0.02)
        yield member
    finally:
        await member.stop()


@contextlib.asynccontextmanager
async def admin_of(url):
    admin = AIOKafkaAdminClient(bootstrap_servers=url)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@pytest.fixture
async def prepared(fresh_kafka, app_id, database_url, tmp_path):
    """Settings of a deployment that nobody works at."""
    url = fresh_kafka.bootstrap
    await ensure_topics(connection(url), 4, 1, topics=wanted_topics(app_id))
    await forget_records(url)
    await migrate(database_url)
    return settings_for(url, app_id, tmp_path, database_url=database_url)


@pytest.fixture
async def deployed(prepared):
    async with member_of(prepared.kafka_url, prepared.app_id) as member:
        yield Deployment(prepared, member)


async def alter(url, name, **changes):
    """Set a topic's configuration: what the contract says, changed."""
    (topic,) = [found for found in topics.ALL if found.name == name]
    config = topic.config() | {key.replace("_", "."): value for key, value in changes.items()}
    async with admin_of(url) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=config)])


async def test_a_deployment_that_is_well_passes(deployed):
    await deployed.fails()


# -- the broker -----------------------------------------------------------------------------------------------------


async def test_a_broker_that_is_down_is_the_only_failure(deployed):
    deployed.settings = deployed.settings.model_copy(update={"kafka_url": f"127.0.0.1:{free_port()}"})
    found = await deployed.fails("broker")
    assert found["details"] == [f"{deployed.settings.kafka_url} refuses connections: nothing listens there"]


async def test_a_broker_that_hangs_is_told_from_one_that_is_gone(deployed, fresh_kafka):
    fresh_kafka.pause()
    try:
        found = await deployed.fails("broker")
    finally:
        fresh_kafka.resume()
    assert "does not answer within 5 s" in found["details"][0]


async def test_one_address_of_two_that_is_away_is_a_warning_that_names_it(deployed):
    away = f"127.0.0.1:{free_port()}"
    deployed.settings = deployed.settings.model_copy(update={"kafka_url": f"{away},{deployed.settings.kafka_url}"})
    found = await deployed.fails(warns=["broker"])
    assert found["details"] == [f"{away} refuses connections: nothing listens there"]


async def test_what_listens_and_is_no_kafka_is_said_to_be_none(deployed, database_url):
    port = urlsplit(database_url).port
    deployed.settings = deployed.settings.model_copy(update={"kafka_url": f"127.0.0.1:{port}"})
    assert "no Kafka listener" in (await deployed.fails("broker"))["details"][0]


# -- topics ---------------------------------------------------------------------------------------------------------


async def test_a_missing_topic_is_named(deployed):
    url = deployed.settings.kafka_url
    async with admin_of(url) as admin:
        await admin.delete_topics([topics.GATEWAY_ACKS])
    try:
        found = await deployed.fails("topics")
        assert (found["details"], found["todo"]) == ([topics.GATEWAY_ACKS], "run `sluice topics create`")
    finally:
        await ensure_topics(connection(url), 4, 1)


async def test_a_topic_with_another_number_of_partitions_is_named(deployed):
    url = deployed.settings.kafka_url
    async with admin_of(url) as admin:
        await admin.create_partitions({topics.GATEWAY_ACKS: NewPartitions(total_count=5)})
        try:
            found = await deployed.fails("partitions")
            assert found["details"] == [f"{topics.GATEWAY_ACKS} has 5, not 4"]
        finally:
            await admin.delete_topics([topics.GATEWAY_ACKS])
            await ensure_topics(connection(url), 4, 1)


@pytest.mark.parametrize(
    ("topic", "change", "item", "level"),
    [
        pytest.param(topics.SPEND_CELLS, {"cleanup_policy": "delete"}, "cleanup policy", "FAIL", id="not compacted"),
        pytest.param(topics.USAGE_EVENTS, {"retention_ms": "3600000"}, "retention", "FAIL", id="kept for an hour"),
        pytest.param(
            topics.USAGE_EVENTS, {"retention_ms": str(3 * DAY_MS)}, "retention", "WARN", id="kept for three days"
        ),
        pytest.param(
            topics.USAGE_GPU, {"message_timestamp_type": "CreateTime"}, "arrival time", "FAIL", id="a producer's time"
        ),
        pytest.param(
            topics.USAGE_GPU, {"max_message_bytes": "1000000"}, "record size", "WARN", id="small records only"
        ),
    ],
)
async def test_a_topic_that_is_kept_wrongly_is_named_with_the_command_that_mends_it(
    deployed, topic, change, item, level
):
    url = deployed.settings.kafka_url
    await alter(url, topic, **change)
    try:
        found = await (deployed.fails(item) if level == "FAIL" else deployed.fails(warns=[item]))
        ((key, value),) = change.items()
        assert found["details"][0].startswith(f"{topic} has {key.replace('_', '.')}={value}, not ")
        assert f"--alter --topic {topic} --add-config" in found["todo"]
    finally:
        await alter(url, topic)


# -- workers --------------------------------------------------------------------------------------------------------


async def test_a_stopped_worker_is_missed(prepared):
    found = await Deployment(prepared, None).fails("workers")
    assert found["found"] == f"no worker is active in group {prepared.app_id}"


async def test_stages_that_run_apart_are_all_looked_for(prepared):
    url, app_id = prepared.kafka_url, prepared.app_id
    deployment = Deployment(prepared, None)
    async with member_of(url, f"{app_id}-meter"), member_of(url, f"{app_id}-budget-detect"):
        assert (await deployment.fails("workers"))["found"] == "no worker runs ledger, notify"
        async with member_of(url, f"{app_id}-ledger-notify"):
            await deployment.fails()


async def test_a_group_that_does_not_come_to_rest_is_told(prepared):
    url, group = prepared.kafka_url, prepared.app_id
    frozen = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMBER, url, group, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await asyncio.wait_for(frozen.stdout.readline(), 30) == b"in\n"
        frozen.send_signal(signal.SIGSTOP)
        # A second member makes a rebalance that the first one holds up.
        second = AIOKafkaConsumer(topics.USAGE_EVENTS, bootstrap_servers=url, group_id=group)
        joining = asyncio.create_task(second.start())
        found = await Deployment(prepared, None).fails("workers")
        assert "PreparingRebalance" in found["details"][0]
    finally:
        frozen.kill()
        await frozen.wait()
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await second.stop()


async def test_records_that_nobody_reads_are_lag(deployed):
    async with AIOKafkaProducer(bootstrap_servers=deployed.settings.kafka_url) as producer:
        for number in range(7):
            await producer.send_and_wait(topics.USAGE_EVENTS, b"{}", partition=number % 2)
    found = await deployed.eventually_fails("lag", lag_s_fail=1.0)
    assert found["details"][0].startswith(f"{topics.USAGE_EVENTS}: 7 unread, the oldest for ")


async def test_what_a_replays_transaction_leaves_at_the_end_of_a_topic_is_no_lag(deployed):
    await bury(deployed.settings.kafka_url, [(0, raw(0), Reason.UNKNOWN_CURRENCY)])
    await dlq.replay(deployed.settings, dlq.Replay(dlq.Choice(), None, False, False, False), paper())
    async with asyncio.timeout(30):
        record = await deployed.member.getone()
    place = TopicPartition(record.topic, record.partition)
    await deployed.member.commit({place: record.offset + 1})
    assert (await deployed.member.end_offsets([place]))[place] > record.offset + 1
    connection_ = await asyncpg.connect(deployed.settings.database_url.get_secret_value())
    await _watermark(connection_, record.offset + 1)
    await connection_.close()
    _, found = await deployed.examine(lag_s_fail=1.0)
    assert found["lag"]["found"] == "everything is read"


# -- the ledger -----------------------------------------------------------------------------------------------------


async def _watermark(database, next_offset, partition=0, age="0"):
    await database.execute(
        "insert into ledger_sources values ($1, 0, $2, now(), 0, 0, now() - $3::text::interval)",
        f"{topics.USAGE_EVENTS}@0-{partition}", next_offset, age,
    )  # fmt: skip


@pytest.fixture
async def database(database_url):
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def test_a_ledger_beyond_the_end_of_its_topic_is_ahead(deployed, database):
    ends = await deployed.member.end_offsets([TopicPartition(topics.USAGE_EVENTS, 0)])
    end = ends[TopicPartition(topics.USAGE_EVENTS, 0)]
    await _watermark(database, end + 5)
    found = await deployed.fails("ledger")
    assert found["details"] == [f"{topics.USAGE_EVENTS}[0] ends at {end}, and the ledger has read up to {end + 5}"]
    assert "topic_epoch" in found["todo"]


async def test_a_ledger_that_lacks_what_was_counted_is_behind(deployed):
    async with AIOKafkaProducer(bootstrap_servers=deployed.settings.kafka_url) as producer:
        sent = await producer.send_and_wait(topics.USAGE_EVENTS, b"{}", partition=1)
    place = TopicPartition(topics.USAGE_EVENTS, 1)
    await deployed.member.commit({place: sent.offset + 1})
    found = await deployed.eventually_fails("ledger", lag_s_fail=1.0)
    assert found["details"] == [f"{topics.USAGE_EVENTS}[1]: 0 of {sent.offset + 1} that METER has counted"]


async def test_a_ledger_that_hears_nothing_from_active_workers_is_a_failure_of_their_tables(deployed, database):
    await _watermark(database, 0, age="15 minutes")
    found = await deployed.fails("tables")
    assert "no watermark for 15 min" in found["found"]


async def test_a_database_that_is_down_is_the_only_failure(deployed):
    port = free_port()
    url = SecretStr(f"postgresql://sluice:hunter2@127.0.0.1:{port}/ledger")
    deployed.settings = deployed.settings.model_copy(update={"database_url": url})
    found = await deployed.fails("database")
    assert found["found"] == f"PostgreSQL at 127.0.0.1:{port}/ledger refuses connections: nothing listens there"


async def test_a_database_that_does_not_exist_is_said_to_be_missing(deployed):
    url = deployed.settings.database_url.get_secret_value()
    deployed.settings = deployed.settings.model_copy(
        update={"database_url": SecretStr(url.replace("/test_", "/no_test_"))}
    )
    assert "has no such database" in (await deployed.fails("database"))["found"]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        pytest.param("drop table schema_migrations", "migrations are missing", id="not migrated"),
        pytest.param("update schema_migrations set sha256 = 'x'", "applied with other content", id="edited"),
        pytest.param("insert into schema_migrations values (999, 'later', 'x')", "at migration 999", id="newer"),
    ],
)
async def test_a_ledger_of_another_version_is_told(deployed, database, broken, says):
    await database.execute(broken)
    assert says in (await deployed.fails("schema"))["found"]


# -- dead letters and clocks ----------------------------------------------------------------------------------------


async def test_dead_letters_that_wait_fail_until_they_are_brought_back_or_allowed(deployed):
    await bury(
        deployed.settings.kafka_url,
        [(0, raw(0), Reason.UNKNOWN_CURRENCY), (1, raw(1, at=WallClock().now()), Reason.IN_THE_FUTURE)],
    )
    found = await deployed.fails("dead letters")
    assert found["found"] == "2 records were not counted and wait"
    assert found["details"][0].startswith("usage.events.v1.dlt: 2 wait; the newest: ")
    await deployed.fails(warns=["dead letters"], dead_letters_max=2)
    await dlq.replay(deployed.settings, dlq.Replay(dlq.Choice(), None, False, False, False), paper())
    _, items = await deployed.examine()
    assert items["dead letters"]["level"] == "OK"


@pytest.mark.parametrize("shift", [10 * MINUTE, -10 * MINUTE], ids=["ahead", "behind"])
async def test_a_machine_whose_clock_is_wrong_is_told_by_how_much(deployed, shift):
    class Shifted(WallClock):
        def now(self):
            return super().now() + shift

    found = await deployed.fails("clock", clock=Shifted())
    word = "ahead of" if shift > 0 else "behind"
    for line, name in zip(found["details"], ("Kafka", "PostgreSQL"), strict=True):
        seconds = float(line.removeprefix("this machine is ").split()[0])
        assert line.endswith(f"s {word} {name}")
        assert abs(seconds - 600) < 5


# -- the command ----------------------------------------------------------------------------------------------------


async def test_the_command_ends_with_1_and_plain_lines_where_anything_fails(prepared):
    running = await start_sluice(prepared, "doctor")
    said, wrong = await running.communicate()
    lines = said.decode().splitlines()
    assert (running.returncode, wrong) == (1, b"")
    assert [line.split()[0] for line in lines[:-1] if line[0] != " "].count("FAIL") == 1
    assert lines[-1] == "not well: workers"
    assert not set(said.decode()) & set("\x1b─│✗")


async def test_a_running_service_is_well_and_its_killed_worker_is_missed(fresh_kafka, database_url, tmp_path):
    await ensure_topics(connection(fresh_kafka.bootstrap), 4, 1)
    await forget_records(fresh_kafka.bootstrap)
    async with run_service(fresh_kafka, database_url, tmp_path, session_timeout_s=6.0) as service:
        team = {"provider": "openai", "request_model": "gpt-4o", "team_id": "t", "feature": "f", "input_tokens": 5}
        await service.send(team, id="1")

        async def counted():
            return await service.pool.fetchval("select sum(requests)::bigint from ledger_cells") == 1

        await service.until(counted, "the event to be counted")
        deployment = Deployment(service.running.settings, None)
        await deployment.fails()
        await service.running.kill_worker(0)

        async def missed():
            return (await deployment.examine())[1]["workers"]["level"] == "FAIL"

        await service.until(missed, "the killed worker to be missed")
        await deployment.fails("workers")
