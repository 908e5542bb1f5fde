"""The limit: aiokafka reads the topic and throws it away. No decoding, no state; offsets are committed often."""

import asyncio
import contextlib

from aiokafka import AIOKafkaConsumer

from loadtest.bench.peers.place import here


async def read() -> None:
    """Read until the process is ended."""
    place = here()
    consumer = AIOKafkaConsumer(
        place.topic,
        bootstrap_servers=place.bootstrap,
        group_id=place.group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=250,
        # What Sluice's own consumer asks for.
        max_partition_fetch_bytes=1_048_576,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        while True:
            await consumer.getmany(timeout_ms=500)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(read())
