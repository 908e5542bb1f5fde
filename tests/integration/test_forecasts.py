"""Forecasts on a real PostgreSQL: stored, replaced by later words only, judged in the end, and read by the API."""

import pytest

from schemas.instants import DAY, HOUR, parse_instant
from streams.history_ports import ForecastRow, Outcome, StoredForecast, StoreError
from streams.ports import BudgetStatus
from streams.settings import Settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.forecasts import KEPT_US, PostgresForecasts
from streams.sinks.ledger import PostgresLedger
from tests.integration.api_parts import HOUR_14, NO_BROKER, NOW, client_of, write_cells

pytestmark = pytest.mark.integration
USD = 1_000_000_000
START = parse_instant("2026-11-01T00:00:00Z")


def row(method: str = "run_rate", at: int = START + 20 * DAY, **more) -> ForecastRow:
    given = {
        "budget_id": "search-monthly", "value": "", "period_start": START, "method": method, "at": at, "said_at": at,
        "until": START + 30 * DAY, "timezone": "Europe/Berlin", "spent_nanos": 80 * USD, "limit_nanos": 100 * USD,
        "projected_nanos": 120 * USD, "low_nanos": 80 * USD, "high_nanos": None, "exhausts_at": START + 25 * DAY,
        "is_best": method == "run_rate", "burn_nanos_per_hour": USD // 6, "known_us": 20 * DAY, "judged": 0,
        "error_permille": 0, "bias_permille": 0,
    }  # fmt: skip
    return ForecastRow(**given | more)


async def test_a_state_is_replaced_by_a_later_one_only(pool):
    store = PostgresForecasts(pool)
    await store.keep([StoredForecast("b", "k1", NOW, b"second")], [], [])
    await store.keep([StoredForecast("b", "k1", NOW - HOUR, b"first"), StoredForecast("b", "", NOW, b"all")], [], [])
    assert await store.load([("b", "k1"), ("b", ""), ("c", "")]) == {("b", "k1"): b"second", ("b", ""): b"all"}


async def test_what_is_said_at_one_point_is_one_row(pool):
    store = PostgresForecasts(pool)
    later = row(said_at=START + 20 * DAY + HOUR, projected_nanos=10**30)
    for rows in ([row()], [later], [row()], [row("plain")]):
        await store.keep([], rows, [])
    found = await pool.fetch("select method, projected_nanos from budget_forecasts order by method")
    assert [(each["method"], int(each["projected_nanos"])) for each in found] == [
        ("plain", 120 * USD),
        ("run_rate", 10**30),
    ]


async def test_what_was_said_long_ago_is_deleted(pool):
    store = PostgresForecasts(pool)
    await store.keep([], [row(), row(at=START - 500 * DAY)], [])
    assert await store.forget(START + KEPT_US - 100 * DAY) == 1
    assert await pool.fetchval("select count(*) from budget_forecasts") == 1


async def test_a_database_that_refuses_says_so_in_one_way(pool):
    store = PostgresForecasts(pool)
    await pool.execute("drop table forecast_states")
    with pytest.raises(StoreError, match="forecast_states"):
        await store.load([("b", "")])
    with pytest.raises(StoreError):
        await store.keep([StoredForecast("b", "", NOW, b"")], [row()], [])
    assert await pool.fetchval("select count(*) from budget_forecasts") == 0, "all of it or nothing"


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ((("team", "search"),), {HOUR_14: 6}),
        ((("team", "search"), ("team", "nobody")), {HOUR_14: 6}),
        ((("team", "nobody"),), {}),
        ((("key", "k1"),), None),
        ((("tag:tier", "gold"),), None),
    ],
    ids=["a team", "one of two", "nobody", "a key is in no cell", "a tag is in no cell"],
)
async def test_the_hours_before_come_from_the_ledger(pool, match, found):
    await write_cells(pool)
    hours = await PostgresForecasts(pool).hourly_spend(match, HOUR_14, HOUR_14 + HOUR)
    if found:
        expected = await pool.fetchval(
            "select sum(cost_nanos) from ledger_cells where team_id = 'search' and hour = '2026-11-21T14:00:00Z'"
        )
        found = {HOUR_14: int(expected)}
    assert hours == found


async def test_the_api_says_what_will_be_and_how_wrong_it_was(pool, database_url):
    store = PostgresForecasts(pool)
    october = parse_instant("2026-10-01T00:00:00Z")
    await store.keep(
        [],
        [
            row(judged=4, error_permille=123, bias_permille=-45, high_nanos=135 * USD),
            row("plain", exhausts_at=None, projected_nanos=99 * USD),
            row(at=START + 19 * DAY),
            row(at=october + 20 * DAY, period_start=october, until=START),
        ],
        [Outcome("search-monthly", "", october, 150 * USD, False)],
    )
    async with client_of(Settings(kafka_url=NO_BROKER, database_url=database_url), pool) as client:
        answer = await client.get("/v1/budgets/search-monthly/forecast")
        assert (await client.get("/v1/budgets/nobody/forecast")).status_code == 404
        assert len((await client.get("/v1/budgets/search-monthly/forecast?limit=1")).json()["history"]) == 1
    found = answer.json()
    assert answer.status_code == 200
    assert (found["spent"], found["limit"], found["known_hours"]) == ("80", "100", 480)
    best, plain = found["estimates"]
    assert (best["method"], best["is_best"], best["projected"], best["projected_percent"]) == (
        "run_rate", True, "120", "120.0",
    )  # fmt: skip
    assert best["exhausts"] == "will pass 100 % on the 26th at about 01:00"
    assert best["past_error"] == {"statements": 4, "mean_percent": "12.3", "bias_percent": "-4.5"}
    assert (plain["exhausts"], plain["high"], plain["past_error"]["mean_percent"]) == (
        "will not pass 100 %",
        None,
        None,
    )
    assert [(each["said_at"][:10], each["actual"], each["error_percent"]) for each in found["history"]] == [
        ("2026-11-20", None, None),
        ("2026-10-21", "150", "-20.0"),
    ]


async def test_a_teams_key_sees_the_forecast_of_its_own_budgets_only(pool, database_url):
    await PostgresForecasts(pool).keep([], [row(), row(budget_id="other")], [])
    status = BudgetStatus(
        budget_id="search-monthly", scope_type="team", scope_id="search", period="month", period_start=START,
        period_end=START + 30 * DAY, amount_nanos=100, spent_nanos=1, crossed_percent=0, commanded="allow",
        mode="enforce", sequence=1, stated_at=NOW,
    )  # fmt: skip
    await PostgresLedger(pool).write_budget_status([status])
    keys = ApiKeys(pool)
    key = await keys.create("reader", ["read"], "search")
    settings = Settings(kafka_url=NO_BROKER, database_url=database_url, api_open_reads=False)
    async with client_of(settings, pool, key) as client:
        assert (await client.get("/v1/budgets/search-monthly/forecast")).status_code == 200
        assert (await client.get("/v1/budgets/other/forecast")).status_code == 404
