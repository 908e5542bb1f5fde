"""``sluice api``: the API with the dashboard, and the GPU scraper beside it."""

import asyncio
import contextlib
import logging

import uvicorn

from streams import metrics
from streams.clock import WallClock
from streams.kafka_connection import connection
from streams.settings import Settings, SettingsError
from streams.sinks.api_keys import ApiKeys
from streams.sinks.definitions import KafkaDefinitions
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.releases import KafkaReleases
from streams.sources.dcgm import GpuScraper
from streams.sources.publisher import UsagePublishing
from streams.web.app import create_api

logger = logging.getLogger("sluice.api")


async def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM (uvicorn's own handling)."""
    if settings.database_url is None:
        raise SettingsError(["database_url is not set: give postgresql://…, or use `sluice up`, which starts one"])
    url = settings.database_url.get_secret_value()
    await migrate(url)
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(url)
        stack.push_async_callback(pool.close)
        publisher = UsagePublishing(connection(settings), idempotence=settings.kafka_idempotence)
        stack.push_async_callback(publisher.stop)
        reached = connection(settings)
        api = create_api(
            settings, pool, publisher, ApiKeys(pool),
            definitions=KafkaDefinitions(reached, pool, WallClock().now, settings.partitions),
            releases=KafkaReleases(reached, publisher),
        )  # fmt: skip
        server = uvicorn.Server(
            uvicorn.Config(
                api, host=settings.api_host, port=settings.api_port, log_config=None, access_log=False,
                timeout_graceful_shutdown=5, server_header=False,
            )
        )  # fmt: skip
        metrics.RECORDS_PUBLISHED.set_function(lambda: publisher.published)
        metrics.RECORDS_FAILED.set_function(lambda: publisher.failed)
        logger.info("the API and the dashboard are at http://%s:%d", settings.api_host, settings.api_port)
        await _with_scraper(settings, publisher, server)
        logger.info("the API has stopped")
    return 0


async def _with_scraper(settings: Settings, publisher: UsagePublishing, server: uvicorn.Server) -> None:
    stop = asyncio.Event()
    tasks = []
    if settings.gpu_targets:
        scraper = GpuScraper(
            settings.gpu_targets,
            publisher,
            WallClock(),
            interval_s=settings.gpu_scrape_interval_s,
            team_by_namespace=settings.gpu_team_by_namespace,
        )
        metrics.GPU_SCRAPES.labels(outcome="ok").set_function(lambda: scraper.scrapes_ok)
        metrics.GPU_SCRAPES.labels(outcome="failed").set_function(lambda: scraper.scrapes_failed)
        metrics.GPU_SAMPLES_LOST.set_function(lambda: scraper.samples_lost)
        tasks.append(asyncio.create_task(scraper.run(stop)))
    try:
        await server.serve()
    finally:
        stop.set()
        await asyncio.gather(*tasks)
