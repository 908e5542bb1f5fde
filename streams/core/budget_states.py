"""How budgets' states are read back: the present layout, and the earlier ones."""

import msgspec

from schemas.commands import Action, Target
from schemas.versions import Versioned
from streams.core import slots as stated
from streams.core.budgets import BudgetState, Crossing, first_revision
from streams.core.slots import Segment, Slot


class _SlotV1(msgspec.Struct, array_like=True):
    revision: int
    offset: int
    cost_nanos: int
    furthest: int


class _BudgetStateV1(msgspec.Struct, kw_only=True):
    budget_id: str
    scope: str
    target: Target
    period_start: int
    period_end: int
    slots: dict[str, _SlotV1] = {}
    crossings: dict[int, Crossing] = {}
    contributors: dict[str, dict[str, int]] = {}
    commanded: Action = "allow"
    dry_run: bool = False
    revision: int = 0
    stream_time: int = 0


def _of_v1(value: bytes) -> BudgetState:
    """Version 1 had a slot for each segment (``<source>#<segment>``), and no second revision of one."""
    old = msgspec.json.decode(value, type=_BudgetStateV1)
    revisions: dict[str, int] = {}
    segments: dict[str, dict[int, Segment]] = {}
    for name, slot in old.slots.items():
        source, _, first = name.rpartition("#")
        revisions[source] = max(slot.revision, revisions.get(source, 0))
        found = Segment(slot.offset, slot.cost_nanos, old.contributors.get(name, {}))
        segments.setdefault(source, {})[int(first)] = found
    slots = {source: Slot(revisions[source], found) for source, found in segments.items()}
    return BudgetState(
        budget_id=old.budget_id,
        scope=old.scope,
        target=old.target,
        period_start=old.period_start,
        period_end=old.period_end,
        slots=slots,
        crossings=old.crossings,
        commanded=old.commanded,
        dry_run=old.dry_run,
        has_spoken=old.commanded != "allow" or old.revision != first_revision(old.period_start),
        revision=old.revision,
        sequence=stated.offsets(slots.values()),
        stream_time=old.stream_time,
    )


BUDGET_STATES = Versioned("a budget's state", BudgetState, {1: _of_v1})
