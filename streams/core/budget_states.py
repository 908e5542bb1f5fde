"""How budgets' states are read back: the present layout, and the earlier ones."""

import msgspec

from schemas.commands import Action, Measure, Target
from schemas.versions import Versioned
from streams.core import slots as stated
from streams.core.budget_account import Bucket, BudgetState, Crossing, Hold, first_revision
from streams.core.slots import Slot, Spend


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


class _BudgetStateV2(msgspec.Struct, kw_only=True):
    budget_id: str
    scope: str
    target: Target
    period_start: int
    period_end: int
    slots: dict[str, Slot[Spend]] = {}
    crossings: dict[int, Crossing] = {}
    commanded: Action = "allow"
    dry_run: bool = False
    has_spoken: bool = False
    revision: int = 0
    sequence: int = 0
    stream_time: int = 0


def _of_v1(value: bytes) -> BudgetState:
    """Version 1 had a slot for each segment (``<source>#<segment>``), and no second revision of one."""
    old = msgspec.json.decode(value, type=_BudgetStateV1)
    revisions: dict[str, int] = {}
    segments: dict[str, dict[int, Spend]] = {}
    for name, slot in old.slots.items():
        source, _, first = name.rpartition("#")
        revisions[source] = max(slot.revision, revisions.get(source, 0))
        found = Spend(slot.offset, slot.cost_nanos, old.contributors.get(name, {}))
        segments.setdefault(source, {})[int(first)] = found
    return _present(
        _BudgetStateV2(
            budget_id=old.budget_id,
            scope=old.scope,
            target=old.target,
            period_start=old.period_start,
            period_end=old.period_end,
            slots={source: Slot(revisions[source], found) for source, found in segments.items()},
            crossings=old.crossings,
            commanded=old.commanded,
            dry_run=old.dry_run,
            has_spoken=old.commanded != "allow" or old.revision != first_revision(old.period_start),
            revision=old.revision,
            stream_time=old.stream_time,
        )
    )


def _of_v2(value: bytes) -> BudgetState:
    """Version 2 had the slots of one period, and blocked all calls or none."""
    return _present(msgspec.json.decode(value, type=_BudgetStateV2))


def _present(old: _BudgetStateV2) -> BudgetState:
    return BudgetState(
        budget_id=old.budget_id,
        scope=old.scope,
        target=old.target,
        period_start=old.period_start,
        period_end=old.period_end,
        buckets={old.period_start: Bucket(old.period_end, old.slots)},
        crossings=old.crossings,
        # Below its rung a block ends as it did then: nothing was kept in reserve.
        holds={
            percent: Hold(0, True)
            for percent, rung in old.crossings.items()
            if rung.is_open and old.commanded != "allow"
        },
        commanded=old.commanded,
        asked=(Measure("block"),) if old.commanded == "block" else (),
        dry_run=old.dry_run,
        has_spoken=old.has_spoken,
        revision=old.revision,
        sequence=max(old.sequence, stated.offsets(old.slots.values())),
        stream_time=old.stream_time,
    )


BUDGET_STATES = Versioned("a budget's state", BudgetState, {1: _of_v1, 2: _of_v2})
