"""The tree of budgets: which budget stands above which. Matches may overlap; money counts in every budget all the same.

The parent is the budget that ``parent`` names. Where none is named (or it is not defined, or it would stand above and
below at once), it is the closest of those that everything in this one counts in too, over the same or a longer period.
"""

from collections.abc import Iterable, Mapping

from schemas.budgets import Budget, Period
from streams.core.matching import Conditions, Index, conditions_of

#: About how many hours a period has: for order, not for money.
_HOURS = {"hour": 1, "day": 24, "week": 168, "month": 730, "quarter": 2_190, "total": 1 << 40}


def hours_of(period: Period) -> int:
    """How long a period is, in hours, as far as order goes."""
    return period.hours if period.kind == "rolling" else _HOURS[period.kind]


class Tree:
    """Who stands above whom, among the budgets of one instant."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        found = sorted(budgets, key=lambda budget: budget.id)
        self._budgets = {budget.id: budget for budget in found}
        self._parents = self._named(found)
        places = [conditions_of(budget.match) for budget in found]
        index = Index(places)
        for budget, conditions in zip(found, places, strict=True):
            if budget.id in self._parents:
                continue
            # What this one asks for, any budget above it asks for less of.
            first = {attribute: next(iter(values)) for attribute, values in conditions.items()}
            above = [(found[at], places[at]) for at in index.candidates(first.get)]
            ranked = sorted(
                (_distance(other, of_other), other.id)
                for other, of_other in above
                if _holds_all(other, of_other, budget, conditions)
            )
            closest = next((name for _, name in ranked if not self._is_under(name, budget.id)), "")
            if closest:
                self._parents[budget.id] = closest
        self._children: dict[str, tuple[str, ...]] = {}
        for child, parent in sorted(self._parents.items()):
            self._children[parent] = (*self._children.get(parent, ()), child)

    def _named(self, budgets: Iterable[Budget]) -> dict[str, str]:
        parents: dict[str, str] = {}
        for budget in budgets:
            if budget.parent in self._budgets and budget.parent != budget.id:
                parents[budget.id] = budget.parent
        # Of a circle (only one by one can they be set so), none is obeyed.
        circled = [name for name in parents if _leads_to(parents, name, name)]
        return {name: parent for name, parent in parents.items() if name not in circled}

    def _is_under(self, name: str, above: str) -> bool:
        return name == above or _leads_to(self._parents, name, above)

    def parent(self, budget_id: str) -> str:
        """The budget right above; empty for a root, and for a budget that is not defined."""
        return self._parents.get(budget_id, "")

    def children(self, budget_id: str = "") -> tuple[str, ...]:
        """The budgets right below, in the order of their ids; of nothing, the roots."""
        if budget_id:
            return self._children.get(budget_id, ())
        return tuple(name for name in self._budgets if name not in self._parents)

    def ancestors(self, budget_id: str, value: str = "") -> tuple[str, ...]:
        """The budgets above, the closest first: ids, and ``id#value`` of a ``per`` budget where its value is known.

        ``value`` is that of the budget itself, where it is a ``per`` one.
        """
        budget = self._budgets.get(budget_id)
        known = dict(budget.match) if budget else {}
        if budget and budget.per and value:
            known[budget.per] = value
        found = []
        name = self.parent(budget_id)
        while name:
            per = self._budgets[name].per
            found.append(f"{name}#{known[per]}" if known.get(per) else name)
            name = self.parent(name)
        return tuple(found)


def _leads_to(parents: Mapping[str, str], name: str, end: str) -> bool:
    seen = {name}
    while name := parents.get(name, ""):
        if name == end:
            return True
        if name in seen:
            return False
        seen.add(name)
    return False


def _holds_all(above: Budget, of_above: Conditions, budget: Budget, conditions: Conditions) -> bool:
    """Whether everything that counts in ``budget`` counts in ``above`` too, in one of its values, and it is above."""
    if hours_of(above.period) < hours_of(budget.period) or above.id == budget.id:
        return False
    for attribute, allowed in of_above.items():
        if not conditions.get(attribute, _ANY) <= allowed:
            return False
    if above.per and above.per != budget.per and len(conditions.get(above.per, _ANY)) != 1:
        return False
    if of_above != conditions or above.per != budget.per:
        return True
    # The same money: the longer period stands above.
    return hours_of(above.period) > hours_of(budget.period)


#: Stands for every value: no budget's condition holds it.
_ANY = frozenset(("", "\0"))


def _distance(budget: Budget, conditions: Conditions) -> tuple[int, int, int]:
    """The more it asks for the closer it is, then the fewer values it takes, then the shorter it is."""
    asked = len(conditions) + bool(budget.per)
    return -asked, sum(len(values) for values in conditions.values()), hours_of(budget.period)
