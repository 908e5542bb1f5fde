"""DETECT's shells: runaway requests and callers from METER's signals, GPUs from their samples."""

from collections.abc import Iterable
from typing import Any

import msgspec

from schemas import topics
from schemas.events import GpuSample
from schemas.readers import SIGNALS
from schemas.statements import Signal
from streams.agents.definitions import Taught, nothing
from streams.agents.keyed import KeyedAgent, alert_record
from streams.clock import Clock
from streams.core.detect_gpu import GPU_STATES, GpuPolicy, GpuState, GpuStep, gpu_scope_id, step_gpu, tick_gpu
from streams.core.detect_idle import IDLE_STATES, IdlePolicy, IdleState, step_idle, tick_idle
from streams.core.detect_loop import KIND, step_loop, tick_loop
from streams.core.detect_loop_state import LOOP_STATES, LoopPolicy, LoopState
from streams.core.detect_runaway import RUNAWAY_STATES, RunawayPolicy, RunawayState, step_runaway, tick_runaway
from streams.core.reading import Limits, Reading, Rejected, read
from streams.transport import Outgoing, RecordBatch, StateTable

_encode = msgspec.json.Encoder().encode


class RunawayAgent(KeyedAgent[RunawayState]):
    """Single requests with too many tokens."""

    def __init__(self, table: StateTable, clock: Clock, policy: RunawayPolicy, taught: Taught = nothing) -> None:
        super().__init__("RUNAWAYS", table, RUNAWAY_STATES, SIGNALS.decode, clock)
        self._policy = policy
        self._taught = taught

    def key_of(self, message: Signal) -> str | None:
        """One state per feature."""
        return message.scope if message.kind in ("runaway_request", "request_sample") else None

    def step(self, state: RunawayState | None, message: Signal) -> tuple[RunawayState, list[Outgoing]]:
        """Every one is recorded; a sample of the ordinary ones is learned."""
        if message.kind == "runaway_request":
            self.clock.observe(message.event_time, message.source.slot())
        after, alerts = step_runaway(state, message, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: RunawayState) -> tuple[RunawayState | None, list[Outgoing]]:
        """An hour without another one ends it."""
        after, alerts = tick_runaway(state, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]


class LoopAgent(KeyedAgent[LoopState]):
    """Callers that run away: tasks, sessions and keys."""

    def __init__(self, table: StateTable, clock: Clock, policy: LoopPolicy, taught: Taught = nothing) -> None:
        super().__init__("LOOPS", table, LOOP_STATES, SIGNALS.decode, clock)
        self._policy = policy
        self._taught = taught

    def key_of(self, message: Signal) -> str | None:
        """One state per feature."""
        return message.scope if message.kind == KIND else None

    def step(self, state: LoopState | None, message: Signal) -> tuple[LoopState, list[Outgoing]]:
        """Judge a window while it runs: its total so far is a lower bound."""
        after, alerts = step_loop(state, message, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: LoopState) -> tuple[LoopState | None, list[Outgoing]]:
        """Half an hour without ends it."""
        after, alerts = tick_loop(state, self.clock.now(), self._policy, self._taught())
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
        return said(step_gpu(state, message.event, message.event_time, self.clock.now(), self._policy))

    def tick(self, state: GpuState) -> tuple[GpuState | None, list[Outgoing]]:
        """A GPU that is not heard of any more is unknown, and not idle."""
        return said(tick_gpu(state, self.clock.now(), self._policy))


def said(step: GpuStep) -> tuple[GpuState, list[Outgoing]]:
    """The records that a step of one GPU leaves: alerts, and how it stands, under its owner's key."""
    standings = [Outgoing(topics.USAGE_SIGNALS, None, each.scope.encode(), _encode(each)) for each in step.standings]
    return step.state, [*map(alert_record, step.alerts), *standings]


class IdleAgent(KeyedAgent[IdleState]):
    """Idle GPUs of each owner, from how each GPU stands."""

    def __init__(self, table: StateTable, clock: Clock, policy: IdlePolicy, taught: Taught = nothing) -> None:
        super().__init__("IDLES", table, IDLE_STATES, SIGNALS.decode, clock)
        self._policy = policy
        self._taught = taught

    def key_of(self, message: Signal) -> str | None:
        """One state per owner."""
        return message.scope if message.kind == "gpu_standing" else None

    def step(self, state: IdleState | None, message: Signal) -> tuple[IdleState, list[Outgoing]]:
        """One GPU stands otherwise."""
        self.clock.observe(message.event_time)
        after, alerts = step_idle(state, message, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]

    def tick(self, state: IdleState) -> tuple[IdleState | None, list[Outgoing]]:
        """Those that fell idle together are told together, and an incident ends."""
        after, alerts = tick_idle(state, self.clock.now(), self._policy, self._taught())
        return after, [alert_record(alert) for alert in alerts]
