"""METER's shell: batches in, statements and durable state out, acknowledgements last.

The order of a flush is what makes a crash harmless at any point of it:

1. dead letters, signals, statements (consequences), awaited;
2. changed state, deletions, and then the watermark, awaited;
3. the acknowledgement of the batches that the watermark covers.

A flush takes a picture of all partitions, and folding goes on while it is written; flushes themselves come one after
the other. Only where something leaves memory does folding wait: what comes for it later opens a new segment, which
nobody may hear of before the old one's deletion is durable.

The table is fenced, so what a stalled owner writes late is never restored; and after a stall the group's coordinator is
asked before anything is said.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from schemas.statements import Source
from streams import metrics
from streams.agents import entries, measuring
from streams.agents.behind import Behind
from streams.agents.digests import KeptGenerations
from streams.agents.heard import Heard
from streams.agents.keyed import alert_record
from streams.agents.opening_balances import OpeningBalances
from streams.agents.pictures import Picture, joined
from streams.agents.resuming import Resuming, say_lost
from streams.agents.shell import STALL_S, EvictedError, fail_stop
from streams.agents.slices import URGENT_SLICE_S, give_turns
from streams.agents.spender_sayings import SpenderSayings
from streams.clock import elapsed_s, worked_s
from streams.core.evicting import has_idle
from streams.core.meter import PartitionState
from streams.core.overflow import overflow_alert
from streams.core.rules import Rules
from streams.core.scopes import BUDGET, ScopeWatchlist
from streams.ports import Ledger
from streams.transport import Outgoing, RecordBatch, StateTable

logger = logging.getLogger("sluice.meter")

#: Chunks that are folded at once, some 500 records: each folding has a cost of its own.
CHUNKS = 16
#: Stating, and flushing, may take these parts of the time; under load they come less often, and say more at once. What
#: is sent has to be compressed and written besides, which is about as much again.
STATING_SHARE = 0.1
FLUSHING_SHARE = 0.05
#: While METER is behind, stating waits for this part of the lag, at most so long: what it says is later than that by
#: then, and folding on is what helps.
LAG_SHARE, LAG_PAUSE_MAX_S = 0.1, 0.25
LEDGER_POLL_S = 5.0
EVICT_EVERY_S = 10.0
#: Beyond every offset.
_UNKNOWN = 1 << 62
#: An idle partition states its watermark this often, so that a quiet one can be told from a dead worker.
IDLE_STATEMENT_S = 15.0


class Meter:
    """All source partitions of this worker."""

    def __init__(
        self,
        table: StateTable,
        digest_table: StateTable,
        rules: Rules,
        ledger: Ledger,
        sources: tuple[str, ...],
        *,
        epoch: int,
        writer: Callable[[], str],
        flush_interval_s: float,
        scope_interval_s: float,
        watchlist: Callable[[], ScopeWatchlist] | None = None,
    ) -> None:
        self._table = table
        self._partitions: int = table.app.partitions  # type: ignore[attr-defined]
        self._rules = rules
        self._openings = OpeningBalances(ledger, watchlist)
        self._ledger = ledger
        self._sources = sources
        self._epoch = epoch
        self._writer_of_now = writer
        self._writer = ""
        self._flush_interval_s = flush_interval_s
        self._scope_interval_s = scope_interval_s
        self._sayings = SpenderSayings(self._write)
        self._states: dict[tuple[str, int], PartitionState] = {}
        self._stale: dict[str, list[entries.Leftover]] = {}
        self._fresh: set[tuple[str, int]] = set()
        self._pending: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)
        #: Held by each fold, by each statement of budgets, and both by a flush in which something leaves memory.
        self._folding, self._stating = asyncio.Lock(), asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._durable: Mapping[str, int] = {}
        self._evict_at = 0.0
        self._urgent_at = 0.0
        self._resuming, self._behind = Resuming(), Behind()
        self._stated_at: dict[tuple[str, int], float] = {}
        self._awake_at = elapsed_s()
        self._generations = KeptGenerations(digest_table, self._states)
        table.fenced = True
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
                state.restore(known.statements, known.spenders)
                state.openings.restore(known.openings, state.counters.values())
            self._openings.begin(state)
            where = (topic, partition)
            state.said_until = _UNKNOWN
            self._states[where] = state
            self._pending.pop(where, None)
            self._fresh.add(where)
            self._resuming.restored(where, state.next_offset)
        # What earlier writers left is deleted once it has been stated again under this writer's name.
        self._stale |= entries.leftovers(found, self._partitions)

    def _drop(self, partitions: set[int]) -> None:
        for where in [where for where in self._states if where[1] in partitions]:
            self._stale.pop(self._states[where].source.slot(), None)
            del self._states[where]
            self._pending.pop(where, None)
            self._fresh.discard(where)
            self._resuming.dropped(where)

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
        state = self._states.get(where)
        if state is None:
            return  # revoked while it waited; whoever owns it now reads it again
        if where in self._fresh:
            # Earlier owners read no further than the partition reached when this one began to read.
            end = self._end_of(where)
            state.said_until = _UNKNOWN if end is None else max(batch.end, end)
        self._check_continuity(state, where, batch)
        count, taken, turn_at = 0, 1, elapsed_s() + URGENT_SLICE_S
        chunks, at_once = batch.chunks(), CHUNKS
        if batch.end <= state.next_offset:
            chunks, at_once = joined(chunks), 1
        while taken:
            async with self._folding:
                taken = state.take(islice(chunks, at_once))
            count += taken
            if elapsed_s() >= turn_at:
                await give_turns()
                turn_at = elapsed_s() + URGENT_SLICE_S
        async with self._folding:
            state.skip_to(batch.end)
            if self._states.get(where) is state:
                self._pending[where].append(event)
                self._resuming.read(where, batch.begin, batch.end)
        metrics.EVENTS_READ.labels(topic=batch.topic).inc(count)

    def _end_of(self, where: tuple[str, int]) -> int | None:
        app: Any = self._table.app
        end: int | None = app.consumer.end_of(*where)
        return end

    def _check_continuity(self, state: PartitionState, where: tuple[str, int], batch: RecordBatch) -> None:
        missing = batch.begin - state.next_offset
        if missing <= 0 or (where in self._fresh and state.next_offset == 0):
            self._fresh.discard(where)
            return
        if where in self._fresh:
            say_lost(state.source.slot(), state.next_offset, missing)
            self._fresh.discard(where)
            return
        fail_stop("METER", RuntimeError(f"{state.source.slot()}: a gap of {missing} offsets in delivery"))

    def take_heard(self) -> list[Heard]:
        """Which sources were heard since this was last asked, by topic."""
        return [(topic, state.heard.take()) for (topic, _), state in self._states.items()]

    # -- flushing ---------------------------------------------------------------------------------------------------

    async def run_background(self) -> None:
        """State scopes often, make state durable less often, follow the ledger's watermark."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_ledger())
            tasks.create_task(self._repeat("statement", self._state))
            tasks.create_task(self._repeat("flush", self._flush_in_turn))
            tasks.create_task(self._repeat("spenders", lambda: self._sayings.step(self._states, self._writer)))

    async def _repeat(self, what: str, step: Callable[[], Awaitable[float]]) -> None:
        """Do it for ever, each time after as many seconds as it says."""
        while True:
            try:
                await self._make_sure()
                pause_s = await step()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop(f"METER {what}", error)
            await asyncio.sleep(pause_s)

    async def _state(self) -> float:
        for where, state in self._states.items():
            self._openings.follow(state, lambda where=where, state=state: self._states.get(where) is state)
        await self._state_budgets()
        now, ends = elapsed_s(), {where: self._end_of(where) for where in self._states}
        lag_s = self._behind.lag_s(now, {where: state.next_offset for where, state in self._states.items()}, ends)
        return max(self._scope_interval_s, self._urgent_at - now, min(lag_s * LAG_SHARE, LAG_PAUSE_MAX_S))

    async def _flush_in_turn(self) -> float:
        return max(self._flush_interval_s, await self.flush() / FLUSHING_SHARE)

    async def _make_sure(self) -> None:
        """After a stall, make sure that the group has not gone on without us before anything is said."""
        stalled_s = elapsed_s() - self._awake_at
        if self._states and stalled_s > STALL_S and not await self._table.confirm() and self._states:
            raise EvictedError(f"stalled for {stalled_s:.0f} s, and the group has gone on without this worker")
        self._awake_at = elapsed_s()

    async def _follow_ledger(self) -> None:
        """Only letting go of cells waits for the ledger: a database that is away must not hold up the flush."""
        while True:
            try:
                self._durable = await self._ledger.durable_offsets()
            except Exception as error:
                logger.warning("the ledger does not answer, so no cell leaves memory: %r", error)
            await asyncio.sleep(LEDGER_POLL_S)

    async def _state_budgets(self) -> None:
        """State what changed for BUDGET, beside any flush: gates wait for it, and for nothing that detectors judge.

        One write at a time: of two totals under one key the newer has to be the last in its topic.
        """
        async with self._stating:
            await self._write_budgets()

    async def _write_budgets(self) -> None:
        began = worked_s()
        records: list[Outgoing] = []
        for state in self._states.values():
            state.settle()
            records += self._consequences(state, of_budgets=True)
        self._urgent_at = elapsed_s() + (worked_s() - began) / STATING_SHARE
        await self._write(records)

    def _consequences(self, state: PartitionState, of_budgets: bool) -> list[Outgoing]:
        records = [entries.dead_letter_record(letter, state.source) for letter in state.letters]
        for letter in state.letters:
            metrics.DEAD_LETTERS.labels(topic=state.source.topic, reason=letter.reason.value).inc()
        records += entries.signal_records(state)
        for overflow, status in state.overflows.items():
            alert = overflow_alert(overflow, status, self._rules.team_cells_max, state.arrived_at)
            records.append(alert_record(alert))
            metrics.OVERFLOWS.labels(status=status).inc()
        state.overflows = {}
        # A counter that was opened is said once it is durable, and never before.
        said, state.unstated = state.openings.apart(state.unstated, held=True)
        for counter in said:
            if counter.scope.startswith(BUDGET) is of_budgets:
                records.append(entries.scope_record(counter, self._writer, self._partitions))
            else:
                state.unstated[id(counter)] = counter
        state.letters, state.signals = [], []
        return records

    async def flush(self) -> float:
        """Make everything folded so far durable, then acknowledge it; return the cost, in processor seconds."""
        async with self._flushing:
            began = elapsed_s()
            cost_s = await self._flush(dict(self._states), evicting=False)
            if began >= self._evict_at:
                self._evict_at = began + EVICT_EVERY_S
                cost_s += await self._evict()
            for where, state in list(self._states.items()):
                await self._generations.keep(where, state)
            metrics.FLUSH_SECONDS.observe(elapsed_s() - began)
            measuring.measure_all(self._states.values())
            return cost_s

    async def _evict(self) -> float:
        """Let go of what is idle; returns the cost, in processor seconds.

        Nothing is folded or stated meanwhile, so it comes right after a flush, when little is left to write, and one
        partition after the other has its turn.
        """
        cost_s = 0.0
        for where, state in list(self._states.items()):
            if has_idle(state, self._durable.get(state.source.slot(), 0)):
                async with self._folding, self._stating, self._sayings.busy:
                    if self._states.get(where) is state:
                        cost_s += await self._flush({where: state}, evicting=True)
            await asyncio.sleep(0)
        return cost_s

    async def _flush(self, states: Mapping[tuple[str, int], PartitionState], evicting: bool) -> float:
        cost_s = 0.0
        pictures: list[Picture] = []
        for where, state in states.items():
            began = worked_s()
            picture = self._take_picture(where, state, evicting)
            cost_s += worked_s() - began
            if picture is not None:
                pictures.append(picture)
                if not evicting:
                    await self._write(picture.consequences)
                    await self._behind.caught_up()
        if evicting:
            await self._write([record for picture in pictures for record in picture.consequences])
        # What was taken away meanwhile is its next owner's to keep; here it may even be another life's by now.
        pictures = [picture for picture in pictures if self._states.get(picture.where) is picture.state]
        await asyncio.gather(*(self._table.write(picture.where[1], picture.entries) for picture in pictures))
        # What is acknowledged below has been stated by then, as it was or newer.
        await (self._write_budgets() if evicting else self._state_budgets())
        # Only now nobody needs what was stated before: the ledger and BUDGET have it, or the restated copy.
        await self._write([record for picture in pictures for record in picture.deletions])
        for picture in pictures:
            picture.state.openings.durable(picture.opened)
            if self._states.get(picture.where) is picture.state:  # else the new owner reads these records again
                for event in picture.done:
                    event.ack()
                measuring.measure(picture.state)
        return cost_s

    def _take_picture(self, where: tuple[str, int], state: PartitionState, evicting: bool) -> Picture | None:
        """All that has to be written for a partition, and in what order; the state counts as unchanged from here."""
        state.settle()
        writer, slot = self._writer, state.source.slot()
        evicted = state.evict(self._durable.get(slot, 0)) if evicting else []
        stale = self._stale.pop(slot, [])
        done = self._pending.pop(where, [])
        records, opened = state.openings.take()
        if not (done or evicted or stale or records or state.changed_cells or state.changed_counters):
            return self._idle_picture(where, state)
        self._stated_at[where] = elapsed_s()
        # A cell's statement is its changelog entry: one encoding serves both.
        cells = [entries.cell_record(cell, writer) for cell in state.changed_cells.values()]
        spenders = state.spenders.take(state.next_offset - 1)
        whole, state.changed_counters = state.openings.apart(state.changed_counters, held=False)
        counters = [entries.statement_entry(counter, writer) for counter in whole]
        state.changed_cells = {}
        gone = [entries.deletion(statement, writer, self._partitions) for statement in evicted]
        consequences = self._consequences(state, of_budgets=False)
        consequences += cells
        consequences.append(entries.watermark_record(state.watermark(), writer))
        changed: list[tuple[bytes, bytes | None]] = [(cell.key, cell.value) for cell in cells]
        # Rows after their cells: those that are ahead of theirs are left out when they are taken back.
        changed += [entries.spenders_entry(state.source, record, writer) for record in spenders.records]
        changed += counters
        if records is not None:
            # After the counters: where it is missing, the next owner opens them anew.
            changed.append(entries.openings_entry(state.source, records, writer))
        changed.append(entries.checkpoint_entry(state.checkpoint(), writer))
        # Deletions follow the watermark: a total that is deleted must not be missing from a state that is older.
        changed += [(deletion.key, None) for deletion in gone if not entries.is_of_spenders(deletion.key)]
        changed += [(entries.spenders_key(state.source, each, writer), None) for each in spenders.outdated]
        changed += [(left.key, None) for left in stale if left.key]
        gone += [left.deletion for left in stale if left.deletion is not None]
        return Picture(where, state, consequences, changed, gone, done, opened)

    def _idle_picture(self, where: tuple[str, int], state: PartitionState) -> Picture | None:
        now = elapsed_s()
        if not state.next_offset or now - self._stated_at.get(where, 0.0) < IDLE_STATEMENT_S:
            return None
        self._stated_at[where] = now
        return Picture(where, state, [entries.watermark_record(state.watermark(), self._writer)], [], [], [])

    async def _write(self, records: Sequence[Outgoing]) -> None:
        if not records:
            return
        app: Any = self._table.app
        await app.producer.write(records, self._partitions)
        metrics.STATEMENTS.inc(len(records))
