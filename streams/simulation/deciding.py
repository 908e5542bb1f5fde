"""BUDGET without its shell: statements and time in, alerts and commands out. All that the simulation knows of it."""

from collections.abc import Iterator
from typing import NamedTuple

from schemas.alerts import Alert
from schemas.commands import Target, ThrottleCommand
from schemas.statements import ScopeStatement
from streams.core import budgets
from streams.core.budget_account import standing
from streams.core.budget_terms import FOREVER, GRANT, LIMIT, Book
from streams.core.budgets import Around, BudgetState, Policy, Terms
from streams.core.definitions import Definitions
from streams.core.scopes import definition_scope
from streams.core.tree import Tree


class Said(NamedTuple):
    """What follows from a step."""

    alerts: list[Alert]
    commands: list[ThrottleCommand]


class Account(NamedTuple):
    """Where one budget stands in one of its periods; of a rolling one in its window at the end."""

    budget_id: str
    value: str
    scope: str
    period_start: int
    period_end: int
    amount_nanos: int
    spent_nanos: int


class Deciding:
    """Every state of every budget. ``delay_us`` is what BUDGET takes to pass until gates obey."""

    def __init__(self, definitions: Definitions, policy: Policy, delay_us: int) -> None:
        self._book = Book(definitions, definition_scope)
        self._tree = Tree(definitions.budgets.values())
        self._policy = policy
        self._delay_us = delay_us
        self._states: dict[str, BudgetState] = {}
        #: Those whose period is not over, or was not seen to be.
        self._live: dict[str, BudgetState] = {}

    def begin(self, now: int) -> Said:
        """What is asked for at any spend: standing limits, and models that need a grant."""
        said = Said([], [])
        for scope in self._book.standing:
            terms = self._book.terms(scope, 0, now)
            if terms is not None:
                key = budgets.state_key(scope, 0)
                self._states[key] = self._live[key] = budgets.opened(terms, scope, 0, FOREVER)
                self._add(said, self._decide(self._states[key], now))
        return said

    def take(self, statement: ScopeStatement, now: int) -> Said:
        """Take a total in and compare with the ladder; what no budget watches is passed over."""
        terms = self._book.terms(statement.scope, statement.period_start, now)
        if terms is None:
            return Said([], [])
        key = budgets.key_of(terms, statement)
        state = self._states.get(key)
        above = 0
        if state is None:
            above = max((known.revision for known in self._of(terms.budget_id, terms.target)), default=0)
        state = self._states[key] = self._live[key] = budgets.take_in(state, terms, statement, above)
        return self._decide(state, now)

    def tick(self, now: int) -> Said:
        """Let time pass: periods end, commands are renewed, and what was closed is let go."""
        said = Said([], [])
        for key, state in list(self._live.items()):
            self._add(said, self._decide(state, now))
            if now >= state.period_end:
                del self._live[key]
        return said

    def next_end(self) -> int | None:
        """When the next period ends."""
        return min((state.period_end for state in self._live.values()), default=None)

    def is_holding(self) -> bool:
        """Whether anything is asked of gateways now."""
        return any(state.commanded != "allow" for state in self._live.values())

    def accounts(self, now: int) -> list[Account]:
        """All periods of all budgets, by id and time; standing limits have none."""
        found = []
        for state in self._states.values():
            terms = self._terms(state, now)
            if not terms.budget_id.startswith((LIMIT, GRANT)):
                # A period that is over stands as it ended.
                stands = standing(state, terms, min(now, state.period_end - 1), self._policy.live_within_us)
                place = state.budget_id, state.value, state.scope, state.period_start, state.period_end
                found.append(Account(*place, stands.limit, stands.spent))
        return sorted(
            found, key=lambda account: (account.budget_id, account.value, account.period_start, account.scope)
        )

    def _of(self, budget_id: str, target: Target) -> Iterator[BudgetState]:
        found = self._states.values()
        return (state for state in found if state.budget_id == budget_id and state.target == target)

    def _terms(self, state: BudgetState, now: int) -> Terms:
        return self._book.terms(state.scope, state.period_start, now) or budgets.withdrawn(state)

    def _decide(self, state: BudgetState, now: int) -> Said:
        known = list(self._of(state.budget_id, state.target))
        ancestors = self._tree.ancestors(state.budget_id, state.value)
        around = Around(delay_us=self._delay_us, ancestors=ancestors)
        decision = budgets.decide(state, self._terms(state, now), now, self._policy, known, around)
        commands = [decision.command] if decision.command else []
        if decision.stands is not None:
            stands = decision.stands
            commands.append(budgets.speak(stands, self._terms(stands, now), now, self._policy, known))
        return Said(decision.alerts, commands)

    @staticmethod
    def _add(said: Said, found: Said) -> None:
        said.alerts.extend(found.alerts)
        said.commands.extend(found.commands)
