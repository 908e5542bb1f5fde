"""Reads back what tests published; topics are shared between tests, so each looks for its own records."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.clock import elapsed_s
from streams.topic_admin import ensure_topics

PARTITIONS = 4


def connection(kafka_url: str) -> dict[str, Any]:
    """aiokafka's arguments for a broker without security."""
    return {"bootstrap_servers": kafka_url.split(",")}


async def with_topics(kafka_url: str) -> dict[str, Any]:
    """The connection, once all topics of Sluice are there."""
    await ensure_topics(connection(kafka_url), PARTITIONS, 1)
    return connection(kafka_url)


async def eventually(check: Callable[[], Any], deadline_s: float = 15.0) -> Any:
    """What ``check`` returns as soon as it is true; fails after ``deadline_s``."""
    until = elapsed_s() + deadline_s
    while not (found := check()):
        assert elapsed_s() < until, f"did not come true within {deadline_s:g} s"
        await asyncio.sleep(0.02)
    return found


async def records_of(kafka_url: str, topic: str, mine: Callable[[Any], bool]) -> list[Any]:
    """All records of a topic up to its present end that are ``mine``, by partition and offset."""
    consumer = AIOKafkaConsumer(**connection(kafka_url), auto_offset_reset="earliest", fetch_max_wait_ms=50)
    await consumer.start()
    try:
        await consumer.topics()
        numbers = await _partitions(consumer, topic)
        partitions = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found = []
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                for records in (await consumer.getmany(partition, timeout_ms=1_000)).values():
                    found += [record for record in records if mine(record)]
        return found
    finally:
        await consumer.stop()


async def eventually_records(
    kafka_url: str, topic: str, mine: Callable[[Any], bool], count: int, deadline_s: float = 15.0
) -> list[Any]:
    """At least ``count`` records that are ``mine``; fails after ``deadline_s``."""
    until = elapsed_s() + deadline_s
    while len(found := await records_of(kafka_url, topic, mine)) < count:
        assert elapsed_s() < until, f"{len(found)} of {count} records on {topic} after {deadline_s:g} s"
        await asyncio.sleep(0.05)
    return found


def header(record: Any, name: str) -> str:
    """A header's text; empty where there is none."""
    return dict(record.headers).get(name, b"").decode()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    known = consumer.partitions_for_topic(topic)
    if not known:
        consumer.subscribe([topic])
        await eventually(lambda: consumer.partitions_for_topic(topic))
        known = consumer.partitions_for_topic(topic)
        consumer.unsubscribe()
    return sorted(known or ())
