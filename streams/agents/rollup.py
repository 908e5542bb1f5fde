"""ROLLUP's shell: cells in, hours of scopes out, in rounds.

What comes is kept unread, the newest of each key, until a round reads it: a busy cell is stated several times a second,
and its last total says it all. A round writes statements, then cells and progress, then acknowledges; a crash between
any two of these says and keeps the same again. All partitions have their round together, and what is said is said hour
by hour: of a backlog no detector hears all of one partition before the first of another. Rounds are rarer where they
cost more, but no rarer than detection within a minute allows; and one is made at once when partitions are given away,
since that waits for the acknowledgement.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from schemas import topics
from schemas.readers import CELL_STATEMENTS, WATERMARKS
from schemas.statements import CellStatement, HourStatement
from streams.agents.entries import is_of_spenders, is_watermark
from streams.agents.shell import STALL_S, EvictedError, decoded, fail_stop
from streams.agents.slices import SLICE_S, give_way, in_slices
from streams.clock import Clock, StreamClock, elapsed_s
from streams.core.rolling import EVER, KEPT_CELLS, PROGRESS, KeptCell, Progress, Rolling, Round, in_step
from streams.core.rollup import RolledCell
from streams.transport import Outgoing, RecordBatch, StateTable, partition_of

_encode = msgspec.json.Encoder().encode
_PROGRESS = b"p"
#: Rounds take at most this part of the time, and come at least this often.
SHARE, ROUND_MAX_S = 0.01, 50.0
POLL_S = 0.1
#: A partition that was given to us, or a source that came further, within so many seconds may be catching up: old
#: hours wait for it.
MOVING_S = 5.0
#: So many records are handed to the producer at once, which takes their time without giving way.
AT_ONCE = 500


def hour_record(statement: HourStatement, partitions: int) -> Outgoing:
    """A statement on its topic; all parts of a scope meet in one partition."""
    key = hour_key(statement.scope, statement.hour, statement.part)
    return Outgoing(topics.SPEND_HOURS, _place_of(statement.scope, partitions), key, _encode(statement))


@lru_cache(maxsize=65_536)
def _place_of(scope: str, partitions: int) -> int:
    return partition_of(scope.encode(), partitions)


def hour_key(scope: str, hour: int, part: int) -> bytes:
    """``<scope>|<hour>|<part>``"""
    return f"{scope}|{hour}|{part}".encode()


def cell_key(cell: RolledCell) -> bytes:
    """A cell's key in the table."""
    return f"c|{cell.slot}|{cell.cell_id}|{cell.segment}".encode()


class _Partition:
    """What has come for a partition since its last round."""

    def __init__(self, number: int, moved_at: float) -> None:
        self.rolling = Rolling(number)
        #: How far each source had come when that was last looked at, and since when; at first any may still speak.
        self.moved: dict[str, tuple[int, float]] = {"": (0, moved_at)}
        self.newest: dict[bytes, Any] = {}
        self.events: list[Any] = []
        self.end: int | None = None


class _Begun(NamedTuple):
    """A partition whose round is under way, and the batches that were read for it."""

    number: int
    part: _Partition
    events: list[Any]


class RollupAgent:
    """All partitions of ``spend.cells`` of this worker."""

    def __init__(
        self,
        table: StateTable,
        clock: Clock,
        *,
        interval_s: float,
        is_leaving: Callable[[], bool] = lambda: False,
        elapsed: Callable[[], float] = elapsed_s,
    ) -> None:
        """``is_leaving``: whether partitions are being given away, which waits for what is not acknowledged yet.

        On a stream's clock rounds come as they are asked for, whatever they cost: hours pass in seconds there.
        """
        self.clock = clock
        self._table = table
        self._interval_s, self._is_leaving, self._elapsed = interval_s, is_leaving, elapsed
        self._round_max_s = interval_s if isinstance(clock, StreamClock) else ROUND_MAX_S
        self._found: dict[int, _Partition] = {}
        self._due_at = 0.0
        self._awake_at = elapsed_s()
        table.fenced = True
        table.on_load = self._load
        table.on_drop = self._drop

    def _load(self, partition: int, found: dict[bytes, bytes]) -> None:
        part = self._found[partition] = _Partition(partition, self._elapsed())
        cells = [KEPT_CELLS.decode(value).cell for key, value in found.items() if key != _PROGRESS]
        progress = PROGRESS.decode(found[_PROGRESS]) if _PROGRESS in found else Progress()
        part.rolling.restore(cells, progress)

    def _drop(self, partitions: set[int]) -> None:
        for partition in partitions:
            self._found.pop(partition, None)

    async def run(self, stream: Any) -> None:
        """The agent: keep what comes until the next round."""
        async for event in stream.noack().events():
            self.take(event)

    def take(self, event: Any) -> None:
        """Keep a batch's newest record of each key."""
        batch: RecordBatch = event.value
        part = self._found.get(batch.partition)
        if part is None:
            return  # revoked while it waited; whoever owns it now reads it again
        if part.end is not None and batch.begin > part.end:
            missing = batch.begin - part.end
            fail_stop("ROLLUP", RuntimeError(f"{batch.topic}[{batch.partition}]: a gap of {missing} offsets"))
        part.end = batch.end
        newest = part.newest
        for record in batch.records:
            # Deletions say nothing: what they delete was the last total, and hours are let go of by their age.
            if record.value is not None:
                newest[record.key] = record
        part.events.append(event)

    async def run_background(self) -> None:
        """Rounds, for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                began = elapsed_s()
                if began - self._awake_at <= STALL_S:
                    self._awake_at = began
                waiting = any(part.events for part in self._found.values())
                if began >= self._due_at or (waiting and self._is_leaving()):
                    cost_s = await self.round()
                    self._due_at = elapsed_s() + max(self._interval_s, min(cost_s / SHARE, self._round_max_s))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop("ROLLUP", error)

    async def round(self) -> float:
        """A round of every partition; returns the seconds of this process that it took."""
        spent, rounds = _Spent(), list[_Begun]()
        for number, part in list(self._found.items()):
            if await self._is_ours(number, part):
                newest, part.newest = part.newest, {}
                events, part.events = part.events, []
                await spent.slices(self._read(part.rolling, newest))
                rounds.append(_Begun(number, part, events))
        until, now = self._in_step(), self.clock.now()
        found = list[tuple[_Begun, Round]]()
        for each in rounds:
            if self._has(each):
                found.append((each, spent.at(partial(each.part.rolling.round, now, until))))
                await give_way()
        await self._say([each for _, each in found], {each.number: each for each in rounds}, spent)
        for each, said in found:
            await self._keep(each, said)
        return spent.seconds

    def _has(self, each: "_Begun") -> bool:
        return self._found.get(each.number) is each.part

    def _in_step(self) -> int:
        """Until which hour old ones are said, so that partitions that catch up do so side by side."""
        now, comes = self._elapsed(), list[int]()
        for part in self._found.values():
            for slot, come in part.rolling.comes().items():
                if come and part.moved.get(slot, (0, 0.0))[0] != come:
                    part.moved[slot] = come, now
            comes += [come for come, moved_at in part.moved.values() if now - moved_at < MOVING_S]
        return EVER if self._is_leaving() else in_step(comes)

    async def _is_ours(self, number: int, part: _Partition) -> bool:
        """After a stall, make sure that the group has not gone on without us before anything is said."""
        stalled_s = elapsed_s() - self._awake_at
        if stalled_s > STALL_S and not await self._table.confirm() and self._found.get(number) is part:
            raise EvictedError(f"stalled for {stalled_s:.0f} s, and the group has gone on without this worker")
        self._awake_at = elapsed_s()
        return self._found.get(number) is part

    async def _say(self, rounds: list[Round], begun: dict[int, "_Begun"], spent: "_Spent") -> None:
        """Write what rounds say, hour by hour over all of them, and what is deleted."""
        app: Any = self._table.app
        said: list[tuple[int, Outgoing]] = []

        async def write() -> None:
            # What was taken away meanwhile is said by its next owner.
            ours = [record for number, record in said if self._has(begun[number])]
            said.clear()
            if ours:
                await app.producer.write(ours, app.partitions)

        statements = self._said(rounds, app.partitions, said)
        while await spent.slices(statements, AT_ONCE):
            await write()
        await write()

    async def _keep(self, begun: "_Begun", said: Round) -> None:
        kept = await in_slices(self._kept(said)) if self._has(begun) else []
        for start in range(0, len(kept), AT_ONCE):
            if self._has(begun):
                await self._table.write(begun.number, kept[start : start + AT_ONCE])
        if self._has(begun):
            for event in begun.events:
                event.ack()

    def _read(self, rolling: Rolling, newest: dict[bytes, Any]) -> Iterator[None]:
        """Cells, then spenders, then watermarks, which cover what came before them."""
        now = self.clock.now()
        marks, spenders = [], []
        for key, record in newest.items():
            if is_watermark(key):
                marks.append(record)
            elif is_of_spenders(key):
                spenders.append((key, record.value))
            else:
                rolling.take(_cells([record]), (), now)
                yield
        for key, value in spenders:
            slot, _, cell, segment, block, _ = key.decode().split("|")
            rolling.rollup.note_spenders((cell, slot, int(segment)), block, value)
            yield
        for _, mark in decoded(marks, WATERMARKS.decode):
            self.clock.observe(mark.stream_time, mark.source.slot())
            rolling.take((), [mark], self.clock.now())

    def _said(self, rounds: list[Round], partitions: int, said: list[tuple[int, Outgoing]]) -> Iterator[None]:
        for statement in merge(*(each.statements for each in rounds), key=attrgetter("hour")):
            said.append((statement.part, hour_record(statement, partitions)))
            yield
        for each in rounds:
            for scope, hour in each.gone:
                key = hour_key(scope, hour, each.part)
                said.append((each.part, Outgoing(topics.SPEND_HOURS, _place_of(scope, partitions), key, None)))
                yield

    @staticmethod
    def _kept(found: Round) -> Iterator[tuple[bytes, bytes | None]]:
        for each in found.kept:
            yield cell_key(each), _encode(KeptCell(cell=each))
        for each in found.forgotten:
            yield cell_key(each), None
        if found.moved:
            # After the cells: what it says to be over and gone has been said.
            yield _PROGRESS, _encode(found.progress)


class _Spent:
    """Works through steps in slices, so that others have their turn, and counts the seconds of the steps alone."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def at(self, step: Callable[[], Round]) -> Round:
        """Take one step that has no slices."""
        began = elapsed_s()
        made = step()
        self.seconds += elapsed_s() - began
        return made

    async def slices(self, steps: Iterator[None], most: int | None = None) -> bool:
        """Take so many steps at most; returns whether there may be more."""
        began, taken = elapsed_s(), 0
        for _ in islice(steps, most):
            taken += 1
            now = elapsed_s()
            if now - began >= SLICE_S:
                self.seconds += now - began
                await give_way()
                began = elapsed_s()
        self.seconds += elapsed_s() - began
        return taken == most


def _cells(records: Iterable[Any]) -> list[CellStatement]:
    return [cell for _, cell in decoded(records, CELL_STATEMENTS.decode)]
