"""Makes a changelog as long as a day's load leaves it: every entry that counts is written again, many times over.

The values stay what they are, so a restart restores the same state; it only has more to read.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer

from streams.transport.changelog import read_newest
from streams.transport.driver import BATCH_BYTES, COMPRESSION

Entries = Sequence[tuple[bytes, bytes]]


async def rewrite(bootstrap: str, changelog: str, partitions: int, count: int) -> int:
    """Write ``count`` records or somewhat more, every entry equally often; returns how many."""
    newest = await read_newest({"bootstrap_servers": [bootstrap]}, changelog, set(range(partitions)))
    live = {
        partition: [(key, value) for key, value in found.items() if key.startswith(b"entry:")]
        for partition, found in newest.entries.items()
    }
    rounds = -(-count // max(1, sum(map(len, live.values()))))
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        compression_type=COMPRESSION,
        max_batch_size=BATCH_BYTES,
    )
    await producer.start()
    try:
        chance = random.Random(1)
        for _ in range(rounds):
            await _write_all(producer, changelog, live, chance)
    finally:
        await producer.stop()
    return rounds * sum(map(len, live.values()))


async def _write_all(
    producer: AIOKafkaProducer, changelog: str, live: Mapping[int, Entries], chance: random.Random
) -> None:
    sent = []
    for partition, entries in live.items():
        batch = producer.create_batch()
        for key, value in chance.sample(entries, len(entries)):
            if batch.append(key=key, value=value, timestamp=None) is None:
                sent.append(await producer.send_batch(batch, changelog, partition=partition))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        sent.append(await producer.send_batch(batch, changelog, partition=partition))
    await asyncio.gather(*sent)
