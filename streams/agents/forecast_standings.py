"""Where budgets stand, as FORECAST takes it: from the states that BUDGET keeps. The only place that knows both."""

from collections.abc import Iterable, Iterator, Mapping

from streams.core.budget_file import Budget
from streams.core.budgets import BudgetState
from streams.core.forecast import Counter, Standing
from streams.core.periods import period_bounds


def standings_of(states: Iterable[BudgetState], budgets: Mapping[str, Budget], now: int) -> Iterator[Standing]:
    """One standing for each budget of which anything was counted; ``budgets`` is by scope, what is withdrawn has none.

    A budget of whose present period nothing was counted yet stands at nothing.
    """
    by_scope: dict[str, list[BudgetState]] = {}
    for state in states:
        if state.scope in budgets:
            by_scope.setdefault(state.scope, []).append(state)
    for scope, found in by_scope.items():
        budget = budgets[scope]
        start, end = period_bounds(budget.period, budget.timezone, now)
        current = next((state for state in found if state.period_start == start), None)
        yield Standing(
            budget_id=budget.id,
            value="",
            period_start=start,
            period_end=end,
            spent_nanos=current.spent_nanos if current else 0,
            limit_nanos=budget.amount_nanos,
            counters=tuple(Counter(s.period_start, s.period_end, s.spent_nanos) for s in found),
            timezone=budget.timezone,
            is_held=current is not None and current.commanded != "allow" and not current.dry_run,
        )
