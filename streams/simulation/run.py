"""The simulation: each call meets the gate, what passes is folded and judged, and what follows reaches the gate later.

Nothing is random and no clock is read: the same calls and budgets give the same report, byte for byte.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from schemas import topics
from schemas.alerts import Alert
from schemas.cloudevents import Headers
from schemas.commands import ThrottleCommand
from schemas.events import UsageEvent
from schemas.instants import HOUR, MINUTE, SECOND
from schemas.statements import ScopeStatement, Source
from streams.core.budgets import Policy
from streams.core.definitions import Definitions
from streams.core.meter import PartitionState
from streams.core.reading import Rejected
from streams.core.rules import Rules
from streams.simulation.calls import Call
from streams.simulation.deciding import Account, Deciding
from streams.simulation.gate import Fate, Gate, Held

#: METER states its scopes at most so often; calls closer together than this are folded as one batch.
STATEMENTS_EVERY = SECOND // 20
#: While something is held, time is let pass so often.
TICK_EVERY = MINUTE
_Key = TypeVar("_Key", str, tuple[str, str])
_encode = msgspec.json.Encoder().encode


class Plan(NamedTuple):
    """What is simulated."""

    definitions: Definitions
    rules: Rules
    #: From a command to the gate that obeys: the p95 over live gateways, as Sluice measures it.
    delay_us: int = SECOND
    policy: Policy = Policy()


class Tally(msgspec.Struct):
    """What became of some calls: how many, what they were recorded to cost, and what they cost in the simulation."""

    calls: int = 0
    recorded_nanos: int = 0
    nanos: int = 0

    def add(self, recorded: int, now: int) -> None:
        """One more."""
        self.calls += 1
        self.recorded_nanos += recorded
        self.nanos += now

    @property
    def saved_nanos(self) -> int:
        """What was not spent: net of what the calls cost all the same."""
        return self.recorded_nanos - self.nanos


class Outcome(NamedTuple):
    """What the simulation found. Fates are counted by budget and by (team, feature)."""

    total: Tally
    by_budget: dict[str, dict[Fate, Tally]]
    by_feature: dict[tuple[str, str], dict[Fate, Tally]]
    accounts: list[Account]
    #: What the same periods cost as they were recorded, by (scope, period start).
    recorded: dict[tuple[str, int], int]
    held: list[Held]
    alerts: list[Alert]
    start: int
    end: int
    #: Downgraded calls for whose new model no price is known: they cost nothing here, which is too little.
    unpriced: int


class _Row(msgspec.Struct):
    """A record as METER reads it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class _Meter:
    """METER of one partition, which forgets what is idle as the real one does."""

    def __init__(self, rules: Rules) -> None:
        self._partition = PartitionState(Source(topics.USAGE_EVENTS, 0, 0), rules)
        self._rows: list[_Row] = []
        self._swept_at = 0

    def add(self, call: Call, value: bytes) -> None:
        """One more record."""
        offset = self._partition.next_offset + len(self._rows)
        # Milliseconds, rounded up: nothing arrives before it happened.
        self._rows.append(_Row(offset, -(-call.at // 1_000), call.key, value, call.headers))

    def statements(self, now: int) -> list[ScopeStatement]:
        """Fold what was added; the counters that changed."""
        if not self._rows:
            return []
        partition = self._partition
        partition.fold(self._rows, partition.next_offset + len(self._rows))
        self._rows = []
        changed = list(partition.unstated.values())
        partition.unstated = {}
        if now - self._swept_at > HOUR:
            self._swept_at = now
            partition.changed_cells, partition.changed_counters = {}, {}
            partition.evict(partition.next_offset)
            for told in (partition.letters, partition.signals, partition.overflows):
                told.clear()
        return changed


class Simulation:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._charge = plan.rules.pricing.charge
        self._deciding = Deciding(plan.definitions, plan.policy, plan.delay_us)
        self._gate = Gate(plan.delay_us, plan.rules.org_id)
        self._meter = _Meter(plan.rules)
        self._now = 0
        self._batch_from: int | None = None
        self._alerts: list[Alert] = []
        self._total = Tally()
        self._by_budget: dict[str, dict[Fate, Tally]] = {}
        self._by_feature: dict[tuple[str, str], dict[Fate, Tally]] = {}
        self._unpriced = 0

    def run(self, calls: Sequence[Call]) -> Outcome:
        """Let every call happen, in order; at the end the periods that are over are closed."""
        if calls:
            self._now = calls[0].at
            self._say(*self._deciding.begin(self._now))
        for call in calls:
            if self._batch_from is not None and call.at - self._batch_from >= STATEMENTS_EVERY:
                self._judge()
            self._pass_time(call.at)
            self._now = call.at
            self._happen(call)
        self._judge()
        end = self._now
        self._gate.obey(end)
        self._gate.finish(end)
        return Outcome(
            self._total, self._by_budget, self._by_feature, self._deciding.accounts(end),
            _recorded(calls, self._plan.rules), self._gate.held, self._alerts,
            calls[0].at if calls else 0, end, self._unpriced,
        )  # fmt: skip

    def _happen(self, call: Call) -> None:
        try:
            charge = self._charge(call.event, call.at)
        except Rejected:
            return  # METER refuses it too
        if self._batch_from is None:
            self._batch_from = call.at
        if not isinstance(call.event, UsageEvent):
            # Nobody can refuse what a GPU or a bill says.
            self._total.add(charge.nanos, charge.nanos)
            self._meter.add(call, call.value)
            return
        passage = self._gate.let(call.event, call.at)
        cost, value = charge.nanos, call.value
        if passage.event is None:
            cost = 0
        elif passage.event is not call.event:
            changed = self._charge(passage.event, call.at)
            cost, value = changed.nanos, _encode(passage.event)
            self._unpriced += changed.unpriced
        self._total.add(charge.nanos, cost)
        feature = (call.event.team_id, call.event.feature)
        _tally(self._by_feature, feature, passage.fate).add(charge.nanos, cost)
        if passage.fate != "passed":
            _tally(self._by_budget, passage.budget_id, passage.fate).add(charge.nanos, cost)
        if passage.event is not None:
            self._meter.add(call, value)

    def _judge(self) -> None:
        """State what was folded, and let BUDGET decide."""
        if self._batch_from is None:
            return
        self._batch_from = None
        for statement in self._meter.statements(self._now):
            self._say(*self._deciding.take(statement, self._now))

    def _pass_time(self, until: int) -> None:
        """Everything that is due before an instant, in the order in which it is."""
        while True:
            due = [at for at in (self._gate.next_at(), self._deciding.next_end()) if at is not None]
            if self._deciding.is_holding():
                due.append(self._now - self._now % TICK_EVERY + TICK_EVERY)
            at = min(due, default=until + 1)
            if at > until:
                return
            if self._batch_from is not None:
                self._judge()
                continue
            self._now = max(self._now, at)
            self._gate.obey(at)
            self._say(*self._deciding.tick(self._now))

    def _say(self, alerts: Iterable[Alert], commands: Iterable[ThrottleCommand]) -> None:
        self._alerts += alerts
        for command in commands:
            self._gate.send(command, self._now)


def _tally(tallies: dict[_Key, dict[Fate, Tally]], key: _Key, fate: Fate) -> Tally:
    return tallies.setdefault(key, {}).setdefault(fate, Tally())


def _recorded(calls: Sequence[Call], rules: Rules) -> dict[tuple[str, int], int]:
    """What each scope's period cost as it was: the same fold with nobody at the gate."""
    meter = _Meter(rules)
    newest: dict[tuple[str, int, int], int] = {}
    for place, call in enumerate(calls, 1):
        meter.add(call, call.value)
        if place % 1_000 == 0 or place == len(calls):
            for statement in meter.statements(call.at):
                key = (statement.scope, statement.period_start, statement.segment)
                newest[key] = statement.cost_nanos
    total: dict[tuple[str, int], int] = {}
    for (scope, start, _), nanos in newest.items():
        total[scope, start] = total.get((scope, start), 0) + nanos
    return total
