"""``sluice keys``: make, list and end API keys."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from rich.console import Console
from rich.table import Table

from streams.commands.running import complete
from streams.settings import Settings
from streams.sinks.api_keys import ApiKeys, KeyRequestError
from streams.sinks.postgres import migrate, open_pool


@contextlib.asynccontextmanager
async def _keys(settings: Settings) -> AsyncIterator[ApiKeys]:
    database = complete(settings, "database_url").database_url
    assert database is not None
    await migrate(database.get_secret_value())
    pool = await open_pool(database.get_secret_value())
    try:
        yield ApiKeys(pool)
    finally:
        await pool.close()


async def create(settings: Settings, name: str, scopes: Sequence[str], team: str, out: Console) -> int:
    """Print a new key, this once."""
    async with _keys(settings) as keys:
        try:
            key = await keys.create(name, list(scopes), team)
        except KeyRequestError as error:
            out.print(str(error), style="red", markup=False)
            return 1
    out.print(key, markup=False, highlight=False, soft_wrap=True)
    return 0


async def show(settings: Settings, out: Console) -> int:
    """A table of the keys."""
    async with _keys(settings) as keys:
        rows = await keys.list()
    table = Table("id", "name", "scopes", "team", "created", "revoked")
    for row in rows:
        revoked = row.revoked_at.isoformat(" ", "seconds") if row.revoked_at else ""
        table.add_row(
            row.key_id, row.name, ", ".join(row.scopes), row.team_id, row.created_at.isoformat(" ", "seconds"), revoked
        )
    out.print(table)
    return 0


async def revoke(settings: Settings, key_id: str, out: Console) -> int:
    """End a key."""
    async with _keys(settings) as keys:
        done = await keys.revoke(key_id)
    out.print(f"{key_id} is revoked" if done else f"there is no live key {key_id}", markup=False)
    return 0 if done else 1
