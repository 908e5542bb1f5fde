"""Spend over a real ledger: exact sums, groups, filters and the CSV for chargeback."""

import csv
import io
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from streams.settings import load_settings
from streams.sinks.ledger import PostgresLedger
from tests.integration.api_parts import HOUR_14, NO_BROKER, cell, client_of, got, write_cells


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[httpx.AsyncClient]:
    """The API without a broker: reads need none."""
    async with client_of(load_settings(kafka_url=NO_BROKER), pool) as client:
        yield client


async def test_spend_adds_slots_and_segments_exactly_even_beyond_64_bits(
    api: httpx.AsyncClient, pool: asyncpg.Pool
) -> None:
    await write_cells(pool)
    found = await got(api, "/v1/spend?group_by=team")
    assert (found["from"], found["to"]) == ("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z")
    assert [(row["team"], row["cost"], row["currency"]) for row in found["rows"]] == [
        ("search", "9223372038.854775808", "USD"),
        ("risk", "0.5", "USD"),
    ]
    assert found["total"]["cost"] == "9223372039.354775808"
    assert found["total"]["requests"] == 4
    assert found["total"]["tokens"] == 107
    assert found["total"]["unpriced_requests"] == 1
    assert found["truncated"] is False


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("group_by=day&period=all", [{"day": "2026-11-20"}, {"day": "2026-11-21"}]),
        ("group_by=hour", [{"hour": "2026-11-21T13:00:00Z"}, {"hour": "2026-11-21T14:00:00Z"}]),
        ("group_by=team,feature&team=risk&period=7d", [{"team": "risk", "feature": "kyc"}, {"feature": "=cmd()"}]),
        ("group_by=model&period=hour", [{"model": "gpt-4o"}]),
        ("group_by=team&from=2026-11-20&to=2026-11-21", [{"team": "risk", "cost": "-0.25"}]),
        ("group_by=team&team=nobody", []),
        ("", [{"cost": "9223372039.354775808"}]),
    ],
    ids=["by day", "by hour in order of time", "two names and a filter", "this hour", "a credit", "nobody", "no group"],
)
async def test_spend_is_grouped_and_filtered_as_asked(
    api: httpx.AsyncClient, pool: asyncpg.Pool, query: str, rows: list[dict[str, str]]
) -> None:
    await write_cells(pool)
    found = await got(api, f"/v1/spend?{query}")
    if not query:
        assert found["rows"] == []
        assert found["total"]["cost"] == rows[0]["cost"]
        return
    assert len(found["rows"]) == len(rows)
    for row, expected in zip(found["rows"], rows, strict=True):
        assert expected.items() <= row.items()


async def test_a_limit_cuts_rows_but_not_the_total(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    await write_cells(pool)
    found = await got(api, "/v1/spend?group_by=team&limit=1")
    assert [row["team"] for row in found["rows"]] == ["search"]
    assert found["total"]["cost"] == "9223372039.354775808"
    assert found["truncated"] is True


async def test_the_csv_adds_up_to_the_spend_and_holds_no_formula(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    await write_cells(pool)
    answer = await api.get("/v1/spend.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(r["day"], r["team"], r["feature"], r["model"], r["cost"]) for r in rows] == [
        ("2026-11-20", "risk", "'=cmd()", "gpt-4o", "-0.25"),
        ("2026-11-21", "risk", "kyc", "gpt-4o", "0.5"),
        ("2026-11-21", "search", "chat", "gpt-4o", "9223372038.854775808"),
    ]
    assert rows[2]["input_tokens"] == "100"


async def test_a_csv_of_many_rows_comes_whole(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    cells = [cell("t", f"f{number}", "m", HOUR_14, number) for number in range(1_203)]
    await PostgresLedger(pool).write_cells(cells, [])
    rows = list(csv.DictReader(io.StringIO((await api.get("/v1/spend.csv?period=today")).text)))
    assert len({row["feature"] for row in rows}) == len(rows) == 1_203
