"""The embedded parts start, keep their data, can be broken on purpose, and never outlive their parent."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import ALL, SPEND_CELLS, Topic
from streams.embedded.broker import Broker, choose_broker
from streams.embedded.kafka import KafkaBroker
from streams.embedded.postgres import EmbeddedPostgres
from streams.embedded.process import ChildProcess, EmbeddedError, free_port
from streams.embedded.tansu import CAVEAT, TansuBroker
from streams.topic_admin import TopicError, changelogs, ensure_topics
from tests.integration.reading import eventually

DEADLINE_S = 30.0


def plain(url: str) -> dict[str, Any]:
    return {"bootstrap_servers": [url], "security_protocol": "PLAINTEXT"}


async def send(url: str, topic: str, value: bytes, timeout_ms: int = 20_000) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=url, request_timeout_ms=timeout_ms)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key=b"k", partition=0)
    finally:
        await producer.stop()


async def read(url: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=url, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        async with asyncio.timeout(DEADLINE_S):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("how", "end"),
    [
        pytest.param("stopped", lambda broker: broker.stop(), id="stopped in order"),
        pytest.param("killed", lambda broker: asyncio.to_thread(broker.kill), id="killed like a power cut"),
    ],
)
async def test_kafka_keeps_data_ports_and_identity_over_a_restart_after_it_was(
    fresh_kafka: Broker, how: str, end: Callable[[Broker], Awaitable[None]]
) -> None:
    if not fresh_kafka.is_real_kafka:
        with pytest.raises(EmbeddedError):
            await choose_broker("kafka", fresh_kafka.log.parent)
        return
    topic = Topic(f"kept.{how}", "k", None)
    url = fresh_kafka.bootstrap
    await ensure_topics(plain(url), 1, 1, [topic])
    await send(url, topic.name, b"before")
    await end(fresh_kafka)
    assert await fresh_kafka.start() == url
    await send(url, topic.name, b"after")
    assert await read(url, topic.name, 2) == [b"before", b"after"]


async def test_a_paused_broker_answers_nobody_and_goes_on_when_resumed(fresh_kafka: Broker) -> None:
    url = fresh_kafka.bootstrap
    await ensure_topics(plain(url), 1, 1, [Topic("paused", "k", 60_000)])
    fresh_kafka.pause()
    try:
        with pytest.raises((KafkaError, TimeoutError)):
            async with asyncio.timeout(3):
                await send(url, "paused", b"lost", timeout_ms=1_000)
    finally:
        fresh_kafka.resume()
    await send(url, "paused", b"answered")
    assert (await read(url, "paused", 1)) == [b"answered"]


async def test_a_broker_whose_last_port_is_taken_moves_and_is_not_mistaken_for_its_squatter(
    fresh_kafka: Broker, tmp_path: Path
) -> None:
    """The squatter is another Kafka: a mere connection would say that ours is ready."""
    if not fresh_kafka.is_real_kafka:
        port = int(fresh_kafka.bootstrap.rpartition(":")[2])
        assert free_port(port) != port
        return
    ours = (await choose_broker("kafka", tmp_path, fast_start=True)).broker
    port = int(fresh_kafka.bootstrap.rpartition(":")[2])
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "ports.json").write_text(json.dumps({"broker": port}))
    try:
        assert await ours.start() != fresh_kafka.bootstrap
    finally:
        await ours.stop()


async def test_topics_are_made_once_and_misfits_are_named(fresh_kafka: Broker) -> None:
    wanted = (*ALL, *changelogs("sluice"))
    at = plain(fresh_kafka.bootstrap)
    first = await ensure_topics(at, 2, 1, ALL, changelogs("sluice"))
    again = await ensure_topics(at, 2, 1, ALL, changelogs("sluice"))
    assert (set(first.created), first.existing, first.wrong) == ({t.name for t in wanted}, (), ())
    assert (again.created, set(again.existing), again.wrong) == ((), {t.name for t in wanted}, ())
    assert again.demand() is again

    misfit = await ensure_topics(at, 3, 1, [t for t in ALL if t.name == SPEND_CELLS])
    assert "spend.cells.v1 has 2 partitions, not 3" in misfit.wrong[0]
    with pytest.raises(TopicError, match=r"spend\.cells\.v1 has 2 partitions"):
        misfit.demand()
    if fresh_kafka.is_real_kafka:
        losing = await ensure_topics(at, 2, 1, [Topic(SPEND_CELLS, "k", 1_000)])
        assert losing.wrong == ("spend.cells.v1 has cleanup.policy=compact, not delete: alter the topic",)
        with pytest.raises(TopicError, match="three-copies"):
            await ensure_topics(at, 2, 3, [Topic("three-copies", "k", None)])


async def test_kafka_says_what_is_wrong_when_its_data_are_unreadable(tmp_path: Path) -> None:
    choice = await choose_broker("auto", tmp_path, fast_start=True)
    broker = choice.broker
    if not isinstance(broker, KafkaBroker):
        assert "in place of Apache Kafka" in choice.reason
        return
    data = tmp_path / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\ncluster.id=broken\nnode.id=77\n")
    with pytest.raises(EmbeddedError, match="exit code") as caught:
        await broker.start()
    assert "77" in str(caught.value)


async def test_tansu_serves_and_says_what_it_is_for(tmp_path: Path) -> None:
    broker, _ = await choose_broker("tansu", tmp_path)
    assert isinstance(broker, TansuBroker)
    assert broker.caveat == CAVEAT
    url = await broker.start()
    try:
        await ensure_topics(plain(url), 2, 1, [Topic("t", "k", None)])
        await send(url, "t", b"x")
        assert await read(url, "t", 1) == [b"x"]
    finally:
        await broker.stop()
    assert not alive(broker.pid)


async def test_postgres_keeps_rows_url_and_password_over_stop_and_kill(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", durable=False)
    url = await server.start()
    try:
        database = await server.create_database("kept")
        assert await server.create_database("kept") == database
        connection = await asyncpg.connect(database)
        await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
        await connection.execute("CHECKPOINT")
        await connection.close()
        await server.stop()
        assert await server.start() == url
        server.kill()
        assert await server.start() == url
        connection = await asyncpg.connect(database)
        assert await connection.fetchval("SELECT answer FROM t") == 42
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(database.replace(":", ":wrong", 2).replace("wrong//", "//"))
        await server.drop_database("kept")
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await asyncpg.connect(database)
    finally:
        await server.stop()


PARENT = """
import asyncio, pathlib, sys
from streams.embedded.broker import choose_broker
from streams.embedded.postgres import EmbeddedPostgres
async def main():
    state = pathlib.Path(sys.argv[1])
    broker = (await choose_broker("auto", state, fast_start=True)).broker
    postgres = EmbeddedPostgres(state / "postgres", durable=False)
    await broker.start()
    await postgres.start()
    print(broker.pid, postgres.pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
async def test_broker_and_postgres_die_with_a_parent_that_is_ended_by(how: signal.Signals, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(60):
            pids = [int(word) for word in (await parent.stdout.readline()).split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        parent.send_signal(how)
        await parent.wait()
        await eventually(lambda: not any(alive(pid) for pid in pids), DEADLINE_S)
    finally:
        if parent.returncode is None:
            parent.kill()
    # What it left behind is whole: the next one starts on it.
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    await server.start()
    await server.stop()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo first; echo the reason; exit 3", "exit code 3", id="it ends early"),
        pytest.param("echo the reason; exec sleep 60", "is not ready after", id="it hangs"),
    ],
)
async def test_a_child_that_never_gets_ready_is_quoted_when(script: str, said: str, tmp_path: Path) -> None:
    child = ChildProcess("the part", ["sh", "-c", script], tmp_path / "part.log")
    child.start()

    async def never() -> bool:
        return False

    try:
        with pytest.raises(EmbeddedError, match=said) as caught:
            await child.ready(never, 0.5)
    finally:
        child.kill()
    assert "the part" in str(caught.value)
    assert "    the reason" in str(caught.value)


async def test_a_child_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    child = ChildProcess("stubborn", ["sh", "-c", script], tmp_path / "log")
    child.start()
    await eventually(lambda: "up" in child.log.read_text(), DEADLINE_S)
    assert await child.stop(deadline_s=0.3) is False
    assert child.returncode == -signal.SIGKILL
    assert not alive(child.pid)


def test_root_keeps_the_folders_above_the_data_closed(postgres: EmbeddedPostgres) -> None:
    assert os.stat(postgres.log.parent / "data").st_mode & 0o077 == 0
    assert os.stat(postgres.log.parent / "password").st_mode & 0o077 == 0
