"""Compares this machine's clock with the broker's and the database's.

Kafka tells its time in one way only: by stamping what it appends. A topic of one partition and an hour's retention is
there for nothing else; three empty records are the whole side effect.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.instants import to_micros
from schemas.topics import Topic
from streams.clock import Clock
from streams.core.facts import ClockFact
from streams.topic_admin import TopicError, ensure_topics

PROBES = 3
HOUR_MS = 3_600_000
#: Kafka's stamps are whole milliseconds.
KAFKA_GRAIN_US = 1_000
LOG_APPEND_TIME = 1


def probe_topic(app_id: str) -> Topic:
    """Where the broker stamps the probes.

    >>> probe_topic("sluice").config()["message.timestamp.type"]
    'LogAppendTime'
    """
    return Topic(f"{app_id}-doctor", "none", HOUR_MS, broker_time=True)


async def compare(name: str, clock: Clock, ask: Callable[[], Awaitable[int]], grain_us: int = 1) -> ClockFact:
    """Ask the other's time a few times and keep what the shortest exchange says: it lay within that exchange."""
    best: tuple[int, int, int] | None = None
    for _ in range(PROBES):
        before = clock.now()
        theirs = await ask()
        after = clock.now()
        if best is None or after - before < best[0]:
            best = after - before, before - theirs - grain_us, after - theirs
    assert best is not None
    return ClockFact(name, best[1], best[2])


async def kafka_clock(connection: Mapping[str, Any], app_id: str, replication: int, clock: Clock) -> ClockFact:
    """How far this machine is ahead of the broker that holds the probe topic."""
    topic = probe_topic(app_id)
    try:
        await ensure_topics(connection, 1, replication, topics=(), extra=(topic,))
        async with AIOKafkaProducer(**connection, acks=1, request_timeout_ms=10_000) as producer:

            async def ask() -> int:
                sent = await producer.send_and_wait(topic.name, value=b"", partition=0)
                if sent.timestamp_type != LOG_APPEND_TIME:
                    raise TopicError(f"{topic.name} is not stamped by the broker: alter its message.timestamp.type")
                return int(sent.timestamp) * 1_000

            await ask()  # opens the connection, which takes longer than the exchange
            return await compare("Kafka", clock, ask, KAFKA_GRAIN_US)
    except (KafkaError, TopicError, TimeoutError) as error:
        return ClockFact("Kafka", problem=f"its time is not known: {error or repr(error)}")


async def database_clock(connection: asyncpg.Connection, clock: Clock) -> ClockFact:
    """How far this machine is ahead of PostgreSQL."""

    async def ask() -> int:
        return to_micros(await connection.fetchval("select clock_timestamp()"))

    return await compare("PostgreSQL", clock, ask)
