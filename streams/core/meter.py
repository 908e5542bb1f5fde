"""METER's state of one source partition: cells, scope counters, de-duplication; and how records change it.

Pure: records in, state and outcomes out. What was folded is a function of the partition's records up to an offset
alone (not of batches, timing or crashes), which makes replays harmless: docs/architecture.md, rules 1 to 4.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from schemas.alerts import Status
from schemas.events import BillingRecord, UsageEvent
from schemas.instants import HOUR
from schemas.statements import (
    COST_BOUNDS_NANOS,
    LATENCY_BOUNDS_MS,
    CellStatement,
    Dimensions,
    ScopeStatement,
    Signal,
    Source,
    Watermark,
)
from streams.core import cells, evicting, spenders
from streams.core.admission import Admission
from streams.core.batch_reading import BatchReader, Plan, Row
from streams.core.cells import Charge
from streams.core.dedupe import DedupeWindow
from streams.core.heard import SourcesHeard
from streams.core.lanes import LONG_MS, Call, Lane, calls_of, count_one, lane_at
from streams.core.matching import values_of
from streams.core.openings import Openings
from streams.core.overflow import Overflow
from streams.core.reading import Record, Rejected
from streams.core.rules import (
    Checkpoint,
    DeadLetter,
    Rules,
    Statement,
    Total,
    Watched,
    Watchlist,
    evicted_until,
    new_counter,
)
from streams.core.sampling import Sampler
from streams.core.signals import runaway as runaway_signal
from streams.core.slots import lies_within
from streams.core.spender_log import Kept

_LANES_MAX = 64
_offset_of = attrgetter("offset")


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
        self.cells: dict[tuple[Dimensions, int], CellStatement] = {}
        self.counters: dict[tuple[str, int], ScopeStatement] = {}
        self.changed_cells: dict[int, CellStatement] = {}
        self.changed_counters: dict[int, ScopeStatement] = {}
        #: Changed since they were last stated, which is more often than state becomes durable.
        self.unstated: dict[int, ScopeStatement] = {}
        self.letters: list[DeadLetter] = []
        self.signals: list[Signal] = []
        #: Teams with more cells than they may have, and those whose hour is over: to be told.
        self.overflows: dict[Overflow, Status] = {}
        self.folded = 0
        self.unpriced = 0
        #: Which sources were heard, until somebody takes it.
        self.heard = SourcesHeard()
        self._reader = BatchReader(rules.limits, rules.org_id, rules.watchlist.attributes, self.heard)
        self._values = values_of(rules.watchlist.attributes)
        self._sampler = Sampler(source, rules.pricing, rules.runaway_tokens)
        self._touched: list[Lane] = []
        self.admission = Admission(rules.cells_max, rules.team_cells_max)
        self.spenders = spenders.Spenders(rules.spenders_max, rules.team_spenders_max)
        self._rows = self.spenders.rows if rules.spenders_max else None
        #: The window is whole once the source was read again up to here.
        self._rebuilt_at = self.next_offset
        #: Below this offset a restored total may hold a record already: each is asked, one by one.
        self.sure_from = 0
        #: Below this offset an earlier owner may have stated totals that no state holds: nothing leaves memory.
        self.said_until = 0
        self.evicted_until = evicted_until(checkpoint)
        self.openings = Openings()

    # -- restoring --------------------------------------------------------------------------------------------------

    def restore(self, statements: Iterable[Total], rows: Iterable[Kept] = ()) -> None:
        """Take back what was durable. Everything counts as changed: a new owner restates before its first watermark."""
        for statement in statements:
            if isinstance(statement, CellStatement):
                self.cells[(statement.dimensions, statement.hour)] = statement
                self.admission.enter(statement.dimensions)
            else:
                place = (statement.scope, statement.period_start)
                if not lies_within(statement, self.counters.get(place)):  # as of a budget that came back
                    self.counters[place] = statement
            self.sure_from = max(self.sure_from, statement.offset + 1)
        self.sure_from = max(self.sure_from, self.spenders.restore(self.cells.values(), rows))
        self.restate()

    def restate(self) -> None:
        """Mark everything as changed, so that the next flush says it all again."""
        self.changed_cells = {id(cell): cell for cell in self.cells.values()}
        self.changed_counters = {id(counter): counter for counter in self.counters.values()}
        self.unstated = dict(self.changed_counters)
        self.spenders.restate()

    @property
    def read_from(self) -> int:
        """Where reading has to start: at the watermark, or below it to rebuild the de-duplication window."""
        rebuild = self.window.rebuild_from
        return self.next_offset if rebuild is None else min(rebuild, self.next_offset)

    @property
    def is_rebuilt(self) -> bool:
        """Whether the de-duplication window holds again what it held at the watermark that was restored."""
        return not self._rebuilt_at

    def checkpoint(self) -> Checkpoint:
        """The watermark of this instant."""
        # Kept generations are not read again as a rule, but they are where what was kept is not found whole.
        oldest = self.window.marks[0].first_offset if self.window.marks else self.next_offset
        self.refused = [offset for offset in self.refused if offset >= oldest]
        return Checkpoint(
            source=self.source, revision=self.revision, next_offset=self.next_offset, stream_time=self.stream_time,
            arrived_at=self.arrived_at, marks=self.window.marks, refused=tuple(self.refused),
            dead_letters=self.dead_letters, duplicates=self.duplicates, evicted_until=self.evicted_until,
        )  # fmt: skip

    def watermark(self) -> Watermark:
        """The watermark as the ledger is told."""
        return Watermark(
            source=self.source, revision=self.revision, next_offset=self.next_offset, stream_time=self.stream_time,
            dead_letters=self.dead_letters, duplicates=self.duplicates,
        )  # fmt: skip

    def watch(self, watchlist: Watchlist) -> None:
        """Fold what follows by another watchlist; what was folded stays where it is."""
        self.settle()
        self.rules = self.rules._replace(watchlist=watchlist)
        # Plans and lanes hold counters of the watchlist before.
        self._reader = BatchReader(self.rules.limits, self.rules.org_id, watchlist.attributes, self.heard)
        self._values = values_of(watchlist.attributes)

    # -- folding ----------------------------------------------------------------------------------------------------

    def fold(self, records: Sequence[Record], end: int) -> None:
        """Fold records in offset order and bring every total up to date; ``end`` is one past what they cover."""
        self.take([records])
        self.skip_to(end)
        self.settle()

    def take(self, parts: Iterable[Sequence[Record]]) -> int:
        """Fold records in offset order, part by part; return how many. Totals lag until they are settled.

        Records below the watermark were folded before: they only rebuild the de-duplication window. Parts should be
        small: all that is left of a part, once the next is read, is its calls' numbers.
        """
        count, end = 0, 0
        calls: list[Call] = []
        for records in parts:
            count += len(records)
            first = bisect_left(records, self.next_offset, key=_offset_of)
            if first:
                self._recall(records[:first])
            rows, refused = self._reader.read(records[first:])
            for record, reason in refused:
                self._dead_letter(record, reason)
            self.signals += self._sampler.take(rows)
            calls += calls_of(rows, self.sure_from, self.rules.runaway_tokens, self._rows)
            end = records[-1].offset + 1
        if calls:
            self._fold_calls(calls)
            self.signals.sort(key=_offset_of)  # as if all had been found one by one
        self.skip_to(end)
        return count

    def skip_to(self, end: int) -> None:
        """Note that there is nothing more below an offset."""
        self.next_offset = max(self.next_offset, end)
        if end >= self._rebuilt_at:
            self._rebuilt_at = 0

    def settle(self) -> None:
        """Bring every total up to date with what was folded."""
        counted: dict[int, ScopeStatement] = {}
        for lane in self._touched:
            lane.settle()
            self.changed_cells[id(lane.cell)] = lane.cell
            counted |= lane.by_id
        for counter in counted.values():
            counter.stream_time, counter.arrived_at = self.stream_time, self.arrived_at
        self.changed_counters |= counted
        self.unstated |= counted
        self._touched.clear()

    def _recall(self, records: Sequence[Record]) -> None:
        rows, _ = self._reader.read(records)
        refused = frozenset(self.refused)
        known = [row for row in rows if row[0].offset not in refused]
        self.window.recall([row[1] for row in known], [row[0].offset for row in known])

    def _fold_calls(self, calls: Sequence[Call]) -> None:
        """The hot path: calls on known lanes are added up here, all others go to ``_fold_one``."""
        window, touched, window_us = self.window, self._touched, self.rules.dedupe_window_us
        fresh: list[bytes] = []
        spent, amounts = self.spenders.spent, self.spenders.nanos
        stream_time, folded = self.stream_time, self.folded
        suspects = window.suspects([call[0] for call in calls])
        for call, is_suspect in zip(calls, suspects, strict=True):
            (
                digest, lane, offset, arrived, event_time,
                paid_in, paid_out, cached, written, reported, ms, special, spender, row,
            ) = call  # fmt: skip
            if lane is None:
                self.stream_time, self.folded = stream_time, folded
                window.note(fresh)
                fresh.clear()
                self._fold_one(row, is_suspect)  # type: ignore[arg-type]
                stream_time, folded = self.stream_time, self.folded
                continue
            if event_time > stream_time:  # a time in the future never moves stream time
                stream_time = event_time if event_time <= arrived else max(stream_time, arrived)
            if is_suspect or stream_time >= window.turns_at:
                window.note(fresh)
                fresh.clear()
                if not window.first_seen(digest, offset, stream_time):
                    self.duplicates += 1
                    continue
            else:
                fresh.append(digest)
            # The sum of UnitRates.nanos, written out: a test holds the two together.
            units = lane.per_request + paid_in * lane.rate_in + paid_out * lane.rate_out
            if cached or written:
                units += cached * lane.rate_cached + written * lane.rate_written
                lane.cached += cached
                lane.written += written
            divisor = lane.divisor
            nanos, rest = divmod(units, divisor)
            rest *= 2
            if rest > divisor or (rest == divisor and nanos & 1):
                nanos += 1
            if not lane.requests:
                touched.append(lane)
            lane.requests += 1
            lane.input += paid_in
            lane.output += paid_out
            lane.cost += nanos
            lane.offset = offset
            if reported:
                lane.reported += reported
            if event_time < stream_time - window_us:
                lane.late += 1
            lane.cost_histogram[bisect_right(COST_BOUNDS_NANOS, nanos)] += 1
            if ms is not None:
                lane.duration += ms
                shown = ms if ms < LONG_MS else LONG_MS  # squared_cs, written out
                lane.squared += shown * shown // 100
                lane.latency_histogram[bisect_right(LATENCY_BOUNDS_MS, ms)] += 1
            if special is not None:
                lane.count_special(*special)
            if spender:
                spent.append(spender)
                amounts.append(nanos)
            folded += 1
        window.note(fresh)
        self.spenders.drain(spenders.AT_ONCE)
        self.stream_time, self.folded = stream_time, folded
        self.arrived_at = max(self.arrived_at, max([call[3] for call in calls]))

    def _fold_one(self, row: Row, is_suspect: bool) -> None:
        """One record with every check: the first of a lane, a possible duplicate, whatever is not a plain call."""
        record, id, plan, event, event_time = row
        if plan is None:
            event = event.event
        offset, arrived_at = record.offset, record.timestamp * 1_000
        try:
            charge = self.rules.pricing.charge(event, event_time)
        except Rejected as refused:
            # It may come again once a price is known, so its id must not be taken for seen, now or after a restart.
            self.refused.append(offset)
            self._dead_letter(record, refused)
            return
        # A bill's period says nothing about now: its arrival does.
        happened = arrived_at if isinstance(event, BillingRecord) else event_time
        self.stream_time = max(self.stream_time, min(happened, arrived_at))
        self.arrived_at = max(self.arrived_at, arrived_at)
        if is_suspect:
            if not self.window.first_seen(id, offset, self.stream_time):
                self.duplicates += 1
                return
        else:
            if self.stream_time >= self.window.turns_at:
                self.window.advance(self.stream_time, offset)
            self.window.note([id])
        self.folded += 1
        late = self.window.is_late(happened, self.stream_time)
        found = plan.dimensions if plan else self.rules.dimensions_of(event)
        self._add(row, found, event, charge, late)
        if charge.unpriced:
            self.unpriced += 1
        if plan is not None and lane_at(plan, event_time) is None:
            self._open_lane(plan, event, event_time, offset)

    def _add(self, row: Row, dimensions: Dimensions, event: cells.Counted, charge: Charge, late: bool) -> None:
        """Add one event to its cell and its counters, each only if it does not hold the event already."""
        offset, event_time = row[0].offset, row[4]
        cell = self._cell(dimensions, event_time, offset)
        # A flush that was cut short can leave a total ahead of the watermark: what it holds is not folded again.
        if offset > cell.offset:
            cell.offset = offset
            cells.fold(cell.totals, event, charge, late)
            self.changed_cells[id(cell)] = cell
        tokens = duration = 0
        failed = isinstance(event, UsageEvent) and event.status != "success"
        if isinstance(event, UsageEvent):
            who = self.spenders.number(cell), event.key_id, event.user_id
            if self.spenders.add(who, offset, charge.nanos, self.sure_from):
                # It may be behind its cell, which is what says that there is something to state.
                self.changed_cells[id(cell)] = cell
            tokens, duration = event.input_tokens + event.output_tokens, 0 if failed else event.duration_ms or 0
            if tokens > self.rules.runaway_tokens:
                self.signals.append(runaway_signal(self.source, row, dimensions, charge.nanos))
        values = self._values(event)
        for watched in self.rules.watchlist.watched(dimensions, cell.dimensions, values, event_time):
            counter = self._counter(watched, offset)
            if offset <= counter.offset:
                continue
            counter.offset = offset
            count_one(counter, charge, tokens, duration, failed, watched.label)
            counter.stream_time = self.stream_time
            counter.arrived_at = self.arrived_at
            self.changed_counters[id(counter)] = self.unstated[id(counter)] = counter

    def _open_lane(self, plan: Plan, event: UsageEvent, event_time: int, offset: int) -> None:
        """Remember where calls like this one go, if their price allows it; their totals exist by now."""
        terms = self.rules.pricing.flat(event, event_time)
        if terms is None:
            return
        cell = self._cell(plan.dimensions, event_time, offset)
        counters = []
        watchlist = self.rules.watchlist
        begin, over = watchlist.steady(plan.dimensions, plan.values, event_time)
        start, end = max(cell.hour, terms.start, begin), min(cell.hour + HOUR, terms.end, over)
        for watched in watchlist.watched(plan.dimensions, cell.dimensions, plan.values, event_time):
            start, end = max(start, watched.period_start), min(end, watched.period_end)
            counters.append((self._counter(watched, offset), watched.label))
        if len(plan.lanes) >= _LANES_MAX:
            plan.lanes.clear()
        plan.lane = Lane(start, end, cell, counters, terms, event, self.spenders.number(cell))
        plan.lanes.append(plan.lane)

    def _dead_letter(self, record: Record, refused: Rejected) -> None:
        self.dead_letters += 1
        self.letters.append(DeadLetter(record, refused.reason, refused.detail))

    def _cell(self, dimensions: Dimensions, event_time: int, offset: int) -> CellStatement:
        hour = event_time - event_time % HOUR
        cell = self.cells.get((dimensions, hour))
        if cell is None:
            admitted = self.admission.decide(dimensions)
            if admitted is not dimensions:
                cell = self.cells.get((admitted, hour))
                if cell is None:
                    self.overflows[Overflow(dimensions.org_id, dimensions.team_id, hour)] = "opened"
            if cell is None:
                self.admission.enter(admitted)
                cell = self.cells[(admitted, hour)] = cells.new_cell(admitted, hour, self.source, offset, self.revision)
        return cell

    def _counter(self, watched: Watched, offset: int) -> ScopeStatement:
        key = (watched.scope, watched.period_start)
        counter = self.counters.get(key)
        if counter is None:
            segment, since = self.openings.place(watched, offset, self.stream_time - self.rules.cells_idle_us)
            counter = self.counters[key] = new_counter(watched, self.source, segment, self.revision, since)
        return counter

    # -- letting go -------------------------------------------------------------------------------------------------

    def evict(self, ledger_offset: int) -> list[Statement]:
        """Let go of what is idle (``streams.core.evicting``)."""
        gone, horizon = evicting.idle(self, ledger_offset)
        if gone:
            self._reader.close_lanes(horizon)
        return gone
