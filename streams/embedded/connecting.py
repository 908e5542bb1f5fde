"""Asks a broker who it is, so that readiness means ours answers and not another one on a port it lost."""

import asyncio
import logging

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.embedded.process import port_answers


async def cluster_id_at(port: int) -> str | None:
    """Cluster id of the broker on this port of 127.0.0.1; None while it is not ready for clients."""
    if not await port_answers(port):
        return None
    admin = AIOKafkaAdminClient(
        bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=2_000, metadata_max_age_ms=300_000
    )
    # A broker that is still starting refuses; that is an answer here and no error to show.
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        async with asyncio.timeout(5.0):
            await admin.start()
            cluster = await admin.describe_cluster()
            return str(cluster["cluster_id"]) if cluster["brokers"] else None
    except (KafkaError, OSError, TimeoutError):
        return None
    finally:
        await admin.close()
        logger.setLevel(level)
