"""Dead letters for tests, as METER writes them, and what tests ask of them afterwards."""

import asyncio
import io
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from rich.console import Console

from schemas import topics
from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE
from schemas.instants import format_instant
from schemas.statements import Source
from streams.agents.entries import dead_letter_record
from streams.clock import WallClock
from streams.core.letters import REPLAY_OF, Letter, replayed_headers
from streams.core.reading import Reason
from streams.core.rules import DeadLetter
from streams.dead_letters.log import LogReader
from streams.dead_letters.reading import letters
from streams.dead_letters.replaying import Replayer
from streams.kafka_connection import connection
from streams.settings import Settings, load_settings
from streams.settings_sources import PREFIX, as_variables
from tests.integration.reading import header, records_of
from tests.unit.records import RawRecord

GOOD = b'{"provider":"openai","request_model":"gpt-4o","team_id":"search","input_tokens":1000}'


def raw(offset: int, value: bytes = GOOD, key: bytes | None = b"search", at: int | None = None) -> RawRecord:
    """A usage record that could be counted now, if nothing else is said."""
    now = WallClock().now()
    headers = binary_headers(
        id=uuid4().hex, source="//test", type=USAGE_TYPE, time=format_instant(now if at is None else at)
    )
    return RawRecord(offset, now // 1_000, value, headers, key)


async def bury(kafka_url: str, records: list[tuple[int, RawRecord, Reason]], topic: str = topics.USAGE_EVENTS) -> None:
    """Write records as dead letters of ``topic``: (partition, record, reason)."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_url, acks="all")
    await producer.start()
    try:
        sent = []
        for partition, record, reason in records:
            letter = dead_letter_record(DeadLetter(record, reason, f"because of {reason}"), Source(topic, 0, partition))
            sent.append(
                await producer.send(
                    letter.topic,
                    key=letter.key,
                    value=letter.value,
                    headers=list(letter.headers),
                    partition=letter.partition,
                )
            )
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def settings_for(kafka_url: str, app_id: str, state: Path, **changes: Any) -> Settings:
    """Settings of a deployment on this broker."""
    return load_settings(kafka_url=kafka_url, app_id=app_id, state_dir=state, **changes)


async def came_back(kafka_url: str, topic: str = topics.USAGE_EVENTS) -> Counter[str]:
    """How often each letter lies on its source topic, as METER reads it: aborted transactions too."""
    found = await records_of(kafka_url, topic, lambda record: bool(header(record, REPLAY_OF)))
    return Counter(header(record, REPLAY_OF) for record in found)


async def forget_records(kafka_url: str) -> None:
    """Take every record from the inputs and their dead-letter topics, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_url)
    await admin.start()
    await consumer.start()
    try:
        names = [topic.name for topic in (*topics.INPUTS, *topics.DEAD_LETTERS)]
        counts = {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics(names)}
        places = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        ends = await consumer.end_offsets(places)
        if gone := {place: RecordsToDelete(before_offset=end) for place, end in ends.items() if end}:
            await admin.delete_records(gone)
    finally:
        await consumer.stop()
        await admin.close()


async def all_letters(settings: Settings) -> list[Letter]:
    """Every letter there is."""
    async with LogReader(connection(settings), committed=False) as log:
        return [letter async for letter in letters(log)]


async def killed_in_a_batch(settings: Settings, batch: list[Letter], sent: int) -> None:
    """A replay that is killed after it planned this batch and the broker took ``sent`` of its records.

    The connections drop as those of a killed process do: the transaction is neither committed nor aborted.
    """
    replayer = Replayer(connection(settings), settings.app_id, 1, WallClock())
    await replayer.__aenter__()
    planned = await replayer._plan(batch)
    await replayer._write({plan.identity: plan.progress for plan in planned})
    producer = replayer._producer
    await producer.begin_transaction()
    for plan in planned[:sent]:
        await producer.send_and_wait(
            plan.progress.topic, key=plan.letter.key, value=plan.letter.value,
            headers=replayed_headers(plan.letter), partition=plan.progress.partition,
        )  # fmt: skip
    producer._sender._sender_task.cancel()
    await asyncio.gather(producer._sender._sender_task, return_exceptions=True)
    await producer.client.close()
    producer._closed = True
    await replayer._log.__aexit__(None, None, None)


def paper() -> Console:
    """A console that is no terminal; what was printed is in ``.file``."""
    return Console(file=io.StringIO(), width=200)


def text_of(console: Console) -> str:
    """What was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def start_sluice(settings: Settings, *arguments: str) -> asyncio.subprocess.Process:
    """The command line in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.cli", *arguments, env=clean | as_variables(settings),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
