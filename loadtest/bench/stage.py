"""The real parts that the rigs run on: Apache Kafka, PostgreSQL, filled topics, workers as processes of their own."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer import AIOKafkaConsumer
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError

from loadtest.bench.events import Shape
from loadtest.bench.fill import Order
from loadtest.bench.machine import ROOT
from schemas import topics
from schemas.instants import HOUR
from streams.clock import WallClock, elapsed_s
from streams.embedded.broker import Broker, choose_broker
from streams.embedded.postgres import EmbeddedPostgres
from streams.embedded.process import ChildProcess
from streams.kafka_connection import connection
from streams.settings import Settings, load_settings
from streams.sinks.postgres import migrate
from streams.supervisor import child_environment
from streams.topic_admin import TABLES, changelogs, ensure_topics

READY_DEADLINE_S = 120.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Stage(NamedTuple):
    """A broker and a database with a folder for whatever runs on them."""

    broker: Broker
    postgres: EmbeddedPostgres
    folder: Path


@contextlib.asynccontextmanager
async def open_stage(folder: Path, heap_mb: int = 2_048) -> AsyncIterator[Stage]:
    """Real Kafka and PostgreSQL, durable both, until the block ends; raises EmbeddedError without Java or mvn."""
    broker, _ = await choose_broker("kafka", folder, heap_mb=heap_mb)
    postgres = EmbeddedPostgres(folder / "postgres")
    try:
        await broker.start()
        await postgres.start()
        yield Stage(broker, postgres, folder)
    finally:
        await postgres.stop()
        await broker.stop()


async def make_topics(stage: Stage, partitions: int) -> None:
    """All of Sluice's topics."""
    settings = load_settings(kafka_url=stage.broker.bootstrap)
    (await ensure_topics(connection(settings), partitions, 1)).demand()


async def delete_topics(stage: Stage, names: Iterable[str]) -> None:
    """Delete topics and wait until they are gone."""
    wanted = set(names)
    async with _admin(stage) as admin:
        await admin.delete_topics(sorted(wanted & set(await admin.list_topics())))
        until = elapsed_s() + READY_DEADLINE_S
        while wanted & set(await admin.list_topics()):
            if elapsed_s() > until:
                raise TimeoutError(f"still there: {wanted & set(await admin.list_topics())}")
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _admin(stage: Stage) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def history_start() -> int:
    """The last full hour's beginning and five minutes: events of minutes then lie in one hour, and in the past."""
    now = WallClock().now()
    return now - now % HOUR - HOUR + 300_000_000


async def fill_topic(
    stage: Stage, shape: Shape, count: int, partitions: int, start: int, processes: int = 2, first_part: int = 0
) -> float:
    """Fill the usage topic; returns how many seconds it took. Fillings with other parts have other ids."""
    began = elapsed_s()
    children = []
    for part in range(processes):
        order = Order(
            bootstrap=stage.broker.bootstrap,
            partitions=partitions,
            start=start,
            count=count // processes,
            part=first_part + part,
            parts=processes,
            shape=shape,
        )
        command = (sys.executable, "-m", "loadtest.bench.fill", msgspec.json.encode(order).decode())
        children.append(ChildProcess(f"fill {part}", command, stage.folder / f"fill-{part}.log"))
    for child in children:
        child.start()
    while any(child.running for child in children):
        await asyncio.sleep(0.1)
    for child in children:
        if child.returncode:
            raise RuntimeError(child.failure("filling failed"))
    return elapsed_s() - began


async def end_offsets(stage: Stage, topic: str = topics.USAGE_EVENTS) -> dict[int, int]:
    """Where each partition of a topic ends now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stage.broker.bootstrap)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        found = consumer.partitions_for_topic(topic) or await _partitions(consumer, topic)
        ends = await consumer.end_offsets([TopicPartition(topic, partition) for partition in found])
        return {place.partition: end for place, end in ends.items()}
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer.topics()
    return consumer.partitions_for_topic(topic) or set()


def worker_settings(
    stage: Stage, name: str, database_url: str, partitions: int, budgets: Path, **more: Any
) -> Settings:
    """The settings of workers under the app id ``name``."""
    return load_settings(
        kafka_url=stage.broker.bootstrap,
        database_url=database_url,
        app_id=name,
        partitions=partitions,
        budgets=budgets,
        state_dir=stage.folder / name,
        **{"log_level": "WARNING", **more},
    )


async def prepare(stage: Stage, name: str, partitions: int) -> str:
    """A database with the ledger's tables and the changelogs of ``name``; returns the database's URL."""
    url = await stage.postgres.create_database(name.replace("-", "_"))
    await migrate(url)
    settings = load_settings(kafka_url=stage.broker.bootstrap)
    (await ensure_topics(connection(settings), partitions, 1, extra=changelogs(name, TABLES))).demand()
    return url


def worker(settings: Settings, folder: Path, index: int = 0) -> ChildProcess:
    """A worker process, not yet started; ``<log>.ready`` beside its log appears once it consumes."""
    log = folder / f"{settings.app_id}-{index}.log"
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    own = settings.model_copy(
        update={"group_instance_id": f"{settings.app_id}-{index}", "ready_file": log.with_suffix(".ready")}
    )
    command = (sys.executable, "-m", "streams.cli", "worker")
    return ChildProcess(f"worker {index}", command, log, env=child_environment(own, {}))


async def committed(admin: AIOKafkaAdminClient, group: str, topic: str = topics.USAGE_EVENTS) -> int:
    """The sum of a group's committed offsets of a topic; 0 while the broker only makes its place for groups."""
    try:
        found = await admin.list_consumer_group_offsets(group)
    except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
        return 0
    return sum(max(0, entry.offset) for place, entry in found.items() if place.topic == topic)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its threads since its start; 0.0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def memory_mib(pid: int, peak: bool = False) -> float:
    """Resident memory of a process, now or at its peak, in MiB; 0.0 once it is gone."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(wanted)), 0.0)


def python_of(venv: str) -> str:
    """The interpreter of an environment beside the project."""
    return str(ROOT / venv / "bin" / "python")
