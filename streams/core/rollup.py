"""What detectors watch by the hour, summed from the cells that METER states: organisation, team, feature, team and
feature, and model; with calls, errors, cache hits, tokens and money, by model.

A cell's statement says its total, so what is added to its scopes is what the new total has beyond the one that was
held: statements that come twice, late or out of order change nothing, and sums are right however many came at once.
Cells of one partition of ``spend.cells`` are held by one reader. A team's cells may lie in several partitions (GPUs and
bills have other keys than calls), so a scope's hour is stated for each partition, and whoever reads it adds them.

What is held of a cell is a ninth of its statement and is all that has to be durable: sums are made of it again.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from schemas.instants import HOUR
from schemas.statements import CellStatement, Dimensions, SpenderStatement, Totals
from streams.core.drivers import Usage
from streams.core.lanes import OTHERS

#: An hour's statement tells so many models apart, and names so many teams, features and keys of each kind.
MODELS_MAX = 24
NAMED_MAX = 8
#: As other detectors' scopes: bills come in lumps and are judged by budgets alone.
METERED = frozenset({"llm", "gpu"})


class Figures(msgspec.Struct, array_like=True, frozen=True):
    """Sums of an hour. Every field adds; money in nanodollars."""

    requests: int = 0
    errors: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    gpu_milliseconds: int = 0

    def numbers(self) -> tuple[int, ...]:
        """The fields in order."""
        return msgspec.structs.astuple(self)

    def plus(self, other: "Figures") -> "Figures":
        """The sum of both."""
        return Figures(*(one + two for one, two in zip(self.numbers(), other.numbers(), strict=True)))

    def usage(self) -> Usage:
        """As drivers are found from it."""
        return Usage(
            self.requests, self.cache_hits, self.input_tokens, self.cached_tokens, self.output_tokens, self.cost_nanos,
            self.gpu_milliseconds,
        )  # fmt: skip


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
    figures: Figures
    #: By model; the cheapest beyond so many are one. They add up to ``figures``.
    models: Mapping[str, Figures]
    #: Nanodollars by (kind, name), the largest of each kind: a hint for people.
    by: Mapping[tuple[str, str], int]


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
_ZERO = Figures()


class _Sums:
    """A scope's hour while it is being added up."""

    __slots__ = ("by", "models")

    def __init__(self) -> None:
        self.models: dict[str, list[int]] = {}
        self.by: dict[tuple[str, str], int] = {}


class Rollup:
    """The hours of all scopes of one partition of cells."""

    def __init__(self) -> None:
        self._cells: dict[_Place, RolledCell] = {}
        self._hours: dict[tuple[str, int], _Sums] = {}
        #: Nanodollars by key of each block of a cell's spenders, with the block's revision and newest offset.
        self._keys: dict[_Place, dict[int, tuple[tuple[int, int], dict[str, int]]]] = {}
        #: Where a cell is added: the scope's hour, its sums, and those of the cell's model there.
        self._ways: dict[_Place, list[tuple[tuple[str, int], _Sums, list[int]]]] = {}
        self._changed: dict[tuple[str, int], None] = {}
        #: Cells that are held anew since it was last asked for them.
        self._unkept: dict[_Place, None] = {}
        #: What ended before is not taken any more.
        self.frozen_before = 0

    def __len__(self) -> int:
        return len(self._hours)

    def take(self, cell: CellStatement) -> bool:
        """Take in a cell's total; False where it says nothing new, or of an hour that cannot change any more."""
        place = (cell.cell_id, cell.source.slot(), cell.segment)
        held = self._cells.get(place)
        if cell.hour < self.frozen_before or cell.dimensions.category not in METERED:
            return False
        if held is not None and (cell.revision, cell.offset) <= (held.revision, held.offset):
            return False
        found = RolledCell(*place, cell.revision, cell.offset, cell.hour, cell.dimensions, figures_of(cell.totals))
        self._add(found, held.figures if held is not None else _ZERO)
        self._cells[place] = found
        self._unkept[place] = None
        return True

    def take_spenders(self, rows: SpenderStatement) -> None:
        """Note which keys spent a cell's money; after the cell, as METER states them."""
        place = (rows.cell_id, rows.source.slot(), rows.segment)
        held = self._cells.get(place)
        if held is None:
            return
        blocks = self._keys.setdefault(place, {})
        rank = (rows.revision, max([row.offset for row in rows.rows], default=-1))
        known, before = blocks.get(rows.block, ((-1, -1), {}))
        if rank <= known:
            return
        after: dict[str, int] = {}
        for row in rows.rows:
            after[row.key_id] = after.get(row.key_id, 0) + row.cost_nanos
        blocks[rows.block] = (rank, after)
        for scope in scopes_of(held.dimensions):
            by = self._hours[scope, held.hour].by
            for key in before.keys() | after.keys():
                by["key", key] = by.get(("key", key), 0) + after.get(key, 0) - before.get(key, 0)
            self._changed[scope, held.hour] = None

    def restore(self, cells: Iterable[RolledCell]) -> None:
        """Take back what was durable; every hour counts as changed."""
        for cell in cells:
            self._cells[cell.cell_id, cell.slot, cell.segment] = cell
            self._add(cell, _ZERO)

    def changed(self) -> Iterator[HourOfScope]:
        """The hours that changed since this was last asked."""
        changed, self._changed = self._changed, {}
        for scope, hour in changed:
            sums = self._hours.get((scope, hour))
            if sums is not None:
                yield _stated(scope, hour, sums)

    def unkept(self) -> list[RolledCell]:
        """The cells that have to be made durable, before anything that is made of them counts as said."""
        found = [self._cells[place] for place in self._unkept if place in self._cells]
        self._unkept = {}
        return found

    def forget(self, before: int) -> list[RolledCell]:
        """Let go of hours that began before an instant, for good; returns what was held of them."""
        self.frozen_before = max(self.frozen_before, before - before % HOUR)
        gone = [cell for cell in self._cells.values() if cell.hour < self.frozen_before]
        for cell in gone:
            place = (cell.cell_id, cell.slot, cell.segment)
            del self._cells[place]
            self._keys.pop(place, None)
            self._ways.pop(place, None)
        for key in [key for key in self._hours if key[1] < self.frozen_before]:
            del self._hours[key]
        return gone

    def _add(self, cell: RolledCell, before: Figures) -> None:
        more = [one - two for one, two in zip(cell.figures.numbers(), before.numbers(), strict=True)]
        nanos, named = more[6], _named(cell.dimensions)
        for key, sums, model in self._ways_of(cell):
            for place, number in enumerate(more):
                model[place] += number
            for name in named if nanos else ():
                sums.by[name] = sums.by.get(name, 0) + nanos
            self._changed[key] = None

    def _ways_of(self, cell: RolledCell) -> list[tuple[tuple[str, int], _Sums, list[int]]]:
        place = (cell.cell_id, cell.slot, cell.segment)
        found = self._ways.get(place)
        if found is None:
            found = self._ways[place] = []
            for scope in scopes_of(cell.dimensions):
                key = (scope, cell.hour)
                sums = self._hours.get(key)
                if sums is None:
                    sums = self._hours[key] = _Sums()
                model = sums.models.setdefault(cell.dimensions.model, [0] * len(cell.figures.numbers()))
                found.append((key, sums, model))
        return found


def _named(dimensions: Dimensions) -> tuple[tuple[str, str], ...]:
    return ("team", dimensions.team_id), ("feature", dimensions.feature), ("model", dimensions.model)


def _stated(scope: str, hour: int, sums: _Sums) -> HourOfScope:
    # The dearest are told apart; of those that cost the same, in the order of their names.
    ranked = sorted(sums.models.items(), key=lambda item: (-item[1][6], item[0]))
    models = {name: Figures(*numbers) for name, numbers in ranked[:MODELS_MAX]}
    for _, numbers in ranked[MODELS_MAX:]:
        models[OTHERS] = models.get(OTHERS, _ZERO).plus(Figures(*numbers))
    total = _ZERO
    for figures in models.values():
        total = total.plus(figures)
    by: dict[tuple[str, str], int] = {}
    kinds: dict[str, int] = {}
    for name, nanos in sorted(sums.by.items(), key=lambda item: (-item[1], item[0])):
        kinds[name[0]] = kinds.get(name[0], 0) + 1
        if nanos > 0 and kinds[name[0]] <= NAMED_MAX:
            by[name] = nanos
    return HourOfScope(scope, hour, total, models, by)


def usage_by_model(hours: Iterable[HourOfScope]) -> dict[str, Usage]:
    """What drivers are found from: one hour of one scope, of all partitions."""
    found: dict[str, Figures] = {}
    for each in hours:
        for model, figures in each.models.items():
            found[model] = found.get(model, _ZERO).plus(figures)
    return {model: figures.usage() for model, figures in found.items()}


def shares(hours: Iterable[HourOfScope]) -> dict[tuple[str, str], int]:
    """Nanodollars by (kind, name) over all partitions, as ``drivers.contributions`` takes them."""
    found: dict[tuple[str, str], int] = {}
    for each in hours:
        for name, nanos in each.by.items():
            found[name] = found.get(name, 0) + nanos
    return found
