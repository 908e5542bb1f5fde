"""DETECT's shells of what is spent by the hour: spikes, changed habits, unusual hours; from what ROLLUP states.

A state has what its rules need; what an hour is made of lies beside it under keys of its own, each part as it was
stated, so that a statement costs no more to keep than its own bytes.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from detectors.spend_spike import Siblings
from schemas.alerts import Alert
from schemas.instants import DAY
from schemas.readers import HOUR_STATEMENTS
from schemas.statements import HourStatement
from schemas.versions import Versioned
from streams.agents.definitions import Taught, nothing
from streams.agents.keyed import KeyedAgent, alert_record
from streams.agents.shell import decoded
from streams.clock import Clock, StreamClock
from streams.core.composition import USUALS, Composition
from streams.core.detect_multivariate import UNUSUAL_STATES, UnusualPolicy, UnusualState, step_unusual, tick_unusual
from streams.core.detect_regime import REGIME_STATES, RegimePolicy, RegimeState, step_hour, tick_regime
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_memory import SiblingsOf
from streams.core.detect_spike_policy import KINDS, SpikePolicy
from streams.core.detect_spike_siblings import siblings_of
from streams.core.detect_spike_state import SPIKE_STATES, SpikeState
from streams.core.detect_spike_taught import take_spike
from streams.transport import Outgoing, RecordBatch, StateTable

_encode = msgspec.json.Encoder().encode
#: What begins a key that is no scope's own.
_PART, _USUAL = b"h|", b"u|"
#: As the encoder writes it; within a text the quote would be escaped.
_OVER = b'"is_over":true'
#: Of so many days and kinds the siblings are remembered.
SIBLINGS_KEPT = 1_000

State = TypeVar("State", SpikeState, RegimeState, UnusualState)
Closed = TypeVar("Closed", RegimeState, UnusualState)


class Heard(NamedTuple):
    """A statement, and its bytes as they came."""

    statement: HourStatement
    value: bytes


class HoursAgent(KeyedAgent[State], Generic[State]):
    """One state per scope, and what its open hours are made of."""

    def __init__(self, name: str, table: StateTable, readers: Versioned[State], clock: Clock) -> None:
        super().__init__(name, table, readers, HOUR_STATEMENTS.decode, clock)
        self._made_of: dict[int, dict[str, Composition]] = {}
        # Hours close by the minute, so ten thousand states need not be asked every second; in a replay by the second.
        self.tick_s = 1.0 if isinstance(clock, StreamClock) else 10.0

    def _load(self, partition: int, found: dict[bytes, bytes]) -> None:
        compositions: dict[str, Composition] = {}
        parts = [HOUR_STATEMENTS.decode(value) for key, value in found.items() if key.startswith(_PART)]
        for key, value in found.items():
            if key.startswith(_USUAL):
                compositions[key.removeprefix(_USUAL).decode()] = Composition(USUALS.decode(value))
        for statement in parts:
            compositions.setdefault(statement.scope, Composition()).take(statement)
        self._made_of[partition] = compositions
        super()._load(partition, {k: v for k, v in found.items() if not k.startswith((_PART, _USUAL))})

    def _drop(self, partitions: set[int]) -> None:
        super()._drop(partitions)
        for partition in partitions:
            self._made_of.pop(partition, None)

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        newest = {
            record.key: record for record in batch.records if record.value is not None and self.looks(record.value)
        }
        found = [Heard(statement, record.value) for record, statement in decoded(newest.values(), self._decode)]
        return [heard for heard in found if self.wants(heard.statement)]

    def looks(self, value: bytes) -> bool:
        """Whether a statement is worth reading."""
        return True

    def wants(self, statement: HourStatement) -> bool:
        """Whether a statement says anything to this detector."""
        return statement.scope.partition(":")[0] in KINDS

    def key_of(self, message: Heard) -> str | None:
        """One state per scope."""
        return message.statement.scope

    def step(self, state: State | None, message: Heard) -> tuple[State, list[Outgoing]]:
        """Take one statement in, and keep it where it is the newest of its part."""
        statement = message.statement
        for slot, come in statement.reach.items():
            self.observe(come, slot)
        made_of = self._composition(statement.scope)
        if (state is None or statement.hour >= self.open_from(state)) and made_of.take(statement):
            self.also_keep(_part_key(statement), message.value)
        after, said = self.judge(state, statement, made_of)
        self._freeze(state, after, made_of)
        return after, said

    def tick(self, state: State) -> tuple[State | None, list[Outgoing]]:
        """Hours close and incidents end."""
        made_of = self._composition(state.scope)
        after, said = self.pass_time(state, made_of)
        if after is not state:
            self._freeze(state, after, made_of)
        return after, said

    @abstractmethod
    def judge(
        self, state: State | None, statement: HourStatement, made_of: Composition
    ) -> tuple[State, list[Outgoing]]:
        """Take a statement in."""

    @abstractmethod
    def pass_time(self, state: State, made_of: Composition) -> tuple[State, list[Outgoing]]:
        """Let time pass."""

    @abstractmethod
    def open_from(self, state: State) -> int:
        """Hours before it cannot change any more."""

    @abstractmethod
    def odd(self, state: State) -> frozenset[int]:
        """Hours that say nothing of what is usual."""

    def _composition(self, scope: str) -> Composition:
        known = self._made_of.setdefault(self._reading, {})
        found = known.get(scope)
        if found is None:
            found = known[scope] = Composition()
        return found

    def _freeze(self, before: State | None, after: State, made_of: Composition) -> None:
        if not made_of.hours or min(made_of.hours) >= self.open_from(after):
            return
        odd = self.odd(after) if before is None else self.odd(before) | self.odd(after)
        gone = made_of.freeze(self.open_from(after), odd)
        # What was learned before what it was learned from: neither is lost, and nothing is learned twice.
        self.also_keep(_USUAL + after.scope.encode(), _encode(made_of.usual))
        for statement in gone:
            self.also_keep(_part_key(statement), None)


def _part_key(statement: HourStatement) -> bytes:
    return _PART + f"{statement.scope}|{statement.hour}|{statement.part}".encode()


class SpikeAgent(HoursAgent[SpikeState]):
    """Hourly spend of scopes."""

    def __init__(self, table: StateTable, clock: Clock, policy: SpikePolicy, taught: Taught = nothing) -> None:
        super().__init__("SPIKES", table, SPIKE_STATES, clock)
        self._policy = policy
        self._taught = taught
        #: By partition, kind of scope and day.
        self._siblings: dict[tuple[int, str, int], Siblings | None] = {}

    def judge(
        self, state: SpikeState | None, statement: HourStatement, made_of: Composition
    ) -> tuple[SpikeState, list[Outgoing]]:
        """Test the running hour: a partial sum is a lower bound."""
        siblings, now, told = self._siblings_of(statement.scope), self.clock.now(), list[Alert]()
        if state is not None:
            come = max(statement.reach.values(), default=0)
            state, told = take_spike(state, self._taught(), now, self._policy, come, siblings)
        after, alerts = step_spike(state, statement, now, self._policy, siblings, made_of)
        return after, [alert_record(alert) for alert in told + alerts]

    def pass_time(self, state: SpikeState, made_of: Composition) -> tuple[SpikeState, list[Outgoing]]:
        """Hours close and incidents end; what people said is heard."""
        siblings, now = self._siblings_of(state.scope), self.clock.now()
        state, told = take_spike(state, self._taught(), now, self._policy, 0, siblings)
        after, alerts = tick_spike(state, now, self._policy, siblings)
        return after, [alert_record(alert) for alert in told + alerts]

    def open_from(self, state: SpikeState) -> int:
        """Hours before it cannot change any more."""
        return state.frozen_before

    def odd(self, state: SpikeState) -> frozenset[int]:
        """Hours of incidents."""
        return frozenset(state.told)

    def _siblings_of(self, scope: str) -> SiblingsOf:
        """What scopes of its kind are like that share its partition; looked up once a day, and only if asked for."""
        kind, partition = scope.partition(":")[0], self._reading

        def around(instant: int) -> Siblings | None:
            asked = (partition, kind, instant // DAY)
            if asked not in self._siblings:
                if len(self._siblings) >= SIBLINGS_KEPT:
                    self._siblings.clear()
                self._siblings[asked] = siblings_of(self._states.get(partition, {}).values(), kind, instant)
            return self._siblings[asked]

        return around


class ClosedHoursAgent(HoursAgent[Closed], Generic[Closed]):
    """Judges hours when they are over: what is said of running ones is not even read."""

    def looks(self, value: bytes) -> bool:
        """Of hours that are over, as far as the bytes tell."""
        return _OVER in value

    def wants(self, statement: HourStatement) -> bool:
        """Of hours that are over."""
        return statement.is_over and super().wants(statement)

    def open_from(self, state: Closed) -> int:
        """Hours before it were judged."""
        return state.next_hour

    def odd(self, state: Closed) -> frozenset[int]:
        """Hours that an alert is about are not the usual ones."""
        return frozenset(state.odd)


class RegimeAgent(ClosedHoursAgent[RegimeState]):
    """Habits of scopes: how they change for good."""

    def __init__(self, table: StateTable, clock: Clock, policy: RegimePolicy, taught: Taught = nothing) -> None:
        super().__init__("REGIMES", table, REGIME_STATES, clock)
        self._policy = policy
        self._taught = taught

    def judge(
        self, state: RegimeState | None, statement: HourStatement, made_of: Composition
    ) -> tuple[RegimeState, list[Outgoing]]:
        """Take in a part of an hour that is over there."""
        known = RegimeState(scope=statement.scope) if state is None else state
        after, alerts = step_hour(known, statement, made_of, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]

    def pass_time(self, state: RegimeState, made_of: Composition) -> tuple[RegimeState, list[Outgoing]]:
        """Hours that every part has passed are judged."""
        after, alerts = tick_regime(state, self.clock.now(), self._policy, made_of, self._taught())
        return after, [alert_record(alert) for alert in alerts]


class UnusualAgent(ClosedHoursAgent[UnusualState]):
    """Habits of scopes, taken together: hours that are unlike all others."""

    def __init__(self, table: StateTable, clock: Clock, policy: UnusualPolicy, taught: Taught = nothing) -> None:
        super().__init__("UNUSUALS", table, UNUSUAL_STATES, clock)
        self._policy = policy
        self._taught = taught

    def judge(
        self, state: UnusualState | None, statement: HourStatement, made_of: Composition
    ) -> tuple[UnusualState, list[Outgoing]]:
        """Hear of a part of an hour that is over there."""
        known = UnusualState(scope=statement.scope) if state is None else state
        after, alerts = step_unusual(known, statement, made_of, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]

    def pass_time(self, state: UnusualState, made_of: Composition) -> tuple[UnusualState, list[Outgoing]]:
        """Hours that every part has passed are judged."""
        after, alerts = tick_unusual(state, self.clock.now(), self._policy, made_of, self._taught())
        return after, [alert_record(alert) for alert in alerts]
