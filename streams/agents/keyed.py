"""The shell of agents that keep one state per key: BUDGET and the detectors.

For all batches that wait: decode, keep the newest of each key, step the pure core, write what follows (alerts,
commands), then the changed states, then acknowledge. A crash between any two of these repeats the same things under
the same ids.

An owner that was overtaken while it was stalled must not speak from what it remembers. Its state is fenced by the
table; what it says cannot be, so after a stall the coordinator is asked first.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from schemas import topics
from schemas.alerts import OPENED_TYPE, RESOLVED_TYPE, UPDATED_TYPE, Alert
from schemas.cloudevents import binary_headers
from schemas.commands import JOB_COMMAND_TYPE, THROTTLE_TYPE, JobCommand, ThrottleCommand
from schemas.versions import Versioned
from streams import metrics
from streams.agents.shell import STALL_S, EvictedError, Together, decoded, fail_stop
from streams.agents.slices import IN_BACKGROUND, Pace, in_slices
from streams.clock import Clock, elapsed_s
from streams.transport import Outgoing, RecordBatch, StateTable

logger = logging.getLogger("sluice.keyed")

State = TypeVar("State", bound=msgspec.Struct)
_encode = msgspec.json.Encoder().encode

#: The CloudEvents source of what Sluice itself says.
SOURCE = "//sluice"
ALERT_TYPES = {"opened": OPENED_TYPE, "updated": UPDATED_TYPE, "resolved": RESOLVED_TYPE}


def alert_record(alert: Alert) -> Outgoing:
    """An alert on its topic."""
    metrics.ALERTS.labels(rule=alert.rule, severity=alert.severity, status=alert.status).inc()
    headers = binary_headers(
        id=alert.alert_id,
        source=SOURCE,
        type=ALERT_TYPES[alert.status],
        time=alert.stated_at,
        subject=f"{alert.scope_type}:{alert.scope_id}",
        extensions={"severitytext": alert.severity},
    )
    return Outgoing(topics.ALERTS, None, alert.dedup_key.encode(), _encode(alert), tuple(headers))


class DeliveryGapError(RuntimeError):
    """Records were not delivered to an agent: a fault of the transport."""


def command_record(command: ThrottleCommand) -> Outgoing:
    """A throttle command on its topic."""
    metrics.COMMANDS.labels(action=command.action).inc()
    headers = binary_headers(
        id=command.command_id,
        source=SOURCE,
        type=THROTTLE_TYPE,
        time=command.issued_at,
        subject=command.target.key(),
        extensions={"sequence": command.revision, "expirytime": command.expires_at},
    )
    return Outgoing(topics.GATEWAY_COMMANDS, None, command.key().encode(), _encode(command), tuple(headers))


def job_record(command: JobCommand) -> Outgoing:
    """A command to whoever runs a training run, on its topic."""
    headers = binary_headers(
        id=command.command_id,
        source=SOURCE,
        type=JOB_COMMAND_TYPE,
        time=command.issued_at,
        subject=f"run:{command.run_id}",
        extensions={"sequence": command.revision, "expirytime": command.expires_at},
    )
    return Outgoing(topics.JOB_COMMANDS, None, command.key().encode(), _encode(command), tuple(headers))


def newest_of_each_key(batch: RecordBatch, decode: Callable[[bytes], Any]) -> list[Any]:
    """Of records with the same key only the last: each states a total, so the earlier ones say nothing more."""
    # A deletion says nothing: what it deletes was the last total.
    newest = {record.key: record for record in batch.records if record.value is not None}
    return [message for _, message in decoded(newest.values(), decode)]


class KeyedAgent(ABC, Generic[State]):
    """One table of states; subclasses say how a message and the passing of time change a state."""

    #: How often time is let pass.
    tick_s: float = 1.0
    #: How long a batch may be stepped through before others have their turn: gates wait behind detectors otherwise.
    pace: Pace = IN_BACKGROUND

    def __init__(
        self, name: str, table: StateTable, readers: Versioned[State], decode: Callable[[bytes], Any], clock: Clock
    ) -> None:
        self.name = name
        self.clock = clock
        self._table = table
        self._decode = decode
        self._decode_state = readers.decode
        self._states: dict[int, dict[str, State]] = {}
        #: Where the last batch of each topic partition ended.
        self._ends: dict[tuple[str, int], int] = {}
        self._awake_at = elapsed_s()
        self._busy = asyncio.Lock()
        #: The partition whose batch or tick is under way.
        self._reading = -1
        self._also_changed: set[str] = set()
        self._also_said: list[Outgoing] = []
        self._also_kept: dict[bytes, bytes | None] = {}
        table.fenced = True
        table.on_load = self._load
        table.on_drop = self._drop

    # -- what subclasses say ----------------------------------------------------------------------------------------

    @abstractmethod
    def key_of(self, message: Any) -> str | None:
        """The state that a message belongs to; None to pass it over."""

    @abstractmethod
    def step(self, state: State | None, message: Any) -> tuple[State, list[Outgoing]]:
        """Take one message in."""

    @abstractmethod
    def tick(self, state: State) -> tuple[State | None, list[Outgoing]]:
        """Let time pass; None forgets the state. The same state with nothing to say means that nothing changed."""

    def states(self) -> Iterator[State]:
        """All states of the partitions that are here, as they stand; for reading only."""
        return (state for states in list(self._states.values()) for state in list(states.values()))

    async def after(self, states: Iterable[State]) -> None:
        """What else to do with states that changed, once they are durable."""

    def also_changed(self, key: str) -> None:
        """Keep another state of the partition whose step is under way, which changed besides."""
        self._also_changed.add(key)

    def also_say(self, record: Outgoing) -> None:
        """Write another record with what the batch under way sets off."""
        self._also_said.append(record)

    def also_keep(self, key: bytes, value: bytes | None) -> None:
        """Keep something of the partition under way under a key that is no state's, with what is kept next; None
        deletes."""
        self._also_kept[key] = value

    # -- the shell --------------------------------------------------------------------------------------------------

    def _load(self, partition: int, found: dict[bytes, bytes]) -> None:
        self._forget_ends({partition})
        self._states[partition] = {key.decode(): self._decode_state(value) for key, value in found.items()}

    def _drop(self, partitions: set[int]) -> None:
        self._forget_ends(partitions)
        for partition in partitions:
            self._states.pop(partition, None)

    def _forget_ends(self, partitions: set[int]) -> None:
        self._ends = {where: end for where, end in self._ends.items() if where[1] not in partitions}

    def observe(self, stream_time: int, slot: str) -> None:
        """Tell the clock how far a source slot has come, as this partition of statements shows it."""
        # The partitions of statements drift apart too: what one has shown, another may still hold.
        self.clock.observe(stream_time, f"{slot}>{self._reading}")

    async def run(self, stream: Any) -> None:
        """The agent."""
        await Together(self.name, self._take_events).run(stream)

    async def _take_events(self, events: list[Any]) -> None:
        for event, is_taken in zip(events, await self.take([event.value for event in events]), strict=True):
            if is_taken:
                event.ack()

    async def take(self, batches: Sequence[RecordBatch]) -> list[bool]:
        """Step through batches of any partitions, and write what follows from all of them at once: a round trip to the
        broker costs the same for one as for all. Returns of each whether it was taken; one whose partition is not here
        any more is its next owner's.
        """
        async with self._busy:
            with self.pace.taken():
                return await self._deliver([await self._step_through(batch) for batch in batches])

    async def _step_through(self, batch: RecordBatch) -> "Stepped | None":
        states = self._states.get(batch.partition)
        if states is None or not await self._is_ours(batch.partition, states):
            return None  # revoked while it waited
        self._check_continuity(batch)
        self._reading = batch.partition
        changed: dict[str, State] = {}
        outgoing: list[Outgoing] = []
        turn_at = elapsed_s() + self.pace.slice_s
        for message in self._newest(batch):
            if elapsed_s() >= turn_at:
                await self.pace.between()
                turn_at = elapsed_s() + self.pace.slice_s
            self._step_into(states, changed, outgoing, message)
        return self._stepped(batch.partition, states, outgoing, changed)

    def _step_into(
        self, states: dict[str, State], changed: dict[str, State], outgoing: list[Outgoing], message: Any
    ) -> None:
        key = self.key_of(message)
        if key is not None:
            state, out = self.step(states.get(key), message)
            states[key] = changed[key] = state
            outgoing += out

    async def _is_ours(self, partition: int, states: dict[str, State]) -> bool:
        """After a stall, make sure that the group has not gone on without us before anything is said."""
        stalled_s = elapsed_s() - self._awake_at
        if stalled_s > STALL_S and not await self._table.confirm() and self._states.get(partition) is states:
            raise EvictedError(f"stalled for {stalled_s:.0f} s, and the group has gone on without this worker")
        self._awake_at = elapsed_s()
        return self._states.get(partition) is states

    def _check_continuity(self, batch: RecordBatch) -> None:
        where = (batch.topic, batch.partition)
        missing = batch.begin - self._ends.get(where, batch.begin)
        if missing > 0:
            raise DeliveryGapError(f"{batch.topic}[{batch.partition}]: a gap of {missing} offsets in delivery")
        self._ends[where] = batch.end

    def _newest(self, batch: RecordBatch) -> Iterable[Any]:
        """The messages to step through, in order."""
        return [message for _, message in decoded(batch.records, self._decode)]

    def _stepped(
        self, partition: int, states: dict[str, State], outgoing: list[Outgoing], changed: dict[str, Any]
    ) -> "Stepped":
        changed |= {key: states[key] for key in self._also_changed if key in states}
        self._also_changed.clear()
        said, self._also_said = self._also_said, []
        beside, self._also_kept = self._also_kept, {}
        return Stepped(partition, states, [*outgoing, *said], changed, beside)

    def _is_here(self, step: "Stepped | None") -> bool:
        # Another life of the same partition may have begun here: its states are other ones.
        return step is not None and self._states.get(step.partition) is step.states

    async def _deliver(self, steps: Sequence["Stepped | None"]) -> list[bool]:
        """Say it all, then keep it all. False where the partition was taken away meanwhile: its next owner says it
        again.
        """
        outgoing = [record for step in steps if step is not None and self._is_here(step) for record in step.outgoing]
        if outgoing:
            app: Any = self._table.app
            await app.producer.write(outgoing, app.partitions)
        ours = [step for step in steps if step is not None and self._is_here(step)]
        kept: dict[int, Stepped] = {}
        for step in ours:
            together = kept.setdefault(step.partition, Stepped(step.partition, step.states, [], {}, {}))
            together.changed.update(step.changed)
            together.beside.update(step.beside)
        outcomes = await asyncio.gather(*map(self._keep, kept.values()))
        taken = {partition for partition, is_kept in zip(kept, outcomes, strict=True) if is_kept}
        changed = [state for each in taken for state in kept[each].changed.values() if state is not None]
        if changed:
            await self.after(changed)
        here = {id(step) for step in ours}
        return [step is not None and id(step) in here and step.partition in taken for step in steps]

    async def _keep(self, step: "Stepped") -> bool:
        """Keep states as they stand: what came of their steps was said. False where the partition was taken away."""
        entries = await self._entries(step)
        if not self._is_here(step):
            return False
        if entries:
            await self._table.write(step.partition, entries)
        return True

    async def _entries(self, step: "Stepped") -> list[tuple[bytes, bytes | None]]:
        states = step.changed.items()
        kept = ((key.encode(), None if state is None else _encode(state)) for key, state in states)
        return [*step.beside.items(), *await in_slices(kept, self.pace)]

    async def run_background(self) -> None:
        """Let time pass: periods end, quiet scopes recover, without any record arriving."""
        while True:
            await asyncio.sleep(self.tick_s)
            try:
                await self.tick_all(list(self._states))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop(f"{self.name} tick", error)

    async def tick_all(self, partitions: Iterable[int]) -> None:
        """Let time pass for what is here of these partitions."""
        async with self._busy:
            with self.pace.taken():
                await self._deliver([step for each in partitions for step in await self._tick_through(each)])
            self._awake_at = elapsed_s()

    async def _tick_through(self, partition: int) -> list["Stepped"]:
        states = self._states.get(partition)
        if states is None or not await self._is_ours(partition, states):
            return []  # revoked while another partition was looked at
        self._reading = partition
        changed: dict[str, Any] = {}
        outgoing: list[Outgoing] = []
        turn_at = elapsed_s() + self.pace.slice_s
        for key, state in list(states.items()):
            if elapsed_s() >= turn_at:
                await self.pace.between()
                turn_at = elapsed_s() + self.pace.slice_s
                if self._states.get(partition) is not states:
                    break
            after, out = self.tick(state)
            outgoing += out
            if after is None:
                del states[key]
                changed[key] = None
            elif out or after is not state:
                states[key] = changed[key] = after
        return [self._stepped(partition, states, outgoing, changed)]


class Stepped(NamedTuple):
    """What follows from a batch, or from time passing, in one partition."""

    partition: int
    #: All of the partition, to tell this life of it from another one.
    states: dict[str, Any]
    outgoing: list[Outgoing]
    changed: dict[str, Any]
    beside: dict[bytes, bytes | None]
