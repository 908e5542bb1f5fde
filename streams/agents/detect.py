"""DETECT's shells: spend spikes and runaway requests from METER's statements, idle GPUs from their samples."""

from collections.abc import Iterable
from typing import Any

from schemas.events import GpuSample
from schemas.readers import SCOPE_STATEMENTS, SIGNALS
from schemas.statements import ScopeStatement, Signal
from streams.agents.keyed import KeyedAgent, alert_record, newest_of_each_key
from streams.clock import Clock
from streams.core.detect_gpu import GPU_STATES, GpuPolicy, GpuState, gpu_scope_id, step_gpu, tick_gpu
from streams.core.detect_loop import KIND, step_loop, tick_loop
from streams.core.detect_loop_state import LOOP_STATES, LoopPolicy, LoopState
from streams.core.detect_runaway import RUNAWAY_STATES, RunawayPolicy, RunawayState, step_runaway, tick_runaway
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_state import SPIKE_STATES, SpikePolicy, SpikeState
from streams.core.reading import Limits, Reading, Rejected, read
from streams.core.scopes import FEATURE, TEAM
from streams.transport import Outgoing, RecordBatch, StateTable


class SpikeAgent(KeyedAgent[SpikeState]):
    """Hourly spend of teams and features."""

    def __init__(self, table: StateTable, clock: Clock, policy: SpikePolicy) -> None:
        super().__init__("SPIKES", table, SPIKE_STATES, SCOPE_STATEMENTS.decode, clock)
        self._policy = policy

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        found = newest_of_each_key(batch, self._decode)
        return [statement for statement in found if statement.scope.startswith((TEAM, FEATURE))]

    def key_of(self, message: ScopeStatement) -> str | None:
        """One state per team and per feature."""
        return message.scope

    def step(self, state: SpikeState | None, message: ScopeStatement) -> tuple[SpikeState, list[Outgoing]]:
        """Test the running hour: a partial sum is a lower bound."""
        self.observe(message.stream_time, message.source.slot())
        after, alerts = step_spike(state, message, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: SpikeState) -> tuple[SpikeState | None, list[Outgoing]]:
        """Hours close and incidents end."""
        after, alerts = tick_spike(state, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]


class RunawayAgent(KeyedAgent[RunawayState]):
    """Single requests with too many tokens."""

    def __init__(self, table: StateTable, clock: Clock, policy: RunawayPolicy) -> None:
        super().__init__("RUNAWAYS", table, RUNAWAY_STATES, SIGNALS.decode, clock)
        self._policy = policy

    def key_of(self, message: Signal) -> str | None:
        """One state per feature."""
        return message.scope if message.kind in ("runaway_request", "request_sample") else None

    def step(self, state: RunawayState | None, message: Signal) -> tuple[RunawayState, list[Outgoing]]:
        """Every one is recorded; a sample of the ordinary ones is learned."""
        if message.kind == "runaway_request":
            self.clock.observe(message.event_time, message.source.slot())
        after, alerts = step_runaway(state, message, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: RunawayState) -> tuple[RunawayState | None, list[Outgoing]]:
        """An hour without another one ends it."""
        after, alerts = tick_runaway(state, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]


class LoopAgent(KeyedAgent[LoopState]):
    """Callers that run away: tasks, sessions and keys."""

    def __init__(self, table: StateTable, clock: Clock, policy: LoopPolicy) -> None:
        super().__init__("LOOPS", table, LOOP_STATES, SIGNALS.decode, clock)
        self._policy = policy

    def key_of(self, message: Signal) -> str | None:
        """One state per feature."""
        return message.scope if message.kind == KIND else None

    def step(self, state: LoopState | None, message: Signal) -> tuple[LoopState, list[Outgoing]]:
        """Judge a window while it runs: its total so far is a lower bound."""
        after, alerts = step_loop(state, message, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: LoopState) -> tuple[LoopState | None, list[Outgoing]]:
        """Half an hour without ends it."""
        after, alerts = tick_loop(state, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]


class GpuAgent(KeyedAgent[GpuState]):
    """Utilisation of GPUs, straight from their samples; METER counts the money of the same records."""

    def __init__(self, table: StateTable, clock: Clock, policy: GpuPolicy, limits: Limits) -> None:
        super().__init__("GPUS", table, GPU_STATES, lambda value: value, clock)
        self._policy = policy
        self._limits = limits

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        readings = []
        for record in batch.records:
            try:
                readings.append(read(record, self._limits))
            except Rejected:
                continue  # METER reads the same record and dead-letters it with the reason
        return readings

    def key_of(self, message: Reading) -> str | None:
        """One state per GPU, or per part of one."""
        sample = message.event
        if not isinstance(sample, GpuSample):
            return None
        return gpu_scope_id(sample)

    def step(self, state: GpuState | None, message: Reading) -> tuple[GpuState, list[Outgoing]]:
        """Take one window in."""
        assert isinstance(message.event, GpuSample)
        self.clock.observe(message.event_time)
        after, alerts = step_gpu(state, message.event, message.event_time, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: GpuState) -> tuple[GpuState | None, list[Outgoing]]:
        """A GPU that is not heard of any more is unknown, and not idle."""
        after, alerts = tick_gpu(state, self.clock.now(), self._policy)
        return after, [alert_record(alert) for alert in alerts]
