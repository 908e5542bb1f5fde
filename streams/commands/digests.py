"""``sluice digest``: a week in words."""

import textwrap

from rich.console import Console

from streams.commands.budgets import print_json
from streams.commands.ledger_desk import ledger_desk
from streams.commands.printing import print_line
from streams.settings import Settings
from streams.web.digests import digest_of, shown

WIDTH = 100


async def show(settings: Settings, team: str, model: str, models: bool, week: str, as_json: bool, out: Console) -> int:
    """Print the digest as it is told."""
    async with ledger_desk(settings) as at:
        facts, report = await digest_of(at.pool, settings, team, model, week, at.now, models=models)
    if as_json:
        print_json(out, shown(facts, report))
        return 0
    print_line(out, report.heading, "bold")
    for paragraph in report.paragraphs:
        print_line(out, "")
        for line in paragraph.split("\n"):
            hanging = "  " if line.startswith("· ") else ""
            for part in textwrap.wrap(
                line, min(WIDTH, out.width), subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
            ):
                print_line(out, part)
    return 0
