"""The ledger on a real PostgreSQL: totals replace totals, order does not matter, repetition changes nothing."""

import asyncio
import itertools
from hashlib import sha256

import asyncpg
import msgspec
import pytest

from schemas.commands import Target, ThrottleAck, ThrottleCommand
from schemas.instants import HOUR, SECOND, format_instant, to_datetime
from schemas.keys import cell_id
from schemas.money import format_usd
from schemas.statements import CellStatement, Dimensions, Source, SpenderRow, SpenderStatement, Totals, Watermark
from streams.agents.ledger_spenders import LedgerSpenders
from streams.ports import BudgetStatus
from streams.sinks.ledger import PostgresLedger
from streams.sinks.postgres import MigrationError, migrate, migration_files
from streams.web import queries
from streams.web.budgets import standing_of
from tests.unit.records import NOON

pytestmark = pytest.mark.integration
SOURCE = Source("usage.events.v1", 0, 0)
DIMENSIONS = Dimensions("", "", "search", "", "chat", "gpt-4o", "openai", "prod", "interactive", "", "llm")


def cell(cost: int, *, offset: int, revision: int = 0, segment: int = 0, partition: int = 0) -> CellStatement:
    totals = Totals(requests=offset + 1, cost_nanos=cost)
    totals.cost_histogram[3] = offset
    return CellStatement(
        cell_id=cell_id(DIMENSIONS, NOON), hour=NOON, dimensions=DIMENSIONS, source=SOURCE if partition == 0 else
        Source(SOURCE.topic, 0, partition), segment=segment, revision=revision, offset=offset, totals=totals,
    )  # fmt: skip


def mark(offset: int, partition: int = 0) -> Watermark:
    return Watermark(source=Source(SOURCE.topic, 0, partition), revision=0, next_offset=offset, stream_time=NOON)


async def test_migrations_run_once_even_when_started_together(database_url):
    done = await asyncio.gather(*(migrate(database_url) for _ in range(4)))
    assert sorted(len(names) for names in done)[:3] == [0, 0, 0]
    assert await migrate(database_url) == []


async def test_an_edited_migration_is_refused_with_what_to_do(pool, database_url):
    await pool.execute("update schema_migrations set sha256 = 'other'")
    with pytest.raises(MigrationError, match="must not be edited"):
        await migrate(database_url)


async def test_a_database_newer_than_the_code_is_refused(pool, database_url):
    await pool.execute("insert into schema_migrations (number, name, sha256) values (9999, 'x', 'x')")
    with pytest.raises(MigrationError, match="run the newer version"):
        await migrate(database_url)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_statements_of_a_cell_in_any_order_leave_the_newest_even_where_money_fell(pool, order):
    ledger = PostgresLedger(pool)
    statements = [cell(500, offset=1), cell(900, offset=2), cell(300, offset=3)]
    for place in order:
        await ledger.write_cells([statements[place]], [])
    row = await pool.fetchrow("select cost_nanos, last_offset, cost_histogram, hour from ledger_cells")
    assert (row["cost_nanos"], row["last_offset"], row["cost_histogram"][3]) == (300, 3, 3)
    assert format_instant(NOON).startswith(row["hour"].strftime("%Y-%m-%dT%H"))


async def test_a_higher_revision_wins_over_a_higher_offset(pool):
    ledger = PostgresLedger(pool)
    await ledger.write_cells([cell(500, offset=100), cell(700, offset=5, revision=1)], [])
    await ledger.write_cells([cell(600, offset=200)], [])
    assert await pool.fetchval("select cost_nanos from ledger_cells") == 700


async def test_partitions_and_segments_are_rows_of_their_own_that_add_up(pool):
    ledger = PostgresLedger(pool)
    await ledger.write_cells([cell(1, offset=1), cell(10, offset=9, segment=5), cell(100, offset=2, partition=1)], [])
    assert await pool.fetchval("select sum(cost_nanos) from ledger_cells") == 111


async def test_a_watermark_moves_forward_only(pool):
    ledger = PostgresLedger(pool)
    await ledger.write_cells([], [mark(50)])
    await ledger.write_cells([cell(1, offset=1)], [mark(20), mark(7, partition=1)])
    assert set((await ledger.durable_offsets()).values()) == {0}, "who spent it is not there yet"
    for offset in (40, 30):
        await ledger.mark_spenders({"usage.events.v1@0-0": offset, "usage.events.v1@0-1": 9, "unknown": 1})
    assert await ledger.durable_offsets() == {"usage.events.v1@0-0": 40, "usage.events.v1@0-1": 7}
    await ledger.mark_spenders({"usage.events.v1@0-0": 60})
    assert await ledger.durable_offsets() == {"usage.events.v1@0-0": 50, "usage.events.v1@0-1": 7}


async def test_thousands_of_cells_go_in_at_once(pool):
    cells = []
    for number in range(5_000):
        dimensions = Dimensions("", "", f"t{number}", "", "f", "m", "p", "", "batch", "", "llm")
        cells.append(
            CellStatement(
                cell_id=cell_id(dimensions, NOON), hour=NOON, dimensions=dimensions, source=SOURCE, segment=0,
                revision=0, offset=number, totals=Totals(requests=1, cost_nanos=number),
            )
        )  # fmt: skip
    await PostgresLedger(pool).write_cells(cells, [mark(5_000)])
    assert await pool.fetchval("select sum(cost_nanos) from ledger_cells") == sum(range(5_000))


async def test_the_newest_status_of_a_budget_stays(pool):
    ledger = PostgresLedger(pool)

    def status(spent: int, sequence: int) -> BudgetStatus:
        return BudgetStatus(
            budget_id="b", scope_type="team", scope_id="search", period="day", period_start=NOON,
            period_end=NOON + 24 * HOUR, amount_nanos=100, spent_nanos=spent, crossed_percent=0, commanded="allow",
            mode="enforce", sequence=sequence, stated_at=NOON,
        )  # fmt: skip

    await ledger.write_budget_status([status(10, 5)])
    await ledger.write_budget_status([status(7, 3)])
    assert await pool.fetchval("select spent_nanos from budget_status") == 10


async def test_each_value_of_a_budget_has_a_row_with_all_that_was_measured(pool):
    ledger = PostgresLedger(pool)
    row = BudgetStatus(
        budget_id="agents", scope_type="session", scope_id="s-1", period="total", period_start=0,
        period_end=253_402_300_799_000_000, amount_nanos=10**20, spent_nanos=7, crossed_percent=0, commanded="block",
        mode="enforce", sequence=1, stated_at=NOON, value="s-1", carried_nanos=1, override_nanos=2, opening_nanos=3,
        estimated_nanos=4, burn_nanos_per_hour=5, exhausted_at=NOON + HOUR, overshoot_nanos=6, gap_nanos=8,
        ack_delay_ms=250, takers={"search": 7},
    )  # fmt: skip
    other = msgspec.structs.replace(row, value="s\0-2", exhausted_at=None, ack_delay_ms=None)
    for _ in range(2):
        await ledger.write_budget_status([other, row])
    found = await pool.fetch("select * from budget_status order by exhausted_at nulls last")
    assert len(found) == 2
    for name in ("value", "carried_nanos", "override_nanos", "opening_nanos", "estimated_nanos", "overshoot_nanos"):
        assert found[0][name] == getattr(row, name)
    assert (found[0]["gap_nanos"], found[0]["ack_delay_ms"], found[0]["takers"]) == (8, 250, {"search": 7})
    assert found[0]["exhausted_at"] == to_datetime(NOON + HOUR)
    assert (found[1]["exhausted_at"], found[1]["ack_delay_ms"]) == (None, None)


async def test_a_renewal_moves_the_end_of_a_command_and_an_earlier_word_of_it_does_not(pool):
    ledger = PostgresLedger(pool)

    def said(minutes: int) -> ThrottleCommand:
        return ThrottleCommand(
            command_id="c", budget_id="b", target=Target("team", "search"), action="block", revision=1, reason="spent",
            issued_at=format_instant(NOON), effective_at=format_instant(NOON),
            expires_at=format_instant(NOON + minutes * 60 * SECOND),
        )  # fmt: skip

    for minutes in (15, 20, 15):
        await ledger.write_commands([said(minutes)])
    assert await pool.fetchval("select expires_at from gateway_commands") == to_datetime(NOON + 20 * 60 * SECOND)
    assert await pool.fetchval("select count(*) from gateway_command_history") == 1


async def test_commands_keep_the_highest_revision_and_every_one_in_history(pool):
    ledger = PostgresLedger(pool)

    def command(revision: int, action: str) -> ThrottleCommand:
        return ThrottleCommand(
            command_id=f"c{revision}", budget_id="b", target=Target("team", "search"), action=action,
            revision=revision, reason="r", issued_at=format_instant(NOON), effective_at=format_instant(NOON),
            expires_at=format_instant(NOON + HOUR),
        )  # fmt: skip

    await ledger.write_commands([command(2, "allow"), command(1, "block")])
    await ledger.write_commands([command(1, "block")])
    assert await pool.fetchval("select action from gateway_commands") == "allow"
    assert await pool.fetchval("select count(*) from gateway_command_history") == 2
    ack = ThrottleAck(
        command_id="c2", command_key="team:search|b", revision=2, gateway="gw-1", applied_at=format_instant(NOON),
        rejected_count=4,
    )  # fmt: skip
    await ledger.write_acks([ack])
    ack.rejected_count = 3
    await ledger.write_acks([ack])
    assert await pool.fetchval("select rejected_count from gateway_acks") == 4


def ack_of(**changes) -> ThrottleAck:
    fields = {
        "command_id": "c1",
        "command_key": "team:search|b",
        "revision": 1,
        "gateway": "gw-1",
        "applied_at": format_instant(NOON),
        "rejected_count": 1,
    }
    return ThrottleAck(**(fields | changes))


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param({"applied_at": "yesterday"}, id="a time that is none"),
        pytest.param({"applied_at": "9999-12-31T23:59:59-23:59"}, id="a time after the last one"),
        pytest.param({"rejected_count": 2**70}, id="a count beyond 64 bits"),
        pytest.param({"revision": -1}, id="a negative revision"),
        pytest.param({"gateway": "".join(map(str, range(4_000)))}, id="a name too long for an index"),
    ],
)
async def test_a_gateway_that_answers_nonsense_does_not_stop_the_ledger(pool, nonsense, caplog):
    await PostgresLedger(pool).write_acks([ack_of(**nonsense), ack_of(gateway="gw-2")])
    assert [row["gateway"] for row in await pool.fetch("select gateway from gateway_acks")] == ["gw-2"]
    assert "passed over" in caplog.text


async def test_a_nul_in_a_gateways_name_is_replaced(pool):
    await PostgresLedger(pool).write_acks([ack_of(gateway="a\x00b")])
    assert await pool.fetchval("select gateway from gateway_acks") == "a\ufffdb"


async def test_a_failed_write_leaves_neither_cells_nor_watermarks(pool):
    broken = cell(1, offset=3)
    broken.totals.requests = 2**63
    with pytest.raises(asyncpg.DataError):
        await PostgresLedger(pool).write_cells([cell(1, offset=1, segment=7), broken], [mark(9)])
    assert await pool.fetchval("select count(*) from ledger_cells") == 0
    assert await PostgresLedger(pool).durable_offsets() == {}


async def test_writers_of_the_same_cells_in_opposite_orders_do_not_block_each_other(pool):
    ledger = PostgresLedger(pool)
    partitions = range(40)
    forth = [cell(1, offset=1, partition=number) for number in partitions]
    back = [cell(2, offset=2, partition=number) for number in reversed(partitions)]
    async with asyncio.timeout(30):
        for _ in range(5):
            await asyncio.gather(*(ledger.write_cells(cells, []) for cells in (forth, back, forth, back)))
    assert await pool.fetchval("select sum(cost_nanos) from ledger_cells") == 2 * len(partitions)


async def test_a_write_goes_through_when_its_connection_is_cut(pool):
    ledger = PostgresLedger(pool)
    await ledger.write_cells([cell(1, offset=1)], [])
    await pool.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(30):
        # The very backend that serves the next statement ends itself in the middle of it.
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await pool.execute("select pg_terminate_backend(pg_backend_pid())")
        await ledger.write_cells([cell(5, offset=2)], [mark(3)])
    assert await pool.fetchval("select cost_nanos from ledger_cells") == 5


#: A year of the largest bill lines that are read, every second, in one cell.
HUGE = 31_536_000 * 10**7 * 10**9


@pytest.mark.parametrize("cost", [2**63 - 1, 2**63, HUGE, -HUGE, 10**38 - 1])
async def test_money_beyond_64_bits_is_kept_to_the_nanodollar(pool, cost):
    ledger = PostgresLedger(pool)
    wide = cell(cost, offset=1)
    wide.totals.reported_cost_nanos = wide.totals.reconciled_cost_nanos = wide.totals.estimated_cost_nanos = cost
    await ledger.write_cells([wide], [])
    row = await pool.fetchrow(f"select {', '.join(queries.MONEY)} from ledger_cells")
    assert [int(row[name]) for name in queries.MONEY] == [cost] * 4
    assert f"{row['cost_nanos']:f}" == str(cost)


async def test_sums_of_money_beyond_64_bits_are_exact_in_what_the_api_asks(pool):
    ledger = PostgresLedger(pool)
    await ledger.write_cells([cell(HUGE + 1, offset=1), cell(HUGE + 2, offset=1, partition=1)], [])
    bounds = (to_datetime(NOON), to_datetime(NOON + HOUR))
    total, rows = await queries.spend(pool, bounds, ["team"], {}, 10)
    assert int(total["cost_nanos"]) == int(rows[0]["cost_nanos"]) == 2 * HUGE + 3
    days = [row async for row in queries.spend_by_day(pool, bounds, {})]
    assert [int(row["cost_nanos"]) for row in days] == [2 * HUGE + 3]


async def test_a_budget_beyond_64_bits_is_shown_to_the_nanodollar(pool):
    status = BudgetStatus(
        budget_id="b", scope_type="team", scope_id="search", period="day", period_start=NOON,
        period_end=NOON + 24 * HOUR, amount_nanos=HUGE, spent_nanos=2 * HUGE + 1, crossed_percent=100,
        commanded="block", mode="enforce", sequence=1, stated_at=NOON,
    )  # fmt: skip
    await PostgresLedger(pool).write_budget_status([status])
    shown = standing_of((await queries.budgets(pool, "", []))[0], NOON, None)
    assert (shown.amount, shown.spent, shown.used_percent) == (format_usd(HUGE), format_usd(2 * HUGE + 1), "200.00")


async def test_a_ledger_of_the_first_release_is_widened_with_its_rows(database_url):
    connection = await asyncpg.connect(database_url)
    first = next(migration for migration in migration_files() if migration[0] == 1)
    try:
        await connection.execute(first[2])
        await connection.execute(
            "create table schema_migrations (number integer primary key, name text not null, sha256 text not null,"
            " applied_at timestamptz not null default now())"
        )
        await connection.execute(
            "insert into schema_migrations (number, name, sha256) values (1, $1, $2)",
            first[1], sha256(first[2].encode()).hexdigest(),
        )  # fmt: skip
        dimensions = ", ".join(DIMENSIONS.__struct_fields__)
        counts = [name for name in Totals.__struct_fields__ if "histogram" not in name]
        await connection.execute(
            f"insert into ledger_cells (cell_id, slot, segment, revision, last_offset, hour, {dimensions},"
            f" {', '.join(counts)}, cost_histogram, latency_histogram)"
            f" values ('c', 's', 0, 0, 1, now(), {', '.join(['$$x$$'] * 11)}, {', '.join(['9007199254740993'] * len(counts))},"
            " '{1}', '{1}')"
        )
        assert (await migrate(database_url))[0] == "0002_wide_money"
        row = await connection.fetchrow("select cost_nanos, requests from ledger_cells")
        assert (int(row["cost_nanos"]), row["requests"]) == (9_007_199_254_740_993, 9_007_199_254_740_993)
    finally:
        await connection.close()


class Batch:
    """A batch that notes its acknowledgement."""

    acked = False

    def ack(self) -> None:
        self.acked = True


def said_by(requests: int, offset: int, block: int = 0) -> SpenderStatement:
    return SpenderStatement(
        cell_id="c", hour=NOON, source=SOURCE, segment=0, revision=0, block=block,
        rows=[SpenderRow("k", f"u{block}", offset, requests * 10, requests)],
    )  # fmt: skip


async def test_a_batch_that_says_who_spent_is_acknowledged_once_the_newest_of_each_block_is_written(pool):
    ledger, spenders = PostgresLedger(pool), LedgerSpenders(PostgresLedger(pool))
    first, second, plain = Batch(), Batch(), Batch()
    await ledger.write_cells([], [mark(50)])
    spenders.keep(first, [said_by(1, 10), said_by(1, 11, block=1)], [])
    spenders.keep(second, [said_by(2, 20)], [mark(50)])
    spenders.keep(plain, [], [])
    assert [batch.acked for batch in (first, second, plain)] == [False, False, True]
    assert (await ledger.durable_offsets())["usage.events.v1@0-0"] == 0, (
        "a cell may not leave before its spenders are kept"
    )
    await spenders.write()
    rows = await pool.fetch("select user_id, requests::int from ledger_spenders order by user_id")
    assert [tuple(row) for row in rows] == [("u0", 2), ("u1", 1)]
    assert [first.acked, second.acked] == [True, True]
    assert (await ledger.durable_offsets())["usage.events.v1@0-0"] == 50
