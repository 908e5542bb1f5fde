"""The ledger in PostgreSQL: totals as METER states them. A statement that is not newer changes nothing.

Each write is one transaction of set-based statements: arrays in, ``unnest`` out, one upsert. Keys are
sorted, so two writers never wait for each other in a circle.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from schemas.commands import JobAck, JobCommand, ThrottleAck, ThrottleCommand
from schemas.instants import InstantError, parse_instant, to_datetime
from schemas.statements import CellStatement, Dimensions, SpenderStatement, Totals, Watermark
from streams.ports import BudgetStatus, Change, SpentRow
from streams.sinks import jobs, spent
from streams.sinks.definition_rows import INSERT_DEFINITION, definition_row
from streams.sinks.postgres import storable, with_retries
from streams.sinks.spender_rows import MARK_SPENDERS, UPSERT_SPENDERS, spender_columns

logger = logging.getLogger("sluice.ledger")

_DIMENSIONS = Dimensions.__struct_fields__
_HISTOGRAMS = ("cost_histogram", "latency_histogram")
#: Rows in one statement: making and encoding them holds the event loop, and commands to gates wait meanwhile.
ROWS_AT_ONCE = 100
#: What of an acknowledgement fits an index row; commands and gateways have far shorter names.
_ACK_TEXT_MAX = {"command_id": 128, "gateway": 256, "command_key": 1024}
_BIGINT_MAX = 2**63 - 1
_TOTALS = tuple(name for name in Totals.__struct_fields__ if name not in _HISTOGRAMS)
_PLACE = (("cell_id", "text"), ("slot", "text"), ("segment", "bigint"))
#: Cell, slot, segment.
_Place = tuple[str, str, int]
_STATE = (("revision", "integer"), ("last_offset", "bigint"), ("hour", "timestamptz"))


def _upsert_cells() -> str:
    columns = [*_PLACE, *_STATE]
    columns += [(name, "text") for name in _DIMENSIONS]
    # Money outgrows 64 bits (migration 2); nothing else that is counted does.
    columns += [(name, "numeric" if name.endswith("_nanos") else "bigint") for name in _TOTALS]
    # unnest() would flatten an array of arrays: histograms travel as literals.
    columns += [(name, "text") for name in _HISTOGRAMS]
    names = [name for name, _ in columns]
    values = [f"t.{name}::bigint[]" if name in _HISTOGRAMS else f"t.{name}" for name in names]
    arrays = ", ".join(f"${place}::{kind}[]" for place, (_, kind) in enumerate(columns, 1))
    changing = [name for name in names if name not in {key for key, _ in _PLACE}]
    return (
        f"insert into ledger_cells as old ({', '.join(names)})"
        f" select {', '.join(values)} from unnest({arrays})"
        f" as t({', '.join(names)}) on conflict (cell_id, slot, segment) do update set "
        + ", ".join(f"{name} = excluded.{name}" for name in changing)
        + " where (excluded.revision, excluded.last_offset) > (old.revision, old.last_offset)"
    )


_UPSERT_CELLS = _upsert_cells()
_UPSERT_SOURCE = """
insert into ledger_sources as old (slot, revision, next_offset, stream_time, dead_letters, duplicates)
values ($1, $2, $3, $4, $5, $6)
on conflict (slot) do update set revision = excluded.revision, next_offset = excluded.next_offset,
    stream_time = excluded.stream_time, dead_letters = excluded.dead_letters,
    duplicates = excluded.duplicates, updated_at = now()
where (excluded.revision, excluded.next_offset) >= (old.revision, old.next_offset)
"""
_DURABLE = "select slot, least(next_offset, spenders_offset) as next_offset from ledger_sources"
#: In the order of ``_status_row``.
_STATUS_KEY = ("budget_id", "value", "period_start")
_STATUS = (
    "period_end", "scope_type", "scope_id", "period", "amount_nanos", "spent_nanos", "crossed_percent", "commanded",
    "mode", "sequence", "stated_at", "carried_nanos", "override_nanos", "opening_nanos", "estimated_nanos",
    "burn_nanos_per_hour", "exhausted_at", "overshoot_nanos", "gap_nanos", "ack_delay_ms", "takers",
)  # fmt: skip
_UPSERT_BUDGET = f"""
insert into budget_status as old ({", ".join(_STATUS_KEY + _STATUS)})
values ({", ".join(f"${place}" for place in range(1, len(_STATUS_KEY + _STATUS) + 1))})
on conflict (budget_id, value, period_start) do update set {", ".join(f"{name} = excluded.{name}" for name in _STATUS)}
where excluded.sequence >= old.sequence
"""
_UPSERT_COMMAND = """
insert into gateway_commands as old (command_key, command_id, revision, budget_id, scope_type, scope_id,
    action, reason, issued_at, expires_at, dry_run, body)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict (command_key) do update set command_id = excluded.command_id, revision = excluded.revision,
    budget_id = excluded.budget_id, scope_type = excluded.scope_type, scope_id = excluded.scope_id,
    action = excluded.action, reason = excluded.reason, issued_at = excluded.issued_at,
    expires_at = excluded.expires_at, dry_run = excluded.dry_run, body = excluded.body
where (excluded.revision, excluded.expires_at) > (old.revision, old.expires_at)
"""
_INSERT_HISTORY = """
insert into gateway_command_history (command_id, command_key, revision, action, issued_at, body)
values ($1, $2, $3, $4, $5, $6) on conflict (command_id) do nothing
"""
_UPSERT_ACK = """
insert into gateway_acks as old (command_id, gateway, command_key, revision, applied_at, rejected_count)
values ($1, $2, $3, $4, $5, $6)
on conflict (command_id, gateway) do update
set rejected_count = greatest(old.rejected_count, excluded.rejected_count)
"""


class PostgresLedger:
    """Implements ``streams.ports.Ledger``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def write_cells(
        self,
        cells: Sequence[CellStatement],
        watermarks: Sequence[Watermark],
    ) -> None:
        """Upsert cells, then the watermarks that cover them, in one transaction.

        Raises:
            asyncpg.PostgresError, OSError: the database did not take it after many tries; nothing of
                this call is visible, and the caller must not go on.
        """
        rows = _newest_of_each(cells)
        marks = sorted(
            (
                mark.source.slot(),
                mark.revision,
                mark.next_offset,
                to_datetime(mark.stream_time),
                mark.dead_letters,
                mark.duplicates,
            )
            for mark in watermarks
        )

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                for first in range(0, len(rows), ROWS_AT_ONCE):
                    await connection.execute(_UPSERT_CELLS, *_cell_columns(rows[first : first + ROWS_AT_ONCE]))
                if marks:
                    await connection.executemany(_UPSERT_SOURCE, marks)

        if cells or marks:
            await with_retries(attempt)

    async def write_spenders(self, statements: Sequence[SpenderStatement]) -> None:
        """Upsert who spent the cells' money.

        Raises:
            asyncpg.PostgresError, OSError: as ``write_cells``.
        """
        if columns := spender_columns(statements):
            await with_retries(lambda: self._pool.execute(UPSERT_SPENDERS, *columns))

    async def mark_spenders(self, offsets: Mapping[str, int]) -> None:
        """Note up to which offset of each slot everything that was stated of spenders is written."""
        if offsets:
            await with_retries(lambda: self._pool.executemany(MARK_SPENDERS, sorted(offsets.items())))

    async def durable_offsets(self) -> Mapping[str, int]:
        """``{slot: next offset}`` up to which the ledger holds everything."""

        async def attempt() -> list[asyncpg.Record]:
            return await self._pool.fetch(
                "select slot, least(next_offset, spenders_offset) as next_offset from ledger_sources"
            )

        return {row["slot"]: row["next_offset"] for row in await with_retries(attempt)}

    async def spent_before(
        self, slot: str, start: int, end: int, below: int, live: Sequence[tuple[str, int]], teams: Sequence[str]
    ) -> tuple[int, Sequence[SpentRow]]:
        """How far the ledger is with a slot, and sums of its rows in a period that end below an offset."""
        async with self._pool.acquire() as connection:
            return await spent.spent_before(connection, slot, start, end, below, live, teams)

    async def write_definitions(self, changes: Sequence[Change]) -> None:
        """Keep every version of every definition; one that is there already stays as it is."""
        await self._execute_many(INSERT_DEFINITION, sorted(map(definition_row, changes), key=lambda row: row[:2]))

    async def write_budget_status(self, rows: Sequence[BudgetStatus]) -> None:
        """Keep the newest status of each budget and period."""
        # By their key alone: what follows it does not compare.
        found = sorted(map(_status_row, rows), key=lambda row: row[: len(_STATUS_KEY)])
        await self._execute_many(_UPSERT_BUDGET, found)

    async def write_commands(self, commands: Sequence[ThrottleCommand]) -> None:
        """Record commands and their history; a lower revision never replaces a higher one."""
        current, history = [], []
        for command in sorted(commands, key=lambda c: (c.key(), c.revision)):
            body = msgspec.to_builtins(command)
            issued = to_datetime(parse_instant(command.issued_at))
            expires = to_datetime(parse_instant(command.expires_at))
            current.append(
                (
                    command.key(),
                    command.command_id,
                    command.revision,
                    command.budget_id,
                    command.target.scope_type,
                    command.target.scope_id,
                    command.action,
                    command.reason,
                    issued,
                    expires,
                    command.dry_run,
                    body,
                )
            )
            history.append((command.command_id, command.key(), command.revision, command.action, issued, body))
        await self._execute_many(_UPSERT_COMMAND, current)
        await self._execute_many(_INSERT_HISTORY, history)

    async def write_acks(self, acks: Sequence[ThrottleAck]) -> None:
        """Record what gateways answered; the count of refusals only grows."""
        found = []
        for ack in acks:
            row = _ack_row(ack)
            if row is None:
                # Gateways are other people's programs: one that answers nonsense must not stop the ledger.
                logger.error("an acknowledgement cannot be stored and is passed over: %.500r", ack)
            else:
                found.append(row)
        found.sort()
        await self._execute_many(_UPSERT_ACK, found)

    async def write_jobs(self, said: Sequence[JobCommand | JobAck]) -> None:
        """Record what was asked of training runs and what executors answered, in any order."""
        commands, acks = [], []
        for each in said:
            row = jobs.ack_row(each) if isinstance(each, JobAck) else jobs.command_row(each)
            if row is None:
                logger.error("this cannot be stored and is passed over: %.500r", each)
            else:
                (acks if isinstance(each, JobAck) else commands).append(row)
        await self._execute_many(jobs.INSERT_COMMAND, sorted(commands))
        await self._execute_many(jobs.UPSERT_ACK, sorted(acks))

    async def _execute_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.executemany(sql, rows)

        if rows:
            await with_retries(attempt)


def _newest_of_each(cells: Sequence[CellStatement]) -> list[tuple[_Place, CellStatement]]:
    """The newest of each key, in order: PostgreSQL refuses to update a row twice at once."""
    newest: dict[_Place, CellStatement] = {}
    for cell in cells:
        key = (cell.cell_id, cell.source.slot(), cell.segment)
        known = newest.get(key)
        if known is None or (cell.revision, cell.offset) > (known.revision, known.offset):
            newest[key] = cell
    return sorted(newest.items(), key=lambda item: item[0])


def _cell_columns(rows: Sequence[tuple[_Place, CellStatement]]) -> list[list[Any]]:
    """One array per column."""
    return [list(column) for column in zip(*(_cell_row(*row) for row in rows), strict=True)]


def _cell_row(key: _Place, cell: CellStatement) -> tuple[Any, ...]:
    totals = cell.totals
    return (
        *key,
        cell.revision,
        cell.offset,
        to_datetime(cell.hour),
        *(storable(getattr(cell.dimensions, name)) for name in _DIMENSIONS),
        *(getattr(totals, name) for name in _TOTALS),
        *("{" + ",".join(map(str, getattr(totals, name))) + "}" for name in _HISTOGRAMS),
    )


def _status_row(row: BudgetStatus) -> tuple[Any, ...]:
    instants = {"period_start", "period_end", "stated_at", "exhausted_at"}

    def cell(name: str) -> Any:
        value = getattr(row, name)
        if isinstance(value, str):
            return storable(value)
        return to_datetime(value) if name in instants and value is not None else value

    return tuple(cell(name) for name in _STATUS_KEY + _STATUS)


def _ack_row(ack: ThrottleAck) -> tuple[Any, ...] | None:
    """None for what no table can hold."""
    if any(len(getattr(ack, name)) > length for name, length in _ACK_TEXT_MAX.items()):
        return None
    if not (0 <= ack.revision <= _BIGINT_MAX and 0 <= ack.rejected_count <= _BIGINT_MAX):
        return None
    try:
        applied = to_datetime(parse_instant(ack.applied_at))
    except (InstantError, OverflowError):
        return None
    texts = (storable(ack.command_id), storable(ack.gateway), storable(ack.command_key))
    return (*texts, ack.revision, applied, ack.rejected_count)
