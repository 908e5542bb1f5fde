"""``sluice budgets``: look at budgets and who spent them, define, raise and withdraw them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.console import Console

from schemas.budgets import Budget, Definition, Limit
from schemas.instants import SECOND, format_instant
from schemas.money import display_usd, format_usd, parse_nanos
from streams.commands.budget_words import details
from streams.commands.desk import Desk, desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.budget_entry import entry_of, entry_of_limit
from streams.core.budget_file import definitions_of
from streams.core.defining import RequestError, Wrong, override_of, said
from streams.core.letters import escaped
from streams.settings import Settings
from streams.web import queries
from streams.web.answers import Budget as Standing
from streams.web.budgets import entry_in_history, overrides_of, standing_of, versions_about
from streams.web.outlook import outlook
from streams.web.showback import ShowbackQuery, showback_of

BAR = 10
SEVERE = {0: "", 50: "", 75: "yellow", 90: "bold yellow", 100: "bold red"}


def print_json(out: Console, answer: Any) -> None:
    """For machines: exact amounts as texts, one document."""
    print_line(out, json.dumps(answer, indent=2, ensure_ascii=False))


def day_minute(text: str) -> str:
    """``2026-11-21 14:35`` of an instant, UTC."""
    return text[:16].replace("T", " ")


def named(key: str) -> str:
    """A definition's key for people.

    >>> named("budget|search-daily"), named("grant||gpt-5-pro"), named("grant|search|gpt-5-pro")
    ('budget search-daily', 'expensive model gpt-5-pro', 'grant search gpt-5-pro')
    """
    return key.replace("grant||", "expensive model ").replace("|", " ")


def money(text: str) -> str:
    """An exact amount for people."""
    return display_usd(parse_nanos(text))


# -- list and show --------------------------------------------------------------------------------------------------


async def show_list(settings: Settings, team: str, as_json: bool, out: Console) -> int:
    """``list``: every budget that is defined, the fullest first."""
    async with desk(settings) as at:
        rows = await queries.budgets(at.pool, "")
        ahead = await outlook(at.pool, rows, at.now)
    standing = [standing_of(row, at.now, at.known, ahead) for row in rows]
    mine = {
        budget.id: budget for budget in at.known.budgets.values()
        if not team or ("team", team) in budget.match or budget.target.key() == f"team:{team}"
    }  # fmt: skip
    known = [one for one in standing if one.budget_id in mine]
    silent = [mine[name] for name in sorted(set(mine) - {one.budget_id for one in known})]
    if as_json:
        idle = [{"budget": entry_of(budget), "version": budget.version} for budget in silent]
        print_json(out, {"budgets": [one.model_dump() for one in known], "idle": idle})
        return 0
    if not mine:
        print_line(out, "no budgets are defined" + (f" for team {team}" if team else ""))
        print_line(out, "write a budgets.yaml, and: sluice budgets set budgets.yaml --why …", "dim")
        return 0
    columns = ("budget", "whom", "period", "spent", "of", "used", "")
    print_table(out, columns, [_line(one) for one in known] + [_silent(budget) for budget in silent], columns[3:6])
    observing = sum(budget.mode == "observe" for budget in mine.values())
    if observing:
        print_line(out, f"{observing} of {len(mine)} observe: they report what they would have throttled", "dim")
    return 0


def _line(one: Standing) -> list[Cell]:
    percent = float(one.used_percent)
    style = next(SEVERE[mark] for mark in (100, 90, 75, 50, 0) if percent >= mark)
    name = one.budget_id + (f" #{escaped(one.value)}" if one.value else "")
    whom = f"{one.scope_type} {escaped(one.scope_id)}"
    return [name, whom, one.period, money(one.spent), money(one.amount), (f"{percent:.1f} %", style), _state(one)]


def _silent(budget: Budget) -> list[Cell]:
    whom = f"each {budget.per}" if budget.per else f"{budget.target.scope_type} {escaped(budget.target.scope_id)}"
    words = [budget.mode if budget.mode == "observe" else "", "not used yet"]
    amount = display_usd(budget.amount_nanos)
    return [budget.id, whom, period_of(budget), "–", amount, "–", (", ".join(filter(None, words)), "dim")]


def period_of(budget: Budget) -> str:
    """``day``, or ``72h`` of a rolling one."""
    return f"{budget.period.hours}h" if budget.period.kind == "rolling" else budget.period.kind


def _state(one: Standing) -> Cell:
    if one.period_over:
        return "period over", "dim"
    words = []
    if one.mode == "observe":
        words.append("observe")
    elif one.commanded != "allow":
        words.append(one.commanded.replace("_", " "))
    for override in one.overrides:
        more = "lifted" if override.lifts else f"+{money(override.extra)}"
        words.append(f"{more} until {day_minute(override.until)}")
    return ", ".join(words), "bold red" if one.mode == "enforce" and one.commanded == "block" else ""


async def show_one(settings: Settings, budget_id: str, as_json: bool, as_yaml: bool, out: Console) -> int:
    """``show``: how a budget is defined, where it stands, and what was added to it. 1 where there is none."""
    async with desk(settings) as at:
        budget = _named(at, budget_id)
        rows = await queries.budgets(at.pool, "", [budget_id], only=budget_id)
        ahead = await outlook(at.pool, rows, at.now)
    standing = [standing_of(row, at.now, at.known, ahead) for row in rows]
    overrides = overrides_of(at.known, budget_id, at.now, ended=True)
    entry = entry_of(budget)
    if as_yaml:
        out.print(as_text({"budgets": [entry]}), markup=False, highlight=False, soft_wrap=True, end="")
        return 0
    if as_json:
        print_json(
            out, {
                "budget": entry, "version": budget.version, "changed_by": budget.changed_by, "reason": budget.reason,
                "changed_at": format_instant(budget.changed_at), "standing": [one.model_dump() for one in standing],
                "overrides": [one.model_dump() for one in overrides],
            }
        )  # fmt: skip
        return 0
    print_line(out, f"{budget.id}  version {budget.version}", "bold")
    when = format_instant(budget.changed_at - budget.changed_at % SECOND) if budget.changed_at else ""
    print_line(out, f"  by {escaped(budget.changed_by) or '?'}, {day_minute(when)}: {escaped(budget.reason)}", "dim")
    for line in as_text(entry).splitlines():
        print_line(out, f"  {line}")
    for one in standing[:20]:
        name = f"#{escaped(one.value)}: " if one.value else ""
        print_line(
            out, f"  {name}{money(one.spent)} of {money(one.amount)} ({one.used_percent} %), {_when(one)}", "bold"
        )  # fmt: skip
        for line in details(one):
            print_line(out, f"    {escaped(line)}")
    if not standing:
        print_line(out, "  nothing counted yet", "dim")
    for override in overrides:
        what = "measures lifted" if override.lifts else f"+{money(override.extra)}"
        whose = f" for {escaped(override.value)}" if override.value else ""
        state = "" if override.live else " (over)"
        given = f"by {escaped(override.by)}: {escaped(override.reason)}"
        print_line(out, f"  override {override.id}{state}: {what}{whose} until {day_minute(override.until)}, {given}")
    return 0


def _when(one: Standing) -> str:
    if one.period == "total":
        return "in all"
    return f"{day_minute(one.period_start)} to {day_minute(one.period_end)} UTC"


def _said(value: Any) -> str:
    return escaped(json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value))


def as_text(entry: Mapping[str, Any]) -> str:
    """As a file has it."""
    return yaml.safe_dump(dict(entry), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _named(at: Desk, budget_id: str) -> Budget:
    found = at.known.of_budget(budget_id)
    if found is None:
        raise RequestError([Wrong("", f"there is no budget {budget_id!r}; see `sluice budgets list`")])
    return found


# -- define and withdraw --------------------------------------------------------------------------------------------


async def define(
    settings: Settings, text: str, why: str, by: str, against: int | None, dry_run: bool, as_json: bool, out: Console
) -> int:
    """``set``: what a file says and what stands is different is published; the rest is left alone."""
    reason = _reason(why)
    wanted = definitions_of(text)
    if against is not None and len(wanted) != 1:
        raise RequestError([Wrong("--version", f"is for one definition, and this file has {len(wanted)}")])
    async with desk(settings) as at:
        standing = await at.store.current()
        changes = {key: each for key, each in wanted.items() if _bare(standing.get(key)) != _bare(each)}
        expected = {key: against if against is not None else _version(standing.get(key)) for key in changes}
        if changes and not dry_run:
            placed = await at.store.publish(list(changes.values()), by=by, reason=reason, expected=expected)
            versions = {each.key: each.version for each in placed}
        else:
            versions = {}
    told = [_told(key, each, standing.get(key), key in changes, versions.get(key)) for key, each in wanted.items()]
    if as_json:
        print_json(out, {"dry_run": dry_run, "reason": reason, "by": by, "definitions": told})
        return 0
    for one in told:
        mark = {"new": "+", "changed": "~", "same": "="}[one["change"]]
        version = f"  version {one['version']}" if one["version"] else ""
        print_line(out, f"{mark} {named(one['key'])}{version}", "dim" if mark == "=" else "bold")
        for name, (before, after) in one["fields"].items():
            print_line(out, f"    {name}: {_said(before)} → {_said(after)}")
    done = "would be written" if dry_run else "written; workers have it within seconds"
    print_line(out, f"{len(changes)} of {len(wanted)} {done}" if changes else "nothing to change")
    return 0


def _told(
    key: str, wanted: Definition, standing: Definition | None, changes: bool, version: int | None
) -> dict[str, Any]:
    before, after = _words(standing), _words(wanted)
    fields = {
        name: [before.get(name), after.get(name)]
        for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)
    } if standing is not None and changes else {}  # fmt: skip
    change = "new" if standing is None else "changed" if changes else "same"
    return {"key": key, "change": change, "version": version, "fields": fields}


def _words(definition: Definition | None) -> dict[str, Any]:
    if isinstance(definition, Budget):
        return entry_of(definition)
    if isinstance(definition, Limit):
        return entry_of_limit(definition)
    return {} if definition is None else dict(msgspec.to_builtins(definition))


def _bare(definition: Definition | None) -> Definition | None:
    """Without what every change brings by itself."""
    if definition is None:
        return None
    said_by_itself = {"version": 1, "changed_by": "", "reason": "", "changed_at": 0}
    known = {name: value for name, value in said_by_itself.items() if name in definition.__struct_fields__}
    return msgspec.structs.replace(definition, **known)


def _version(definition: Definition | None) -> int:
    return 0 if definition is None else getattr(definition, "version", 1)


def _reason(why: str) -> str:
    try:
        return said(why)
    except ValueError as error:
        raise RequestError([Wrong("--why", str(error))]) from error


async def withdraw(settings: Settings, key: str, why: str, by: str, as_json: bool, out: Console) -> int:
    """``withdraw``: end a definition. 1 where there is none."""
    reason = _reason(why)
    async with desk(settings) as at:
        done = await at.store.withdraw(key, by=by, reason=reason)
    name = named(key)
    if as_json:
        print_json(out, {"key": key, "withdrawn": done})
    else:
        print_line(out, f"{name} is withdrawn; what it throttled is let go" if done else f"there is no {name}")
    return 0 if done else 1


async def override(
    settings: Settings, budget_id: str, extra: str, lifts: bool, ends: str, value: str, why: str, by: str,
    as_json: bool, out: Console,
) -> int:  # fmt: skip
    """``override``: more money, or no throttling, until a time."""
    async with desk(settings) as at:
        found = override_of(
            _named(at, budget_id), extra_usd=extra, lifts=lifts, ends=ends, value=value, why=why, by=by, now=at.now
        )
        await at.store.publish([found], by=by, reason=found.reason, expected={found.key(): 0})
    if as_json:
        print_json(
            out, {
                "id": found.id, "budget_id": budget_id, "value": value, "extra": format_usd(found.extra_nanos),
                "lifts": lifts, "until": format_instant(found.until), "by": by, "reason": found.reason,
            }
        )  # fmt: skip
        return 0
    what = f"+{display_usd(found.extra_nanos)}" if found.extra_nanos else ""
    what += (" and " if what and lifts else "") + ("nothing is throttled" if lifts else "")
    print_line(out, f"{budget_id}: {what} until {format_instant(found.until - found.until % SECOND)}", "bold")
    print_line(out, f"end it earlier with: sluice budgets override {budget_id} --end {found.id} --why …", "dim")
    return 0


async def history(settings: Settings, budget_id: str, limit: int, as_json: bool, out: Console) -> int:
    """``history``: every version with who and why, the newest first. 1 where there never was one."""
    async with desk(settings) as at:
        versions = (await versions_about(at.store, budget_id))[:limit]
    entries = [entry_in_history(version).model_dump() for version in versions]
    if as_json:
        print_json(out, {"versions": entries})
    elif entries:
        columns = ("when (UTC)", "what", "version", "who", "why")
        rows: list[Sequence[Cell]] = []
        for place, (version, entry) in enumerate(zip(versions, entries, strict=True)):
            before = next((each for each in versions[place + 1 :] if each.key == version.key), None)
            rows.append(
                [
                    day_minute(entry["at"]),
                    _changed(version, before),
                    str(entry["version"]),
                    escaped(entry["by"]),
                    escaped(entry["reason"]),
                ]
            )
        print_table(out, columns, rows, columns[2:3])
    else:
        print_line(out, f"there is no budget {budget_id!r}, and never was one")
    return 0 if entries else 1


def _changed(version: Any, before: Any) -> Cell:
    kind = version.key.partition("|")[0]
    if version.definition is None:
        return f"{kind} withdrawn", "yellow"
    if kind == "override":
        given = version.definition
        return f"override {'lifts' if given.lifts else f'+{display_usd(given.extra_nanos)}'}"
    if kind == "balance":
        return f"opening balance {display_usd(version.definition.nanos)}"
    if before is None or before.definition is None:
        return f"defined: {display_usd(version.definition.amount_nanos)}", "green"
    now, then = entry_of(version.definition), entry_of(before.definition)
    names = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    return ", ".join(f"{name} {_said(then.get(name))} → {_said(now.get(name))}" for name in names)[:200] or "as before"


async def showback(
    settings: Settings, budget_id: str, by: str, at_instant: str, value: str, limit: int, as_json: bool, out: Console
) -> int:
    """``showback``: who spent it."""
    try:
        query = ShowbackQuery(by=by, at=at_instant, value=value, limit=limit)
    except ValueError as error:
        problem = str(error).splitlines()[2].strip().removeprefix("Value error, ").partition(" [type=")[0]
        raise RequestError([Wrong("--by", problem)]) from error
    async with desk(settings) as at:
        found = await showback_of(at.pool, at.known, _named(at, budget_id), query, at.now)
    if as_json:
        print_json(out, found.model_dump())
        return 0
    print_line(
        out,
        f"{budget_id}: {money(found.spent)}, {day_minute(found.period_start)} to {day_minute(found.period_end)} UTC",
        "bold",
    )
    rows: list[Sequence[Cell]] = [
        [
            escaped(row.name) or "(none)" if row.named else (row.name, "dim"), money(row.cost),
            f"{row.share_percent} %" if row.share_percent else "",
            "█" * round(BAR * max(float(row.share_percent or 0), 0) / 100),
        ]
        for row in found.rows
    ]  # fmt: skip
    if found.others != "0":
        rows.append([("others", "dim"), money(found.others), "", ""])
    if rows:
        print_table(out, (by, "spent", "share", ""), rows, ("spent", "share"))
    print_line(out, found.note, "dim")
    return 0


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """The columns of a CSV file and its rows, each with its line.

    Raises:
        RequestError: it has no header.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="")
        columns = [name or "" for name in reader.fieldnames or []]
        if not columns:
            raise RequestError([Wrong("", f"{path} has no header line")])
        return columns, [(reader.line_num, row) for row in reader]
