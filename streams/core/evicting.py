"""What leaves METER's memory, and when."""

from typing import Any

from schemas.instants import HOUR
from streams.core.admission import is_other
from streams.core.overflow import Overflow
from streams.core.rules import Statement

#: A partition's fold (``streams.core.meter.PartitionState``), which makes use of this.
State = Any


def idle(state: State, ledger_offset: int) -> tuple[list[Statement], int]:
    """Let go of what is idle, unchanged since the last flush, and below the ledger's own watermark; returns it, in the
    order in which it is to be deleted, and the instant up to which lanes have to be closed.

    Nothing of this partition may be folded or stated before the deletions are durable, and they follow the
    watermark: a later event opens a new segment, and two segments may not both hold the same event. A cell is idle
    by its hour, a counter by its end, that of a single value (a session) also when no event came for long, all in
    stream time. What an earlier owner stated before it died is stated again first: until then everything stays.
    """
    horizon = state.stream_time - state.rules.cells_idle_us
    silent_since = state.stream_time - state.rules.counters_idle_us
    gone: list[Statement] = []
    rows: list[Statement] = []
    for cell_key, cell in list(state.cells.items()):
        is_idle = cell.hour + HOUR < horizon and cell.offset < ledger_offset
        if is_idle and id(cell) not in state.changed_cells and state.spenders.is_written(cell, ledger_offset):
            gone.append(state.cells.pop(cell_key))
            rows += state.spenders.leave(cell)
            state.evicted_until = max(state.evicted_until, cell.offset + 1)
            state.admission.leave([cell.dimensions])
            if is_other(cell.dimensions):
                state.overflows[Overflow(cell.dimensions.org_id, cell.dimensions.team_id, cell.hour)] = "resolved"
    for counter_key, counter in list(state.counters.items()):
        if id(counter) in state.changed_counters or id(counter) in state.unstated:
            # One that was just opened is durable before it is stated: it must not be gone before that.
            continue
        is_over = counter.period_end < horizon or not state.openings.is_wanted(counter.scope)
        is_silent = counter.stream_time < silent_since and counter.offset < ledger_offset
        if is_over or (is_silent and state.openings.is_one_of_many(counter.scope)):
            gone.append(state.counters.pop(counter_key))
    # The last lane to a silent counter is that of the hour of an event as far ahead as is believed.
    closing = max(horizon, silent_since + state.rules.limits.future_us_max + HOUR)
    # Rows after their cells: those without a cell are left out, while a cell without its rows would begin anew.
    return gone + rows, closing
