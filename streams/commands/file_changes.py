"""``sluice check-config --changes``: what a worker's next start would publish of the budgets file, and nothing done."""

from rich.console import Console

from streams.core.definition_file import changes_of
from streams.settings import Settings
from streams.sinks.postgres import open_pool
from streams.worker import definition_store, read_budgets


async def show(settings: Settings, out: Console) -> int:
    """One line for each definition that would change.

    Raises:
        SettingsError: no broker or database is given, or the file cannot be used.
        DeliveryError: the broker cannot be read now.
    """
    entries = read_budgets(settings)
    if entries is None or settings.budgets is None or settings.database_url is None:
        out.print("Nothing to compare: that takes a budgets file, a broker and a database.")
        return 1
    pool = await open_pool(settings.database_url.get_secret_value())
    try:
        standing = await definition_store(settings, pool).standing()
    finally:
        await pool.close()
    changes = changes_of(entries, standing, settings.budgets.name)
    for change in changes:
        out.print(f"{change.what}: {change.key}", markup=False, highlight=False)
    out.print(f"{len(changes)} definition(s) would change." if changes else "Nothing would change.")
    return 0
