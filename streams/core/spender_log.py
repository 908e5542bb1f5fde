"""How rows of spenders lie in METER's changelog: a log of what changed at each flush, in columns.

A flush may change a hundred thousand rows, and each has to be durable before what is folded counts as such. So a
flush adds a few records with the numbers of all rows that changed, and a row's names are written once, when it comes.
Now and then everything is written anew, and the records before that are deleted: the log stays within some times its
rows. What is stated to others is made of the rows, and more rarely.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from schemas.versions import Versioned

#: A record's names have so many characters at most, and it has so many rows: well below what a broker takes.
NAMES_MAX, ROWS_MAX = 100_000, 10_000
#: A statement holds so many rows: whoever spends once more has so many stated with it.
BLOCK = 16


class SpenderLog(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One record: some rows as they stood after a flush. Numbers of cells and rows are those of its writer."""

    v: int = 1
    #: Records of one writer are read in this order.
    sequence: int
    #: A record of everything says of how many it is one, and which; one of what changed is of none.
    parts: int = 0
    part: int = 0
    #: Cells that left memory, before anything below came.
    left: list[int] = []
    #: Cells that are new: their number, id and segment.
    cells: list[tuple[int, str, int]] = []
    #: Rows that are new: their number, their cell, where they stand in it, key and user.
    names: list[tuple[int, int, int, str, str]] = []
    #: Columns of little-endian integers, of 4 bytes each: the rows that changed,
    rows: bytes = b""
    #: and of 8 bytes each: the last offset in them, their nanodollars but for ``more``, and their calls.
    offsets: bytes = b""
    costs: bytes = b""
    requests: bytes = b""
    #: Nanodollars that 64 bits do not hold, by row.
    more: dict[int, int] = {}


SPENDER_LOGS = Versioned("a log of spenders", SpenderLog)


class Kept(NamedTuple):
    """A row as it is taken back."""

    cell_id: str
    segment: int
    #: Where it stands in its cell.
    stands: int
    key_id: str
    user_id: str
    offset: int
    cost_nanos: int
    requests: int


class Columns(NamedTuple):
    """Rows that changed, in columns of one length."""

    rows: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    offsets: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    costs: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    requests: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    def part(self, start: int, end: int) -> "Columns":
        """Some of them."""
        return Columns(*(column[start:end] for column in self))


def records(
    first: int,
    whole: bool,
    left: Sequence[int],
    cells: Sequence[tuple[int, str, int]],
    names: Sequence[tuple[int, int, int, str, str]],
    columns: Columns,
    more: dict[int, int],
) -> list[SpenderLog]:
    """A flush's records, numbered from ``first``: ``left`` and ``cells`` in the first of them, rows split among all."""
    found = [SpenderLog(sequence=0, left=[*left], cells=[*cells])]
    room = NAMES_MAX
    for name in names:
        weight = len(name[3]) + len(name[4]) + 16
        if weight > room:
            found.append(SpenderLog(sequence=0))
            room = NAMES_MAX
        room -= weight
        found[-1].names.append(name)
    for place, start in enumerate(range(0, len(columns.rows), ROWS_MAX)):
        if place >= len(found):
            found.append(SpenderLog(sequence=0))
        part, record = columns.part(start, start + ROWS_MAX), found[place]
        record.rows = part.rows.astype("<i4").tobytes()
        record.offsets, record.costs, record.requests = (column.astype("<i8").tobytes() for column in part[1:])
        if more:
            record.more = {row: more[row] for row in part.rows.tolist() if row in more}
    for place, record in enumerate(found):
        record.sequence = first + place
        if whole:
            record.parts, record.part = len(found), place
    return found


def kept(log: Iterable[SpenderLog]) -> list[Kept]:
    """The rows that a writer's records leave, those of one cell in order.

    A writer that died while it wrote everything anew has left the records before that: only what it wrote whole counts.
    """
    cells: dict[int, tuple[str, int]] = {}
    names: dict[int, tuple[int, int, str, str]] = {}
    figures: dict[int, tuple[int, int, int]] = {}
    for record in _in_force(log):
        for number in record.left:
            cells.pop(number, None)
        cells.update({number: (cell_id, segment) for number, cell_id, segment in record.cells})
        names.update({row: (number, stands, key, user) for row, number, stands, key, user in record.names})
        columns = [np.frombuffer(text, kind).tolist() for text, kind in _columns(record)]
        for row, offset, cost, requests in zip(*columns, strict=True):
            figures[row] = offset, cost + record.more.get(row, 0), requests
    # A flush that was cut short may have left the one without the other.
    found = []
    for row, those in figures.items():
        number, stands, key, user = names.get(row, (-1, 0, "", ""))
        cell_id, segment = cells.get(number, ("", -1))
        if cell_id:
            found.append(Kept(cell_id, segment, stands, key, user, *those))
    return sorted(found)


def blocks(log: Iterable[SpenderLog]) -> set[tuple[str, int, int]]:
    """The blocks that a writer may have stated: cell, segment and number."""
    log = list(log)
    cells = {number: (cell_id, segment) for record in log for number, cell_id, segment in record.cells}
    places = {(number, stands // BLOCK) for record in log for _, number, stands, _, _ in record.names}
    return {(*cells[number], block) for number, block in places if number in cells}


def _columns(record: SpenderLog) -> Iterator[tuple[bytes, str]]:
    yield record.rows, "<i4"
    for text in (record.offsets, record.costs, record.requests):
        yield text, "<i8"


def _in_force(log: Iterable[SpenderLog]) -> list[SpenderLog]:
    by_sequence = {record.sequence: record for record in log}
    ordered = [by_sequence[sequence] for sequence in sorted(by_sequence)]
    begins = 0
    for place, record in enumerate(ordered):
        parts = ordered[place : place + record.parts]
        is_whole = record.parts > 0 and record.part == 0 and len(parts) == record.parts
        if is_whole and all(each.parts == record.parts and each.part == at for at, each in enumerate(parts)):
            begins = place
    first = ordered[begins:]
    return [record for place, record in enumerate(first) if not record.parts or place < first[0].parts]
