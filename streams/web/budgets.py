"""Budgets to look at: where they stand, how they are defined, and every version of them with who and why."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import msgspec
from fastapi import APIRouter, HTTPException, Query, Response

from schemas.budgets import Budget as BudgetDefinition
from schemas.budgets import Definition, OpeningBalance, Override
from schemas.instants import format_instant, to_micros
from schemas.money import format_usd
from streams.core.budget_entry import entry_of
from streams.core.defining import teams_of
from streams.core.definitions import Definitions
from streams.ports import DefinitionStore, RetryableError, Version
from streams.web import queries
from streams.web.answers import Budget, Budgets, DefinedBudget, History, HistoryEntry, OverrideNow
from streams.web.outlook import NOTHING_AHEAD, Outlook, outlook
from streams.web.reading import Parts, Reader, Reading, present
from streams.web.writing import Store, budget_named

router = APIRouter(tags=["budgets"])

#: Columns of a budget's row that have a place of their own in the answer; what else it has is under ``details``.
_PLACED = frozenset(
    {"budget_id", "value", "period_start", "period_end", "scope_type", "scope_id", "period", "amount_nanos"}
    | {"spent_nanos", "crossed_percent", "commanded", "mode", "sequence", "stated_at"}
)
HISTORY_MAX = 1_000


@router.get("/v1/budgets", summary="Where every budget stands")
async def read_budgets(parts: Parts, store: Store, reader: Reading) -> Budgets:
    """The newest period of each budget, the fullest first. A team's key sees the team's own budgets."""
    now = await present(parts)
    try:
        known: Definitions | None = await store.known.now()
    except RetryableError:
        # Where budgets stand is in the ledger, which answers without the broker.
        known = None
    mine = [budget.id for budget in (known.budgets.values() if known else ()) if visible(reader, budget)]
    rows = await queries.budgets(parts.pool, reader.team, mine)
    standing = {row["budget_id"] for row in rows}
    ahead = await outlook(parts.pool, rows, now)
    return Budgets(
        now=format_instant(now),
        budgets=[standing_of(row, now, known, ahead) for row in rows],
        defined=len(mine) if known else None,
        idle=sorted(set(mine) - standing),
    )


@router.get("/v1/budgets/{budget_id}", summary="One budget: its definition and where it stands")
async def read_budget(parts: Parts, store: Store, reader: Reading, budget_id: str, response: Response) -> DefinedBudget:
    """The definition in the words of `budgets.yaml`; its version is the ETag."""
    now = await present(parts)
    known = await store.known.now()
    budget = seen(reader, budget_named(known, budget_id))
    rows = await queries.budgets(parts.pool, "", [budget_id], only=budget_id)
    ahead = await outlook(parts.pool, rows, now)
    response.headers["ETag"] = f'"{budget.version}"'
    return DefinedBudget(
        budget=entry_of(budget),
        version=budget.version,
        changed_by=budget.changed_by,
        changed_at=format_instant(budget.changed_at),
        reason=budget.reason,
        standing=[standing_of(row, now, known, ahead) for row in rows],
        overrides=overrides_of(known, budget_id, now, ended=True),
        opening_balances=[
            {
                "value": balance.value, "period_start": format_instant(balance.period_start),
                "amount": format_usd(balance.nanos), "by": balance.changed_by, "reason": balance.reason,
            }
            for balance in known.balances.values() if balance.budget_id == budget_id
        ],
    )  # fmt: skip


@router.get("/v1/budgets/{budget_id}/history", summary="Who changed it, when and why")
async def read_history(
    store: Store, reader: Reading, budget_id: str, limit: Annotated[int, Query(ge=1, le=HISTORY_MAX)] = 100
) -> History:
    """Every version of the budget, and its overrides and opening balances; newest first. Also of a withdrawn budget."""
    versions = await versions_about(store.known.store(), budget_id)
    if not versions:
        raise HTTPException(404, f"there is no budget {budget_id[:64]!r}, and never was one")
    if reader.team:
        known = [v.definition for v in versions if isinstance(v.definition, BudgetDefinition)]
        # What it once matched is that team's business alone if all of it was.
        for budget in known or [None]:
            if budget is None or not visible(reader, budget):
                raise HTTPException(403, f"this key reads team {reader.team!r} only")
    return History(versions=[entry_in_history(version) for version in versions[:limit]])


async def versions_about(asking: DefinitionStore, budget_id: str) -> list[Version]:
    """What the ledger has under the budget's key, and of overrides and balances that name it; newest first."""
    found: list[Version] = []
    for prefix in (f"budget|{budget_id}", f"override|{budget_id}", f"balance|{budget_id}|"):
        found += [version for version in await asking.history(prefix) if _is_about(version, budget_id)]
    return sorted(found, key=lambda version: (-version.changed_at, version.key, -version.version))


def _is_about(version: Version, budget_id: str) -> bool:
    """A prefix finds ``budget|search-daily`` for ``budget|search`` too."""
    kind, _, name = version.key.partition("|")
    if kind == "budget":
        return name == budget_id
    if isinstance(version.definition, Override | OpeningBalance):
        return version.definition.budget_id == budget_id
    return name.startswith(f"{budget_id}|") or name.rpartition("-")[0] == budget_id


def entry_in_history(version: Version) -> HistoryEntry:
    """One version for people."""
    return HistoryEntry(
        key=version.key,
        version=version.version,
        at=format_instant(version.changed_at),
        by=version.changed_by,
        reason=version.reason,
        withdrawn=version.definition is None,
        definition=None if version.definition is None else shown(version.definition),
    )


def shown(definition: Definition) -> dict[str, Any]:
    """A definition for people: budgets in the words of the file, others with dollars and instants as text."""
    if isinstance(definition, BudgetDefinition):
        return entry_of(definition)
    found: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(definition).items():
        if name in ("v", "type"):
            continue
        if name == "nanos" or name.endswith("_nanos"):
            found[name.removesuffix("nanos").rstrip("_") or "amount"] = format_usd(value)
        elif name in ("starts", "until", "period_start", "announced_at", "decided_at", "changed_at"):
            found[name] = format_instant(value) if value else ""
        else:
            found[name] = value
    return found


def visible(reader: Reader, budget: BudgetDefinition) -> bool:
    """Whether a caller may see the budget: a team's key those that count that team alone, or throttle it."""
    target = budget.target
    own = teams_of(budget) == {reader.team} or (target.scope_type, target.scope_id) == ("team", reader.team)
    return not reader.team or own


def seen(reader: Reader, budget: BudgetDefinition) -> BudgetDefinition:
    """The budget, for who may see it.

    Raises:
        HTTPException: 403.
    """
    if not visible(reader, budget):
        raise HTTPException(403, f"this key reads team {reader.team!r} only, and budget {budget.id} is not its own")
    return budget


def overrides_of(
    known: Definitions, budget_id: str, now: int, value: str = "", *, ended: bool = False
) -> list[OverrideNow]:
    """The overrides of a budget that hold now, or all that are still there; those of one value with those of all."""
    return [
        OverrideNow(
            id=each.id, value=each.value, extra=format_usd(each.extra_nanos), lifts=each.lifts,
            starts=format_instant(each.starts), until=format_instant(each.until), live=each.starts <= now < each.until,
            by=each.changed_by, reason=each.reason,
        )
        for each in sorted(known.overrides.values(), key=lambda each: each.until)
        if each.budget_id == budget_id
        and (ended or (each.starts <= now < each.until and each.value in ("", value)))
    ]  # fmt: skip


def standing_of(row: asyncpg.Record, now: int, known: Definitions | None, ahead: Outlook = NOTHING_AHEAD) -> Budget:
    """One row of the ledger, with what its definition adds."""
    # numeric in PostgreSQL: integers here, since a Decimal would round what is longer than its context.
    amount, spent = int(row["amount_nanos"]), int(row["spent_nanos"])
    percent = max(spent, 0) * 10_000 // amount if amount > 0 else 0
    budget = known.of_budget(row["budget_id"]) if known else None
    value = row["value"]
    return Budget(
        **{name: row[name] for name in ("budget_id", "scope_type", "scope_id", "period", "commanded", "mode")},
        value=value,
        period_start=_text(row["period_start"]),
        period_end=_text(row["period_end"]),
        period_over=to_micros(row["period_end"]) <= now,
        amount=format_usd(amount),
        spent=format_usd(spent),
        remaining=format_usd(amount - spent),
        used_percent=f"{percent // 100}.{percent % 100:02d}",
        crossed_percent=row["crossed_percent"],
        stated_at=_text(row["stated_at"]),
        version=budget.version if budget else None,
        owner=budget.owner if budget else "",
        overrides=overrides_of(known, row["budget_id"], now, value) if known else [],
        **ahead.of(row),
        details=details_of({name: row[name] for name in row.keys() if name not in _PLACED}),  # noqa: SIM118
    )


def details_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What BUDGET states besides, whatever it is: money as decimal texts, instants as RFC 3339."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found[name] = details_of(value)
        elif isinstance(value, datetime):
            found[name] = _text(value)
        elif name.endswith("_nanos") and isinstance(value, int | Decimal):
            found[name.removesuffix("_nanos")] = format_usd(int(value))
        elif "_nanos_per_" in name and isinstance(value, int | Decimal):
            found[name.replace("_nanos", "")] = format_usd(int(value))
        elif isinstance(value, Decimal):
            found[name] = f"{value:f}"
        else:
            found[name] = value
    return found


def _text(moment: datetime) -> str:
    return format_instant(to_micros(moment))
