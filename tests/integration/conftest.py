"""What the tests of stores share."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from streams.sinks.postgres import migrate, open_pool


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool on a database of this test's own, with every migration."""
    await migrate(database_url)
    opened = await open_pool(database_url)
    yield opened
    await opened.close()
