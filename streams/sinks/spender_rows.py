"""Who spent the cells' money, as the ledger's rows: each key and user of a cell's segment has one."""

from collections.abc import Sequence
from typing import Any

from schemas.instants import to_datetime
from schemas.keys import digest
from schemas.statements import SpenderStatement
from streams.sinks.postgres import storable

_COLUMNS = (
    ("cell_id", "text"), ("slot", "text"), ("segment", "bigint"), ("who", "text"), ("key_id", "text"),
    ("user_id", "text"), ("revision", "integer"), ("last_offset", "bigint"), ("hour", "timestamptz"),
    ("cost_nanos", "numeric"), ("requests", "bigint"),
)  # fmt: skip
_NAMES = ", ".join(name for name, _ in _COLUMNS)
UPSERT_SPENDERS = f"""
insert into ledger_spenders as old ({_NAMES})
select {_NAMES} from unnest({", ".join(f"${place}::{kind}[]" for place, (_, kind) in enumerate(_COLUMNS, 1))})
    as t({_NAMES})
on conflict (cell_id, slot, segment, who) do update set revision = excluded.revision,
    last_offset = excluded.last_offset, cost_nanos = excluded.cost_nanos, requests = excluded.requests
where (excluded.revision, excluded.last_offset) > (old.revision, old.last_offset)
"""
#: A slot that nothing is known of yet has no row; its next mark finds it.
MARK_SPENDERS = "update ledger_sources set spenders_offset = greatest(spenders_offset, $2) where slot = $1"


def spender_columns(statements: Sequence[SpenderStatement]) -> list[list[Any]]:
    """One array per column, with the newest of each key: PostgreSQL refuses to update a row twice at once."""
    newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for statement in statements:
        slot, hour = statement.source.slot(), to_datetime(statement.hour)
        for row in statement.rows:
            # A digest fits an index row, however long the names are.
            key = (statement.cell_id, slot, statement.segment, digest(row.key_id, row.user_id))
            rank = (statement.revision, row.offset)
            known = newest.get(key)
            if known is None or rank > known[6:8]:
                names = (storable(row.key_id), storable(row.user_id))
                newest[key] = (*key, *names, *rank, hour, row.cost_nanos, row.requests)
    # Sorted by their key, so that two writers never wait for each other in a circle.
    return [list(column) for column in zip(*(newest[key] for key in sorted(newest)), strict=True)]
