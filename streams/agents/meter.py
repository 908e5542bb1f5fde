"""METER's shell: batches in, statements and durable state out, acknowledgements last.

The order of a flush is what makes a crash harmless at any point of it:

1. dead letters, signals, statements (consequences), awaited;
2. changed state, deletions, and then the watermark, awaited;
3. the acknowledgement of the batches that the watermark covers.

Folding waits while a flush is under way, so that nothing is folded between a deletion and its watermark.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from schemas.statements import Source
from streams import metrics
from streams.agents import entries
from streams.agents.shell import fail_stop
from streams.clock import elapsed_s
from streams.core.meter import PartitionState
from streams.core.rules import Rules
from streams.ports import Ledger
from streams.transport import Outgoing, RecordBatch, StateTable

logger = logging.getLogger("sluice.meter")

#: Records folded before other tasks get a turn: about 20 ms.
SLICE = 2_000
LEDGER_POLL_S = 5.0
EVICT_EVERY_S = 10.0
#: An idle partition states its watermark this often, so that a quiet one can be told from a dead worker.
IDLE_STATEMENT_S = 15.0


class Meter:
    """All source partitions of this worker."""

    def __init__(
        self,
        table: StateTable,
        rules: Rules,
        ledger: Ledger,
        sources: tuple[str, ...],
        *,
        epoch: int,
        writer: Callable[[], str],
        flush_interval_s: float,
        scope_interval_s: float,
    ) -> None:
        self._table = table
        self._partitions: int = table.app.partitions  # type: ignore[attr-defined]
        self._rules = rules
        self._ledger = ledger
        self._sources = sources
        self._epoch = epoch
        self._writer_of_now = writer
        self._writer = ""
        self._flush_interval_s = flush_interval_s
        self._scope_interval_s = scope_interval_s
        self._states: dict[tuple[str, int], PartitionState] = {}
        self._stale: dict[str, list[entries.Leftover]] = {}
        self._fresh: set[tuple[str, int]] = set()
        self._pending: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)
        self._busy = asyncio.Lock()
        self._durable: Mapping[str, int] = {}
        self._evict_at = 0.0
        self._stated_at: dict[tuple[str, int], float] = {}
        table.on_load = self._load
        table.on_drop = self._drop
        table.start_of = self._start_of

    # -- ownership --------------------------------------------------------------------------------------------------

    def _load(self, partition: int, found: dict[bytes, bytes]) -> None:
        self._writer = self._writer_of_now()
        recovered = entries.recover(found)
        for topic in self._sources:
            source = Source(topic, self._epoch, partition)
            known = recovered.get(source.slot())
            state = PartitionState(source, self._rules, known.checkpoint if known else None)
            if known:
                state.restore(known.statements)
            where = (topic, partition)
            self._states[where] = state
            self._pending.pop(where, None)
            self._fresh.add(where)
        # What earlier writers left is deleted once it has been stated again under this writer's name.
        self._stale |= entries.leftovers(found, self._partitions)

    def _drop(self, partitions: set[int]) -> None:
        for where in [where for where in self._states if where[1] in partitions]:
            self._stale.pop(self._states[where].source.slot(), None)
            del self._states[where]
            self._pending.pop(where, None)
            self._fresh.discard(where)

    def _start_of(self, topic: str, partition: int) -> int | None:
        state = self._states.get((topic, partition))
        return state.read_from if state is not None and state.next_offset else None

    # -- folding ----------------------------------------------------------------------------------------------------

    async def run(self, stream: Any) -> None:
        """The agent: fold each batch as it comes."""
        async for event in stream.noack().events():
            await self._take(event)

    async def _take(self, event: Any) -> None:
        batch: RecordBatch = event.value
        where = (batch.topic, batch.partition)
        async with self._busy:
            state = self._states.get(where)
            if state is None:
                return  # revoked while it waited; whoever owns it now reads it again
            self._check_continuity(state, where, batch)
            records = batch.records
            for first in range(0, len(records), SLICE):
                part = records[first : first + SLICE]
                state.fold(part, part[-1].offset + 1)
                await asyncio.sleep(0)
            state.fold((), batch.end)
            self._pending[where].append(event)
        metrics.EVENTS_READ.labels(topic=batch.topic).inc(len(batch.records))

    def _check_continuity(self, state: PartitionState, where: tuple[str, int], batch: RecordBatch) -> None:
        missing = batch.begin - state.next_offset
        if missing <= 0 or (where in self._fresh and state.next_offset == 0):
            self._fresh.discard(where)
            return
        if where in self._fresh:
            # The broker deleted records by retention before they were read. It is loud, and it cannot be undone here.
            logger.error(
                "%s: offsets %d to %d were deleted before they were read; re-import that period's bills",
                state.source.slot(), state.next_offset, batch.begin - 1,
            )  # fmt: skip
            metrics.RECORDS_LOST.inc(missing)
            self._fresh.discard(where)
            return
        fail_stop("METER", RuntimeError(f"{state.source.slot()}: a gap of {missing} offsets in delivery"))

    # -- flushing ---------------------------------------------------------------------------------------------------

    async def run_background(self) -> None:
        """State scopes often, make state durable less often, follow the ledger's watermark."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_ledger())
            tasks.create_task(self._keep_flushing())

    async def _keep_flushing(self) -> None:
        flush_at = 0.0
        while True:
            await asyncio.sleep(self._scope_interval_s)
            now = elapsed_s()
            try:
                if now >= flush_at:
                    await self.flush()
                    flush_at = now + self._flush_interval_s
                else:
                    await self._state_scopes()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop("METER flush", error)

    async def _follow_ledger(self) -> None:
        """Only letting go of cells waits for the ledger: a database that is away must not hold up the flush."""
        while True:
            try:
                self._durable = await self._ledger.durable_offsets()
            except Exception as error:
                logger.warning("the ledger does not answer, so no cell leaves memory: %r", error)
            await asyncio.sleep(LEDGER_POLL_S)

    async def _state_scopes(self) -> None:
        async with self._busy:
            records: list[Outgoing] = []
            for state in self._states.values():
                records += self._consequences(state)
            if records:
                await self._write(records)

    def _consequences(self, state: PartitionState) -> list[Outgoing]:
        records = [entries.dead_letter_record(letter, state.source) for letter in state.letters]
        for letter in state.letters:
            metrics.DEAD_LETTERS.labels(topic=state.source.topic, reason=letter.reason.value).inc()
        records += entries.signal_records(state)
        records += [
            entries.scope_record(counter, self._writer, self._partitions) for counter in state.unstated.values()
        ]
        state.letters, state.signals, state.unstated = [], [], {}
        return records

    async def flush(self) -> None:
        """Make everything folded so far durable, then acknowledge it."""
        async with self._busy:
            started = elapsed_s()
            evicting = started >= self._evict_at
            if evicting:
                self._evict_at = started + EVICT_EVERY_S
            for where, state in list(self._states.items()):
                await self._flush_one(where, state, evicting)
            metrics.FLUSH_SECONDS.observe(elapsed_s() - started)
            metrics.CELLS_LIVE.set(sum(len(state.cells) for state in self._states.values()))

    async def _flush_one(self, where: tuple[str, int], state: PartitionState, evicting: bool) -> None:
        writer, slot = self._writer, state.source.slot()
        evicted = state.evict(self._durable.get(slot, 0)) if evicting else []
        stale = self._stale.pop(slot, [])
        done = self._pending.pop(where, [])
        if not (done or evicted or stale or state.changed_cells or state.changed_counters):
            await self._state_idle(where, state)
            return
        self._stated_at[where] = elapsed_s()
        cells = list(state.changed_cells.values())
        counters = list(state.changed_counters.values())
        state.changed_cells, state.changed_counters = {}, {}
        records = self._consequences(state)
        records += [entries.cell_record(cell, writer) for cell in cells]
        records.append(entries.watermark_record(state.watermark(), writer))
        gone = [entries.statement_record(statement, writer, self._partitions) for statement in evicted]
        await self._write(records)
        changed: list[tuple[bytes, bytes | None]] = []
        changed += [entries.statement_entry(statement, writer) for statement in (*cells, *counters)]
        changed += [(deletion.key, None) for deletion in gone]
        changed.append(entries.checkpoint_entry(state.checkpoint(), writer))
        changed += [(left.key, None) for left in stale]
        await self._table.write(where[1], changed)
        # Only now nobody needs what was stated before: the ledger and BUDGET have it, or the restated copy.
        deletions = [deletion._replace(value=None) for deletion in gone]
        deletions += [left.deletion for left in stale if left.deletion is not None]
        if deletions:
            await self._write(deletions)
        if where not in self._states:
            return  # taken away meanwhile: the new owner reads these records again
        for event in done:
            event.ack()
        self._measure(state)

    async def _state_idle(self, where: tuple[str, int], state: PartitionState) -> None:
        now = elapsed_s()
        if state.next_offset and now - self._stated_at.get(where, 0.0) >= IDLE_STATEMENT_S:
            self._stated_at[where] = now
            await self._write([entries.watermark_record(state.watermark(), self._writer)])

    async def _write(self, records: list[Outgoing]) -> None:
        app: Any = self._table.app
        await app.producer.write(records, self._partitions)
        metrics.STATEMENTS.inc(len(records))

    def _measure(self, state: PartitionState) -> None:
        topic = state.source.topic
        metrics.EVENTS_FOLDED.labels(topic=topic).inc(state.folded)
        metrics.UNPRICED.inc(state.unpriced)
        state.folded = state.unpriced = 0
        metrics.DUPLICATES.labels(slot=state.source.slot()).set(state.duplicates)
        metrics.DEDUPE_IDS.labels(slot=state.source.slot()).set(len(state.window))
