"""What leaves METER's memory, and when."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from schemas.instants import HOUR
from streams.core.admission import is_other
from streams.core.overflow import Overflow
from streams.core.rules import Statement

#: A partition's fold (``streams.core.meter.PartitionState``), which makes use of this.
State = Any


def has_idle(state: State, ledger_offset: int) -> bool:
    """Whether ``idle`` would let go of anything: looking holds nobody up, letting go does."""
    found = chain(_idle_cells(state, ledger_offset), _idle_counters(state, ledger_offset))
    return next(found, None) is not None


def idle(state: State, ledger_offset: int) -> tuple[list[Statement], int]:
    """Let go of what is idle, unchanged since the last flush, and below the ledger's own watermark; returns it, in the
    order in which it is to be deleted, and the instant up to which lanes have to be closed.

    Nothing of this partition may be folded or stated before the deletions are durable, and they follow the
    watermark: a later event opens a new segment, and two segments may not both hold the same event. A cell is idle
    by its hour, a counter by its end, that of a single value (a session) also when no event came for long, all in
    stream time. What an earlier owner stated before it died is stated again first: until then everything stays.
    """
    gone: list[Statement] = []
    rows: list[Statement] = []
    for cell_key in list(_idle_cells(state, ledger_offset)):
        cell = state.cells.pop(cell_key)
        gone.append(cell)
        rows += state.spenders.leave(cell)
        state.evicted_until = max(state.evicted_until, cell.offset + 1)
        state.admission.leave([cell.dimensions])
        if is_other(cell.dimensions):
            state.overflows[Overflow(cell.dimensions.org_id, cell.dimensions.team_id, cell.hour)] = "resolved"
    gone += [state.counters.pop(counter_key) for counter_key in list(_idle_counters(state, ledger_offset))]
    # The last lane to a silent counter is that of the hour of an event as far ahead as is believed.
    closing = max(_horizon(state), _silent_since(state) + state.rules.limits.future_us_max + HOUR)
    # Rows after their cells: those without a cell are left out, while a cell without its rows would begin anew.
    return gone + rows, closing


def _is_early(state: State) -> bool:
    return bool(state.next_offset < max(state.said_until, state.sure_from))


def _horizon(state: State) -> int:
    return int(state.stream_time - state.rules.cells_idle_us)


def _silent_since(state: State) -> int:
    return int(state.stream_time - state.rules.counters_idle_us)


def _idle_cells(state: State, ledger_offset: int) -> Iterator[Any]:
    """The keys of cells that may go."""
    if _is_early(state):
        return
    horizon, changed, spenders = _horizon(state), state.changed_cells, state.spenders
    for cell_key, cell in state.cells.items():
        is_idle = cell.hour + HOUR < horizon and cell.offset < ledger_offset
        if is_idle and id(cell) not in changed and spenders.is_written(cell, ledger_offset):
            yield cell_key


def _idle_counters(state: State, ledger_offset: int) -> Iterator[Any]:
    """The keys of counters that may go."""
    if _is_early(state):
        return
    horizon, silent_since, openings = _horizon(state), _silent_since(state), state.openings
    for counter_key, counter in state.counters.items():
        is_over = counter.period_end < horizon or not openings.is_wanted(counter.scope)
        is_silent = counter.stream_time < silent_since and counter.offset < ledger_offset
        if not (is_over or (is_silent and openings.is_one_of_many(counter.scope))):
            continue
        # One that was just opened is durable before it is stated: it must not be gone before that.
        if id(counter) not in state.changed_counters and id(counter) not in state.unstated:
            yield counter_key
