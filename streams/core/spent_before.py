"""What was spent in a budget's period before the budget was there, from cells: those in memory, and rows of the ledger.

A cell counts where it lies wholly in the period. Where it does not, and where cells of the excess (``__other__``) hide
whose money they hold, what they leave open is said instead of guessed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.budgets import CELL_ATTRIBUTES
from schemas.instants import HOUR
from schemas.statements import Dimensions, ScopeStatement
from streams.core.admission import OTHER, is_other
from streams.core.lanes import contribute
from streams.core.rules import Watched
from streams.core.scopes import ScopeWatchlist, WatchedBudget

_CELL_ATTRIBUTES = frozenset(CELL_ATTRIBUTES)
#: What cells of the excess keep: all of them, and those of one team's excess.
_KEPT = {"category": "category"}
_KEPT_OF_TEAM = _KEPT | {"org": "org_id", "cost_center": "cost_center", "team": "team_id"}


class Past(NamedTuple):
    """The sums of cells with the same dimensions; of those that do not lie wholly in the period, ``until`` is the end
    of the last one's hour, else 0.
    """

    dimensions: Dimensions
    until: int
    cost_nanos: int
    #: What of it stands on gateways' own figures.
    estimated_nanos: int
    requests: int
    tokens: int


class Sum:
    """What was spent before, of one counter."""

    __slots__ = ("contributors", "cost_nanos", "estimated_nanos", "requests", "since", "tokens", "watched")

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.cost_nanos = self.estimated_nanos = self.requests = self.tokens = self.since = 0
        self.contributors: dict[str, int] = {}

    def add(self, past: Past, label: str, now: int) -> None:
        """Add what lies wholly in the period; of the rest only say that it is missing."""
        if past.until:
            self.since = max(self.since, min(past.until, now))
            return
        self.cost_nanos += past.cost_nanos
        self.estimated_nanos += past.estimated_nanos
        self.requests += past.requests
        self.tokens += past.tokens
        if past.cost_nanos:
            contribute(self.contributors, label, past.cost_nanos)

    def carry_to(self, counter: ScopeStatement) -> None:
        """Add it to its counter."""
        counter.cost_nanos += self.cost_nanos
        counter.requests += self.requests
        counter.tokens += self.tokens
        if self.estimated_nanos:
            counter.estimated_nanos = (counter.estimated_nanos or 0) + self.estimated_nanos
        say_since(counter, self.since)
        for label, nanos in self.contributors.items():
            contribute(counter.contributors, label, nanos)


def say_since(counter: ScopeStatement, instant: int) -> None:
    """The counter counts everything only from this instant on, or from a later one; 0 says nothing."""
    if instant:
        counter.since = max(counter.since or 0, instant)


#: By scope and start of the period.
Sums = dict[tuple[str, int], Sum]


def is_exact(budget: WatchedBudget) -> bool:
    """Whether cells tell all that decides what the budget counts."""
    return _asks_for(budget) <= _CELL_ATTRIBUTES


def open_from(budget: WatchedBudget, now: int, idle_us: int) -> int:
    """Where the oldest period or bucket begins that counts now, or is over for less than a counter stays in memory."""
    return budget.bounds(now - max(budget.lookback, idle_us))[0]


def spans_of(budget: WatchedBudget, now: int, idle_us: int) -> list[tuple[int, int]]:
    """The periods or buckets from there to that of ``now``, the oldest first."""
    found = [budget.bounds(now - max(budget.lookback, idle_us))]
    while found[-1][1] <= now:
        found.append(budget.bounds(found[-1][1]))
    return found


class Lookup:
    """Finds the counters of budgets for what cells tell."""

    def __init__(self, budgets: Sequence[WatchedBudget]) -> None:
        self._budgets = budgets
        self._whole = ScopeWatchlist(budgets)
        #: For the excess: of a team, and of nobody.
        self._excess: dict[bool, ScopeWatchlist] = {}
        self._doubtful: dict[Dimensions, list[WatchedBudget]] = {}

    def add_cell(self, sums: Sums, past: Past, hour: int, now: int) -> None:
        """Add one cell to every counter that it matches, or say there that only a part of its hour is the period's."""
        watchlist = self._watchlist(past.dimensions)
        first = {(each.scope, each.period_start): each for each in watchlist.of_cell(past.dimensions, hour)}
        last = {(each.scope, each.period_start): each for each in watchlist.of_cell(past.dimensions, hour + HOUR - 1)}
        for key, watched in (first | last).items():
            found = past if key in first and key in last else past._replace(until=hour + HOUR)
            sums.setdefault(key, Sum(watched)).add(found, watched.label, now)

    def add_rows(self, sums: Sums, rows: Iterable[Past], at: int, now: int) -> None:
        """Add sums over a period that begins ``at`` to every counter that they match."""
        for past in rows:
            for watched in self._watchlist(past.dimensions).of_cell(past.dimensions, at):
                sums.setdefault((watched.scope, watched.period_start), Sum(watched)).add(past, watched.label, now)

    def doubtful(self, dimensions: Dimensions) -> list[WatchedBudget]:
        """The budgets that may have counted some of what is in a cell, and nobody can say how much."""
        if not is_other(dimensions):
            return []
        if dimensions not in self._doubtful:
            kept = _kept(dimensions)
            self._doubtful[dimensions] = [
                each for each in self._budgets if not _is_clear(each, kept) and _may_match(each, dimensions, kept)
            ]
        return self._doubtful[dimensions]

    def _watchlist(self, dimensions: Dimensions) -> ScopeWatchlist:
        if not is_other(dimensions):
            return self._whole
        nobodys = dimensions.team_id == OTHER
        if nobodys not in self._excess:
            kept = _kept(dimensions)
            self._excess[nobodys] = ScopeWatchlist([each for each in self._budgets if _is_clear(each, kept)])
        return self._excess[nobodys]


def _kept(dimensions: Dimensions) -> Mapping[str, str]:
    return _KEPT if dimensions.team_id == OTHER else _KEPT_OF_TEAM


def _asks_for(budget: WatchedBudget) -> set[str]:
    return {attribute for attribute, _ in budget.match} | ({budget.per} - {""})


def _is_clear(budget: WatchedBudget, kept: Mapping[str, str]) -> bool:
    """Whether what a cell has kept tells all that decides what the budget counts."""
    return _asks_for(budget) <= kept.keys() and not budget.exempt_models


def _may_match(budget: WatchedBudget, dimensions: Dimensions, kept: Mapping[str, str]) -> bool:
    allowed: dict[str, set[str]] = {}
    for attribute, value in budget.match:
        allowed.setdefault(attribute, set()).add(value)
    return all(getattr(dimensions, kept[name]) in values for name, values in allowed.items() if name in kept)
