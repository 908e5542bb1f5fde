"""BUDGET's shell: scope statements in; alerts, throttle commands and the dashboard's budget rows out.

It also hears what is commanded in its budgets' names. An owner that was overtaken can speak once more before it knows,
and a topic has no fence: whoever owns the budget answers above it, or says again what compaction would lose. And it
hears what gateways acknowledge: an answer that lies elsewhere is sent on to where its budget lives.

What is defined is asked for at every step, so a change holds from the next statement or tick on.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from schemas import topics
from schemas.budgets import Budget
from schemas.commands import JobAck, Target, ThrottleAck, ThrottleCommand
from schemas.instants import MINUTE, SECOND
from schemas.readers import COMMANDS, SCOPE_STATEMENTS
from schemas.statements import ScopeStatement
from streams import metrics
from streams.agents.budget_answers import READERS, answers_in, asked_by, sent_on
from streams.agents.budget_rows import remembered, row_of
from streams.agents.budget_status import BudgetStatuses
from streams.agents.gateways_heard import GatewaysHeard, Heard
from streams.agents.keyed import KeyedAgent, Stepped, alert_record, command_record, job_record, newest_of_each_key
from streams.agents.replayed import AnswersInRealTime
from streams.agents.slices import URGENT
from streams.clock import Clock, StreamClock
from streams.core import budgets
from streams.core.budget_account import pruned, standing
from streams.core.budget_runs import ASKED
from streams.core.budget_states import BUDGET_STATES
from streams.core.budget_terms import FOREVER, GRANT, LIMIT, RUN, Book, budget_of, changed_budgets, value_of
from streams.core.budget_watch import DELAY_MAX_US, acknowledged, delay_of
from streams.core.budgets import Around, BudgetState, Policy, Terms
from streams.core.definitions import Definitions
from streams.core.scopes import BUDGET, meeting_place
from streams.ports import BudgetStatus, Ledger
from streams.transport import Outgoing, RecordBatch, StateTable, partition_of

#: A statement can come before the definition that it belongs to: METER may have heard of it first. It waits so long.
EARLY_US = MINUTE
EARLY_MAX = 10_000
Message = ScopeStatement | ThrottleCommand | ThrottleAck | JobAck

#: What a budget, and a value of it, will have spent by the end of its period, as of now; None where nobody can say.
Projection = Callable[[str, str, int], int | None]


def no_ancestors(budget_id: str, value: str) -> tuple[str, ...]:
    """Every budget stands alone."""
    return ()


class BudgetAgent(KeyedAgent[BudgetState]):
    """All budgets whose scopes live on this worker's partitions.

    Args:
        definitions: what is defined now; a new snapshot is a new object.
        scope_of: the scope under which METER counts a budget.
        ancestors_of: the budgets above a budget and value, the closest first.
        projected: what will be spent by the period's end; None: forecast rungs stay silent.
    """

    tick_s, pace = 0.5, URGENT

    def __init__(
        self,
        table: StateTable,
        definitions: Callable[[], Definitions],
        scope_of: Callable[[Budget], str],
        ledger: Ledger,
        clock: Clock,
        policy: Policy,
        *,
        ancestors_of: Callable[[str, str], tuple[str, ...]] = no_ancestors,
        projected: Projection | None = None,
    ) -> None:
        #: The states of each budget and value: ``{partition: {(budget id, value): {key}}}``.
        self._together: dict[int, dict[tuple[str, str], set[str]]] = {}
        #: Statements whose definition is not known yet, by partition.
        self._early: dict[int, dict[tuple[str, int, str, int], tuple[int, ScopeStatement]]] = {}
        #: Until when a state need not be looked at.
        self._asleep: dict[tuple[str, int], int] = {}
        #: States whose terms have changed, and that have not been looked at since.
        self._redefined: set[str] = set()
        self._gateways = GatewaysHeard()
        self._in_real_time = AnswersInRealTime() if isinstance(clock, StreamClock) else None
        self.statuses = BudgetStatuses(ledger, self._row_of)
        self._scopes: dict[str, tuple[Budget, str]] = {}
        super().__init__("BUDGET", table, BUDGET_STATES, SCOPE_STATEMENTS.decode, clock)
        self._definitions, self._scope_of = definitions, scope_of
        self._policy = policy
        self._ancestors_of, self._projected = ancestors_of, projected
        self._snapshot = definitions()
        self._book = Book(self._snapshot, self._scope)

    # -- what is defined, and what is here --------------------------------------------------------------------------

    def _current(self) -> Book:
        found = self._definitions()
        if found is not self._snapshot:
            # Only those wake whose terms may differ: there are thousands, and a change is heard every moment.
            changed = changed_budgets(self._snapshot, found)
            if self._snapshot.changes:
                self._redefined |= self._keys_of(changed)
            self._snapshot, self._book = found, Book(found, self._scope)
            for place in [place for place in self._asleep if budget_of(place[0]) in changed]:
                del self._asleep[place]
        return self._book

    def _keys_of(self, budget_ids: set[str]) -> set[str]:
        held = [pair for together in self._together.values() for pair in together.items()]
        return {key for (budget_id, _), keys in held if budget_id in budget_ids for key in keys}

    def _scope(self, budget: Budget) -> str:
        known = self._scopes.get(budget.id)
        if known is None or known[0] is not budget:
            known = self._scopes[budget.id] = budget, self._scope_of(budget)
        return known[1]

    def _terms_of(self, state: BudgetState) -> Terms:
        found = self._current().terms(state.scope, state.period_start, self.clock.now())
        return found or budgets.withdrawn(state)

    def _load(self, partition: int, found: dict[bytes, bytes]) -> None:
        super()._load(partition, found)
        together: dict[tuple[str, str], set[str]] = {}
        for key, state in self._states[partition].items():
            together.setdefault((state.budget_id, state.value), set()).add(key)
            if self._was_redefined(state):
                self._redefined.add(key)
            for name, said in state.answers.items():
                self._gateways.hear(name, Heard(said.heard_at, said.applied_at, delay_of(state, said)))
        self._together[partition] = together
        self._early[partition] = {}
        self.statuses.keep(self._states[partition].values())

    def _was_redefined(self, state: BudgetState) -> bool:
        """Whether its budget was defined anew since its last money, and nobody may have been here to see it."""
        budget, now = self._current().budget(state.scope), self.clock.now()
        return budget is not None and state.stream_time < budget.changed_at > now - self._policy.live_within_us

    def _drop(self, partitions: set[int]) -> None:
        super()._drop(partitions)
        for partition in partitions:
            self._together.pop(partition, None)
            self._early.pop(partition, None)
        self._asleep.clear()
        self.statuses.clear()

    def _known(self, budget_id: str, value: str) -> Iterator[BudgetState]:
        """All periods and definitions of a budget and value; they lie in this partition."""
        states = self._states.get(self._reading, {})
        for key in self._together.get(self._reading, {}).get((budget_id, value), ()):
            state = states.get(key)
            if state is not None:
                yield state

    def _join(self, state: BudgetState) -> None:
        together = self._together.setdefault(self._reading, {})
        together.setdefault((state.budget_id, state.value), set()).add(_key(state))

    # -- messages ---------------------------------------------------------------------------------------------------

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        if batch.topic == topics.GATEWAY_COMMANDS:
            return newest_of_each_key(batch, COMMANDS.decode)
        if batch.topic in READERS:
            return self._ours(batch)
        found = newest_of_each_key(batch, self._decode)
        return [statement for statement in found if statement.scope.startswith(BUDGET)]

    def _ours(self, batch: RecordBatch) -> Iterator[ThrottleAck | JobAck]:
        """The answers to budgets of this partition; others are sent on."""
        for record, answer in answers_in(batch):
            budget_id, value = asked_by(answer, self._current().definitions)
            place = _place(budget_id, self._table.app.partitions, value)
            if place == batch.partition:
                yield answer
            else:
                self.also_say(sent_on(batch, record, place))

    def key_of(self, message: Message) -> str | None:
        """Budget and period; what is no longer defined so, or long over, is passed over."""
        if isinstance(message, JobAck):
            asked = list(self._known(RUN + message.run_id, ""))
            return _key(max(asked, key=lambda state: (ASKED in state.findings, state.sequence))) if asked else None
        if isinstance(message, ThrottleAck):
            return self._asked_of(message)
        if isinstance(message, ThrottleCommand):
            found = budgets.answerer(self._sharing(message.budget_id, message.target), message)
            return found and _key(found)
        now = self.clock.now()
        terms = self._current().terms(message.scope, message.period_start, now)
        if terms is None:
            self._keep_early(message, now)
            return None
        if message.period_end + terms.window_us + budgets.FORGET_AFTER < now:
            return None
        return budgets.key_of(terms, message)

    def _sharing(self, budget_id: str, target: Target) -> list[BudgetState]:
        """What speaks under one key at the gates, in any period and definition, of all calls or of one value."""
        known = [*self._known(budget_id, ""), *self._known(budget_id, target.scope_id)]
        return [state for state in known if state.target == target]

    def _asked_of(self, ack: ThrottleAck) -> str | None:
        target, _, budget_id = ack.command_key.rpartition("|")
        value = target.partition(":")[2]
        known = [*self._known(budget_id, ""), *self._known(budget_id, value)]
        spoken = [state for state in known if state.has_spoken and state.target.key() == target]
        return _key(max(spoken, key=lambda state: state.revision)) if spoken else None

    def step(self, state: BudgetState | None, message: Message) -> tuple[BudgetState, list[Outgoing]]:
        """Take a total in and compare with the ladder; or hear an answer; or answer a command that is not ours."""
        now = self.clock.now()
        if isinstance(message, JobAck):
            assert state is not None
            metrics.JOB_ACKS.labels(outcome=message.outcome).inc()
            terms = self._terms_of(state)
            told = budgets.job_answered(state, terms, message, now, self._policy)
            return state, [alert_record(alert) for alert in told]
        if isinstance(message, ThrottleCommand):
            assert state is not None
            return state, self._answer(state, message)
        if isinstance(message, ThrottleAck):
            assert state is not None
            self._take_answer(state, message, now)
            return state, self._decide(state, self._terms_of(state))
        self.observe(message.stream_time, message.source.slot())
        terms = self._current().terms(message.scope, message.period_start, now)
        assert terms is not None
        above = 0
        if state is None:
            above = max((known.revision for known in self._sharing(terms.budget_id, terms.target)), default=0)
            above = max(above, budgets.first_above(terms, bool(value_of(message.scope)), now))
        is_new = state is None
        taken = budgets.take_in(state, terms, message, above)
        if is_new:
            self._join(taken)
        lag = now - message.stream_time
        return taken, self._decide(taken, terms, lag if 0 <= lag <= 10 * SECOND else 0)

    # -- time -------------------------------------------------------------------------------------------------------

    def tick(self, state: BudgetState) -> tuple[BudgetState | None, list[Outgoing]]:
        """Periods end by the clock: a blocked team sends no events. A withdrawn budget lets go of what it blocked."""
        now, place = self.clock.now(), (state.scope, state.period_start)
        self._current()
        if now < self._asleep.get(place, 0):
            return state, []
        terms = self._terms_of(state)
        out = self._decide(state, terms)
        stands = standing(state, terms, now, self._policy.live_within_us)
        is_otherwise = self.statuses.is_otherwise(state, terms, stands, now)
        if pruned(state, terms, now, budgets.FORGET_AFTER) or is_otherwise:
            self.also_changed(_key(state))
        is_defined = self._book.budget(state.scope) is not None
        siblings = list(self._known(state.budget_id, state.value))
        if budgets.is_forgotten(state, terms if is_defined else None, now, siblings):
            self._together[self._reading][(state.budget_id, state.value)].discard(_key(state))
            self._asleep.pop(place, None)
            self.statuses.forget(state)
            return None, out
        self._asleep[place] = budgets.wakes_at(state, terms, now)
        return state, out

    async def _tick_through(self, partition: int) -> list[Stepped]:
        states = self._states.get(partition)
        if states is not None:
            self._begin_standing(partition, states)
        return [*await super()._tick_through(partition), *self._take_early(partition)]

    def _begin_standing(self, partition: int, states: dict[str, BudgetState]) -> None:
        """Standing limits, and runs that want an approval, are here before anything is spent."""
        book, now = self._current(), self.clock.now()
        for scope in book.standing:
            budget, key = book.budget(scope), budgets.state_key(scope, 0)
            if budget is None or key in states or _place(budget.id, self._table.app.partitions) != partition:
                continue
            terms = book.terms(scope, 0, now)
            if terms is not None:
                self._reading = partition
                above = max((known.revision for known in self._sharing(budget.id, terms.target)), default=0)
                states[key] = budgets.opened(terms, scope, 0, FOREVER, above)
                self._join(states[key])

    def _keep_early(self, message: ScopeStatement, now: int) -> None:
        early = self._early.setdefault(self._reading, {})
        if len(early) < EARLY_MAX:
            early[(message.scope, message.period_start, message.source.slot(), message.segment)] = now, message

    def _take_early(self, partition: int) -> list[Stepped]:
        """Step through what came before its definition, now that it is known; what waits too long was withdrawn."""
        states, early = self._states.get(partition), self._early.get(partition)
        if states is None or not early:
            return []
        book, now = self._current(), self.clock.now()
        ready = [key for key in early if book.budget(key[0]) is not None]
        messages = [early.pop(key)[1] for key in ready]
        for key in [key for key, (heard, _) in early.items() if now - heard > EARLY_US]:
            del early[key]
        changed: dict[str, BudgetState] = {}
        outgoing: list[Outgoing] = []
        self._reading = partition
        for message in messages:
            self._step_into(states, changed, outgoing, message)
        return [self._stepped(partition, states, outgoing, changed)]

    # -- decisions --------------------------------------------------------------------------------------------------

    def _decide(self, state: BudgetState, terms: Terms, lag_us: int = 0) -> list[Outgoing]:
        now = self.clock.now()
        before = remembered(state)
        overshot = state.overshoot_nanos
        around = self._around(state, terms, now, lag_us)
        known = list(self._known(state.budget_id, state.value))
        decision = budgets.decide(state, terms, now, self._policy, known, around)
        self._redefined.discard(_key(state))
        if before != remembered(state):
            self.also_changed(_key(state))
        if terms.enforced:
            metrics.OVERSHOOT.inc(state.overshoot_nanos - overshot)
        # The command goes first: a gate should close before people read that it did.
        out = [self._record(decision.command)] if decision.command else []
        if decision.stands is not None:
            stands = decision.stands
            said = budgets.speak(stands, self._terms_of(stands), now, self._policy, known)
            out.append(self._record(said))
            self.also_changed(_key(stands))
        if decision.job is not None:
            out.append(job_record(decision.job))
        self._asleep.pop((state.scope, state.period_start), None)
        return out + [alert_record(alert) for alert in decision.alerts]

    def _around(self, state: BudgetState, terms: Terms, now: int, lag_us: int) -> Around:
        wants = self._projected is not None and any(rung.on == "forecast" for rung in terms.thresholds)
        live, replayed = self._gateways.live(now), self._in_real_time
        return Around(
            live=live,
            delay_us=self._gateways.delay_us(now),
            owing=replayed.owing(state, live) if replayed else None,
            projected=self._projected(terms.budget_id, state.value, now) if wants and self._projected else None,
            ancestors=self._ancestors_of(terms.budget_id, state.value),
            is_replayed=replayed is not None,
            lag_us=lag_us,
            is_redefined=_key(state) in self._redefined,
        )

    def _take_answer(self, state: BudgetState, ack: ThrottleAck, now: int) -> None:
        known = state.answers.get(ack.gateway)
        acknowledged(state, ack, now)
        said = state.answers.get(ack.gateway)
        if said is None:
            return
        delay = delay_of(state, said)
        if delay is not None and (known is None or known.revision != said.revision):
            metrics.ENFORCEMENT_SECONDS.observe(delay / SECOND)
        if ack.delay_ms is not None:
            # A gateway knows it of every command, also of one that was followed by another since.
            delay = min(ack.delay_ms * 1_000 + state.lag_us, DELAY_MAX_US)
        self._gateways.hear(ack.gateway, Heard(now, said.applied_at, delay))

    def _answer(self, state: BudgetState, heard: ThrottleCommand) -> list[Outgoing]:
        known = list(self._known(state.budget_id, state.value))
        said = budgets.answer(state, self._terms_of(state), heard, self.clock.now(), self._policy, known)
        return [self._record(said)] if said else []

    def _record(self, command: ThrottleCommand) -> Outgoing:
        # Where the budget lives, so that whoever owns it hears what is said in its name.
        return command_record(command)._replace(partition=self._reading)

    # -- the ledger -------------------------------------------------------------------------------------------------

    async def after(self, states: Iterable[BudgetState]) -> None:
        """Tell the ledger where the budgets stand, soon."""
        self.statuses.keep(states)

    def _row_of(self, state: BudgetState) -> BudgetStatus | None:
        now = self.clock.now()
        terms = self._current().terms(state.scope, state.period_start, now)
        if terms is None or terms.budget_id.startswith((LIMIT, GRANT)):
            return None
        stands = standing(state, terms, now, self._policy.live_within_us)
        return row_of(state, terms, stands, self._gateways.live(now), now)

    async def run_background(self) -> None:
        """Let time pass, and write down where the budgets stand."""
        await asyncio.gather(super().run_background(), self.statuses.run())


def _key(state: BudgetState) -> str:
    return budgets.state_key(state.scope, state.period_start)


def _place(budget_id: str, partitions: int, value: str = "") -> int:
    """Where a budget lives with all its definitions and commands; of a ``per`` budget each value by itself."""
    scope = f"{BUDGET}{budget_id}@#{value}" if value else f"{BUDGET}{budget_id}@"
    return partition_of(meeting_place(scope).encode(), partitions)
