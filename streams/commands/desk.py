"""Where the commands that define do their work: the store of definitions and the ledger, with or without the API."""

import contextlib
import logging
import os
import pwd
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
from aiokafka.errors import KafkaError

from streams.clock import WallClock
from streams.commands.running import complete
from streams.core.definitions import Definitions
from streams.kafka_connection import connection
from streams.ports import DefinitionStore, ReleaseSwitch, RetryableError
from streams.settings import Settings
from streams.sinks.definitions import KafkaDefinitions
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.releases import KafkaReleases
from streams.sources.publisher import UsagePublishing


class Desk(NamedTuple):
    """What is open while a command runs."""

    store: DefinitionStore
    pool: asyncpg.Pool
    #: What was defined when the command began.
    known: Definitions
    now: int


def login_name() -> str:
    """Who is at the keyboard: the operating system's word, since a variable is anybody's."""
    try:
        return f"{pwd.getpwuid(os.getuid()).pw_name} (cli)"
    except KeyError:
        return f"user {os.getuid()} (cli)"


@contextlib.asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """The store and the ledger, and what is defined.

    Raises:
        SettingsError: where they are is not known.
        DeliveryError: the broker does not answer.
    """
    settings = complete(settings, "kafka_url", "database_url")
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    async with _plainly(settings):
        await migrate(url)
        pool = await open_pool(url)
        try:
            clock = WallClock()
            store = KafkaDefinitions(connection(settings), pool, clock.now, settings.partitions)
            known = Definitions().changed(await store.current())
            yield Desk(store, pool, known, clock.now())
        finally:
            await pool.close()


@contextlib.asynccontextmanager
async def switch(settings: Settings) -> AsyncIterator[ReleaseSwitch]:
    """The release of every gate: the broker is all that it needs."""
    settings = complete(settings, "kafka_url")
    async with _plainly(settings):
        publisher = UsagePublishing(connection(settings), idempotence=settings.kafka_idempotence)
        try:
            yield KafkaReleases(connection(settings), publisher)
        finally:
            await publisher.stop()


@contextlib.asynccontextmanager
async def _plainly(settings: Settings) -> AsyncIterator[None]:
    """What Kafka cannot do, in words; its client's own lines say the same less plainly."""
    for name in ("aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except KafkaError as error:
        raise RetryableError(
            f"Kafka at {settings.kafka_url} did not do as asked: {error!r}; see `sluice doctor`"
        ) from error
