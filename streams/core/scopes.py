"""Which scopes an event counts in: every budget that it matches."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from schemas.budgets import Budget
from schemas.events import UNATTRIBUTED
from schemas.instants import HOUR
from schemas.keys import digest
from schemas.statements import Dimensions
from streams.core.matching import CELL_FIELDS, Conditions, Index, conditions_of, pattern_of
from streams.core.periods import ENDLESS, Bounds, whole_bounds
from streams.core.rules import Watched

BUDGET = "budget:"

_MEMO_MAX = 50_000


class WatchedBudget(NamedTuple):
    """A budget as METER needs it: what it matches, and its periods."""

    budget_id: str
    #: ``(attribute, value)`` pairs: of each attribute one value must hold.
    match: tuple[tuple[str, str], ...]
    #: The start and end of the period (or bucket) that an instant falls into, microseconds since 1970.
    bounds: Callable[[int], Bounds]
    #: Names what is counted and how periods run, so that a changed definition never adds to another's counters.
    definition: str = ""
    #: It is counted for each value of this attribute.
    per: str = ""
    #: Nothing outside of [starts, ends) is counted; 0: no bound.
    starts: int = 0
    ends: int = 0
    #: Calls of these models are not counted, since they are never refused.
    exempt_models: tuple[str, ...] = ()
    #: How far back it counts at every instant, besides the bounds of that instant, microseconds; only of rolling ones.
    lookback: int = 0


class BudgetScope(NamedTuple):
    """What a budget's scope says: which budget, how it is defined, and of a ``per`` budget the value."""

    budget_id: str
    definition: str
    value: str = ""


def watched_of(budget: Budget) -> WatchedBudget:
    """A budget as METER needs it."""
    return WatchedBudget(
        budget.id,
        budget.match,
        partial(whole_bounds, budget.period),
        definition_of(budget),
        budget.per,
        budget.starts,
        budget.ends,
        budget.exempt_models,
        budget.period.hours * HOUR if budget.period.kind == "rolling" else 0,
    )


def definition_of(budget: Budget) -> str:
    """Names what a budget counts and how its periods run: another name, other counters.

    What earlier releases knew is named as they named it, so that their counters go on; only what came later is added.
    """
    period, target = budget.period, budget.target
    pairs = sorted(set(budget.match))
    later = {
        "week_start": period.week_start if period.kind == "week" else 0,
        "hours": period.hours if period.kind == "rolling" else 0,
        "per": budget.per,
        "target": "" if budget.per or (target.scope_type, target.scope_id) in pairs else target.scope_id,
        "starts": budget.starts,
        "ends": budget.ends,
    }
    parts = [target.scope_type, period.kind, period.timezone, *(text for pair in pairs for text in pair)]
    # No attribute is called "", so these are never taken for what is matched.
    parts += [text for name, value in later.items() if value for text in ("", name, str(value))]
    for pattern in sorted(set(budget.exempt_models)):
        parts += ["", "exempt", pattern]
    return digest("budget", *parts)[:8]


def budget_scope(budget: WatchedBudget, value: str = "") -> str:
    """``budget:<id>@<definition>``, and ``#<value>`` of a ``per`` budget.

    Whatever else the budget matched or counted before is another scope.
    """
    scope = f"{BUDGET}{budget.budget_id}@{budget.definition}"
    return f"{scope}#{value}" if budget.per else scope


def definition_scope(budget: Budget) -> str:
    """The scope of a definition: that of all, and of a ``per`` budget what stands before ``#`` and a value."""
    return f"{BUDGET}{budget.id}@{definition_of(budget)}"


def read_scope(scope: str) -> BudgetScope | None:
    """The parts of a budget's scope; None where it is none.

    >>> read_scope("budget:agents@0a1b#s@1#2"), read_scope("team:search")
    (BudgetScope(budget_id='agents', definition='0a1b', value='s@1#2'), None)
    """
    if not scope.startswith(BUDGET):
        return None
    budget_id, _, rest = scope.removeprefix(BUDGET).partition("@")
    definition, _, value = rest.partition("#")
    return BudgetScope(budget_id, definition, value)


def meeting_place(scope: str) -> str:
    """What decides the partition of a scope's statements: all definitions of a budget meet in one.

    Each value of a ``per`` budget has its own, so that a million sessions are not one worker's.

    >>> meeting_place("budget:search-daily@0a1b"), meeting_place("budget:agents@0a1b#s-7"), meeting_place("team:a@b")
    ('budget:search-daily', 'budget:agents#s-7', 'team:a@b')
    """
    found = read_scope(scope)
    if found is None:
        return scope
    name = f"{BUDGET}{found.budget_id}"
    return f"{name}#{found.value}" if "#" in scope else name


class ScopeWatchlist:
    """Finds the scopes of an event; memoised, since thousands of events share one set of attributes."""

    def __init__(self, budgets: Sequence[WatchedBudget]) -> None:
        self.budgets = tuple(budgets)
        self._budgets = tuple(_Watched(budget) for budget in budgets)
        self._index = Index([each.conditions for each in self._budgets])
        asked = {name for each in self._budgets for name in each.conditions}
        asked_per = {each.budget.per for each in self._budgets if each.budget.per}
        #: What no cell has and some budget asks for, in the order in which ``watched`` takes the values.
        self.attributes: tuple[str, ...] = tuple(sorted((asked | asked_per) - CELL_FIELDS.keys()))
        self._places = {name: place for place, name in enumerate(self.attributes)}
        #: Those of them that decide which budgets match: the others are only counted by.
        self._deciding = tuple(place for name, place in self._places.items() if name in asked)
        self._memo: dict[tuple[Dimensions, tuple[str, ...]], tuple[_Watched, ...]] = {}

    def watched(
        self, dimensions: Dimensions, shown: Dimensions, values: tuple[str, ...], event_time: int
    ) -> Sequence[Watched]:
        """The scopes that an event counts in, each with the event's period in that scope.

        ``values`` are those of ``attributes``. Budgets match what the event is, and not the cell it is shown in.
        """
        return self._of(self._matching(dimensions, values), dimensions, values, event_time)

    def of_cell(self, dimensions: Dimensions, instant: int) -> Sequence[Watched]:
        """The budgets' scopes of whatever such a cell holds at an instant, of budgets that ask for no more than cells
        have."""
        values = ("",) * len(self.attributes)
        matching = [each for each in self._matching(dimensions, values) if each.is_of_cells]
        return self._of(matching, dimensions, values, instant)

    def _of(
        self, matching: Sequence["_Watched"], dimensions: Dimensions, values: tuple[str, ...], event_time: int
    ) -> list[Watched]:
        found = []
        for each in matching:
            budget = each.budget
            if not budget.starts <= event_time < (budget.ends or ENDLESS):
                continue
            value = self._value(budget.per, dimensions, values)
            if budget.per and value in ("", UNATTRIBUTED):
                continue
            start, end = each.bounds(event_time)
            found.append(Watched(budget_scope(budget, value), start, end, each.label(dimensions)))
        return found

    def steady(self, dimensions: Dimensions, values: tuple[str, ...], event_time: int) -> Bounds:
        """From when to when no budget begins or ends for such an event: what ``watched`` leaves out stays left out."""
        low, high = 0, ENDLESS
        for each in self._matching(dimensions, values):
            for bound in (each.budget.starts, each.budget.ends):
                if bound and bound <= event_time:
                    low = max(low, bound)
                elif bound:
                    high = min(high, bound)
        return low, high

    def _matching(self, dimensions: Dimensions, values: tuple[str, ...]) -> tuple["_Watched", ...]:
        deciding = tuple([values[place] for place in self._deciding]) if self._deciding else ()
        matching = self._memo.get((dimensions, deciding))
        if matching is None:

            def value_of(attribute: str) -> str:
                return self._value(attribute, dimensions, values)

            candidates = [self._budgets[position] for position in self._index.candidates(value_of)]
            matching = tuple(each for each in candidates if each.holds(value_of))
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[(dimensions, deciding)] = matching
        return matching

    def _value(self, attribute: str, dimensions: Dimensions, values: tuple[str, ...]) -> str:
        if not attribute:
            return ""
        place = self._places.get(attribute)
        return values[place] if place is not None else getattr(dimensions, CELL_FIELDS[attribute])


class _Watched:
    """A budget, made ready for being asked often."""

    __slots__ = ("_by_feature", "_exempt", "_period", "budget", "conditions", "is_of_cells")

    def __init__(self, budget: WatchedBudget) -> None:
        self.budget = budget
        self.conditions: Conditions = conditions_of(budget.match)
        self.is_of_cells = {*self.conditions, budget.per} <= {"", *CELL_FIELDS}
        self._exempt = pattern_of(budget.exempt_models) if budget.exempt_models else None
        self._by_feature = "team" in self.conditions or budget.per == "team"
        #: The last one asked for: instants mostly fall into the same one.
        self._period: Bounds = (0, 0)

    def holds(self, value_of: Callable[[str], str]) -> bool:
        for attribute, allowed in self.conditions.items():
            if value_of(attribute) not in allowed:
                return False
        return self._exempt is None or value_of("category") != "llm" or not self._exempt(value_of("model"))

    def bounds(self, event_time: int) -> Bounds:
        start, end = self._period
        if not start <= event_time < end:
            budget = self.budget
            start, end = budget.bounds(event_time)
            self._period = start, end = max(start, budget.starts), min(end, budget.ends or ENDLESS)
        return start, end

    def label(self, dimensions: Dimensions) -> str:
        return dimensions.feature if self._by_feature else f"{dimensions.team_id}/{dimensions.feature}"
