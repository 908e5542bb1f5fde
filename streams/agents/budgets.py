"""BUDGET's shell: scope statements in; alerts, throttle commands and the dashboard's budget rows out."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from schemas.instants import DAY
from schemas.statements import ScopeStatement
from streams.agents.keyed import KeyedAgent, alert_record, command_record, newest_of_each_key
from streams.clock import Clock
from streams.core import budgets
from streams.core.budgets import BudgetState, Policy, Terms
from streams.core.scopes import BUDGET
from streams.ports import BudgetStatus, Ledger
from streams.transport import Outgoing, RecordBatch, StateTable

#: A period that has been over for this long is forgotten; what comes later is history of the ledger alone.
FORGET_AFTER = 2 * DAY


class BudgetAgent(KeyedAgent[BudgetState]):
    """All budgets whose scopes live on this worker's partitions."""

    tick_s = 0.5

    def __init__(
        self, table: StateTable, terms: Mapping[str, Terms], ledger: Ledger, clock: Clock, policy: Policy
    ) -> None:
        super().__init__("BUDGET", table, BudgetState, msgspec.json.Decoder(ScopeStatement).decode, clock)
        self._terms = terms
        self._ledger = ledger
        self._policy = policy

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        found = newest_of_each_key(batch, self._decode)
        return [statement for statement in found if statement.scope.startswith(BUDGET)]

    def key_of(self, message: ScopeStatement) -> str | None:
        """Budget and period; what is no longer defined so, or long over, is passed over."""
        if message.scope not in self._terms or message.period_end + FORGET_AFTER < self.clock.now():
            return None
        return budgets.state_key(message.scope, message.period_start)

    def step(self, state: BudgetState | None, message: ScopeStatement) -> tuple[BudgetState, list[Outgoing]]:
        """Take a total in and compare with the ladder."""
        self.observe(message.stream_time, message.source.slot())
        terms = self._terms[message.scope]
        above = self._last_revision(terms) if state is None else 0
        taken = budgets.take_in(state, terms, message, above)
        return taken, self._decide(taken, terms)

    def _last_revision(self, terms: Terms) -> int:
        """The highest revision this budget gave in any period and definition; all of them lie in this partition."""
        known = self._states.get(self._reading, {}).values()
        return max((state.revision for state in known if state.budget_id == terms.budget_id), default=0)

    def tick(self, state: BudgetState) -> tuple[BudgetState | None, list[Outgoing]]:
        """Periods end by the clock: a blocked team sends no events. A withdrawn budget lets go of what it blocked."""
        terms = self._terms.get(state.scope) or budgets.withdrawn(state)
        out = self._decide(state, terms)
        return (None if self.clock.now() > state.period_end + FORGET_AFTER else state), out

    def _decide(self, state: BudgetState, terms: Terms) -> list[Outgoing]:
        decision = budgets.decide(state, terms, self.clock.now(), self._policy)
        # The command goes first: a gate should close before people read that it did.
        out = [command_record(decision.command)] if decision.command else []
        return out + [alert_record(alert) for alert in decision.alerts]

    async def after(self, states: Iterable[BudgetState]) -> None:
        """Tell the ledger where the budgets stand."""
        rows = [self._row(state, self._terms[state.scope]) for state in states if state.scope in self._terms]
        if rows:
            await self._ledger.write_budget_status(rows)

    def _row(self, state: BudgetState, terms: Terms) -> BudgetStatus:
        return BudgetStatus(
            budget_id=state.budget_id,
            scope_type=terms.target.scope_type,
            scope_id=terms.target.scope_id,
            period=terms.period,
            period_start=state.period_start,
            period_end=state.period_end,
            amount_nanos=terms.amount_nanos,
            spent_nanos=state.spent_nanos,
            crossed_percent=state.crossed_percent(),
            commanded=state.commanded,
            mode="enforce" if terms.enforced else "observe",
            # Statements taken in, with the commands given: a release at a period's end changes the row too.
            sequence=state.sequence + state.revision,
            stated_at=self.clock.now(),
        )
