"""Budgets and limits in the words of ``budgets.yaml``, made of what is published, and back."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from schemas.budgets import Budget, Definition, Limit, Rung
from schemas.commands import Measure
from schemas.instants import format_instant
from schemas.money import format_usd
from streams.core.budget_file import DEFAULT_LADDER, BudgetFileError, definitions_of
from streams.core.budget_rows import PERSONAL, WEEKDAYS
from streams.core.defining import RequestError, Wrong
from streams.core.definitions import Definitions

_PROBLEM = re.compile(r"^line \d+: (?:[a-z_]+\.0\.?)?(\S*?): (.*)$", re.DOTALL)
_PLURALS = {"budget": "budgets", "limit": "limits"}


def entry_of(budget: Budget) -> dict[str, Any]:
    """The entry that a file would have for it; what is as it is without being said is left out."""
    period = budget.period
    target = (budget.target.scope_type, budget.target.scope_id)
    entry: dict[str, Any] = {"id": budget.id}
    if budget.per:
        entry["per"] = budget.per
    else:
        entry["scope"] = dict([target])
    match = _match(pair for pair in budget.match if budget.per or pair != target)
    if match:
        entry["match"] = match
    entry["amount_usd"] = format_usd(budget.amount_nanos)
    if period.kind == "rolling":
        entry["rolling"] = f"{period.hours}h"
    else:
        entry["period"] = period.kind
    if period.kind == "week" and period.week_start:
        entry["week_start"] = WEEKDAYS[period.week_start]
    if period.timezone != "UTC":
        entry["timezone"] = period.timezone
    for name, instant in (("starts", budget.starts), ("ends", budget.ends)):
        if instant:
            entry[name] = format_instant(instant)
    if budget.thresholds != DEFAULT_LADDER:
        entry["thresholds"] = [_rung(rung) for rung in budget.thresholds]
    entry["mode"] = budget.mode
    said: dict[str, tuple[Any, Any]] = {
        "rollover": (budget.rollover, False), "model": (budget.model, "fixed"), "parent": (budget.parent, ""),
        "hard": (budget.hard, False), "on_stale": (budget.on_stale, "open"),
        "exempt_models": (list(budget.exempt_models), []),
        "pages": (budget.pages, budget.target.scope_type not in PERSONAL),
        "growth": (_factor(budget.growth_permille), "1"), "owner": (budget.owner, ""),
    }  # fmt: skip
    return entry | {name: value for name, (value, default) in said.items() if value != default}


def entry_of_limit(limit: Limit) -> dict[str, Any]:
    """The entry that a file would have for it."""
    nanos = limit.nanos_per_minute
    entry: dict[str, Any] = {
        "id": limit.id,
        "scope": {limit.target.scope_type: limit.target.scope_id},
        "rpm": limit.rpm,
        "tpm": limit.tpm,
        "usd_per_minute": None if nanos is None else format_usd(nanos),
        "request_types": list(limit.request_types),
        "environments": list(limit.environments),
        "mode": limit.mode,
        "owner": limit.owner,
    }
    return {name: value for name, value in entry.items() if value not in (None, [], "")}


def definition_of_entry(kind: str, entry: Mapping[str, Any], wanted_id: str, known: Definitions) -> Definition:
    """The budget or limit of one entry, checked as a file's is; its parent is looked for in what is defined.

    Raises:
        RequestError: with every field that is wrong.
    """
    named = entry.get("id", wanted_id)
    if named != wanted_id:
        raise RequestError(
            [Wrong("id", f"is {str(named)[:64]!r}, and the address says {wanted_id!r}: make them the same")]
        )
    parent = entry.get("parent", "")
    wrongs = _parent_wrongs(wanted_id, parent, known)
    alone = {name: value for name, value in entry.items() if name != "parent"} | {"id": wanted_id}
    try:
        found = definitions_of(msgspec.json.encode({_PLURALS[kind]: [alone]}).decode())[f"{kind}|{wanted_id}"]
    except BudgetFileError as error:
        raise RequestError([*map(_wrong, error.problems), *wrongs]) from error
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise RequestError([Wrong("", f"cannot be read: {error}")]) from error
    if wrongs:
        raise RequestError(wrongs)
    return msgspec.structs.replace(found, parent=parent) if isinstance(found, Budget) else found


def _parent_wrongs(budget_id: str, parent: object, known: Definitions) -> list[Wrong]:
    if not parent:
        return []
    if not isinstance(parent, str) or known.of_budget(parent) is None:
        return [Wrong("parent", f"there is no budget {str(parent)[:64]!r}")]
    chain = [budget_id]
    while parent and parent not in chain:
        chain.append(parent)
        above = known.of_budget(parent)
        parent = above.parent if above else ""
    return (
        [Wrong("parent", "goes round in a circle: " + " under ".join([*chain, budget_id]))]
        if parent == budget_id
        else []
    )


def _wrong(line: str) -> Wrong:
    found = _PROBLEM.match(line)
    return Wrong(found[1], found[2]) if found else Wrong("", line)


def _match(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for attribute, value in pairs:
        found.setdefault(attribute, []).append(value)
    return {attribute: values[0] if len(values) == 1 else values for attribute, values in found.items()}


def _rung(rung: Rung) -> dict[str, Any]:
    entry: dict[str, Any] = {"percent": rung.percent, "severity": rung.severity}
    if rung.on != "spent":
        entry["on"] = rung.on
    if rung.measures:
        entry["measures"] = [_measure(measure) for measure in rung.measures]
    return entry


def _measure(measure: Measure) -> dict[str, Any]:
    entry: dict[str, Any] = {"action": measure.action}
    for name in ("request_types", "environments", "rpm", "tpm", "max_tokens", "models"):
        value = getattr(measure, name)
        if value:
            entry[name] = list(value) if isinstance(value, tuple) else value
    return entry


def _factor(permille: int) -> str:
    whole, rest = divmod(permille, 1_000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)
