"""The API over a real ledger: lists, readiness, metrics, errors, and who may read. Spend: test_api_spend."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from schemas import topics as contract
from schemas.alerts import Alert
from schemas.commands import Target, ThrottleAck, ThrottleCommand
from schemas.instants import DAY, HOUR, SECOND, format_instant, parse_instant
from schemas.statements import Source, Watermark
from streams.embedded.broker import Broker
from streams.kafka_connection import connection
from streams.ports import BudgetStatus
from streams.settings import load_settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.ledger import PostgresLedger
from streams.sinks.postgres import migrate, open_pool
from streams.topic_admin import changelogs, ensure_topics
from tests.integration.api_parts import HOUR_14, NO_BROKER, NOW, client_of, got, write_cells
from tests.stores import record_alerts


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[httpx.AsyncClient]:
    """The API without a broker: reads need none."""
    async with client_of(load_settings(kafka_url=NO_BROKER), pool) as client:
        yield client


async def test_an_empty_ledger_is_zero_and_not_an_error(api: httpx.AsyncClient) -> None:
    found = await got(api, "/v1/spend?group_by=team,feature")
    assert (found["total"]["cost"], found["rows"]) == ("0", [])
    for path, name in (
        ("budgets", "budgets"),
        ("alerts", "alerts"),
        ("throttles", "throttles"),
        ("sources", "sources"),
    ):
        assert (await got(api, f"/v1/{path}"))[name] == []


async def test_budgets_show_the_newest_period_the_fullest_first(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    day = parse_instant("2026-11-21T00:00:00Z")

    def status(budget: str, start: int, amount: int, spent: int, team: str = "search") -> BudgetStatus:
        return BudgetStatus(
            budget_id=budget,
            scope_type="team",
            scope_id=team,
            period="day",
            period_start=start,
            period_end=start + DAY,
            amount_nanos=amount,
            spent_nanos=spent,
            crossed_percent=0,
            commanded="allow",
            mode="enforce",
            sequence=1,
            stated_at=NOW,
        )

    await PostgresLedger(pool).write_budget_status(
        [
            status("half", day, 10_000_000_000, 5_000_000_000),
            status("over", day, 3_000_000_000, 3_100_000_000),
            status("over", day - DAY, 3_000_000_000, 0),
            status("old", day - DAY, 1_000_000_000, 100_000_000, "risk"),
        ]
    )
    found = (await got(api, "/v1/budgets"))["budgets"]
    shown = [(b["budget_id"], b["spent"], b["remaining"], b["used_percent"], b["period_over"]) for b in found]
    assert shown == [
        ("over", "3.1", "-0.1", "103.33", False),
        ("half", "5", "5", "50.00", False),
        ("old", "0.1", "0.9", "10.00", True),
    ]


def alert(key: str, status: Any, rule: Any, team: str, minute: int) -> Alert:
    at = format_instant(HOUR_14 + minute * 60 * SECOND)
    return Alert(
        alert_id=f"{key}-{status}",
        dedup_key=key,
        episode=1,
        status=status,
        severity="critical",
        tier="page",
        rule=rule,
        scope_type="team",
        scope_id=team,
        summary=f"{key} <b>",
        occurred_at=at,
        stated_at=at,
        team_id=team,
        observed="12.5",
    )


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("", ["b", "a", "c"]),
        ("?status=open", ["b", "a"]),
        ("?status=resolved", ["c"]),
        ("?status=updated", ["b"]),
        ("?rule=spend_spike", ["a", "c"]),
        ("?team=risk", ["b"]),
        ("?limit=1", ["b"]),
    ],
)
async def test_alerts_are_listed_open_ones_first(
    api: httpx.AsyncClient, pool: asyncpg.Pool, query: str, keys: list[str]
) -> None:
    listed = [
        alert("a", "opened", "spend_spike", "search", 1),
        alert("b", "opened", "budget_threshold", "risk", 2),
        alert("b", "updated", "budget_threshold", "risk", 3),
        alert("c", "opened", "spend_spike", "search", 4),
        alert("c", "resolved", "spend_spike", "search", 5),
    ]
    await record_alerts(pool, [(one, []) for one in listed])
    found = await got(api, f"/v1/alerts{query}")
    assert [one["dedup_key"] for one in found["alerts"]] == keys
    assert found["truncated"] is (query == "?limit=1")
    for one in found["alerts"]:
        assert (one["observed"], one["summary"]) == ("12.5", f"{one['dedup_key']} <b>")
        assert (one["resolved_at"] is not None) is (one["status"] == "resolved")


def command(scope: str, action: Any, expires: int = NOW + HOUR, *, dry_run: bool = False) -> ThrottleCommand:
    issued = format_instant(NOW - HOUR)
    return ThrottleCommand(
        command_id=f"c-{scope}",
        budget_id="b",
        target=Target("team", scope),
        action=action,
        revision=1,
        reason="used up",
        issued_at=issued,
        effective_at=issued,
        expires_at=format_instant(expires),
        rpm_limit=60 if action == "rate_limit" else None,
        dry_run=dry_run,
    )


async def test_throttles_are_live_restrictions_with_their_acknowledgements(
    api: httpx.AsyncClient, pool: asyncpg.Pool
) -> None:
    ledger = PostgresLedger(pool)
    blocked = command("search", "block")
    await ledger.write_commands(
        [
            blocked,
            command("growth", "rate_limit"),
            command("freed", "allow"),
            command("expired", "block", NOW),
            command("observed", "block", dry_run=True),
        ]
    )
    ack = ThrottleAck(
        command_id=blocked.command_id,
        command_key=blocked.key(),
        revision=1,
        gateway="gw-1",
        applied_at="2026-11-21T14:00:00.250000Z",
        rejected_count=3,
    )
    await ledger.write_acks([ack])
    found = {one["scope_id"]: one for one in (await got(api, "/v1/throttles"))["throttles"]}
    assert set(found) == {"search", "growth"}
    assert found["growth"]["rpm_limit"] == 60
    assert found["growth"]["acks"] == []
    assert found["search"]["acks"] == [
        {"gateway": "gw-1", "applied_at": "2026-11-21T14:00:00.250000Z", "rejected_count": 3}
    ]


def watermark(partition: int, seconds_ago: int, dead: int) -> Watermark:
    return Watermark(
        source=Source(contract.USAGE_EVENTS, 2, partition),
        revision=0,
        next_offset=100 + partition,
        stream_time=NOW - seconds_ago * SECOND,
        dead_letters=dead,
        duplicates=2,
    )


async def test_sources_say_how_far_the_ledger_is(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    await PostgresLedger(pool).write_cells([], [watermark(0, 5, 1), watermark(11, 90, 3)])
    found = await got(api, "/v1/sources")
    assert (found["dead_letters"], found["duplicates"]) == (4, 4)
    shown = [(s["slot"], s["topic"], s["partition"], s["next_offset"], s["lag_seconds"]) for s in found["sources"]]
    assert shown == [
        ("usage.events.v1@2-0", "usage.events.v1", 0, 100, 5),
        ("usage.events.v1@2-11", "usage.events.v1", 11, 111, 90),
    ]


async def test_a_partition_without_events_has_no_lag(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    await PostgresLedger(pool).write_cells([], [msgspec.structs.replace(watermark(0, 0, 0), stream_time=0)])
    source = (await got(api, "/v1/sources"))["sources"][0]
    assert (source["stream_time"], source["lag_seconds"]) == (None, None)
    lines = (await api.get("/metrics")).text.splitlines()
    assert not [line for line in lines if line.startswith("sluice_source_lag_seconds{")]


async def test_with_the_stream_s_clock_today_is_the_day_of_the_newest_event(pool: asyncpg.Pool) -> None:
    await write_cells(pool)
    await PostgresLedger(pool).write_cells([], [watermark(0, 24 * 3600, 0)])
    async with client_of(load_settings(kafka_url=NO_BROKER, clock="stream"), pool) as client:
        found = await got(client, "/v1/spend")
    assert (found["from"], found["total"]["cost"]) == ("2026-11-20T00:00:00Z", "-0.25")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/spend?group_by=taem", 422, "did you mean team?"),
        ("/v1/spend?form=2026-11-01", 422, "form: there is no such parameter"),
        ("/v1/spend?from=yesterday", 422, "`from` is not a date or an instant"),
        ("/v1/spend?limit=0", 422, "limit: should be greater than or equal to 1"),
        ("/v1/spend.csv?from=2026-11-02&to=2026-11-01", 422, "`to` must be after `from`"),
        ("/v1/alerts?rule=unknown", 422, "rule: should be 'budget_threshold'"),
        ("/v1/nothing", 404, "Not Found"),
        ("/v1/events", 405, "Method Not Allowed"),
    ],
)
async def test_an_error_is_a_problem_document_that_says_what_is_wrong(
    api: httpx.AsyncClient, path: str, status: int, words: str
) -> None:
    found = await got(api, path, status)
    assert found["status"] == status
    assert words in found["detail"]


async def test_without_a_database_reads_are_503_and_readiness_says_so(database_url: str) -> None:
    await migrate(database_url)
    pool = await open_pool(database_url)
    await pool.close()
    async with client_of(load_settings(kafka_url=NO_BROKER), pool) as client:
        for path in ("/v1/spend", "/v1/spend.csv", "/v1/sources"):
            found = await got(client, path, 503)
            assert found["detail"] == "The ledger cannot be read now."
        missing = {one["part"]: one["problem"] for one in (await got(client, "/readyz", 503))["missing"]}
        metrics = (await client.get("/metrics")).text
    assert "PostgreSQL does not answer" in missing["ledger"]
    assert "no Kafka broker answers at 127.0.0.1:9" in missing["broker"]
    assert "sluice_ledger_up 0.0" in metrics


async def test_a_database_without_migrations_is_not_ready(database_url: str) -> None:
    pool = await open_pool(database_url)
    try:
        async with client_of(load_settings(kafka_url=NO_BROKER), pool) as client:
            assert (await client.get("/healthz")).status_code == 200
            missing = {one["part"]: one["problem"] for one in (await got(client, "/readyz", 503))["missing"]}
    finally:
        await pool.close()
    assert "migrations are missing: 0001_ledger" in missing["ledger"]


async def test_ready_once_broker_ledger_and_topics_are_there(pool: asyncpg.Pool, fresh_kafka: Broker) -> None:
    settings = load_settings(kafka_url=fresh_kafka.bootstrap, partitions=1)
    async with client_of(settings, pool) as client:
        if fresh_kafka.is_real_kafka:
            missing = (await got(client, "/readyz", 503))["missing"]
            assert [one["part"] for one in missing] == ["broker"]
            assert "sluice topics create" in missing[0]["problem"]
    await ensure_topics(connection(settings), 1, 1, extra=changelogs(settings.app_id))
    async with client_of(settings, pool) as client:
        assert await got(client, "/readyz") == {"ready": True, "missing": []}


async def test_metrics_speak_for_the_whole_service(api: httpx.AsyncClient, pool: asyncpg.Pool) -> None:
    await PostgresLedger(pool).write_cells([], [watermark(0, 5, 0)])
    await record_alerts(pool, [(alert("a", "opened", "spend_spike", "search", 1), ["pagerduty", "slack"])])
    await PostgresLedger(pool).write_commands([command("search", "block")])
    await got(api, "/v1/spend")
    text = (await api.get("/metrics")).text
    for line in (
        'sluice_source_lag_seconds{slot="usage.events.v1@2-0"} 5.0',
        'sluice_source_next_offset{slot="usage.events.v1@2-0"} 100.0',
        'sluice_alerts_open{rule="spend_spike",severity="critical"} 1.0',
        "sluice_throttles_active 1.0",
        "sluice_outbox_owed 2.0",
        'sluice_receiver_up{receiver="slack"} 1.0',
        "sluice_ledger_up 1.0",
    ):
        assert line in text.splitlines()
    assert 'sluice_api_requests_total{method="GET",route="/v1/spend",status="200"}' in text


async def test_a_key_of_a_team_reads_that_team_and_nothing_of_others(pool: asyncpg.Pool) -> None:
    await write_cells(pool)
    await record_alerts(
        pool,
        [(alert("a", "opened", "spend_spike", "search", 1), []), (alert("b", "opened", "spend_spike", "risk", 2), [])],
    )
    key = await ApiKeys(pool).create("risk", ["read"], "risk")
    settings = load_settings(kafka_url=NO_BROKER, api_host="0.0.0.0")
    async with client_of(settings, pool) as stranger:
        for path in (
            "/v1/spend",
            "/v1/spend.csv",
            "/v1/budgets",
            "/v1/alerts",
            "/v1/throttles",
            "/v1/sources",
            "/metrics",
        ):
            assert "slk_" in (await got(stranger, path, 401))["detail"]
        assert (await stranger.get("/healthz")).status_code == 200
        assert (await stranger.get("/")).status_code == 200
    async with client_of(settings, pool, key) as team:
        found = await got(team, "/v1/spend?group_by=team&period=all&team=search")
        assert [(row["team"], row["cost"]) for row in found["rows"]] == [("risk", "0.25")]
        assert [one["dedup_key"] for one in (await got(team, "/v1/alerts"))["alerts"]] == ["b"]
        lines = (await team.get("/v1/spend.csv?team=search")).text.splitlines()
        assert len(lines) == 3
        assert "search" not in "".join(lines[1:])
        await got(team, "/v1/sources", 403)
        await got(team, "/metrics", 403)


async def test_the_page_and_its_assets_are_served_with_a_strict_policy(api: httpx.AsyncClient) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/assets/dashboard.js", "text/javascript; charset=utf-8"),
        ("/assets/dashboard.css", "text/css; charset=utf-8"),
        ("/assets/sluice.svg", "image/svg+xml"),
    ):
        answer = await api.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await api.get("/assets/../app.py")).status_code == 404


async def test_writes_need_a_key_even_where_reads_need_none(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/events", content=b"{}", headers={"Content-Type": "application/cloudevents+json"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_description_of_the_api_names_every_endpoint(api: httpx.AsyncClient) -> None:
    found = await got(api, "/openapi.json")
    assert {
        "/healthz", "/readyz", "/metrics", "/v1/spend", "/v1/spend.csv", "/v1/budgets", "/v1/alerts", "/v1/throttles",
        "/v1/sources", "/v1/events", "/v1/webhooks/billing",
    } <= set(found["paths"])  # fmt: skip
    assert "unpriced_requests" in found["paths"]["/v1/spend.csv"]["get"]["description"]
