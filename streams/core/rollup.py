"""What detectors watch by the hour, summed from the cells that METER states: organisation, team, feature, team and
feature, and model; with calls, errors, cache hits, tokens and money, by model.

A cell's statement says its total, so what is added to its scopes is what the new total has beyond the one that was
held: statements that come twice, late or out of order change nothing, and sums are right however many came at once.
Cells of one partition of ``spend.cells`` are held by one reader. A team's cells may lie in several partitions (GPUs and
bills have other keys than calls), so a scope's hour is stated for each partition, and whoever reads it adds them.

What is held of a cell is a ninth of its statement and is all that has to be durable: sums are made of it again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from operator import sub
from typing import NamedTuple

import msgspec

from schemas.instants import HOUR
from schemas.readers import SPENDERS
from schemas.statements import CellStatement, Dimensions, Figures, Totals
from streams.core.drivers import Usage
from streams.core.lanes import OTHERS

#: An hour's statement tells so many models apart, and names so many teams, features and keys of each kind.
MODELS_MAX = 24
NAMED_MAX = 8
#: Kinds of scopes, in the order of ``scopes_of``, and what the money of each is named by. Models are told with all
#: figures, and keys where it matters.
KINDS = ("org", "team", "feature", "team_feature", "model")
NAMED_BY: Mapping[str, tuple[str, ...]] = {
    "org": ("team", "feature"),
    "team": ("org", "feature"),
    "feature": ("team",),
    "team_feature": ("org",),
    "model": ("team", "feature"),
}
_FIELDS = {"org": "org_id", "team": "team_id", "feature": "feature"}
#: As other detectors' scopes: bills come in lumps and are judged by budgets alone.
METERED = frozenset({"llm", "gpu"})


class RolledCell(msgspec.Struct, array_like=True, frozen=True):
    """What is held of one segment of a cell; versioned by the state that holds it."""

    cell_id: str
    slot: str
    segment: int
    revision: int
    offset: int
    hour: int
    dimensions: Dimensions
    figures: Figures


class HourOfScope(NamedTuple):
    """One scope's hour, as one partition's cells make it."""

    scope: str
    hour: int
    #: Grows with every newer statement of a cell that is in it: of two of the same hour the higher one is newer.
    rank: int
    #: The source slots whose cells are in it.
    slots: tuple[str, ...]
    figures: Figures
    #: By model; the cheapest beyond so many are one. They add up to ``figures``.
    models: dict[str, Figures]
    #: Nanodollars by kind and name, the largest of each kind: a hint for people.
    by: dict[str, dict[str, int]]


def figures_of(totals: Totals) -> Figures:
    """A cell's totals, as far as detectors look at them."""
    return Figures(
        totals.requests, totals.errors, totals.cache_hits, totals.input_tokens, totals.cache_read_input_tokens,
        totals.output_tokens, totals.cost_nanos, totals.gpu_milliseconds,
    )  # fmt: skip


def scopes_of(dimensions: Dimensions) -> tuple[str, ...]:
    """The scopes that a cell counts in; none of a bill.

    >>> scopes_of(Dimensions("acme", "", "a/b", "", "chat", "gpt-4o", "openai", "", "interactive", "", "llm"))
    ('org:acme', 'team:a/b', 'feature:chat', 'team_feature:a%2Fb/chat', 'model:gpt-4o')
    """
    if dimensions.category not in METERED:
        return ()
    team, feature = dimensions.team_id, dimensions.feature
    both = f"{_quoted(team)}/{_quoted(feature)}"
    return (
        f"org:{dimensions.org_id}", f"team:{team}", f"feature:{feature}", f"team_feature:{both}",
        f"model:{dimensions.model}",
    )  # fmt: skip


def _quoted(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


_Place = tuple[str, str, int]
_LATEST = 1 << 62
_UNKNOWN = -1
_ZERO = Figures()
_NOTHING = _ZERO.numbers()
#: Offsets are below it: a cell's rank is its offset within its revision.
_REVISION = 1 << 48
#: What is heard of an hour that was let go of is whole only where nothing was heard of it before: whoever still holds
#: what was said then keeps to that.
_LATE_RANK = -(1 << 61)
#: Such hours are held for so long (of ``now``) after they last changed, while there are no more cells of them than so
#: many.
LATE_KEEP_US, LATE_CELLS_MAX = 6 * HOUR, 200_000
#: Whose money it was by key is looked up where an hour has cost so much more than the hour before.
_KEYS_PERCENT, _KEYS_NANOS = 125, 1_000_000_000


class _Sums:
    """A scope's hour while it is being added up."""

    __slots__ = ("by", "models", "places", "rank", "slots")

    def __init__(self) -> None:
        self.rank = 0
        self.slots: dict[str, None] = {}
        self.models: dict[str, list[int]] = {}
        self.by: dict[str, dict[str, int]] = {}
        self.places: list[_Place] = []

    def cost_nanos(self) -> int:
        return sum(numbers[6] for numbers in self.models.values())


class _Way(NamedTuple):
    """Where a cell is added: a scope's hour, the figures of the cell's model there, and what they are named by."""

    key: tuple[str, int]
    sums: _Sums
    model: list[int]
    names: tuple[tuple[dict[str, int], str], ...]


class Rollup:
    """The hours of all scopes of one partition of cells."""

    def __init__(self) -> None:
        self.cells: dict[_Place, RolledCell] = {}
        self._hours: dict[tuple[str, int], _Sums] = {}
        #: Statements of each cell's spenders by block, unread: they are asked only where money is strange.
        self._spenders: dict[_Place, dict[str, bytes]] = {}
        #: And by key, of those that were asked.
        self._keys: dict[_Place, dict[str, int]] = {}
        self._ways: dict[_Place, list[_Way]] = {}
        self._changed: dict[tuple[str, int], None] = {}
        #: Cells that are held anew since it was last asked for them.
        self._unkept: dict[_Place, None] = {}
        #: Hours before it were let go of. What comes of them is late, or the past of somebody new here.
        self.frozen_before = 0
        #: Those of which something came nevertheless, and when it last did.
        self._late: dict[int, int] = {}
        #: How many cells there are of them, at most.
        self._late_cells = 0
        #: The first hour that was heard of: whatever came before it is not known.
        self._oldest = _LATEST

    def __len__(self) -> int:
        return len(self._hours)

    def take(self, cell: CellStatement, now: int = 0) -> bool:
        """Take in a cell's total; False where it says nothing new."""
        if cell.dimensions.category not in METERED:
            return False
        place = (cell.cell_id, cell.source.slot(), cell.segment)
        held = self.cells.get(place)
        if held is not None and (cell.revision, cell.offset) <= (held.revision, held.offset):
            return False
        if cell.hour < self.frozen_before:
            self._late[cell.hour] = now
            self._late_cells += held is None
        found = RolledCell(*place, cell.revision, cell.offset, cell.hour, cell.dimensions, figures_of(cell.totals))
        self._add(place, found, held)
        self.cells[place] = found
        self._unkept[place] = None
        return True

    def note_spenders(self, place: _Place, block: str, value: bytes) -> None:
        """Keep the newest statement of a block of a cell's spenders, as it came; METER states them after the cell."""
        if place in self.cells:
            self._spenders.setdefault(place, {})[block] = value
            self._keys.pop(place, None)

    def restore(self, cells: Iterable[RolledCell], unsaid_from: int = _LATEST) -> None:
        """Take back what was durable; but for hours from ``unsaid_from`` on it has been said before it was kept."""
        for cell in cells:
            place = (cell.cell_id, cell.slot, cell.segment)
            self.cells[place] = cell
            self._add(place, cell, None)
            if cell.hour < self.frozen_before:
                self._late[cell.hour] = _UNKNOWN
                self._late_cells += 1
        self._changed = {key: None for key in self._hours if key[1] >= unsaid_from}

    def change(self, keys: Iterable[tuple[str, int]]) -> None:
        """Count hours of scopes as changed once more."""
        self._changed.update(dict.fromkeys(keys))

    def changed(self) -> list[tuple[str, int]]:
        """The hours of scopes that changed since this was last asked, oldest first."""
        changed, self._changed = self._changed, {}
        return sorted((key for key in changed if key in self._hours), key=lambda key: (key[1], key[0]))

    def of_hours(self, since: int, until: int) -> list[tuple[str, int]]:
        """All scopes' hours that begin in ``[since, until)``, oldest first."""
        found = [key for key in self._hours if since <= key[1] < until]
        return sorted(found, key=lambda key: (key[1], key[0]))

    def hour_of(self, key: tuple[str, int]) -> HourOfScope:
        """What a scope's hour adds up to."""
        return self._stated(*key, self._hours[key])

    def unkept(self) -> list[RolledCell]:
        """The cells that have to be made durable, before anything that is made of them counts as said."""
        found = [self.cells[place] for place in self._unkept if place in self.cells]
        self._unkept = {}
        return found

    def forget(self, before: int, now: int = 0) -> tuple[list[RolledCell], list[tuple[str, int]]]:
        """Let go of hours that began before an instant, but for late ones that changed lately; returns what was held
        of them and which."""
        before -= before % HOUR
        spared = self._late and self._still_late(now)
        if before <= self.frozen_before and len(spared) == len(self._late):
            return [], []
        self.frozen_before = max(before, self.frozen_before)
        self._late = spared
        gone = [cell for cell in self.cells.values() if cell.hour < self.frozen_before and cell.hour not in spared]
        for cell in gone:
            place = (cell.cell_id, cell.slot, cell.segment)
            del self.cells[place]
            self._spenders.pop(place, None)
            self._keys.pop(place, None)
            self._ways.pop(place, None)
        hours = [key for key in self._hours if key[1] < self.frozen_before and key[1] not in spared]
        for key in hours:
            del self._hours[key]
        return gone, hours

    def _still_late(self, now: int) -> dict[int, int]:
        """Late hours that are still held: those that changed last, as far as there is room, and all that did now."""
        self._late = {hour: now if changed_at == _UNKNOWN else changed_at for hour, changed_at in self._late.items()}
        if self._late_cells <= LATE_CELLS_MAX and now - min(self._late.values()) < LATE_KEEP_US:
            return self._late
        cells = Counter(cell.hour for cell in self.cells.values() if cell.hour in self._late)
        held, found = 0, dict[int, int]()
        for hour, changed_at in sorted(self._late.items(), key=lambda item: (-item[1], item[0])):
            held += cells[hour]
            if changed_at >= now or (now - changed_at < LATE_KEEP_US and held <= LATE_CELLS_MAX):
                found[hour] = changed_at
        self._late_cells = sum(cells[hour] for hour in found)
        return found

    def _add(self, place: _Place, cell: RolledCell, held: RolledCell | None) -> None:
        before = _NOTHING if held is None else held.figures.numbers()
        calls, errors, hits, into, cached, out, nanos, gpu = map(sub, cell.figures.numbers(), before)
        rank = _rank(cell) - (0 if held is None else _rank(held))
        changed = self._changed
        for key, sums, model, names in self._ways.get(place) or self._ways_of(place, cell):
            # Written out: this is what most of a round is spent with.
            model[0] += calls
            model[2] += hits
            model[3] += into
            model[4] += cached
            model[5] += out
            model[6] += nanos
            if errors or gpu:
                model[1] += errors
                model[7] += gpu
            sums.rank += rank
            if nanos:
                for by, name in names:
                    by[name] += nanos
            changed[key] = None

    def _ways_of(self, place: _Place, cell: RolledCell) -> list[_Way]:
        found = self._ways[place] = []
        self._oldest = min(self._oldest, cell.hour)
        dimensions = cell.dimensions
        for kind, scope in zip(KINDS, scopes_of(dimensions), strict=False):
            key = (scope, cell.hour)
            sums = self._hours.get(key)
            if sums is None:
                sums = self._hours[key] = _Sums()
                if cell.hour < self.frozen_before:
                    sums.rank = _LATE_RANK
            sums.slots[cell.slot] = None
            sums.places.append(place)
            names = []
            for named in NAMED_BY[kind]:
                name = getattr(dimensions, _FIELDS[named])
                by = sums.by.setdefault(named, {})
                by.setdefault(name, 0)
                names.append((by, name))
            model = sums.models.setdefault(dimensions.model, [0] * len(_NOTHING))
            found.append(_Way(key, sums, model, tuple(names)))
        return found

    def _stated(self, scope: str, hour: int, sums: _Sums) -> HourOfScope:
        # The dearest are told apart; of those that cost the same, in the order of their names.
        ranked = sorted(sums.models.items(), key=lambda item: (-item[1][6], item[0]))
        models = {name: Figures(*numbers) for name, numbers in ranked[:MODELS_MAX]}
        for _, numbers in ranked[MODELS_MAX:]:
            models[OTHERS] = models.get(OTHERS, _ZERO).plus(Figures(*numbers))
        if len(models) == 1:
            [total] = models.values()
        else:
            total = Figures(*map(sum, zip(*sums.models.values(), strict=True)))
        by = {kind: _largest(names) for kind, names in sums.by.items()}
        if self._is_odd(scope, hour, total.cost_nanos):
            by["key"] = _largest(self._by_key(sums))
        return HourOfScope(scope, hour, sums.rank, tuple(sums.slots), total, models, {k: n for k, n in by.items() if n})

    def _is_odd(self, scope: str, hour: int, nanos: int) -> bool:
        """Whether somebody may want to know whose keys it was."""
        if nanos <= _KEYS_NANOS or hour <= self._oldest:
            return False
        before = self._hours.get((scope, hour - HOUR))
        usual = 0 if before is None else max(0, before.cost_nanos())
        return nanos - usual > _KEYS_NANOS and nanos * 100 > usual * _KEYS_PERCENT

    def _by_key(self, sums: _Sums) -> dict[str, int]:
        found: dict[str, int] = {}
        for place in sums.places:
            for key, nanos in self._keys_of(place).items():
                found[key] = found.get(key, 0) + nanos
        return found

    def _keys_of(self, place: _Place) -> dict[str, int]:
        found = self._keys.get(place)
        if found is None:
            found = self._keys[place] = {}
            for value in self._spenders.get(place, {}).values():
                for row in SPENDERS.decode(value).rows:
                    found[row.key_id] = found.get(row.key_id, 0) + row.cost_nanos
        return found


def _rank(cell: RolledCell) -> int:
    return cell.revision * _REVISION + cell.offset + 1


def _largest(names: Mapping[str, int]) -> dict[str, int]:
    if len(names) > 1:
        return dict(nsmallest(NAMED_MAX, [item for item in names.items() if item[1] > 0], key=_dearest))
    return {name: nanos for name, nanos in names.items() if nanos > 0}


def _dearest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def usage(figures: Figures) -> Usage:
    """As drivers are found from it."""
    return Usage(
        figures.requests, figures.cache_hits, figures.input_tokens, figures.cached_tokens, figures.output_tokens,
        figures.cost_nanos, figures.gpu_milliseconds,
    )  # fmt: skip
