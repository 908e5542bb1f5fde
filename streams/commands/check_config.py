"""``sluice check-config``: settings, budgets file, rate card and routes together, every error of each at once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.commands.budget_words import drawing
from streams.core.budget_file import load_budget_file
from streams.core.rate_card import load_rate_card
from streams.core.routes_file import load_routes, unreachable
from streams.routes_setting import configured
from streams.settings import Settings, SettingsError, effective, load_settings
from streams.settings_sources import given_value

#: Files of their own form that settings name. They are checked also where other settings are wrong.
FILES: Mapping[str, Callable[[str], Any]] = {
    "budgets": load_budget_file,
    "rate_card": load_rate_card,
    "routes_file": load_routes,
}


def check(flags: Mapping[str, Any], out: Console, err: Console) -> int:
    """Print every problem and return 1, or print the effective settings (secrets masked) and return 0."""
    settings: Settings | None = None
    problems: list[str] = []
    try:
        settings = load_settings(**flags)
    except SettingsError as error:
        problems += error.problems
    read: dict[str, Any] = {}
    for name, load in FILES.items():
        path = given_value(name, flags)
        if not path or not Path(path).is_file():
            # A missing file is one of the settings' problems already.
            continue
        try:
            read[name] = load(Path(path).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            problems += [f"{path}: {line}" for line in str(error).splitlines()]
    if settings is not None and "routes_file" in read:
        lines = unreachable(read["routes_file"], configured(settings))
        problems += [f"{settings.routes_file}: {line}" for line in lines]
    if settings is None or problems:
        err.print(f"This configuration cannot be used, {len(problems)} problem(s):", style="bold red")
        for line in problems:
            err.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        return 1
    table = Table("setting", "value", "from", title="Effective settings", title_justify="left")
    for row in effective(settings, **flags):
        table.add_row(*row, style="dim" if row[2] == "default" else None)
    out.print(table)
    if "budgets" in read:
        out.print(drawing(read["budgets"]))
    budgets = f"{len(read['budgets'].budgets)} budgets" if "budgets" in read else "no budgets file"
    routes = f", {sum(1 for _ in read['routes_file'].root.walk())} routes" if "routes_file" in read else ""
    out.print(f"All good: {budgets}, {'a' if 'rate_card' in read else 'no'} rate card{routes}.")
    return 0
