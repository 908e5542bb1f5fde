"""How much a scope may spend in a month, by the budgets that are about this scope and nothing else."""

from collections.abc import Iterable

from schemas.budgets import Budget

#: A month in parts of each period, as (times, divided by).
_MONTHS = {"hour": (730, 1), "day": (365, 12), "week": (365, 84), "month": (1, 1), "quarter": (1, 3)}


def monthly_budgets(budgets: Iterable[Budget]) -> dict[str, int]:
    """Nanodollars a month by scope (``team:search``); the smallest where there are several.

    Budgets of all that something is, such as a team in production only, are about less than its scope and left out,
    as are those without a period that comes again.

    >>> from schemas.budgets import Period
    >>> from schemas.commands import Target
    >>> budget = Budget(id="b", match=(("team", "search"),), target=Target("team", "search"), amount_nanos=1_200,
    ...     period=Period("day"), thresholds=())
    >>> monthly_budgets([budget])
    {'team:search': 36500}
    """
    found: dict[str, int] = {}
    for budget in budgets:
        if budget.per or len(budget.match) != 1 or budget.period.kind not in _MONTHS:
            continue
        [(attribute, value)] = budget.match
        times, divided = _MONTHS[budget.period.kind]
        nanos = budget.amount_nanos * times // divided
        scope = f"{attribute}:{value}"
        found[scope] = min(nanos, found.get(scope, nanos))
    return found
