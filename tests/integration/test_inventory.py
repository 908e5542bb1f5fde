"""The inventory on a real PostgreSQL: made of the ledger's cells, one worker at a time, read by API and command line."""

import json

import asyncpg
import msgspec
import pytest
from rich.console import Console

from schemas.alerts import Alert
from schemas.instants import DAY, HOUR, MINUTE
from schemas.keys import cell_id
from schemas.money import NANOS
from schemas.statements import CellStatement, Dimensions, Source, Totals, Watermark
from streams.agents.waste import WasteLoop
from streams.commands.inventory import show
from streams.core.waste import RULES, WastePolicy
from streams.history_ports import StoreError
from streams.settings import load_settings
from streams.sinks.ledger import PostgresLedger
from streams.sinks.resources import PostgresResources
from streams.web.inventory import InventoryQuery
from tests.integration.api_parts import HOUR_14, NO_BROKER, NOW, client_of, got
from tests.stores import record_alerts

pytestmark = pytest.mark.integration
SOURCE = Source("usage.events.v1", 0, 0)
TODAY = NOW // DAY
CHAT = Dimensions("", "", "search", "", "chat", "gpt-4o", "openai", "prod", "interactive", "", "llm")
NIGHTLY = msgspec.structs.replace(CHAT, feature="evals", request_type="batch")
STORE = msgspec.structs.replace(
    CHAT, feature="old", model="pods", provider="pinecone", category="vector", request_type="background"
)


async def spend(
    pool: asyncpg.Pool, dimensions: Dimensions, hour: int, usd: int, requests: int, offset: int = 0
) -> None:
    cell = CellStatement(
        cell_id=cell_id(dimensions, hour), hour=hour, dimensions=dimensions, source=SOURCE, segment=0, revision=0,
        offset=offset, totals=Totals(requests=requests, cost_nanos=usd * NANOS),
    )  # fmt: skip
    mark = Watermark(source=SOURCE, revision=0, next_offset=offset + 1, stream_time=NOW)
    await PostgresLedger(pool).write_cells([cell], [mark])


async def forty_days(pool: asyncpg.Pool) -> None:
    """A chat that is used, a nightly job, and an index whose feature has gone: ten dollars a day each."""
    for ago in range(1, 41):
        midnight = (TODAY - ago) * DAY
        await spend(pool, CHAT, midnight + 9 * HOUR, 4, 7)
        await spend(pool, CHAT, midnight + 23 * HOUR, 6, 3)
        await spend(pool, NIGHTLY, midnight + 2 * HOUR, 10, 100)
        await spend(pool, STORE, midnight, 10, 0)


class Clock:
    def __init__(self, at: int) -> None:
        self.at = at

    def now(self) -> int:
        return self.at

    def observe(self, event_time: int, source: str = "") -> None: ...


async def test_days_are_made_of_cells_and_corrected_when_cells_change(pool):
    store = PostgresResources(pool)
    await forty_days(pool)
    await store.refresh(TODAY - 60)
    await spend(pool, CHAT, (TODAY - 1) * DAY + 23 * HOUR, 16, 4, offset=1)
    await store.refresh(TODAY - 3)
    chat, evals, old = await store.read(TODAY - 35)
    assert [each.names[3] for each in (chat, evals, old)] == ["chat", "evals", "old"]
    assert chat.names == ("", "search", "", "chat", "llm", "openai", "gpt-4o", "prod")
    assert len(chat.days) == 35
    assert chat.days[-2:] == [(TODAY - 2, 10 * NANOS, 10, 10, 0, 0), (TODAY - 1, 20 * NANOS, 11, 11, 0, 0)]
    assert evals.days[0] == (TODAY - 35, 10 * NANOS, 100, 0, 10 * NANOS, 1 << 2)
    assert (chat.first_day, chat.last_use, old.last_use) == (TODAY - 40, TODAY * DAY, None)
    assert evals.last_use == (TODAY - 1) * DAY + 3 * HOUR


async def test_an_hour_is_looked_at_by_one_worker_and_by_another_where_that_one_died(pool):
    store, other = PostgresResources(pool), PostgresResources(pool)
    assert await store.take_turn(NOW, 10 * MINUTE)
    assert not await other.take_turn(NOW + MINUTE, 10 * MINUTE)
    assert await other.take_turn(NOW + 11 * MINUTE, 10 * MINUTE)
    await other.end_turn(NOW + 12 * MINUTE)
    assert not await store.take_turn(NOW + 13 * MINUTE, 10 * MINUTE)
    assert await store.take_turn(HOUR_14 + HOUR, 10 * MINUTE)


async def test_what_was_told_is_told_once_through_restarts_and_resolved_when_it_is_over(pool):
    await forty_days(pool)
    said, clock = [], Clock(NOW)

    async def say(records) -> None:
        alerts = [msgspec.json.decode(record.value, type=Alert) for record in records]
        said.extend(alerts)
        await record_alerts(pool, [(alert, ["email"]) for alert in alerts])

    async def look() -> None:
        await WasteLoop(PostgresResources(pool), say, clock, WastePolicy()).look()

    await look()
    assert [(a.rule, a.status, a.threshold, a.observed, a.team_id) for a in said] == [
        ("recurring_job", "opened", "", "300", "search"),
        ("resource_unused", "opened", "30 days", "300", "search"),
    ]
    clock.at = NOW + HOUR
    await pool.execute("update ledger_sources set stream_time = stream_time + interval '1 hour'")
    await look()
    assert len(said) == 2
    await spend(pool, msgspec.structs.replace(CHAT, feature="old"), NOW - NOW % HOUR, 1, 5, offset=2)
    clock.at = NOW + 2 * HOUR
    await pool.execute("update ledger_sources set stream_time = stream_time + interval '2 hours'")
    await look()
    assert [(a.rule, a.status) for a in said[2:]] == [("resource_unused", "resolved")]
    assert await pool.fetchval("select count(*) from outbox") == 3
    assert {alert.rule for alert, _ in await PostgresResources(pool).told(RULES, NOW - DAY)} == {
        "recurring_job", "resource_unused",
    }  # fmt: skip


async def test_the_inventory_over_http_and_on_the_command_line(pool, database_url, tmp_path):
    await forty_days(pool)
    await spend(pool, CHAT, (TODAY - 1) * DAY, 90, 1)
    await PostgresResources(pool).refresh(TODAY - 60)
    async with client_of(load_settings(kafka_url=NO_BROKER), pool) as client:
        found = await got(client, "/v1/inventory?limit=1")
        assert (found["count"], len(found["resources"])) == (3, 1)
        assert found["resources"][0] == {
            "org_id": "", "team_id": "search", "project_id": "", "feature": "chat", "category": "llm",
            "provider": "openai", "model": "gpt-4o", "environment": "prod", "first_seen": "2026-10-12",
            "last_use": "2026-11-21T00:00:00Z", "unused_days": 0, "cost_30d": "390", "cost_7d": "160",
            "cost_7d_before": "70", "week_over_week": True,
        }  # fmt: skip
        unused = await got(client, "/v1/inventory?unused_days=30")
        assert [(row["category"], row["last_use"], row["unused_days"]) for row in unused["resources"]] == [
            ("vector", None, 40)
        ]
        assert (await got(client, "/v1/inventory?team=nobody"))["count"] == 0
        await got(client, "/v1/inventory?unused=30", status=422)
    out = Console(file=(tmp_path / "out").open("w+"), width=300)
    assert await show(load_settings(database_url=database_url), InventoryQuery(), out, as_json=False) == 0
    out.file.seek(0)
    lines = out.file.read().splitlines()
    assert lines[0].split()[:3] == ["team", "feature", "category"]
    assert lines[-1] == "3 of 3 resources, the dearest first; amounts are dollars"
    out = Console(file=(tmp_path / "json").open("w+"), width=300)
    await show(load_settings(database_url=database_url), InventoryQuery(limit=1), out, as_json=True)
    out.file.seek(0)
    assert json.loads(out.file.read())["count"] == 3


async def test_a_key_of_one_team_sees_its_own(pool):
    await spend(pool, CHAT, HOUR_14 - DAY, 1, 1)
    await spend(pool, msgspec.structs.replace(CHAT, team_id="risk"), HOUR_14 - DAY, 1, 1)
    await PostgresResources(pool).refresh(TODAY - 5)
    async with client_of(load_settings(kafka_url=NO_BROKER, api_open_reads=False), pool) as client:
        await got(client, "/v1/inventory", status=401)


async def test_a_database_that_refuses_says_so_in_one_way(pool):
    await pool.execute("drop table resource_days")
    with pytest.raises(StoreError, match="resource_days"):
        await PostgresResources(pool).refresh(TODAY)
