"""Which scopes an event counts in: every budget that it matches, and the detectors' team and feature hours."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from schemas.instants import HOUR
from schemas.statements import Dimensions
from streams.core.rules import Watched

BUDGET = "budget:"
TEAM = "team:"
FEATURE = "feature:"

#: Money that detectors judge by the hour; bills come in lumps and are judged by budgets alone.
_METERED = frozenset({"llm", "gpu"})
_MEMO_MAX = 50_000

#: Budget attribute -> dimension field; ``key`` and ``user`` are no dimensions of a cell.
_FIELDS = {
    "org": "org_id",
    "cost_center": "cost_center",
    "team": "team_id",
    "project": "project_id",
    "feature": "feature",
    "model": "model",
    "provider": "provider",
    "environment": "environment",
    "request_type": "request_type",
    "user_tier": "user_tier",
    "category": "category",
}


class WatchedBudget(NamedTuple):
    """A budget as METER needs it: what it matches, and its periods."""

    budget_id: str
    #: ``(attribute, value)`` pairs that must all hold.
    match: tuple[tuple[str, str], ...]
    #: The start and end of the period that an instant falls into, microseconds since 1970.
    bounds: Callable[[int], tuple[int, int]]
    #: Names what is matched and how periods run, so that a changed definition never adds to another's counters.
    definition: str = ""
    #: It is counted for each value of this attribute.
    per: str = ""
    #: Nothing outside of [starts, ends) is counted; 0: no bound.
    starts: int = 0
    ends: int = 0
    #: Calls of these models are not counted, since they are never refused.
    exempt_models: tuple[str, ...] = ()
    #: How far back it counts at every instant, besides the bounds of that instant; only of rolling ones.
    lookback: int = 0


def budget_scope(budget: WatchedBudget) -> str:
    """The scope of a budget: ``budget:<id>@<definition>``. Whatever else it matched or counted before is another."""
    return f"{BUDGET}{budget.budget_id}@{budget.definition}"


def meeting_place(scope: str) -> str:
    """What decides the partition of a scope's statements: all definitions of a budget meet in one.

    >>> meeting_place("budget:search-daily@0a1b"), meeting_place("team:a@b")
    ('budget:search-daily', 'team:a@b')
    """
    return scope.partition("@")[0] if scope.startswith(BUDGET) else scope


class ScopeWatchlist:
    """Finds the scopes of an event; memoised, since thousands of events share one set of attributes."""

    def __init__(self, budgets: Sequence[WatchedBudget]) -> None:
        self.budgets = tuple(budgets)
        #: Whether a budget matches keys or users, so that they decide what an event counts in.
        self.personal = any(name in ("key", "user") for budget in budgets for name, _ in budget.match)
        self._memo: dict[tuple[Dimensions, str, str], tuple[WatchedBudget, ...]] = {}
        #: The last period of each budget: instants mostly fall into the same one.
        self._periods: dict[str, tuple[int, int]] = {}

    def watched(
        self, dimensions: Dimensions, shown: Dimensions, key_id: str, user_id: str, event_time: int
    ) -> Sequence[Watched]:
        """The scopes that an event counts in, each with the event's period in that scope.

        Budgets match what the event is; detectors follow the cell that it is shown under, whose number is bounded.
        """
        found = []
        for budget in self._matching(dimensions, key_id, user_id):
            start, end = self._bounds(budget, event_time)
            found.append(Watched(budget_scope(budget), start, end, _label(budget, dimensions)))
        if dimensions.category in _METERED:
            hour = event_time - event_time % HOUR
            found.append(Watched(TEAM + shown.team_id, hour, hour + HOUR, shown.feature))
            found.append(Watched(FEATURE + shown.feature, hour, hour + HOUR, shown.team_id))
        return found

    def of_cell(self, dimensions: Dimensions, instant: int) -> Sequence[Watched]:
        """The budgets' scopes of whatever such a cell holds at an instant, where cells tell what the budget asks."""
        found = self.watched(dimensions, dimensions, "", "", instant)
        return [each for each in found if each.scope.startswith(BUDGET)]

    def _matching(self, dimensions: Dimensions, key_id: str, user_id: str) -> tuple[WatchedBudget, ...]:
        memo_key = (dimensions, key_id, user_id) if self.personal else (dimensions, "", "")
        matching = self._memo.get(memo_key)
        if matching is None:
            matching = tuple(b for b in self.budgets if _matches(b.match, dimensions, key_id, user_id))
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[memo_key] = matching
        return matching

    def _bounds(self, budget: WatchedBudget, event_time: int) -> tuple[int, int]:
        period = self._periods.get(budget.budget_id)
        if period is None or not period[0] <= event_time < period[1]:
            period = self._periods[budget.budget_id] = budget.bounds(event_time)
        return period


def _matches(match: tuple[tuple[str, str], ...], dimensions: Dimensions, key_id: str, user_id: str) -> bool:
    for attribute, value in match:
        if attribute == "key":
            actual = key_id
        elif attribute == "user":
            actual = user_id
        else:
            actual = getattr(dimensions, _FIELDS[attribute])
        if actual != value:
            return False
    return True


def _label(budget: WatchedBudget, dimensions: Dimensions) -> str:
    by_feature = any(attribute == "team" for attribute, _ in budget.match)
    return dimensions.feature if by_feature else f"{dimensions.team_id}/{dimensions.feature}"
