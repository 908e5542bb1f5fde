"""What the source partitions have stated of one scope's period, and whether one of them is being stated anew.

A source states its counter in segments, and each in cumulative totals, from its first offset to its last. One that
lies within another says nothing: a budget that comes back is counted anew from the beginning, whatever was said before.
When a source begins again under a higher revision (a re-pricing, a rebuild), what it says first is little. So what it
said before counts until the new revision has covered all of it, segment by segment, and takes its place at once: a sum
is never taken over a source that is half there.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Generic, TypeVar

import msgspec

from schemas.statements import ScopeStatement


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """The newest total of one segment: the last offset in it, its cost, and who drives it."""

    offset: int
    cost_nanos: int
    contributors: dict[str, int]


class Spend(Segment, frozen=True, array_like=True):
    """A segment with what budgets look at besides."""

    #: The part of the cost that stands on gateways' own figures.
    estimated_nanos: int = 0
    #: Calls that were answered.
    requests: int = 0
    #: How long they took, added up.
    duration_ms: int = 0
    squared_cs: int = 0


Total = TypeVar("Total", bound=Segment)


class Slot(msgspec.Struct, Generic[Total], frozen=True, array_like=True):
    """One source partition: the revision that counts, and the one that is being stated and does not cover it yet."""

    revision: int
    segments: dict[int, Total]
    next_revision: int = 0
    next_segments: dict[int, Total] = {}

    @property
    def is_whole(self) -> bool:
        """Whether nothing of what was stated before is missing under the revision that is being stated."""
        return not self.next_segments


def take_in(slots: MutableMapping[str, Slot[Spend]], statement: ScopeStatement) -> bool:
    """Put a statement in its place; False where it says nothing new."""
    name = statement.source.slot()
    found = slots.get(name)
    segment = Spend(
        statement.offset,
        statement.cost_nanos,
        statement.contributors,
        statement.estimated_nanos or 0,
        statement.requests - (statement.failures or 0),
        statement.duration_ms or 0,
        statement.squared_cs or 0,
    )
    after = placed(found, statement, segment)
    slots[name] = after
    return after is not found


def slot_after(slot: Slot[Segment] | None, statement: ScopeStatement, contributors: dict[str, int]) -> Slot[Segment]:
    """The slot with this statement in it, or the very slot where it says nothing new: order and repetition do not
    matter.
    """
    return placed(slot, statement, Segment(statement.offset, statement.cost_nanos, contributors))


def placed(slot: Slot[Total] | None, statement: ScopeStatement, segment: Total) -> Slot[Total]:
    """``slot_after`` for segments that keep more of a statement."""
    revision, first = statement.revision, statement.segment
    if slot is None:
        return Slot(revision, {first: segment})
    if revision < (slot.revision if slot.is_whole else slot.next_revision):
        return slot
    present, coming = (slot.revision, slot.segments), (slot.next_revision, slot.next_segments)
    known = dict((coming, present)).get(revision, {})
    if any(start <= first and each.offset >= segment.offset for start, each in known.items()):
        return slot
    segments = {start: each for start, each in known.items() if start < first or each.offset > segment.offset}
    segments[first] = segment
    if revision == slot.revision or _covers(segments, slot.segments):
        return Slot(revision, segments)
    return Slot(slot.revision, slot.segments, revision, segments)


def lies_within(counter: ScopeStatement, other: ScopeStatement | None) -> bool:
    """Whether another statement of the same counter holds all that this one does."""
    return other is not None and other.segment <= counter.segment and other.offset >= counter.offset


def _covers(new: Mapping[int, Total], old: Mapping[int, Total]) -> bool:
    """Whether each old segment lies within one of the new ones, from its first offset to its last."""
    return all(
        any(start <= first and segment.offset >= last.offset for start, segment in new.items())
        for first, last in old.items()
    )


def total(slots: Iterable[Slot[Total]]) -> int:
    """The spend, in nanodollars."""
    return sum(segment.cost_nanos for slot in slots for segment in slot.segments.values())


def offsets(slots: Iterable[Slot[Total]]) -> int:
    """How many offsets the slots stand for."""
    return sum(segment.offset + 1 for slot in slots for segment in slot.segments.values())


def contributors(slots: Iterable[Slot[Total]]) -> list[tuple[str, int]]:
    """The contributors by their spend, largest first."""
    summed: dict[str, int] = {}
    for slot in slots:
        for segment in slot.segments.values():
            for name, nanos in segment.contributors.items():
                summed[name] = summed.get(name, 0) + nanos
    return sorted(summed.items(), key=lambda item: (-item[1], item[0]))
