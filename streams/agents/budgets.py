"""BUDGET's shell: scope statements in; alerts, throttle commands and the dashboard's budget rows out.

It also hears what is commanded in its budgets' names. An owner that was overtaken can speak once more before it knows,
and a topic has no fence: whoever owns the budget answers above it, or says again what compaction would lose.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas import topics
from schemas.commands import ThrottleCommand
from schemas.instants import DAY
from schemas.readers import COMMANDS, SCOPE_STATEMENTS
from schemas.statements import ScopeStatement
from streams.agents.keyed import KeyedAgent, alert_record, command_record, newest_of_each_key
from streams.clock import Clock
from streams.core import budgets
from streams.core.budget_states import BUDGET_STATES
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
        super().__init__("BUDGET", table, BUDGET_STATES, SCOPE_STATEMENTS.decode, clock)
        self._terms = terms
        self._ledger = ledger
        self._policy = policy

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        if batch.topic == topics.GATEWAY_COMMANDS:
            return newest_of_each_key(batch, COMMANDS.decode)
        found = newest_of_each_key(batch, self._decode)
        return [statement for statement in found if statement.scope.startswith(BUDGET)]

    def key_of(self, message: ScopeStatement | ThrottleCommand) -> str | None:
        """Budget and period; what is no longer defined so, or long over, is passed over."""
        if isinstance(message, ThrottleCommand):
            known = [state for state in self._known(message.budget_id) if state.target == message.target]
            found = budgets.answerer(known, message)
            return found and budgets.state_key(found.scope, found.period_start)
        if message.scope not in self._terms or message.period_end + FORGET_AFTER < self.clock.now():
            return None
        return budgets.state_key(message.scope, message.period_start)

    def step(
        self, state: BudgetState | None, message: ScopeStatement | ThrottleCommand
    ) -> tuple[BudgetState, list[Outgoing]]:
        """Take a total in and compare with the ladder; or answer a command that is not ours."""
        if isinstance(message, ThrottleCommand):
            assert state is not None
            return state, self._answer(state, message)
        self.observe(message.stream_time, message.source.slot())
        terms = self._terms[message.scope]
        above = 0
        if state is None:
            above = max((known.revision for known in self._known(terms.budget_id)), default=0)
        taken = budgets.take_in(state, terms, message, above)
        return taken, self._decide(taken, terms)

    def _known(self, budget_id: str) -> Iterator[BudgetState]:
        """All periods and definitions of a budget; they lie in this partition. Lazy: few steps need to look."""
        return (state for state in self._states.get(self._reading, {}).values() if state.budget_id == budget_id)

    def tick(self, state: BudgetState) -> tuple[BudgetState | None, list[Outgoing]]:
        """Periods end by the clock: a blocked team sends no events. A withdrawn budget lets go of what it blocked."""
        out = self._decide(state, self._terms_of(state))
        return (None if self.clock.now() > state.period_end + FORGET_AFTER else state), out

    def _terms_of(self, state: BudgetState) -> Terms:
        return self._terms.get(state.scope) or budgets.withdrawn(state)

    def _decide(self, state: BudgetState, terms: Terms) -> list[Outgoing]:
        now = self.clock.now()
        before = state.commanded, state.dry_run
        decision = budgets.decide(state, terms, now, self._policy, self._known(state.budget_id))
        if before != (state.commanded, state.dry_run):
            self.also_changed(budgets.state_key(state.scope, state.period_start))
        # The command goes first: a gate should close before people read that it did.
        out = [self._record(decision.command)] if decision.command else []
        if decision.stands is not None:
            stands = decision.stands
            said = budgets.speak(stands, self._terms_of(stands), now, self._known(state.budget_id))
            out.append(self._record(said))
            self.also_changed(budgets.state_key(stands.scope, stands.period_start))
        return out + [alert_record(alert) for alert in decision.alerts]

    def _answer(self, state: BudgetState, heard: ThrottleCommand) -> list[Outgoing]:
        said = budgets.answer(state, self._terms_of(state), heard, self.clock.now(), self._known(state.budget_id))
        return [self._record(said)] if said else []

    def _record(self, command: ThrottleCommand) -> Outgoing:
        # Where the budget lives, so that whoever owns it hears what is said in its name.
        return command_record(command)._replace(partition=self._reading)

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
