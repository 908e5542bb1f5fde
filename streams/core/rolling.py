"""ROLLUP's state of one partition of ``spend.cells``: the hours of scopes, how far the sources have come, and what is
said of both.

Pure: statements of cells and watermarks in, statements of hours out, in rounds. What an hour adds up to is a function
of its cells; rounds decide only how many totals on the way there are said. Within a round hours are said oldest first,
and but for the running one none claims that its sources are past its end: whoever believed so would close the hours
between before he has heard of them, of this scope or by his clock of others. No hour is let go of before it was said,
however many came at once.

Partitions that catch up do so side by side: old hours that one has, and another is still on its way to, wait for it.
Both have parts in the hours of an organisation, and whoever hears all of one first takes it for the whole.
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
#: Hours wait for other partitions until so many cells are held.
HELD_MAX = 500_000
#: No hour is so late.
EVER = 1 << 62


_Key = tuple[str, int]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a partition has come; kept beside its cells."""

    v: int = 1
    reaches: dict[str, Reach] = {}
    #: Hours that end before it have been said to be over.
    over_before: int = 0
    frozen_before: int = 0
    #: Hours from here on may not have been said though their cells are kept; left out where all were.
    unsaid_from: int | msgspec.UnsetType = msgspec.UNSET


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


def in_step(comes: Iterable[int]) -> int:
    """The hour until which old hours are said, of sources that have come so far and come further; any where none does.

    >>> in_step([2 * HOUR, 5 * HOUR + MINUTE]) // HOUR, in_step([]) == EVER
    (3, True)
    """
    slowest = min(comes, default=EVER)
    return slowest if slowest == EVER else hour_of(slowest) + HOUR


class Rolling:
    """One partition."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.rollup = Rollup()
        self._progress = Progress()
        self._reaches: dict[str, Reach] = {}

    def restore(self, cells: Iterable[RolledCell], progress: Progress) -> None:
        """Take back what was durable. It was said before it was kept, but for hours that may be over since."""
        self.rollup.frozen_before = progress.frozen_before
        self.rollup.restore(cells, EVER if progress.unsaid_from is msgspec.UNSET else progress.unsaid_from)
        self._progress, self._reaches = progress, dict(progress.reaches)

    def take(self, cells: Iterable[CellStatement], marks: Iterable[Watermark], now: int) -> None:
        """Take in cells, and after them the watermarks that cover them."""
        for cell in cells:
            self.rollup.take(cell, now)
        for mark in marks:
            self._reaches = advance(self._reaches, mark.source.slot(), mark.stream_time, now)

    def comes(self) -> dict[str, int]:
        """The event time that each source has come to."""
        return {slot: each.stream_time for slot, each in self._reaches.items()}

    def round(self, now: int, until: int = EVER) -> Round:
        """What changed since the last round, and what is over by now; hours from ``until`` on wait if they are old."""
        at, rollup, known = reached(self._reaches, now), self.rollup, self._progress
        over_before = max(known.over_before, hour_of(at - OVER_US))
        changed = rollup.changed()
        if over_before > known.over_before:
            ended = rollup.of_hours(known.over_before, over_before)
            changed = sorted({*changed, *ended}, key=lambda key: (key[1], key[0]))
        oldest = next((hour for _, hour in changed if hour >= known.frozen_before), EVER)
        forgotten, gone = rollup.forget(min(max(0, at - KEEP_US), oldest), now)
        changed, unsaid = self._in_step(changed, until, now)
        newest = changed[-1][1] if changed else 0
        said = (self._statement(key, over_before, newest) for key in changed)
        progress = Progress(
            reaches=self._reaches,
            over_before=over_before,
            frozen_before=rollup.frozen_before,
            unsaid_from=unsaid or msgspec.UNSET,
        )
        moved, self._progress = progress != known, progress
        return Round(self.part, said, gone, rollup.unkept(), forgotten, progress, moved)

    def _in_step(self, changed: list[_Key], until: int, now: int) -> tuple[list[_Key], int]:
        """What is said of it now, and from which hour on something is not."""
        old = hour_of(now - KEEP_US)
        if not changed or until >= old or changed[-1][1] < until or len(self.rollup.cells) > HELD_MAX:
            return changed, 0
        held = [key for key in changed if until <= key[1] < old]
        self.rollup.change(held)
        return [key for key in changed if not until <= key[1] < old], held[0][1] if held else 0

    def _statement(self, key: tuple[str, int], over_before: int, newest: int) -> HourStatement:
        found = self.rollup.hour_of(key)
        reach = {}
        for slot in found.slots:
            known = self._reaches.get(slot)
            come = 0 if known is None else known.stream_time
            is_running = found.hour == newest and come < found.hour + 2 * HOUR
            reach[slot] = come if is_running else min(come, found.hour + HOUR)
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
