"""``sluice inventory``: what costs money, when it was last used, and how its cost changed."""

import asyncpg
from rich.console import Console

from streams.clock import WallClock
from streams.commands.printing import print_line, print_table
from streams.commands.running import complete
from streams.settings import Settings
from streams.sinks.postgres import migrate, open_pool
from streams.web.inventory import InventoryQuery, inventory_of
from streams.web.queries import newest_stream_time


async def show(settings: Settings, query: InventoryQuery, out: Console, as_json: bool) -> int:
    """Print the resources that the query asks for."""
    database = complete(settings, "database_url").database_url
    assert database is not None
    await migrate(database.get_secret_value())
    pool: asyncpg.Pool = await open_pool(database.get_secret_value())
    try:
        heard = await newest_stream_time(pool) if settings.clock == "stream" else None
        found = await inventory_of(pool, query, heard or WallClock().now())
    finally:
        await pool.close()
    if as_json:
        print_line(out, found.model_dump_json(indent=2))
        return 0
    columns = (
        "team",
        "feature",
        "category",
        "provider",
        "model",
        "environment",
        "last use",
        "30 days",
        "7 days",
        "before",
    )
    rows = [
        (
            each.team_id, each.feature, each.category, each.provider, each.model, each.environment,
            f"{each.last_use[:16]}Z" if each.last_use else "never", each.cost_30d,
            (each.cost_7d, "red") if each.week_over_week else each.cost_7d, each.cost_7d_before,
        )
        for each in found.resources
    ]  # fmt: skip
    print_table(out, columns, rows, numbers=("30 days", "7 days", "before"))
    print_line(out, f"{len(found.resources)} of {found.count} resources, the dearest first; amounts are dollars")
    return 0
