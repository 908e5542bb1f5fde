"""What was spent before Sluice was there, out of a table that somebody wrote or a provider's bill.

A table names budgets. A bill's lines are summed as METER would have counted them: by each budget's match, in the period
in which the charge began. Lines of metered providers count too, since nothing metered them then.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import NamedTuple

import msgspec

from schemas.budgets import Budget, OpeningBalance
from schemas.events import BillingRecord
from schemas.instants import InstantError, format_instant, parse_instant
from streams.core.bills import bill_category
from streams.core.cells import bill_dimensions
from streams.core.defining import RequestError, Wrong, balance_of
from streams.core.definitions import Definitions
from streams.core.matching import values_of
from streams.core.periods import bounds_of, day_start
from streams.core.scopes import ScopeWatchlist, read_scope, watched_of

COLUMNS = ("budget", "period_start", "amount_usd", "value")
PROBLEMS_MAX = 50


class OpeningFileError(ValueError):
    """The file cannot be used; ``problems`` has one line for every error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Summed(NamedTuple):
    """What a bill comes to."""

    balances: tuple[OpeningBalance, ...]
    lines: int
    #: Lines that no budget takes, or that lie in periods that are over.
    unused: int
    #: When the newest charge that was taken began; 0 for none.
    newest: int


def balances_of_table(
    rows: Iterable[tuple[int, Mapping[str, str | None]]], known: Definitions, why: str, by: str
) -> tuple[OpeningBalance, ...]:
    """The balances of a table with the columns ``COLUMNS``, the last of which may be missing.

    Args:
        rows: with the number of the line each came from.

    Raises:
        OpeningFileError: with every line that is wrong.
    """
    found: dict[str, OpeningBalance] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for line, row in rows:
        try:
            balance = _of_row(row, known, why, by)
        except RequestError as error:
            problems += [
                f"line {line}: {f'{wrong.where}: ' if wrong.where else ''}{wrong.problem}" for wrong in error.wrongs
            ]
            continue
        if balance.key() in found:
            problems.append(f"line {line}: says the same period of {balance.budget_id} as line {lines[balance.key()]}")
        found[balance.key()], lines[balance.key()] = balance, line
    if problems:
        more = len(problems) - PROBLEMS_MAX
        raise OpeningFileError(problems[:PROBLEMS_MAX] + ([f"and {more} more"] if more > 0 else []))
    return tuple(found.values())


def _of_row(row: Mapping[str, str | None], known: Definitions, why: str, by: str) -> OpeningBalance:
    texts = {name: (row.get(name) or "").strip() for name in COLUMNS}
    budget = known.of_budget(texts["budget"])
    if budget is None:
        raise RequestError([Wrong("budget", f"there is no budget {texts['budget'][:64]!r}")])
    return balance_of(
        budget,
        period_start=_start(texts["period_start"], budget),
        amount_usd=texts["amount_usd"],
        value=texts["value"],
        why=why,
        by=by,
        bounds=periods_of(budget),
    )


def _start(text: str, budget: Budget) -> int:
    try:
        if len(text) == 10:
            return day_start(budget.period.timezone, date.fromisoformat(text))
        return parse_instant(text)
    except (InstantError, ValueError, OverflowError) as error:
        example = "a date in the budget's zone such as 2026-11-01, or an instant with an offset"
        raise RequestError([Wrong("period_start", f"{text[:40]!r} is not {example}")]) from error


def periods_of(budget: Budget) -> Callable[[int], tuple[int, int] | None] | None:
    """The period of an instant, as the budget counts; None for a rolling budget, which has none."""
    if budget.period.kind == "rolling":
        return None
    return lambda instant: bounds_of(budget.period, instant, budget.starts, budget.ends)


def balances_of_bill(
    bills: Iterable[tuple[BillingRecord, int]], budgets: Iterable[Budget], *, org_id: str, before: int, now: int,
    why: str, by: str,
) -> Summed:  # fmt: skip
    """The balances of the periods that still run, summed from bill lines with their money in nanodollars.

    Args:
        budgets: whose balances are asked for; rolling ones have none.
        before: charges that begin then or later are left out, as Sluice has seen them itself; 0: none are.
    """
    taking = {budget.id: budget for budget in budgets if budget.period.kind != "rolling"}
    watchlist = ScopeWatchlist([watched_of(budget) for budget in taking.values()])
    read = values_of(watchlist.attributes)
    sums: dict[tuple[str, str, int], int] = {}
    lines = unused = newest = 0
    for bill, nanos in bills:
        lines += 1
        at = parse_instant(bill.charge_period_start)
        dimensions = bill_dimensions(bill, bill_category(bill), org_id)
        places = []
        if not before or at < before:
            for watched in watchlist.watched(dimensions, dimensions, read(bill), at):
                scope = read_scope(watched.scope)
                if scope is not None and watched.period_start <= now < watched.period_end:
                    places.append((scope.budget_id, scope.value, watched.period_start))
        for place in places:
            sums[place] = sums.get(place, 0) + nanos
        unused += not places
        newest = max(newest, at) if places else newest
    balances = [
        OpeningBalance(budget_id=budget_id, value=value, period_start=start, nanos=nanos, changed_by=by, reason=why)
        for (budget_id, value, start), nanos in sorted(sums.items())
    ]
    return Summed(tuple(balances), lines, unused, newest)


def differing(balances: Iterable[OpeningBalance], known: Definitions) -> list[tuple[OpeningBalance, int | None]]:
    """Each balance with what stands in its place now, None where nothing does; only those that change something."""
    found: list[tuple[OpeningBalance, int | None]] = []
    for balance in balances:
        standing = known.balances.get(balance.key())
        if standing is None or standing.nanos != balance.nanos:
            found.append((balance, standing.nanos if standing else None))
    return found


def not_negative(balance: OpeningBalance) -> OpeningBalance:
    """A bill can come to less than nothing by its credits; a budget does not open with more than its amount.

    >>> not_negative(OpeningBalance(budget_id="b", period_start=0, nanos=-5)).nanos
    0
    """
    return balance if balance.nanos >= 0 else msgspec.structs.replace(balance, nanos=0)


def period_words(budget: Budget, start: int) -> str:
    """``day from 2026-11-21T00:00:00Z``."""
    return budget.period.kind if budget.period.kind == "total" else f"{budget.period.kind} from {format_instant(start)}"
