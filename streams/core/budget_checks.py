"""What fits together in ``budgets.yaml``: one field with another, one budget with the others.

Asked of the document as written, not of valid entries, so that these errors are told together with all others.
"""

from collections.abc import Iterator
from typing import Any

from streams.core.budget_rows import ROLLING_HOURS_MAX, instant_of
from streams.core.budget_rungs import measure_problem
from streams.core.marked_yaml import Document, Path, Problem
from streams.core.matching import pattern_of

_LIMITED = ("rpm", "tpm", "usd_per_minute")


def problems_of(document: Document) -> Iterator[Problem]:
    """Every contradiction in a budgets file, each where it is written."""
    budgets, limits = document.items("budgets"), document.items("limits")
    for section, entries in (("budget", budgets), ("limit", limits)):
        yield from _repeated(section, entries)
    for path, entry in budgets:
        yield from _scope(path, entry)
        yield from _period(path, entry)
        yield from _ladder(path, entry)
    for path, entry in limits:
        if not any(name in entry for name in _LIMITED):
            yield Problem(path, "limits nothing: give " + ", ".join(_LIMITED[:-1]) + " or " + _LIMITED[-1])
        if _star(entry):
            yield Problem((*path, "scope"), "names one team, key or feature; * is none")
    yield from _parents(budgets)
    yield from _grants(document)
    for path in document.blanks:
        # A condition that is left out would count more than was meant.
        if len(path) > 2 and path[2] in ("match", "scope"):
            yield Problem(path, "has no value; write one, or take the line out")


def _repeated(kind: str, entries: list[tuple[Path, dict[str, Any]]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for path, entry in entries:
        name = str(entry.get("id", ""))
        if name in seen:
            yield Problem(path, f"a second {kind} with the id {name}: an id names one {kind}")
        seen.add(name)


def _star(entry: dict[str, Any]) -> bool:
    scope = entry.get("scope")
    return isinstance(scope, dict) and "*" in scope.values()


def _scope(path: Path, entry: dict[str, Any]) -> Iterator[Problem]:
    scope, match, per = entry.get("scope"), entry.get("match"), entry.get("per")
    scope = scope if isinstance(scope, dict) else {}
    match = match if isinstance(match, dict) else {}
    if per:
        if "scope" in entry and scope != {per: "*"}:
            named = ", ".join(f"{name}: {value}" for name, value in scope.items()) or "this"
            words = f"per: {per} throttles each {per} by itself: take scope out, and write {named} under match"
            yield Problem((*path, "scope"), words)
        if isinstance(per, str) and isinstance(match.get(per), str):
            words = f"one {per} and per: {per} exclude each other: write scope: {{{per}: {match[per]}}} without per"
            yield Problem((*path, "match", per), words)
        return
    if "scope" not in entry:
        yield Problem((*path, "scope"), "is missing; say whom gateways throttle, such as {team: search}, or give per")
    if _star(entry):
        name = next(name for name, value in scope.items() if value == "*")
        yield Problem((*path, "scope"), f"for an amount for each {name}, write per: {name}")
    for name in scope.keys() & match.keys():
        if match[name] != scope[name]:
            words = f"contradicts the scope, which is {name}: {scope[name]}; take it out"
            yield Problem((*path, "match", name), words)


def _period(path: Path, entry: dict[str, Any]) -> Iterator[Problem]:
    period, rolling = entry.get("period"), entry.get("rolling")
    if rolling is None and period is None:
        yield Problem((*path, "period"), "is missing")
    if rolling is None and period == "rolling":
        words = f"say how far it looks back: rolling: 30d, or 72h; at most {ROLLING_HOURS_MAX // 24}d"
        yield Problem((*path, "period"), words)
    if rolling is not None and period not in (None, "rolling"):
        yield Problem((*path, "rolling"), f"belongs to period: rolling, not to period: {period}")
    if "week_start" in entry and period != "week":
        yield Problem((*path, "week_start"), "belongs to period: week alone")
    follows = rolling is None and period not in ("total", "rolling")
    if not follows and str(entry.get("rollover", "")).lower() in ("true", "yes", "on", "1"):
        yield Problem((*path, "rollover"), "nothing rolls over where no period follows another")
    zone = entry.get("timezone", "UTC")
    try:
        starts, ends = (instant_of(str(entry.get(name, "")), str(zone)) for name in ("starts", "ends"))
    except ValueError:
        return  # told by the field itself
    if starts and ends and ends <= starts:
        yield Problem((*path, "ends"), "is not after starts; it is the first day that no longer counts")


def _ladder(path: Path, entry: dict[str, Any]) -> Iterator[Problem]:
    rungs = entry.get("thresholds")
    highest = {"spent": 0, "forecast": 0}
    for place, rung in enumerate(rungs if isinstance(rungs, list) else ()):
        if not isinstance(rung, dict):
            continue
        where = (*path, "thresholds", place)
        kind = str(rung.get("on", "spent"))
        percent = str(rung.get("percent", ""))
        if kind in highest and percent.isdecimal():
            if int(percent) <= highest[kind]:
                yield Problem((*where, "percent"), "thresholds rise, each percent once")
            highest[kind] = max(highest[kind], int(percent))
        measures = rung.get("measures")
        if kind == "forecast" and (measures or rung.get("action") == "block"):
            yield Problem((*where, "on"), "a forecast opens a ticket and nothing more; measures need on: spent")
        for number, measure in enumerate(measures if isinstance(measures, list) else ()):
            found = measure_problem(measure) if isinstance(measure, dict) else None
            if found is not None:
                yield Problem((*where, "measures", number, found[0]), found[1])


def _parents(budgets: list[tuple[Path, dict[str, Any]]]) -> Iterator[Problem]:
    parents = {str(entry.get("id", "")): str(entry.get("parent", "")) for _, entry in budgets}
    for path, entry in budgets:
        name, parent = str(entry.get("id", "")), str(entry.get("parent", ""))
        if not parent:
            continue
        where = (*path, "parent")
        if parent not in parents:
            yield Problem(where, f"there is no budget {parent} in this file")
            continue
        chain = [name]
        while parent and parent not in chain:
            chain.append(parent)
            parent = parents.get(parent, "")
        if parent == name:
            yield Problem(where, "goes round in a circle: " + " under ".join([*chain, name]))


def _grants(document: Document) -> Iterator[Problem]:
    data = document.data if isinstance(document.data, dict) else {}
    expensive = data.get("expensive_models")
    named = [model for model in expensive if isinstance(model, str)] if isinstance(expensive, list) else []
    is_expensive = pattern_of(named)
    seen: set[tuple[str, str]] = set()
    for path, entry in document.items("grants"):
        model, granted = str(entry.get("model", "")), (str(entry.get("team", "")), str(entry.get("model", "")))
        if model and model not in named and not is_expensive(model):
            yield Problem((*path, "model"), f"{model} needs no grant: expensive_models does not name it")
        if granted in seen:
            yield Problem(path, f"a second grant of {granted[1]} to {granted[0]}")
        seen.add(granted)
