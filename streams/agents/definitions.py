"""What is defined now, for the agents of a worker: followed from the topic, a whole snapshot at a time."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas.budgets import Definition
from schemas.versions import UnknownVersionError
from streams import metrics
from streams.core.answers import NO_LESSONS, Lessons, lessons_of
from streams.core.budget_terms import counted_budgets
from streams.core.definitions import Definitions, read_definition
from streams.core.detect_spike_money import monthly_budgets
from streams.core.scopes import ScopeWatchlist, budget_scope, watched_of
from streams.core.tree import Tree

logger = logging.getLogger("sluice.definitions")
#: What people answered and planned, as it stands now.
Taught = Callable[[], Lessons]


def nothing() -> Lessons:
    """Nobody has said anything."""
    return NO_LESSONS


class KnownDefinitions:
    """The snapshot that holds. What cannot be read changes nothing: the definition before it stays, and it is said."""

    def __init__(self, definitions: Definitions | None = None) -> None:
        self._now = definitions or Definitions()

    def __call__(self) -> Definitions:
        """The present snapshot; another object after every change."""
        return self._now

    def take(self, records: Iterable[Any]) -> None:
        """Take records of the topic, in the order of each key, all at once."""
        changes: dict[str, Definition | None] = {}
        for record in records:
            try:
                key = (record.key or b"").decode()
                definition = None if record.value is None else read_definition(record.value)
                if definition is not None and definition.key() != key:
                    raise ValueError(f"it is {definition.key()}")
            except (msgspec.DecodeError, UnicodeDecodeError, UnknownVersionError, ValueError) as error:
                metrics.DEFINITIONS_UNREADABLE.inc()
                logger.error("what is defined under %r cannot be read, and changes nothing: %s", record.key, error)
                continue
            changes[key] = definition
        if changes:
            self._now = self._now.changed(changes)
            metrics.DEFINITIONS.set(sum(len(held) for held in self._now[:-1]))


class WatchedNow:
    """METER's watchlist of what is defined now: the same object until what is counted changes."""

    def __init__(self, definitions: KnownDefinitions) -> None:
        self._definitions = definitions
        self._known: Definitions | None = None
        self._watchlist = ScopeWatchlist(())

    def __call__(self) -> ScopeWatchlist:
        """The present watchlist; amounts and ladders are nothing to it."""
        known = self._definitions()
        if known is not self._known:
            self._known = known
            watched = [watched_of(budget) for _, budget in sorted(counted_budgets(known).items())]
            if _scopes(watched) != _scopes(self._watchlist.budgets):
                self._watchlist = ScopeWatchlist(watched)
        return self._watchlist


class AncestorsNow:
    """The budgets above one, as they are defined now."""

    def __init__(self, definitions: KnownDefinitions) -> None:
        self._definitions = definitions
        self._budgets: Any = None
        self._tree = Tree(())

    def __call__(self, budget_id: str, value: str) -> tuple[str, ...]:
        """The closest first."""
        budgets = self._definitions().budgets
        if budgets is not self._budgets:
            self._budgets, self._tree = budgets, Tree(tuple(budgets.values()))
        return self._tree.ancestors(budget_id, value)


class MonthlyNow(Mapping[str, int]):
    """What each scope may spend in a month, nanodollars, as budgets are defined now."""

    def __init__(self, definitions: KnownDefinitions) -> None:
        self._definitions = definitions
        self._budgets: Any = None
        self._monthly: dict[str, int] = {}

    def _now(self) -> dict[str, int]:
        budgets = self._definitions().budgets
        if budgets is not self._budgets:
            self._budgets, self._monthly = budgets, monthly_budgets(budgets.values())
        return self._monthly

    def __getitem__(self, scope: str) -> int:
        return self._now()[scope]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


class LessonsNow:
    """What people answered and planned, as it stands now: the same object until some of it changes."""

    def __init__(self, definitions: Callable[[], Definitions]) -> None:
        self._definitions = definitions
        self._known: tuple[object, object] = (None, None)
        self._lessons = NO_LESSONS

    def __call__(self) -> Lessons:
        """For detectors."""
        found = self._definitions()
        if found.answers is not self._known[0] or found.planned is not self._known[1]:
            self._known = found.answers, found.planned
            self._lessons = lessons_of(found.answers, found.planned)
        return self._lessons


def _scopes(budgets: Sequence[Any]) -> set[str]:
    return {budget_scope(budget) for budget in budgets}
