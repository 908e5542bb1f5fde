"""Where budgets stand, as FORECAST takes it: from the states that BUDGET keeps. The only place that knows both."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from schemas.budgets import CELL_ATTRIBUTES, Budget
from streams.core import slots as stated
from streams.core.budget_account import BudgetState, standing
from streams.core.budget_terms import GRANT, LIMIT, Book, Terms, value_of
from streams.core.definitions import Definitions
from streams.core.forecast import Counter, Standing
from streams.core.periods import ENDLESS, bounds_of

#: Over before a forecast of them knows anything.
_SHORT_LIVED = ("session", "task")


class Standings:
    """The standing of each budget, and of each value of a ``per`` budget, of which anything was counted here."""

    def __init__(
        self,
        states: Callable[[], Iterable[BudgetState]],
        definitions: Callable[[], Definitions],
        scope_of: Callable[[Budget], str],
    ) -> None:
        self._states = states
        self._definitions, self._scope_of = definitions, scope_of
        self._snapshot = definitions()
        self._book = Book(self._snapshot, scope_of)

    def at(self, now: int) -> Iterator[Standing]:
        """One for each budget and value that counts at ``now``; what is withdrawn, a limit or a grant has none.

        A budget of whose present period nothing was counted yet stands at what it opened with.
        """
        found = self._definitions()
        if found is not self._snapshot:
            self._snapshot, self._book = found, Book(found, self._scope_of)
        by_scope: dict[str, list[BudgetState]] = {}
        for state in self._states():
            by_scope.setdefault(state.scope, []).append(state)
        for scope, states in by_scope.items():
            budget = self._book.budget(scope)
            if budget is None or budget.id.startswith((LIMIT, GRANT)) or budget.per in _SHORT_LIVED:
                continue
            bounds = bounds_of(budget.period, now, budget.starts, budget.ends)
            if bounds is None:
                continue
            start, end = (0, 0) if budget.period.kind == "rolling" else bounds
            terms = self._book.terms(scope, start, now)
            if terms is not None:
                yield _standing(budget, terms, states, start, 0 if end >= ENDLESS else end, now)

    def match_of(self, key: tuple[str, str]) -> Sequence[tuple[str, str]] | None:
        """What a budget and value match, for a look into the ledger; None: it is defined no more."""
        budget = self._snapshot.of_budget(key[0])
        if budget is None or budget.exempt_models:
            return None
        return (*budget.match, (budget.per, key[1])) if budget.per else budget.match


def _standing(budget: Budget, terms: Terms, states: Sequence[BudgetState], start: int, end: int, now: int) -> Standing:
    current = next((state for state in states if state.period_start == start), None)
    stands = standing(current, terms, now, 0) if current else None
    return Standing(
        budget_id=budget.id,
        value=value_of(terms.scope),
        period_start=start,
        period_end=end,
        spent_nanos=stands.spent if stands else terms.opening_nanos,
        limit_nanos=stands.limit if stands else terms.amount_nanos,
        counters=tuple(
            Counter(begin, bucket.end, stated.total(bucket.slots.values()))
            for state in states
            for begin, bucket in state.buckets.items()
        ),
        counted_since=_counted_since(budget),
        rolling_hours=budget.period.hours if budget.period.kind == "rolling" else 0,
        timezone=budget.period.timezone,
        growth_permille=budget.growth_permille,
        is_held=current is not None and current.commanded != "allow" and not current.dry_run,
    )


def _counted_since(budget: Budget) -> int:
    """A budget that matches what no cell has began to count when it was defined; all others know what was before."""
    asked = {name for name, _ in budget.match} | ({budget.per} if budget.per else set())
    is_in_cells = asked <= set(CELL_ATTRIBUTES)
    defined = budget.changed_at if budget.version == 1 and not is_in_cells else 0
    return max(budget.starts, defined)
