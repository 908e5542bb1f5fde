"""``sluice doctor``: everything that a deployment needs, one line an item, and what to do where it is not well."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.clock import Clock
from streams.commands.printing import print_line
from streams.commands.running import complete
from streams.core.diagnosis import diagnose, is_well
from streams.core.facts import Bounds, Finding, Level
from streams.doctor.probe import gather
from streams.settings import Settings

MARKS = {
    Level.OK: ("✓", "green"),
    Level.WARN: ("▲", "yellow"),
    Level.FAIL: ("✗", "bold red"),
    Level.SKIP: ("·", "dim"),
}
DETAILS_SHOWN = 12


async def examine(settings: Settings, clock: Clock, out: Console, *, as_json: bool = False, **bounds: Any) -> int:
    """Gather, judge and print; 0 when nothing fails, else 1. ``bounds`` are fields of ``Bounds``."""
    # Their own lines say what a finding says, less plainly.
    for name in ("aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = complete(settings, "kafka_url", "database_url")
    if as_json or not out.is_terminal:
        facts = await gather(settings, clock)
    else:
        with out.status("asking the broker and the database"):
            facts = await gather(settings, clock)
    findings = diagnose(facts, Bounds(settings.partitions, settings.app_id, str(settings.kafka_url), **bounds))
    well = is_well(findings)
    if as_json:
        answer = {"ok": well, "items": [msgspec.to_builtins(finding) for finding in findings]}
        print_line(out, json.dumps(answer, indent=2))
    elif out.is_terminal:
        out.print(_drawn(findings))
        print_line(out, _verdict(findings), "bold green" if well else "bold red")
    else:
        _print_plain(out, findings)
        print_line(out, _verdict(findings))
    return 0 if well else 1


def _drawn(findings: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 1), expand=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.level]
        what = Text(finding.found, "dim" if finding.level is Level.SKIP else "")
        for line in _details(finding):
            what.append(f"\n{line}", "dim")
        if finding.todo:
            what.append("\n→ ", style)
            what.append(finding.todo, "italic")
        table.add_row(Text(mark, style), Text(finding.level, style), finding.item, what)
    return table


def _print_plain(out: Console, findings: Sequence[Finding]) -> None:
    width = max(len(finding.item) for finding in findings)
    for finding in findings:
        todo = f"; do: {finding.todo}" if finding.todo else ""
        print_line(out, f"{finding.level:<4}  {finding.item:<{width}}  {finding.found}{todo}")
        for line in _details(finding):
            print_line(out, f"      {'':<{width}}  - {line}")


def _details(finding: Finding) -> list[str]:
    shown = list(finding.details[:DETAILS_SHOWN])
    more = len(finding.details) - len(shown)
    return [*shown, f"… and {more} more"] if more else shown


def _verdict(findings: Sequence[Finding]) -> str:
    failed = [finding.item for finding in findings if finding.level is Level.FAIL]
    warned = sum(finding.level is Level.WARN for finding in findings)
    warnings = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
    return f"not well: {', '.join(failed)}{warnings}" if failed else f"all is well{warnings}"
