"""Definitions on a real broker and database: versions, conflicts, and what was spent before one was there."""

import asyncio

import pytest

from schemas.budgets import Budget, Grant, Period, Rung
from schemas.commands import Target
from schemas.instants import HOUR
from schemas.keys import cell_id
from schemas.statements import CellStatement, Dimensions, Source, Totals, Watermark
from schemas.topics import BUDGETS, Topic
from streams.ports import ConflictError
from streams.sinks.definitions import KafkaDefinitions
from streams.sinks.ledger import PostgresLedger
from streams.topic_admin import ensure_topics
from streams.transport.following import TopicFollower
from tests.unit.records import NOON

pytestmark = pytest.mark.integration
SLOT = "usage.events.v1@0-0"


@pytest.fixture
async def store(fresh_kafka, pool):
    connection = {"bootstrap_servers": [fresh_kafka.bootstrap]}
    await ensure_topics(connection, 2, 1, topics=[Topic(BUDGETS, "kind | id", None)])
    return KafkaDefinitions(connection, pool, lambda: NOON, 2, idempotence=fresh_kafka.is_real_kafka)


def budget(name, dollars):
    return Budget(
        id=name, match=(("team", "search"),), target=Target("team", "search"), amount_nanos=dollars * 10**9,
        period=Period("day"), thresholds=(Rung(100, "emergency"),),
    )  # fmt: skip


async def test_of_two_changes_against_the_same_version_one_gets_a_conflict(store):
    ((key, version, _),) = await store.publish([budget("both", 1)], by="ann", reason="new", expected={"budget|both": 0})
    assert (key, version) == ("budget|both", 1)
    tries = [
        store.publish([budget("both", dollars)], by="bob", reason="at once", expected={key: version})
        for dollars in (2, 3)
    ]
    first, second = await asyncio.gather(*tries, return_exceptions=True)
    refused, placed = (first, second) if isinstance(first, ConflictError) else (second, first)
    assert (refused.expected, refused.found) == (1, 2)
    assert placed[0].version == 2
    assert (await store.current())["budget|both"] == placed[0].definition


async def test_a_withdrawn_key_goes_on_counting_and_so_do_kinds_without_a_version(store):
    grant = Grant(team_id="search", model="big")
    assert [placed.version for placed in await store.publish([grant], by="ann", reason="a")] == [1]
    assert await store.withdraw(grant.key(), by="ann", reason="b", expected=1)
    assert not await store.withdraw(grant.key(), by="ann", reason="b")
    assert grant.key() not in await store.current()
    assert [placed.version for placed in await store.publish([grant], by="ann", reason="c")] == [3]


async def test_a_follower_has_all_that_was_there_at_once_and_then_what_comes(store, fresh_kafka):
    await store.publish([budget("early", 1), budget("early-2", 1)], by="ann", reason="before")
    batches: list[set[bytes]] = []
    follower = TopicFollower(
        {"bootstrap_servers": [fresh_kafka.bootstrap]}, BUDGETS, 2, lambda r: batches.append({x.key for x in r})
    )
    task = asyncio.create_task(follower.run_background())
    try:
        await asyncio.wait_for(follower.ready(), 30)
        assert {b"budget|early", b"budget|early-2"} <= batches[0]
        await store.publish([budget("late", 1)], by="ann", reason="after")
        async with asyncio.timeout(10):
            while not any(b"budget|late" in batch for batch in batches[1:]):
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def cell(hour, cost, *, offset, team="search", segment=0, partition=0):
    dimensions = Dimensions("", "", team, "", "chat", "gpt-4o", "openai", "prod", "interactive", "", "llm")
    return CellStatement(
        cell_id=cell_id(dimensions, hour), hour=hour, dimensions=dimensions, segment=segment, revision=0, offset=offset,
        source=Source("usage.events.v1", 0, partition),
        totals=Totals(requests=1, cost_nanos=cost, estimated_cost_nanos=1, input_tokens=2, output_tokens=3),
    )  # fmt: skip


async def test_what_was_spent_before_leaves_out_what_is_live_ahead_or_elsewhere(pool):
    ledger = PostgresLedger(pool)
    half = HOUR // 2
    live = cell(NOON, 4, offset=9, segment=9)
    cells = [
        cell(NOON - HOUR, 1, offset=3), cell(NOON, 2, offset=5), live,
        cell(NOON + HOUR, 8, offset=20),  # beyond the offset: whoever asks will meet it again
        cell(NOON, 16, offset=1, team="ads", segment=1), cell(NOON, 32, offset=1, partition=1),
        cell(NOON - 2 * HOUR, 64, offset=2),  # only half of its hour is in the period
        cell(NOON - 9 * HOUR, 128, offset=2),
    ]  # fmt: skip
    mark = Watermark(source=Source("usage.events.v1", 0, 0), revision=0, next_offset=15, stream_time=NOON)
    await ledger.write_cells(cells, [mark])
    asked = SLOT, NOON - HOUR - half, NOON + 9 * HOUR, 15, [(live.cell_id, 9)]
    reached, rows = await ledger.spent_before(*asked, [])
    found = {(row[0].team_id, row[1]): row[2:] for row in rows}
    assert reached == 15
    assert found == {
        ("search", 0): (3, 2, 2, 10), ("ads", 0): (16, 1, 1, 5), ("search", NOON - HOUR): (64, 1, 1, 5),
    }  # fmt: skip
    _, rows = await ledger.spent_before(*asked, ["ads"])
    assert [row[0].team_id for row in rows] == ["ads"]
    assert await ledger.spent_before("usage.gpu.v1@0-0", *asked[1:], []) == (0, [])
