"""Who spent a cell's money: a row for each key and user that its calls named, for showback of any budget.

Rows belong to their cell's segment: they come and go with it. So a budget's showback by key or user is a sum over the
cells that it counts, as every other showback is, and nothing is counted per budget. What no row names is what the cell
holds beyond its rows; it is shown as ``__other__``.

Anybody can invent keys and users, and each row costs memory, so a team has so many rows and a partition so many in all;
what is live decides, in offset order (``streams.core.admission`` says why a replay then admits the same). A user that
finds no room is counted under its key and ``__other__``, for which room is kept apart: keys are few, users are many.

A call's row is found by a hash of 64 bits while its texts are at hand, so that these need not be kept; what calls
cost is added up in columns, some 500 of them at once. Each flush makes what changed durable
(``streams.core.spender_log``); it is stated more rarely.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from schemas.statements import CellStatement, SpenderRow, SpenderStatement
from streams.core.admission import OTHER
from streams.core.spender_log import BLOCK, Columns, Kept, SpenderLog, records

#: Room for keys alone, as a part of that for keys with users.
KEYS_SHARE = 4
#: Where rows without room are added up: nobody reads it.
NOWHERE = 0
#: So many calls are added up at once: each adding has a cost of its own.
AT_ONCE = 1_024
#: Nanodollars of one call from which on it is added by itself, and of all rows above which they are carried over.
_LARGE, _CARRIED = 1 << 50, 1 << 61
_HOLE = -1

#: Everything is written anew where so many rows were written since, or twice as many as there are.
_LOGGED_MIN = 20_000

#: The number of a cell (``Spenders.number``), a key and a user.
Who = tuple[int, str, str]


class Logged(NamedTuple):
    """What a flush writes, and the numbers of the records that it makes needless."""

    records: list[SpenderLog]
    outdated: range


class Room:
    """How many rows there are, of at most so many: those with a user, and those of a key alone."""

    __slots__ = ("keys", "keys_max", "users", "users_max")

    def __init__(self, most: int) -> None:
        self.users = self.keys = 0
        self.users_max, self.keys_max = most, -(-most // KEYS_SHARE)


class _Cell:
    """A cell, and where its rows are; in blocks of so many, with holes where not all of a block came back."""

    __slots__ = ("holes", "rows", "said_at", "statement", "team")

    def __init__(self, statement: CellStatement, team: Room) -> None:
        self.statement, self.team = statement, team
        #: How far the partition was folded when some of its rows were stated last.
        self.said_at = -1
        self.rows: list[int] = []
        self.holes: list[int] = []


class Spenders:
    """The rows of all cells of one source partition."""

    def __init__(self, most: int, team_most: int) -> None:
        self._all, self._team_most = Room(most), team_most
        self._teams: dict[tuple[str, str], Room] = {}
        self._cells: dict[int, _Cell] = {}
        #: By the id of a cell, which is kept alive here.
        self._numbers: dict[int, int] = {}
        self._next = 1
        #: The rows by the hash of their spender. Of a million spenders, two have the same in one of ten million runs.
        self.rows: dict[int, int] = {}
        #: The rows of keys alone.
        self._keys: dict[tuple[int, str], int] = {}
        #: Of each row: whose it is, where it stands in its cell, the offset up to which it was stated.
        self._names: list[Who | None] = [None]
        self._stands: list[int] = [0]
        self._free: list[int] = []
        self._offsets = np.full(1 << 10, -1, np.int64)
        self._cost = np.zeros(1 << 10, np.int64)
        self._requests = np.zeros(1 << 10, np.int64)
        #: Requests as they were made durable: where they are others, something changed.
        self._logged_requests = np.zeros(1 << 10, np.int64)
        #: Rows that are other than they were stated.
        self._unsaid = np.zeros(1 << 10, np.bool_)
        #: Nanodollars as they were made durable.
        self._logged_cost = np.zeros(1 << 10, np.int64)
        self._logged_more: dict[int, int] = {}
        #: Cells and rows that are in no record yet; cells that have left, to be told by this flush and by the next.
        self._new_cells: list[int] = []
        self._new_rows: list[int] = []
        self._left: list[int] = []
        self._leaving: list[int] = []
        #: The number of the next record, of the first that counts, and how many rows were written since that.
        self._sequence = self._first = self._logged = 0
        self._is_whole = False
        #: What 64 bits of a row do not hold, and how much was added to rows since that was looked after.
        self._more: dict[int, int] = {}
        self._uncarried = 0
        #: Calls that were folded and not added yet: their row, or spender where that has none, and nanodollars.
        self.spent: list[int | Who] = []
        self.nanos: list[int] = []

    def __len__(self) -> int:
        return self._all.users + self._all.keys

    def number(self, cell: CellStatement) -> int:
        """What a cell is called here; never given to another."""
        number = self._numbers.get(id(cell))
        if number is None:
            number = self._numbers[id(cell)] = self._next
            team = (cell.dimensions.org_id, cell.dimensions.team_id)
            self._cells[number] = _Cell(cell, self._teams.setdefault(team, Room(self._team_most)))
            self._new_cells.append(number)
            self._next += 1
        return number

    def rows_of(self, cell: CellStatement) -> list[SpenderRow]:
        """The rows of a cell as they stand."""
        self.drain()
        found = []
        for row in self._cells[self.number(cell)].rows:
            name = self._names[row] if row != _HOLE else None
            if name is not None:
                nanos = int(self._cost[row]) + self._more.get(row, 0)
                found.append(SpenderRow(name[1], name[2], int(self._offsets[row]), nanos, int(self._requests[row])))
        return found

    # -- adding -----------------------------------------------------------------------------------------------------

    def add(self, who: Who, offset: int, nanos: int, sure_from: int) -> bool:
        """Add one call; below ``sure_from`` only where its row does not hold it already, and whether it did not."""
        row = self.rows.get(hash(who))
        if offset >= sure_from:
            self.spent.append(who if row is None else row)
            self.nanos.append(nanos)
            return True
        row = row or self._row_of(who)
        if row == NOWHERE or offset <= self._offsets[row]:
            return False
        self._more[row] = self._more.get(row, 0) + nanos
        self._requests[row] += 1
        return True

    def drain(self, least: int = 1) -> None:
        """Add what was folded since, if it is so many calls."""
        spent, nanos = self.spent, self.nanos
        if len(spent) < least:
            return
        try:
            rows = np.fromiter(spent, np.int64, len(spent))
        except (TypeError, ValueError):  # some have no row yet
            rows = np.array([each if isinstance(each, int) else self._row_of(each) for each in spent], np.int64)
        try:
            amounts = np.array(nanos, np.int64)
        except OverflowError:
            amounts = np.zeros(0, np.int64)
        if amounts.size and amounts.max() < _LARGE:
            self._uncarried += int(amounts.sum())
            np.add.at(self._cost, rows, amounts)
        else:
            for row, each in zip(rows.tolist(), nanos, strict=True):
                self._more[row] = self._more.get(row, 0) + each
        np.add.at(self._requests, rows, 1)
        if self._uncarried > _CARRIED:
            self._carry()
        spent.clear()
        nanos.clear()

    def _carry(self) -> None:
        for row in np.flatnonzero(self._cost).tolist():
            self._more[row] = self._more.get(row, 0) + int(self._cost[row])
        self._cost[:] = 0
        self._uncarried = 0

    def _row_of(self, who: Who) -> int:
        """Its row, a new one, or that of the key alone, new or not; ``NOWHERE`` where there is no room."""
        found = self.rows.get(hash(who))
        if found is not None:
            return found
        all_, number, key = self._all, who[0], who[1]
        cell = self._cells[number]
        team = cell.team
        if all_.users < all_.users_max and team.users < team.users_max and who[2] != OTHER:
            return self._enter(cell, who)
        row = self._keys.get((number, key))
        if row is None:
            if all_.keys >= all_.keys_max or team.keys >= team.keys_max:
                return NOWHERE
            row = self._enter(cell, (number, key, OTHER))
        return row

    def _enter(self, cell: _Cell, who: Who, stands: int | None = None) -> int:
        if self._free:
            row = self._free.pop()
        else:
            row = len(self._names)
            self._names.append(None)
            self._stands.append(0)
            if row >= len(self._cost):
                self._grow()
        if stands is None:
            stands = cell.holes.pop() if cell.holes else len(cell.rows)
        if stands == len(cell.rows):
            cell.rows.append(row)
        cell.rows[stands] = row
        self._names[row], self._stands[row], self._offsets[row] = who, stands, -1
        if who[2] == OTHER:
            self._keys[who[:2]] = row
        else:
            self.rows[hash(who)] = row
        self._new_rows.append(row)
        self._count(cell, who, 1)
        return row

    def _grow(self) -> None:
        more = np.zeros_like(self._cost)
        self._offsets = np.concatenate([self._offsets, more - 1])
        self._cost = np.concatenate([self._cost, more])
        self._requests = np.concatenate([self._requests, more])
        self._logged_requests = np.concatenate([self._logged_requests, more])
        self._logged_cost = np.concatenate([self._logged_cost, more])
        self._unsaid = np.concatenate([self._unsaid, np.zeros_like(self._unsaid)])

    def _count(self, cell: _Cell, who: Who, step: int) -> None:
        for room in (cell.team, self._all):
            if who[2] == OTHER:
                room.keys += step
            else:
                room.users += step

    # -- making durable ---------------------------------------------------------------------------------------------

    def take(self, offset: int) -> Logged:
        """What changed up to an offset, to be made durable; it counts as durable from here on."""
        self.drain()
        self._cost[NOWHERE] = self._requests[NOWHERE] = 0
        changed = np.flatnonzero(self._requests != self._logged_requests)
        # A row that was restored ahead of the watermark holds more than was folded by now.
        self._offsets[changed] = np.maximum(self._offsets[changed], offset)
        self._unsaid[changed] = True
        self._logged_requests[changed] = self._requests[changed]
        self._logged_cost[changed] = self._cost[changed]
        if self._more:
            self._logged_more |= {row: self._more[row] for row in changed.tolist() if row in self._more}
        is_long = self._logged + len(changed) > max(_LOGGED_MIN, 2 * len(self))
        # Cells that leave with this flush are still to be found in the changelog if it is cut short.
        is_whole = not self._is_whole or (is_long and not self._leaving)
        if is_whole:
            changed = np.array([row for row, name in enumerate(self._names) if name is not None], np.int64)
            self._new_cells, self._new_rows = list(self._cells), changed.tolist()
        left, self._left, self._leaving = self._left, self._leaving, []
        if not (len(self) if is_whole else len(changed) or left):
            return Logged([], range(0))
        found = records(
            self._sequence, is_whole, left, list(self._said_cells()), list(self._said_names()),
            Columns(changed, self._offsets[changed], self._cost[changed], self._requests[changed]), self._more,
        )  # fmt: skip
        self._new_cells, self._new_rows = [], []
        outdated = range(self._first, self._sequence) if is_whole else range(0)
        if is_whole:
            self._first, self._logged, self._is_whole = self._sequence, 0, True
        self._sequence += len(found)
        self._logged += len(changed)
        return Logged(found, outdated)

    def _said_cells(self) -> Iterator[tuple[int, str, int]]:
        for number in self._new_cells:
            cell = self._cells.get(number)
            if cell is not None and cell.rows:
                yield number, cell.statement.cell_id, cell.statement.segment

    def _said_names(self) -> Iterator[tuple[int, int, int, str, str]]:
        for row in self._new_rows:
            name = self._names[row]
            if name is not None:
                yield row, name[0], self._stands[row], name[1], name[2]

    # -- stating ----------------------------------------------------------------------------------------------------

    @property
    def is_unsaid(self) -> bool:
        """Whether there is anything to state."""
        return bool(self._unsaid.any())

    def is_written(self, cell: CellStatement, ledger_offset: int) -> bool:
        """Whether all rows of a cell were stated as they are, and read: deleted before that, nobody would read them."""
        known = self._cells.get(self._numbers.get(id(cell), 0))
        if known is None or not known.rows:
            return True
        # The watermark of the very offset at which they were stated may have come before them.
        return known.said_at < ledger_offset and not any(self._unsaid[row] for row in known.rows if row != _HOLE)

    def say(self, revision: int, at: int, most: int = 1 << 60) -> list[SpenderStatement]:
        """State so many blocks at most of what was made durable, with the partition folded up to ``at``."""
        blocks: dict[tuple[int, int], list[int]] = {}
        for row in np.flatnonzero(self._unsaid)[: most * BLOCK].tolist():
            name = self._names[row]
            if name is None:
                self._unsaid[row] = False
                continue
            place = (name[0], self._stands[row] // BLOCK)
            if place not in blocks:
                if len(blocks) == most:
                    break
                within = self._cells[place[0]].rows[place[1] * BLOCK : (place[1] + 1) * BLOCK]
                # What no flush has made durable yet is said after the one that does.
                blocks[place] = [row for row in within if row != _HOLE and self._offsets[row] >= 0]
        rows = [row for found in blocks.values() for row in found]
        self._unsaid[rows] = False
        for number, _ in blocks:
            self._cells[number].said_at = at
        stated = iter(self._stated(rows))
        return [
            _statement(self._cells[number].statement, revision, block, [next(stated) for _ in found])
            for (number, block), found in blocks.items()
        ]

    def _stated(self, rows: list[int]) -> list[SpenderRow]:
        columns = [column[rows].tolist() for column in (self._offsets, self._logged_cost, self._logged_requests)]
        found = []
        for row, offset, cost, count in zip(rows, *columns, strict=True):
            name = self._names[row]
            assert name is not None
            found.append(SpenderRow(name[1], name[2], offset, cost + self._logged_more.get(row, 0), count))
        return found

    def restate(self) -> None:
        """Everything counts as changed: the next flush writes it anew."""
        for cell in self._cells.values():
            self._unsaid[[row for row in cell.rows if row != _HOLE]] = True
        self._is_whole = False

    # -- restoring and letting go -----------------------------------------------------------------------------------

    def restore(self, cells: Iterable[CellStatement], rows: Iterable[Kept]) -> int:
        """Take rows back to their cells, those of a cell in order; returns one past the highest offset in any.

        Rows without their cell are those of a flush that was cut short, from beyond the watermark, or of a cell that
        has left: they are left out.
        """
        by_segment = {(cell.cell_id, cell.segment): cell for cell in cells}
        reached = 0
        for kept in rows:
            found = by_segment.get((kept.cell_id, kept.segment))
            if found is None:
                continue
            number = self.number(found)
            cell = self._cells[number]
            cell.holes = [*range(kept.stands - 1, len(cell.rows) - 1, -1), *cell.holes]
            cell.rows += [_HOLE] * (kept.stands - len(cell.rows))
            row = self._enter(cell, (number, kept.key_id, kept.user_id), kept.stands)
            self._offsets[row], self._requests[row] = kept.offset, kept.requests
            self._logged_requests[row] = kept.requests
            self._more[row] = self._logged_more[row] = kept.cost_nanos
            reached = max(reached, kept.offset + 1)
        return reached

    def leave(self, cell: CellStatement) -> list[SpenderStatement]:
        """The cell leaves memory, with its rows: the statements to delete, without rows."""
        self.drain()
        number = self._numbers.pop(id(cell), None)
        if number is None:
            return []
        gone = self._cells.pop(number)
        # The log tells of it once its deletion is durable: a cell that comes back has its rows.
        self._leaving.append(number)
        for row in gone.rows:
            name = self._names[row] if row != _HOLE else None
            if name is not None:
                self._count(gone, name, -1)
                self._keys.pop(name[:2], None)
                self.rows.pop(hash(name), None)
                self._names[row] = None
                self._more.pop(row, None)
                self._logged_more.pop(row, None)
                for column in (self._cost, self._requests, self._logged_cost, self._logged_requests):
                    column[row] = 0
                self._unsaid[row] = False
                self._free.append(row)
        blocks = -(-len(gone.rows) // BLOCK)
        return [_statement(cell, cell.revision, block, []) for block in range(blocks)]


def _statement(cell: CellStatement, revision: int, block: int, rows: list[SpenderRow]) -> SpenderStatement:
    return SpenderStatement(
        cell_id=cell.cell_id, hour=cell.hour, source=cell.source, segment=cell.segment, revision=revision, block=block,
        rows=rows,
    )  # fmt: skip
