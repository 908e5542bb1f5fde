"""What the tests of the API share: the API in this process over a real ledger, and cells to read."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import httpx

from schemas import topics as contract
from schemas.instants import DAY, HOUR, parse_instant
from schemas.keys import cell_id
from schemas.statements import CellStatement, Dimensions, Source, SpenderRow, SpenderStatement, Totals
from streams.clock import Clock
from streams.ports import DefinitionStore, ReleaseSwitch
from streams.settings import Settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.ledger import PostgresLedger
from streams.sources.publisher import UsagePublishing
from streams.web.app import create_api

NOW = parse_instant("2026-11-21T14:35:10Z")
HOUR_14 = parse_instant("2026-11-21T14:00:00Z")
#: Nothing listens there: reads need no broker.
NO_BROKER = "127.0.0.1:9"


class StoppedClock:
    def now(self) -> int:
        return NOW

    def observe(self, event_time: int, source: str = "") -> None:
        raise AssertionError("the API never moves time")


def client_of(
    settings: Settings,
    pool: asyncpg.Pool,
    key: str = "",
    host: str = "127.0.0.1",
    *,
    definitions: DefinitionStore | None = None,
    releases: ReleaseSwitch | None = None,
    clock: Clock | None = None,
) -> httpx.AsyncClient:
    publisher = UsagePublishing({"bootstrap_servers": [settings.kafka_url]})
    api = create_api(
        settings, pool, publisher, ApiKeys(pool), clock or StoppedClock(), definitions=definitions, releases=releases
    )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers)


def cell(
    team: str, feature: str, model: str, hour: int, nanos: int, *, segment: int = 0, partition: int = 0, **totals: int
) -> CellStatement:
    dimensions = Dimensions("acme", "", team, "", feature, model, "openai", "prod", "interactive", "", "llm")
    return CellStatement(
        cell_id=cell_id(dimensions, hour),
        hour=hour,
        dimensions=dimensions,
        source=Source(contract.USAGE_EVENTS, 0, partition),
        segment=segment,
        revision=0,
        offset=segment + 10,
        totals=Totals(requests=1, successes=1, cost_nanos=nanos, **totals),
    )


def spent_by(cell: CellStatement, shares: Mapping[tuple[str, str], int], *, revision: int = 0) -> SpenderStatement:
    """Who spent a cell's money: nanodollars by key and user."""
    rows = [SpenderRow(key, user, cell.offset, nanos, 1) for (key, user), nanos in shares.items()]
    return SpenderStatement(
        cell_id=cell.cell_id, hour=cell.hour, source=cell.source, segment=cell.segment, revision=revision, block=0, rows=rows
    )  # fmt: skip


async def write_cells(pool: asyncpg.Pool) -> None:
    """Five rows: three slots and segments of one cell, one of another hour, one of yesterday's credit."""
    await PostgresLedger(pool).write_cells(
        [
            cell("search", "chat", "gpt-4o", HOUR_14, 1, input_tokens=100, output_tokens=7),
            cell("search", "chat", "gpt-4o", HOUR_14, 2_000_000_000, segment=5),
            cell("search", "chat", "gpt-4o", HOUR_14, 9_223_372_036_854_775_807, partition=1),
            cell("risk", "kyc", "gpt-4o", HOUR_14 - HOUR, 500_000_000, unpriced_requests=1),
            cell("risk", "=cmd()", "gpt-4o", HOUR_14 - DAY, -250_000_000),
        ],
        [],
    )


async def got(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    if status >= 400 and path != "/readyz":
        assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()
