"""ROLLUP's state of one partition of ``spend.cells``: the hours of scopes, how far the sources have come, and what is
said of both.

Pure: statements of cells and watermarks in, statements of hours out, in rounds. What an hour adds up to is a function
of its cells; rounds decide only how many totals on the way there are said. Within a round hours are said oldest first,
and but for the newest none claims that its sources are past its end: whoever believed so would close the hours between
before he has heard of them, of this scope or by his clock of others.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from schemas.instants import HOUR, MINUTE, hour_of
from schemas.statements import CellStatement, HourStatement, Watermark
from schemas.versions import Versioned
from streams.core.detect_reach import Reach, advance, reached
from streams.core.rollup import RolledCell, Rollup

#: So long after its end an hour is over, and is said once more.
OVER_US = 5 * MINUTE
#: So long after its beginning an hour is let go of: whoever reads takes no corrections by then.
KEEP_US = 6 * HOUR


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a partition has come; kept beside its cells."""

    v: int = 1
    reaches: dict[str, Reach] = {}
    #: Hours that end before it have been said to be over.
    over_before: int = 0
    frozen_before: int = 0


class KeptCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell as it is kept."""

    v: int = 1
    cell: RolledCell


PROGRESS = Versioned("how far a rollup has come", Progress)
KEPT_CELLS = Versioned("a cell of a rollup", KeptCell)


class Round(NamedTuple):
    """What a round says, in this order, and then keeps."""

    part: int
    #: Made as they are asked for; nothing may be taken in meanwhile.
    statements: Iterator[HourStatement]
    #: Hours of scopes that are let go of: their last statement is deleted.
    gone: list[tuple[str, int]]
    kept: list[RolledCell]
    forgotten: list[RolledCell]
    progress: Progress
    #: Whether ``progress`` differs from that of the round before.
    moved: bool


class Rolling:
    """One partition."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.rollup = Rollup()
        self._progress = Progress()
        self._reaches: dict[str, Reach] = {}

    def restore(self, cells: Iterable[RolledCell], progress: Progress) -> None:
        """Take back what was durable. It was said before it was kept, but for hours that may be over since."""
        self.rollup.restore(cells)
        self.rollup.frozen_before = progress.frozen_before
        self._progress, self._reaches = progress, dict(progress.reaches)

    def take(self, cells: Iterable[CellStatement], marks: Iterable[Watermark], now: int) -> None:
        """Take in cells, and after them the watermarks that cover them."""
        for cell in cells:
            self.rollup.take(cell)
        for mark in marks:
            self._reaches = advance(self._reaches, mark.source.slot(), mark.stream_time, now)

    def round(self, now: int) -> Round:
        """What changed since the last round, and what is over by now."""
        at, rollup, known = reached(self._reaches, now), self.rollup, self._progress
        over_before = max(known.over_before, hour_of(at - OVER_US))
        forgotten, gone = rollup.forget(max(0, at - KEEP_US))
        changed = rollup.changed()
        if over_before > known.over_before:
            ended = rollup.of_hours(known.over_before, over_before)
            changed = sorted({*changed, *ended}, key=lambda key: (key[1], key[0]))
        newest = changed[-1][1] if changed else 0
        said = (self._statement(key, over_before, newest) for key in changed)
        progress = Progress(reaches=self._reaches, over_before=over_before, frozen_before=rollup.frozen_before)
        moved, self._progress = progress != known, progress
        return Round(self.part, said, gone, rollup.unkept(), forgotten, progress, moved)

    def _statement(self, key: tuple[str, int], over_before: int, newest: int) -> HourStatement:
        found = self.rollup.hour_of(key)
        until = None if found.hour == newest else found.hour + HOUR
        reach = {}
        for slot in found.slots:
            known = self._reaches.get(slot)
            come = 0 if known is None else known.stream_time
            reach[slot] = come if until is None else min(come, until)
        return HourStatement(
            scope=found.scope,
            hour=found.hour,
            part=self.part,
            rank=found.rank,
            reach=reach,
            is_over=found.hour < over_before,
            figures=found.figures,
            models=found.models,
            by=found.by,
        )
