"""``sluice simulate``: what proposed budgets would have done to recorded usage."""

import asyncio
from pathlib import Path

import msgspec
from rich.console import Console

from schemas.budgets import Budget, Definition, Limit
from schemas.instants import SECOND, InstantError, parse_instant
from streams.app import limits_of
from streams.commands.printing import print_line
from streams.commands.running import complete
from streams.core.budget_file import definitions_of
from streams.core.budget_terms import counted_budgets
from streams.core.charging import Charging
from streams.core.definitions import Definitions
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, watched_of
from streams.kafka_connection import connection
from streams.settings import Settings, SettingsError
from streams.simulation.calls import Call, SimulationError, from_trace
from streams.simulation.report import as_json, show
from streams.simulation.run import Plan, Simulation
from streams.simulation.topics import from_topics
from streams.sources.replay import team_map_of
from streams.sources.traces import Format, TraceError
from streams.worker import read_prices


async def run(
    settings: Settings,
    budgets: Path,
    trace: tuple[Path, Format, Path | None] | None,
    since: str | None,
    until: str | None,
    delay_s: float,
    as_written: bool,
    json: bool,
    out: Console,
) -> int:
    """Print the report; 1 where the trace or the times cannot be used.

    ``trace`` is a file, how it is written, and its team map; without one the usage topics are read. Every budget
    is taken to enforce, unless ``as_written``.

    Raises:
        SettingsError: the budgets cannot be used, or no broker is given.
    """
    proposed = _proposed(budgets, as_written)
    plan = plan_of(settings, proposed, round(delay_s * SECOND))
    try:
        calls = await _calls(settings, plan.rules, trace, _instant(since, "--from"), _instant(until, "--to"))
        if not calls:
            raise SimulationError("nothing happened between --from and --to in this trace")
        outcome = await asyncio.to_thread(Simulation(plan).run, calls)
    except (TraceError, SimulationError) as error:
        print_line(out, str(error), "red")
        return 1
    if json:
        print_line(out, msgspec.json.format(msgspec.json.encode(as_json(outcome, plan.delay_us)), indent=2).decode())
    else:
        show(outcome, plan.delay_us, out)
    return 0


def plan_of(settings: Settings, proposed: Definitions, delay_us: int) -> Plan:
    """The real rules of METER and terms of BUDGET, for these budgets."""
    rules = Rules(
        limits=limits_of(settings),
        pricing=Charging(read_prices(settings), frozenset(settings.metered_providers)),
        watchlist=ScopeWatchlist([watched_of(budget) for budget in counted_budgets(proposed).values()]),
        org_id=settings.org_id,
        runaway_tokens=settings.runaway_tokens,
        dedupe_window_us=settings.dedupe_window_s * SECOND,
    )
    return Plan(proposed, rules, delay_us)


def proposed_of(text: str, as_written: bool) -> Definitions:
    """What a budgets file defines; everything enforces, unless it is to be as it is written.

    Raises:
        ValueError: with every error in the file.
    """
    found = definitions_of(text)
    return Definitions().changed(found if as_written else {key: _enforced(each) for key, each in found.items()})


def _enforced(definition: Definition) -> Definition:
    if isinstance(definition, Budget | Limit):
        return msgspec.structs.replace(definition, mode="enforce")
    return definition


def _proposed(path: Path, as_written: bool) -> Definitions:
    try:
        return proposed_of(path.read_text(encoding="utf-8"), as_written)
    except (ValueError, OSError) as error:
        raise SettingsError([f"{path}: {line}" for line in str(error).splitlines()]) from error


async def _calls(
    settings: Settings,
    rules: Rules,
    trace: tuple[Path, Format, Path | None] | None,
    since: int | None,
    until: int | None,
) -> list[Call]:
    if trace is not None:
        path, kind, team_map = trace
        return await asyncio.to_thread(from_trace, path, kind, team_map_of(team_map), since, until)
    if since is None or until is None:
        raise SimulationError("say which recorded usage: --from and --to, or a trace with --format")
    return await from_topics(connection(complete(settings, "kafka_url")), since, until, rules.limits)


def _instant(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_instant(text if len(text) > 10 else f"{text}T00:00:00Z")
    except InstantError as error:
        example = "2026-11-21 or 2026-11-21T09:00:00Z"
        raise SimulationError(f"{name} is a date or an instant with an offset, such as {example}: {error}") from error
