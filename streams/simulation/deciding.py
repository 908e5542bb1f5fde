"""BUDGET without its shell: statements and time in, alerts and commands out. All that the simulation knows of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.alerts import Alert
from schemas.commands import ThrottleCommand
from schemas.statements import ScopeStatement
from streams.core import budgets
from streams.core.budgets import BudgetState, Policy, Terms


class Said(NamedTuple):
    """What follows from a step."""

    alerts: list[Alert]
    commands: list[ThrottleCommand]


class Account(NamedTuple):
    """Where one budget stands in one of its periods."""

    budget_id: str
    scope: str
    period_start: int
    period_end: int
    amount_nanos: int
    spent_nanos: int


class Deciding:
    """Every state of every budget."""

    def __init__(self, terms: Sequence[Terms], policy: Policy) -> None:
        self._terms = {each.scope: each for each in terms}
        self._policy = policy
        self._states: dict[str, BudgetState] = {}
        #: Those whose period is not over, or was not seen to be.
        self._live: dict[str, BudgetState] = {}

    def take(self, statement: ScopeStatement, now: int) -> Said:
        """Take a total in and compare with the ladder; what no budget watches is passed over."""
        terms = self._terms.get(statement.scope)
        if terms is None:
            return Said([], [])
        key = budgets.state_key(statement.scope, statement.period_start)
        state = self._states.get(key)
        above = 0
        if state is None:
            above = max((known.revision for known in self._of(terms.budget_id)), default=0)
        state = self._states[key] = self._live[key] = budgets.take_in(state, terms, statement, above)
        return self._decide(state, now)

    def tick(self, now: int) -> Said:
        """Let time pass: periods end, and what was closed is let go."""
        said = Said([], [])
        for key, state in list(self._live.items()):
            found = self._decide(state, now)
            said.alerts.extend(found.alerts)
            said.commands.extend(found.commands)
            if now >= state.period_end:
                del self._live[key]
        return said

    def next_end(self) -> int | None:
        """When the next period ends."""
        return min((state.period_end for state in self._live.values()), default=None)

    def is_holding(self) -> bool:
        """Whether anything is asked of gateways now."""
        return any(state.commanded != "allow" for state in self._live.values())

    def accounts(self) -> list[Account]:
        """All periods of all budgets, by id and time."""
        found = [
            Account(
                state.budget_id, state.scope, state.period_start, state.period_end,
                self._terms[state.scope].amount_nanos, state.spent_nanos,
            )
            for state in self._states.values()
        ]  # fmt: skip
        return sorted(found, key=lambda account: (account.budget_id, account.period_start, account.scope))

    def _of(self, budget_id: str) -> Iterator[BudgetState]:
        return (state for state in self._states.values() if state.budget_id == budget_id)

    def _decide(self, state: BudgetState, now: int) -> Said:
        decision = budgets.decide(state, self._terms[state.scope], now, self._policy, list(self._of(state.budget_id)))
        commands = [decision.command] if decision.command else []
        if decision.stands is not None:
            stands = decision.stands
            known = list(self._of(state.budget_id))
            commands.append(budgets.speak(stands, self._terms[stands.scope], now, known))
        return Said(decision.alerts, commands)
