"""Where commands do their work that need the ledger alone."""

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg

from streams.clock import WallClock
from streams.commands.running import complete
from streams.settings import Settings
from streams.sinks.postgres import migrate, open_pool


class LedgerDesk(NamedTuple):
    """What is open while a command runs; ``now`` is when it began, in microseconds."""

    pool: asyncpg.Pool
    now: int


@contextlib.asynccontextmanager
async def ledger_desk(settings: Settings) -> AsyncIterator[LedgerDesk]:
    """The ledger at this version's migrations.

    Raises:
        SettingsError: where it is, is not known.
    """
    url = complete(settings, "database_url").database_url
    assert url is not None
    await migrate(url.get_secret_value())
    pool = await open_pool(url.get_secret_value())
    try:
        yield LedgerDesk(pool, WallClock().now())
    finally:
        await pool.close()
