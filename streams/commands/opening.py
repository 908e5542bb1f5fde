"""``sluice budgets open-balance``: bring in what was spent before Sluice was there. Shows it first, then writes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from schemas.budgets import Budget, OpeningBalance
from schemas.events import BillingRecord
from schemas.instants import format_instant, parse_instant
from schemas.money import display_usd, format_usd
from streams.commands.budgets import print_json, read_rows
from streams.commands.desk import Desk, desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.defining import RequestError, Wrong, said
from streams.core.letters import escaped
from streams.core.opening_file import (
    COLUMNS,
    OpeningFileError,
    Summed,
    balances_of_bill,
    balances_of_table,
    differing,
    not_negative,
    period_words,
)
from streams.core.pricing import PriceError
from streams.settings import Settings
from streams.sources.focus import FocusError, focus_row


async def open_balance(
    settings: Settings, path: Path, only: Sequence[str], before: str, why: str, by: str, yes: bool, as_json: bool,
    out: Console,
) -> int:  # fmt: skip
    """Balances of a CSV table or a FOCUS bill; without ``yes`` only shown."""
    try:
        reason, bound = said(why), parse_instant(before) if before else 0
    except ValueError as error:
        raise RequestError([Wrong("--before" if why.strip() else "--why", str(error))]) from error
    columns, rows = read_rows(path)
    async with desk(settings) as at:
        summed: Summed | None = None
        if "BilledCost" in columns:
            bills = read_bills(settings, rows)
            summed = balances_of_bill(
                bills, _chosen(at, only), org_id=settings.org_id, before=bound, now=at.now, why=reason, by=by
            )
            balances = tuple(map(not_negative, summed.balances))
        else:
            _check_columns(path, columns)
            balances = balances_of_table(rows, at.known, reason, by)
            balances = tuple(each for each in balances if not only or each.budget_id in only)
        changes = differing(balances, at.known)
        if yes and changes:
            await at.store.publish([balance for balance, _ in changes], by=by, reason=reason)
    _tell(at, balances, changes, summed, yes, as_json, out)
    return 0


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in COLUMNS[:3] if name not in columns]
    strange = [name for name in columns if name not in COLUMNS]
    if missing or strange:
        known = "budget,period_start,amount_usd[,value], or the columns of a FOCUS bill"
        what = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(map(escaped, strange))}"
        raise RequestError([Wrong("", f"{path} {what}; it has to have {known}")])


def _chosen(at: Desk, only: Sequence[str]) -> list[Budget]:
    if strange := [name for name in only if at.known.of_budget(name) is None]:
        raise RequestError([Wrong("--budget", f"there is no budget {name!r}") for name in strange])
    return [budget for budget in at.known.budgets.values() if not only or budget.id in only]


def read_bills(
    settings: Settings, rows: Iterable[tuple[int, dict[str, str | None]]]
) -> list[tuple[BillingRecord, int]]:
    """The lines of a FOCUS bill with their money, in dollars by the rate card's exchange rates.

    Raises:
        OpeningFileError: with every line that cannot be read.
    """
    from streams.worker import read_prices

    prices = read_prices(settings)
    found, problems = [], []
    for line, row in rows:
        try:
            bill = focus_row({name: value for name, value in row.items() if value is not None})
            found.append((bill, prices.price_bill(bill, parse_instant(bill.charge_period_start)).nanos))
        except (FocusError, PriceError, ValueError) as error:
            problems.append(f"line {line}: {error}")
    if problems:
        more = len(problems) - 50
        raise OpeningFileError(problems[:50] + ([f"and {more} more"] if more > 0 else []))
    return found


def _tell(
    at: Desk, balances: Sequence[OpeningBalance], changes: Sequence[tuple[OpeningBalance, int | None]],
    summed: Summed | None, yes: bool, as_json: bool, out: Console,
) -> None:  # fmt: skip
    if as_json:
        print_json(
            out, {
                "written": yes and bool(changes), "same": len(balances) - len(changes),
                "lines": summed.lines if summed else None, "unused_lines": summed.unused if summed else None,
                "balances": [
                    {
                        "budget_id": balance.budget_id, "value": balance.value,
                        "period_start": format_instant(balance.period_start), "amount": format_usd(balance.nanos),
                        "before": None if standing is None else format_usd(standing),
                    }
                    for balance, standing in changes
                ],
            }
        )  # fmt: skip
        return
    rows = [_row(at, balance, standing) for balance, standing in changes]
    if rows:
        columns = ("budget", "period", "opens with", "until now", "of")
        print_table(out, columns, rows, columns[2:])
    if summed is not None:
        print_line(out, f"{summed.lines} bill lines, {summed.unused} in no budget whose period still runs", "dim")
    if summed is not None and summed.newest:
        print_line(
            out,
            f"the newest charge begins {format_instant(summed.newest)}; what Sluice has counted up to then counts"
            " twice: --before leaves it out",
            "yellow",
        )
    if not changes:
        print_line(out, "nothing to change")
    elif yes:
        print_line(out, f"{len(changes)} opening balance(s) written", "bold")
    else:
        print_line(out, f"{len(changes)} opening balance(s) to write; nothing is written without --yes", "bold")


def _row(at: Desk, balance: OpeningBalance, standing: int | None) -> list[Cell]:
    budget: Any = at.known.of_budget(balance.budget_id)
    style = "bold red" if balance.nanos >= budget.amount_nanos else ""
    name = balance.budget_id + (f" #{escaped(balance.value)}" if balance.value else "")
    return [
        name, period_words(budget, balance.period_start), (display_usd(balance.nanos), style),
        "–" if standing is None else display_usd(standing), display_usd(budget.amount_nanos),
    ]  # fmt: skip
