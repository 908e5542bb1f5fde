"""METER's state of one source partition: cells, scope counters, de-duplication; and how records change it.

Pure: records in, state and outcomes out. What was folded is a function of the partition's records up to an offset and
nothing else (not of batches, timing or crashes), which is what makes replays harmless. See docs/architecture.md,
rules 1 to 4.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.instants import HOUR
from schemas.keys import cell_id, digest
from schemas.statements import CellStatement, Dimensions, ScopeStatement, Signal, Source, Totals, Watermark
from streams.core import cells
from streams.core.cells import Charge
from streams.core.dedupe import DedupeWindow, Mark, identity
from streams.core.reading import Limits, Reading, Reason, Record, Rejected, read

#: A counter names this many contributors; the rest share one label.
CONTRIBUTORS_MAX = 24
OTHERS = "(others)"


class Watched(NamedTuple):
    """One scope that an event counts in, with the period that the event falls into."""

    scope: str
    period_start: int
    period_end: int
    #: What the counter is broken down by, for people.
    label: str


class Watchlist(Protocol):
    """Which scopes an event counts in."""

    def watched(self, dimensions: Dimensions, key_id: str, user_id: str, event_time: int) -> Sequence[Watched]:
        """The scopes of one event."""
        ...


class Pricing(Protocol):
    """What an event costs."""

    def charge(self, event: Any, event_time: int) -> Charge:
        """The charge of one event.

        Raises:
            Rejected: the event cannot be priced, such as a bill in an unknown currency.
        """
        ...

    def bill_category(self, bill: BillingRecord) -> str:
        """The category that a bill line's money belongs to."""
        ...


class Rules(NamedTuple):
    """What folding depends on besides the records."""

    limits: Limits
    pricing: Pricing
    watchlist: Watchlist
    org_id: str = ""
    runaway_tokens: int = 50_000
    dedupe_window_us: int = HOUR
    dedupe_ids_max: int = 20_000_000
    cells_idle_us: int = 2 * HOUR


class DeadLetter(NamedTuple):
    """A record that was not counted, and why."""

    record: Any
    reason: Reason
    detail: str


class Checkpoint(msgspec.Struct, kw_only=True):
    """A watermark as METER keeps it: what a successor needs besides cells and counters."""

    v: int = 1
    source: Source
    revision: int
    next_offset: int
    stream_time: int
    arrived_at: int
    marks: tuple[Mark, ...]
    #: Offsets within the window whose records had no price: they are not seen.
    refused: tuple[int, ...] = ()
    dead_letters: int
    duplicates: int


class PartitionState:
    """Everything METER knows of one source partition."""

    def __init__(self, source: Source, rules: Rules, checkpoint: Checkpoint | None = None) -> None:
        self.source = source
        self.rules = rules
        self.revision = checkpoint.revision if checkpoint else 0
        self.next_offset = checkpoint.next_offset if checkpoint else 0
        self.stream_time = checkpoint.stream_time if checkpoint else 0
        self.arrived_at = checkpoint.arrived_at if checkpoint else 0
        self.dead_letters = checkpoint.dead_letters if checkpoint else 0
        self.duplicates = checkpoint.duplicates if checkpoint else 0
        self.window = DedupeWindow(rules.dedupe_window_us, rules.dedupe_ids_max, checkpoint.marks if checkpoint else ())
        self.refused: list[int] = list(checkpoint.refused) if checkpoint else []
        self._refused_before = frozenset(self.refused)
        self.cells: dict[tuple[Dimensions, int], CellStatement] = {}
        self.counters: dict[tuple[str, int], ScopeStatement] = {}
        self.changed_cells: dict[int, CellStatement] = {}
        self.changed_counters: dict[int, ScopeStatement] = {}
        #: Changed since they were last stated; statements leave more often than state becomes durable.
        self.unstated: dict[int, ScopeStatement] = {}
        self.letters: list[DeadLetter] = []
        self.signals: list[Signal] = []
        self.folded = 0
        self.unpriced = 0

    # -- restoring --------------------------------------------------------------------------------------------------

    def restore(self, statements: Iterable[CellStatement | ScopeStatement]) -> None:
        """Take back what was durable. Everything counts as changed: a new owner restates before its first watermark."""
        for statement in statements:
            if isinstance(statement, CellStatement):
                self.cells[(statement.dimensions, statement.hour)] = statement
            else:
                self.counters[(statement.scope, statement.period_start)] = statement
        self.restate()

    def restate(self) -> None:
        """Mark everything as changed, so that the next flush says it all again."""
        self.changed_cells = {id(cell): cell for cell in self.cells.values()}
        self.changed_counters = {id(counter): counter for counter in self.counters.values()}
        self.unstated = dict(self.changed_counters)

    @property
    def read_from(self) -> int:
        """Where reading has to start: at the watermark, or below it to rebuild the de-duplication window."""
        rebuild = self.window.rebuild_from
        return self.next_offset if rebuild is None else min(rebuild, self.next_offset)

    def checkpoint(self) -> Checkpoint:
        """The watermark of this instant."""
        self.refused = [offset for offset in self.refused if offset >= self.read_from]
        return Checkpoint(
            source=self.source,
            revision=self.revision,
            next_offset=self.next_offset,
            stream_time=self.stream_time,
            arrived_at=self.arrived_at,
            marks=self.window.marks,
            refused=tuple(self.refused),
            dead_letters=self.dead_letters,
            duplicates=self.duplicates,
        )

    def watermark(self) -> Watermark:
        """The watermark as the ledger is told."""
        return Watermark(
            source=self.source,
            revision=self.revision,
            next_offset=self.next_offset,
            stream_time=self.stream_time,
            dead_letters=self.dead_letters,
            duplicates=self.duplicates,
        )

    # -- folding ----------------------------------------------------------------------------------------------------

    def fold(self, records: Sequence[Record], end: int) -> None:
        """Fold records in offset order; ``end`` is one past the last offset that they cover.

        Records below the watermark were folded before: they only rebuild the de-duplication window.
        """
        for record in records:
            if record.offset < self.next_offset:
                self._recall(record)
            else:
                self._fold_one(record)
        self.next_offset = max(self.next_offset, end)

    def _recall(self, record: Record) -> None:
        if record.offset in self._refused_before:
            return
        try:
            envelope = read(record, self.rules.limits).envelope
        except Rejected:
            return
        self.window.recall(identity(envelope.source, envelope.id), record.offset)

    def _fold_one(self, record: Record) -> None:
        offset = record.offset
        try:
            reading = read(record, self.rules.limits)
        except Rejected as refused:
            self._dead_letter(record, refused)
            return
        event = reading.event
        try:
            charge = self.rules.pricing.charge(event, reading.event_time)
        except Rejected as refused:
            # It may come again once a price is known, so its id must not be taken for seen, now or after a restart.
            self.refused.append(offset)
            self._dead_letter(record, refused)
            return
        self._advance(reading)
        envelope = reading.envelope
        if not self.window.first_seen(identity(envelope.source, envelope.id), offset, self.stream_time):
            self.duplicates += 1
            return
        self.folded += 1
        happened = reading.arrived_at if isinstance(event, BillingRecord) else reading.event_time
        late = self.window.is_late(happened, self.stream_time)
        dimensions = self._dimensions(reading)
        cell = self._cell(dimensions, reading.event_time, offset)
        # A flush that was cut short can leave a cell ahead of the watermark: what it holds is not folded again.
        if offset > cell.offset:
            cell.offset = offset
            if isinstance(event, UsageEvent):
                cells.fold_usage(cell.totals, event, charge, late)
            elif isinstance(event, GpuSample):
                cells.fold_gpu(cell.totals, event, charge, late)
            else:
                cells.fold_bill(cell.totals, charge, late)
            self.changed_cells[id(cell)] = cell
        if charge.unpriced:
            self.unpriced += 1
        self._count(reading, dimensions, charge, offset)

    def _dead_letter(self, record: Record, refused: Rejected) -> None:
        self.dead_letters += 1
        self.letters.append(DeadLetter(record, refused.reason, refused.detail))

    def _advance(self, reading: Reading) -> None:
        """A time in the future never moves stream time. A bill's period says nothing about now: its arrival does."""
        is_bill = isinstance(reading.event, BillingRecord)
        believable = reading.arrived_at if is_bill else min(reading.event_time, reading.arrived_at)
        if believable > self.stream_time:
            self.stream_time = believable
        if reading.arrived_at > self.arrived_at:
            self.arrived_at = reading.arrived_at

    def _dimensions(self, reading: Reading) -> Dimensions:
        event, org_id = reading.event, self.rules.org_id
        if isinstance(event, UsageEvent):
            return cells.usage_dimensions(event, reading.envelope.subject, org_id)
        if isinstance(event, GpuSample):
            return cells.gpu_dimensions(event, org_id)
        return cells.bill_dimensions(event, self.rules.pricing.bill_category(event), org_id)

    def _cell(self, dimensions: Dimensions, event_time: int, offset: int) -> CellStatement:
        hour = event_time - event_time % HOUR
        key = (dimensions, hour)
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = CellStatement(
                cell_id=cell_id(dimensions, hour),
                hour=hour,
                dimensions=dimensions,
                source=self.source,
                segment=offset,
                revision=self.revision,
                offset=-1,
                totals=Totals(),
            )
        return cell

    def _count(self, reading: Reading, dimensions: Dimensions, charge: Charge, offset: int) -> None:
        event = reading.event
        tokens, key_id, user_id = 0, "", ""
        if isinstance(event, UsageEvent):
            tokens = event.input_tokens + event.output_tokens
            key_id, user_id = event.key_id, event.user_id
            if tokens > self.rules.runaway_tokens:
                self.signals.append(self._signal(reading, dimensions, charge, offset, tokens))
        for watched in self.rules.watchlist.watched(dimensions, key_id, user_id, reading.event_time):
            counter = self._counter(watched, offset)
            if offset <= counter.offset:
                continue
            counter.offset = offset
            counter.cost_nanos += charge.nanos
            counter.requests += 1
            counter.tokens += tokens
            counter.stream_time = self.stream_time
            counter.arrived_at = self.arrived_at
            if charge.nanos:
                _contribute(counter.contributors, watched.label, charge.nanos)
            self.changed_counters[id(counter)] = counter
            self.unstated[id(counter)] = counter

    def _counter(self, watched: Watched, offset: int) -> ScopeStatement:
        key = (watched.scope, watched.period_start)
        counter = self.counters.get(key)
        if counter is None:
            counter = self.counters[key] = ScopeStatement(
                scope=watched.scope,
                period_start=watched.period_start,
                period_end=watched.period_end,
                source=self.source,
                segment=offset,
                revision=self.revision,
                offset=-1,
                cost_nanos=0,
                requests=0,
                tokens=0,
                stream_time=self.stream_time,
                arrived_at=self.arrived_at,
                contributors={},
            )
        return counter

    def _signal(self, reading: Reading, dimensions: Dimensions, charge: Charge, offset: int, tokens: int) -> Signal:
        event, envelope = reading.event, reading.envelope
        assert isinstance(event, UsageEvent)
        return Signal(
            kind="runaway_request",
            scope=f"feature:{dimensions.feature}",
            event_id=envelope.id,
            event_source=envelope.source,
            event_time=reading.event_time,
            source=self.source,
            offset=offset,
            team_id=dimensions.team_id,
            feature=dimensions.feature,
            model=dimensions.model,
            tokens=tokens,
            cost_nanos=charge.nanos,
            key_id=event.key_id,
            session_id=event.session_id,
        )

    # -- letting go -------------------------------------------------------------------------------------------------

    def evict(self, ledger_offset: int) -> list[CellStatement | ScopeStatement]:
        """Let go of what is idle, unchanged since the last flush, and below the ledger's own watermark.

        The caller must make the deletion durable before it folds another record of this partition: a later event opens
        a new segment, and two segments may not both hold the same event. A cell is idle by its hour, a counter by the
        end of its period, both in stream time.
        """
        horizon = self.stream_time - self.rules.cells_idle_us
        gone: list[CellStatement | ScopeStatement] = []
        for cell_key, cell in list(self.cells.items()):
            idle = cell.hour + HOUR < horizon and cell.offset < ledger_offset
            if idle and id(cell) not in self.changed_cells:
                gone.append(self.cells.pop(cell_key))
        for counter_key, counter in list(self.counters.items()):
            if counter.period_end < horizon and id(counter) not in self.changed_counters:
                gone.append(self.counters.pop(counter_key))
        return gone


def _contribute(contributors: dict[str, int], label: str, nanos: int) -> None:
    if label not in contributors and len(contributors) >= CONTRIBUTORS_MAX:
        label = OTHERS
    contributors[label] = contributors.get(label, 0) + nanos


def entry_id(statement: CellStatement | ScopeStatement) -> str:
    """What a statement is about, apart from its source partition and writer; its segment is part of it."""
    if isinstance(statement, CellStatement):
        return f"c|{statement.cell_id}|{statement.segment}"
    return f"s|{digest(statement.scope, str(statement.period_start))}|{statement.segment}"
