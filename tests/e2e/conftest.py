"""A whole service for one test module: its own broker, database, worker and API, as an operator runs them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import topics
from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE
from schemas.instants import format_instant
from streams.clock import WallClock
from streams.embedded.broker import Broker
from streams.settings import load_settings
from streams.sinks.postgres import open_pool
from streams.supervisor import Supervisor

DEADLINE_S = 60.0


class Service:
    """A running service with what tests do to it."""

    def __init__(self, running: Supervisor, pool: asyncpg.Pool, producer: AIOKafkaProducer) -> None:
        self.running = running
        self.pool = pool
        self.producer = producer

    async def until(self, condition: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Poll until the condition gives something true, or fail saying what was waited for."""
        last = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (last := await condition()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log = self.running.workers[0].log.read_text()[-3000:]
            pytest.fail(f"waited {DEADLINE_S:.0f} s for {what}; last seen {last!r}; the worker's log ends:\n{log}")
        return last

    async def send(
        self, data: dict[str, Any] | bytes, *, id: str, type: str = USAGE_TYPE, topic: str = topics.USAGE_EVENTS,
        key: str = "k", time: str | None = None, headers: list[tuple[str, bytes]] | None = None,
    ) -> None:  # fmt: skip
        """Publish one record and wait for the broker."""
        value = data if isinstance(data, bytes) else json.dumps(data).encode()
        if headers is None:
            now = time or format_instant(WallClock().now())
            headers = binary_headers(id=id, source="//test", type=type, time=now)
        await self.producer.send_and_wait(topic, key=key.encode(), value=value, headers=headers)

    async def caught_up(self, topic: str) -> None:
        """Wait until the ledger holds everything that the topic has now."""
        partitions = self.running.settings.partitions
        consumer = AIOKafkaConsumer(bootstrap_servers=self.running.kafka_url)
        await consumer.start()
        try:
            ends = await consumer.end_offsets([TopicPartition(topic, p) for p in range(partitions)])
        finally:
            await consumer.stop()
        wanted = {f"{topic}@0-{place.partition}": end for place, end in ends.items() if end}

        async def reached() -> bool:
            rows = await self.pool.fetch("select slot, next_offset from ledger_sources")
            found = {row["slot"]: row["next_offset"] for row in rows}
            return all(found.get(slot, 0) >= end for slot, end in wanted.items())

        await self.until(reached, f"the ledger to reach {wanted}")

    async def dead_letters(self, topic: str) -> list[Any]:
        """All records on the topic's dead-letter topic."""
        name = topics.dead_letter(topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.running.kafka_url, auto_offset_reset="earliest", max_partition_fetch_bytes=8_388_608
        )
        await consumer.start()
        try:
            places = [TopicPartition(name, p) for p in range(self.running.settings.partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            found: list[Any] = []
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()


@contextlib.asynccontextmanager
async def run_service(
    broker: Broker, database_url: str, state_dir: Path, workers: int = 1, **changes: Any
) -> AsyncIterator[Service]:
    """A service on this broker and database, with signals left to pytest."""
    settings = load_settings(
        kafka_url=broker.bootstrap,
        kafka_idempotence=broker.is_real_kafka,
        rebalance_timeout_s=60.0 if broker.is_real_kafka else 6.0,
        database_url=database_url,
        state_dir=state_dir,
        api_port=0,
        **changes,
    )
    async with Supervisor(settings, workers, handle_signals=False) as running:
        pool = await open_pool(running.database_url)
        producer = AIOKafkaProducer(
            bootstrap_servers=running.kafka_url, acks="all", max_request_size=5_000_000, linger_ms=2
        )
        await producer.start()
        try:
            yield Service(running, pool, producer)
        finally:
            await producer.stop()
            await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(request, fresh_kafka, postgres, tmp_path_factory):
    """The module's service; ``SERVICE = {...}`` in the module changes its settings, ``WORKERS = 2`` their number."""
    database = await postgres.create_database(f"e2e_{uuid4().hex[:12]}")
    state = tmp_path_factory.mktemp("service")
    changes = getattr(request.module, "SERVICE", {})
    workers = getattr(request.module, "WORKERS", 1)
    async with run_service(fresh_kafka, database, state, workers, **changes) as found:
        yield found
