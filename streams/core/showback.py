"""Who spent a budget: where the answer comes from, how exact it is, and that it adds up to what was spent.

Cells know team, feature, model and the like, and the hour. They answer exactly where the budget matches on nothing
else and its period begins and ends with UTC hours. Keys and users are told of each cell, up to bounds
(``streams.core.spenders``); a budget ``per`` key or user knows them without. Of what neither knows, such as sessions,
counters know the largest. What nobody knows is one row of its own, so the sum always holds.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from schemas.budgets import CALL_ATTRIBUTES, CELL_ATTRIBUTES, Budget
from schemas.instants import HOUR
from streams.core.admission import OTHER
from streams.core.definitions import Definitions

#: What showback is asked by: everything that a call or a cell can be told apart by.
BY = (*CELL_ATTRIBUTES, "hour", *CALL_ATTRIBUTES)
OPENING = "opening balance"
REST = "not known"
#: What is told of each cell.
SPENDERS = ("key", "user")

Kind = Literal["cells", "spenders", "values", "contributors"]


class Plan(NamedTuple):
    """Where the rows come from."""

    kind: Kind
    #: Whether the rows are exact sums, and not only the largest parts.
    exact: bool
    note: str
    #: The ``per`` budget whose values are the rows; only for ``values``.
    budget_id: str = ""


class Share(NamedTuple):
    """One row. ``named`` is False for what no name stands for: the opening balance, and what is not known."""

    name: str
    nanos: int
    named: bool = True


def plan(budget: Budget, by: str, bounds: tuple[int, int], known: Definitions) -> Plan:
    """How ``by`` is answered for this budget and period."""
    if by == budget.per:
        return Plan("values", True, f"exact: budget {budget.id} counts each {by} by itself", budget.id)
    if by in CALL_ATTRIBUTES:
        twin = next(
            (each for each in known.budgets.values() if _counts_the_same(each, budget) and each.per == by), None
        )
        if twin is not None:
            return Plan("values", True, f"exact: from budget {twin.id}, which counts the same for each {by}", twin.id)
        if by not in SPENDERS:
            return Plan(
                "contributors", False,
                f"not known: neither cells nor this budget's counters name a {by}. A budget with the same match and"
                f" period and `per: {by}` (in mode observe it throttles nobody) counts them exactly from then on",
            )  # fmt: skip
    asked = {*(name for name, _ in budget.match), budget.per} - {"", *CELL_ATTRIBUTES}
    strange = sorted(asked - {*SPENDERS})
    if strange:
        return Plan(
            "contributors", False,
            f"partial: the budget counts by {', '.join(strange)}, which no cell knows; of a pooled"
            " budget these are the largest that its counters know",
        )  # fmt: skip
    kind: Kind = "spenders" if asked or by in SPENDERS else "cells"
    if bounds[0] % HOUR or bounds[1] % HOUR:
        return Plan(
            kind, False,
            "exact but for the hours at the period's ends, which belong to two periods: cells are whole UTC hours",
        )  # fmt: skip
    if kind == "spenders":
        return Plan(kind, True, "exact: from the keys and users of the ledger's cells")
    return Plan(kind, True, "exact: from the ledger's cells")


def judged(planned: Plan, rows: Iterable[Share]) -> Plan:
    """The plan as it came out: where keys or users found no room, nobody's row is whole for sure."""
    if planned.kind != "spenders" or all(row.name != OTHER for row in rows):
        return planned
    return planned._replace(
        exact=False,
        note=f"exact but for {OTHER}: calls from before this release, or of more keys and users than are told apart"
        " (spenders_max, team_spenders_max)",
    )


def whole_hours(bounds: tuple[int, int]) -> tuple[int, int]:
    """The UTC hours that lie within the bounds from their first to their last microsecond.

    >>> whole_hours((1, 3 * HOUR + 5)) == (HOUR, 3 * HOUR)
    True
    """
    return -(-bounds[0] // HOUR) * HOUR, bounds[1] // HOUR * HOUR


def of_label(by: str, contributors: Mapping[str, int]) -> list[Share]:
    """The counters' labels that speak of ``by``, the largest first: ``key:k1``, or of features the bare name."""
    found = []
    for label, nanos in contributors.items():
        kind, sign, name = label.partition(":")
        if sign and kind == by:
            found.append(Share(name, nanos))
        elif by == "feature" and (not sign or kind not in BY):
            found.append(Share(label, nanos))
    return sorted(found, key=lambda share: (-share.nanos, share.name))


def closed(rows: Iterable[Share], spent: int, opening: int) -> list[Share]:
    """The rows with what they leave of the spend: the opening balance, and what is not known or came in between."""
    found = list(rows)
    if opening:
        found.append(Share(OPENING, opening, named=False))
    rest = spent - sum(share.nanos for share in found)
    if rest:
        found.append(Share(REST, rest, named=False))
    return found


def like(pattern: str) -> str:
    r"""SQL's LIKE for a pattern with ``*``.

    >>> like("llama-3_*")
    'llama-3\\_%'
    """
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, "\\" + special)
    return pattern.replace("*", "%")


def _counts_the_same(one: Budget, other: Budget) -> bool:
    return (
        set(one.match) == set(other.match)
        and one.period == other.period
        and (one.starts, one.ends) == (other.starts, other.ends)
        and set(one.exempt_models) == set(other.exempt_models)
    )
