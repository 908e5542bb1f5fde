"""What the ledger's rows say of a period before a budget was there to count it."""

from collections.abc import Sequence

import asyncpg

from schemas.instants import HOUR, to_datetime
from schemas.statements import Dimensions
from streams.ports import SpentRow

_DIMENSIONS = Dimensions.__struct_fields__
#: Rows in memory are left out by their key. A row that ends at the offset or above is of somebody who came further than
#: whoever asks, and will be met again.
_SPENT = f"""
select {", ".join(f"cells.{name}" for name in _DIMENSIONS)},
    case when bool_and(cells.hour >= $2 and cells.hour + interval '1 hour' <= $3) then 0
        else (extract(epoch from max(cells.hour)) * 1000000)::bigint + {HOUR} end as until,
    sum(cells.cost_nanos) as cost, sum(cells.estimated_cost_nanos) as estimated, sum(cells.requests) as requests,
    sum(cells.input_tokens + cells.output_tokens) as tokens
from ledger_cells as cells
left join unnest($5::text[], $6::bigint[]) as live(cell_id, segment)
    on live.cell_id = cells.cell_id and live.segment = cells.segment
where cells.slot = $1 and cells.hour > $2::timestamptz - interval '1 hour' and cells.hour < $3
    and cells.last_offset < $4 and live.cell_id is null
    and (cardinality($7::text[]) = 0 or cells.team_id = any($7::text[]))
group by {", ".join(f"cells.{name}" for name in _DIMENSIONS)},
    (cells.hour >= $2 and cells.hour + interval '1 hour' <= $3)
"""
_REACHED = "select next_offset from ledger_sources where slot = $1"


async def spent_before(
    connection: asyncpg.Connection,
    slot: str,
    start: int,
    end: int,
    below: int,
    live: Sequence[tuple[str, int]],
    teams: Sequence[str],
) -> tuple[int, Sequence[SpentRow]]:
    """As ``streams.ports.Ledger.spent_before`` says; the offset is read first, so that it is never too high."""
    reached = await connection.fetchval(_REACHED, slot) or 0
    ids, segments = [cell_id for cell_id, _ in live], [segment for _, segment in live]
    rows = await connection.fetch(_SPENT, slot, to_datetime(start), to_datetime(end), below, ids, segments, list(teams))
    width = len(_DIMENSIONS)
    return reached, [(Dimensions(*row[:width]), *(int(number) for number in row[width:])) for row in map(tuple, rows)]
