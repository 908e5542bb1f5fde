"""``sluice limits list``."""

from rich.console import Console

from schemas.money import display_usd
from streams.commands.budgets import print_json
from streams.commands.desk import desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.budget_entry import entry_of_limit
from streams.core.letters import escaped
from streams.settings import Settings


async def show_list(settings: Settings, as_json: bool, out: Console) -> int:
    """The standing limits, with who set them and why."""
    async with desk(settings) as at:
        found = sorted(at.known.limits.values(), key=lambda limit: limit.id)
    if as_json:
        limits = [
            {"limit": entry_of_limit(each), "version": each.version, "by": each.changed_by, "reason": each.reason}
            for each in found
        ]
        print_json(out, {"limits": limits})
        return 0
    if not found:
        print_line(out, "no standing limits are defined")
        return 0
    rows: list[list[Cell]] = []
    for each in found:
        sizes = [
            f"{each.rpm:,} calls" if each.rpm is not None else "",
            f"{each.tpm:,} tokens" if each.tpm is not None else "",
            display_usd(each.nanos_per_minute) if each.nanos_per_minute is not None else "",
        ]
        only = ", ".join((*each.request_types, *each.environments))
        whom = f"{each.target.scope_type} {escaped(each.target.scope_id)}" + (f" ({only})" if only else "")
        per_minute = ", ".join(filter(None, sizes))
        rows.append([each.id, whom, per_minute, each.mode, escaped(each.changed_by), escaped(each.reason)])
    print_table(out, ("limit", "whom", "a minute", "mode", "by", "why"), rows)
    return 0
