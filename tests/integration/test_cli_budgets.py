"""``sluice budgets``, ``runs``, ``grants`` and ``release`` on real Kafka and PostgreSQL, without the API."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from schemas import topics
from schemas.commands import RELEASE_KEY, JobAck, JobCommand
from schemas.instants import format_instant
from schemas.readers import COMMANDS
from streams.clock import WallClock
from streams.commands import budgets, limits, opening, runs
from streams.core.approvals import RunError
from streams.core.budget_file import BudgetFileError
from streams.core.defining import RequestError
from streams.ports import ConflictError, RetryableError
from streams.settings import load_settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.definition_rows import change_of
from streams.sinks.definitions import KafkaDefinitions
from streams.sinks.ledger import PostgresLedger
from streams.sinks.postgres import open_pool
from streams.topic_admin import ensure_topics
from tests.integration.api_parts import client_of
from tests.integration.reading import connection, records_of

FILE = """
budgets:
  - {id: search-daily, scope: {team: search}, amount_usd: "50", period: day, mode: enforce}
  - {id: org-monthly, scope: {org: acme}, amount_usd: "900", period: month}
limits:
  - {id: burst, scope: {team: search}, rpm: 600}
expensive_models: [gpt-5-pro]
"""


@pytest.fixture
async def settings(fresh_kafka, database_url, app_id, tmp_path):
    """A deployment of this test's own; what earlier tests of the module defined is withdrawn."""
    await ensure_topics(connection(fresh_kafka.bootstrap), 4, 1)
    found = load_settings(
        kafka_url=fresh_kafka.bootstrap, database_url=database_url, app_id=app_id, state_dir=tmp_path,
        approval_secret="s" * 32,
    )  # fmt: skip
    async with budgets.desk(found) as at:
        for key in await at.store.current():
            await at.store.withdraw(key, by="test", reason="a new test")
    return found


def paper(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width)


def text_of(out: Console) -> str:
    return out.file.getvalue()  # type: ignore[attr-defined]


async def said(work: Any, *arguments: Any, code: int = 0, **more: Any) -> Any:
    """What a command prints for machines."""
    out = paper()
    assert await work(*arguments, as_json=True, out=out, **more) == code
    return json.loads(text_of(out))


async def booked(settings) -> None:
    """What LEDGER does with the definitions' topic."""
    records = await records_of(settings.kafka_url, topics.BUDGETS, lambda record: True)
    pool = await open_pool(settings.database_url.get_secret_value())
    try:
        changes = [change for record in records if (change := change_of(record)) is not None]
        await PostgresLedger(pool).write_definitions(changes)
    finally:
        await pool.close()


async def define(settings, text: str = FILE, *, why: str = "the plan", **more: Any) -> Any:
    options = {"by": "anna", "against": None, "dry_run": False} | more
    return await said(budgets.define, settings, text, why, **options)


async def test_a_file_is_defined_once_and_changes_are_told(settings):
    first = await define(settings)
    assert {(one["key"], one["change"]) for one in first["definitions"]} == {
        ("budget|search-daily", "new"), ("budget|org-monthly", "new"), ("limit|burst", "new"),
        ("grant||gpt-5-pro", "new"),
    }  # fmt: skip
    assert {one["change"] for one in (await define(settings))["definitions"]} == {"same"}
    third = await define(settings, FILE.replace('"50"', '"60"'))
    (changed,) = [one for one in third["definitions"] if one["change"] == "changed"]
    assert changed["fields"] == {"amount_usd": ["50", "60"]}


async def test_a_dry_run_changes_nothing(settings):
    await define(settings, dry_run=True)
    assert (await said(budgets.show_list, settings, ""))["idle"] == []


async def test_a_change_against_another_version_is_refused(settings):
    one = 'budgets: [{id: solo, scope: {team: a}, amount_usd: "%d", period: day}]'
    version = (await define(settings, one % 1))["definitions"][0]["version"]
    with pytest.raises(ConflictError):
        await define(settings, one % 2, against=version + 1)
    assert (await define(settings, one % 2, against=version))["definitions"][0]["version"] == version + 1


@pytest.mark.parametrize(
    ("text", "why", "error"),
    [
        pytest.param("budgets: [{id: x, amount_usd: 0}]", "w", BudgetFileError, id="a wrong budget"),
        pytest.param(FILE, "", RequestError, id="no reason"),
        pytest.param("{", "w", BudgetFileError, id="no YAML"),
    ],
)
async def test_what_is_wrong_is_written_nowhere(settings, text, why, error):
    with pytest.raises(error):
        await define(settings, text, why=why)
    assert (await said(budgets.show_list, settings, ""))["idle"] == []


async def test_a_budget_is_overridden_withdrawn_and_remembered(settings):
    await define(settings)
    given = await said(budgets.override, settings, "search-daily", "20", False, "2h", "", "an incident", "bob")
    shown = await said(budgets.show_one, settings, "search-daily", as_yaml=False)
    assert [(one["id"], one["extra"], one["by"]) for one in shown["overrides"]] == [(given["id"], "20", "bob")]
    await said(budgets.withdraw, settings, f"override|{given['id']}", "calm again", "bob")
    await said(budgets.withdraw, settings, "budget|search-daily", "the team is no more", "anna")
    await said(budgets.withdraw, settings, "budget|search-daily", "again", "anna", code=1)
    await booked(settings)
    told = (await said(budgets.history, settings, "search-daily", 50))["versions"]
    assert [(one["withdrawn"], one["by"], one["reason"]) for one in told[:4]] == [
        (True, "anna", "the team is no more"), (True, "bob", "calm again"), (False, "bob", "an incident"),
        (False, "anna", "the plan"),
    ]  # fmt: skip


async def test_versions_go_on_after_a_withdrawal(settings):
    before = {one["key"]: one["version"] for one in (await define(settings))["definitions"]}
    await said(budgets.withdraw, settings, "budget|search-daily", "r", "anna")
    after = {one["key"]: one["version"] for one in (await define(settings))["definitions"] if one["change"] == "new"}
    assert after == {"budget|search-daily": before["budget|search-daily"] + 2}


async def test_what_is_shown_as_a_file_is_a_file(settings):
    await define(settings)
    out = paper()
    await budgets.show_one(settings, "search-daily", as_json=False, as_yaml=True, out=out)
    again = await define(settings, text_of(out))
    assert [(one["key"], one["change"]) for one in again["definitions"]] == [("budget|search-daily", "same")]


@pytest.mark.parametrize("width", [80, 120])
async def test_nothing_is_wider_than_the_terminal(settings, width):
    await define(settings)
    await said(budgets.override, settings, "search-daily", "20", False, "2h", "", "an incident", "bob")
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    await budgets.show_list(settings, "", as_json=False, out=out)
    await budgets.history(settings, "search-daily", 50, as_json=False, out=out)
    await limits.show_list(settings, as_json=False, out=out)
    await runs.show_grants(settings, as_json=False, out=out)
    assert "search-daily" in text_of(out)
    assert max(map(len, text_of(out).splitlines())) <= width


async def test_opening_balances_are_shown_first_and_written_when_told(settings, tmp_path: Path):
    await define(settings)
    file = tmp_path / "balances.csv"
    file.write_text("budget,period_start,amount_usd\norg-monthly,2026-11-01,12.5\n")
    asked = (settings, file, (), "", "before Sluice", "anna")
    assert (await said(opening.open_balance, *asked, yes=False))["written"] is False
    assert (await said(opening.open_balance, *asked, yes=True))["written"] is True
    again = await said(opening.open_balance, *asked, yes=True)
    assert (again["same"], again["balances"], again["written"]) == (1, [], False)


@pytest.mark.parametrize("header", ["budget,amount", "", "budget,period_start,amount_usd,colour"])
async def test_a_table_with_other_columns_is_refused(settings, tmp_path: Path, header):
    file = tmp_path / "balances.csv"
    file.write_text(header + "\n")
    with pytest.raises(RequestError):
        await opening.open_balance(settings, file, (), "", "w", "anna", yes=True, as_json=True, out=paper())


async def test_showback_of_a_budget_that_has_counted_nothing(settings):
    await define(settings)
    found = await said(budgets.showback, settings, "search-daily", "feature", "", "", 20)
    assert (found["spent"], found["rows"]) == ("0", [])
    with pytest.raises(RequestError, match="colour"):
        await budgets.showback(settings, "search-daily", "colour", "", "", 20, as_json=True, out=paper())


async def test_exit_codes_say_whether_a_run_may_start(settings):
    asked = {"hours": 1, "auto_shutdown": False, "stop_at": 150, "why": "", "by": "job"}
    little = await said(runs.announce, settings, "little", "search", "20", **asked)
    big = await said(runs.announce, settings, "big", "search", "250", code=runs.WAITS, **asked)
    assert (little["state"], big["state"]) == ("recorded", "announced")
    assert (await said(runs.decide, settings, "big", "approved", "worth it", "lead"))["decided_by"] == "lead"
    assert (await said(runs.show, settings, "big"))["state"] == "approved"
    await said(runs.decide, settings, "big", "refused", "on second thought", "lead")
    await said(runs.show, settings, "big", code=runs.MUST_NOT)
    with pytest.raises(RunError, match="new id"):
        await runs.decide(settings, "big", "approved", "no, yes", "lead", as_json=True, out=paper())


async def test_what_became_of_a_command_to_a_run_is_shown(settings):
    asked = {"hours": 1, "auto_shutdown": True, "stop_at": 150, "why": "", "by": "job"}
    await said(runs.announce, settings, "little", "search", "20", **asked)
    at = format_instant(WallClock().now())
    told = JobCommand(
        command_id="little-1", run_id="little", action="stop_job", revision=1, reason="over", issued_at=at,
        expires_at=at.replace("20", "21", 1),
    )  # fmt: skip
    done = JobAck(
        command_id="little-1", run_id="little", revision=1, executor="node-1", outcome="killed", applied_at=at,
        detail="it still ran 120 s after SIGTERM",
    )  # fmt: skip
    pool = await open_pool(settings.database_url.get_secret_value())
    for what, word in ((told, "nobody has answered"), (done, "node-1: killed")):
        await PostgresLedger(pool).write_jobs([what])
        out = paper()
        await runs.show(settings, "little", False, out)
        await runs.show_list(settings, "", "", False, out)
        assert word in text_of(out)
    await pool.close()
    assert "stop_job at" in text_of(out)
    assert "120 s after SIGTERM" in text_of(out)
    (listed,) = (await said(runs.show_list, settings, "", ""))["runs"]
    assert [answer["outcome"] for answer in listed["commands"][0]["answers"]] == ["killed"]


async def test_a_release_lies_under_its_key_and_its_end_above_it(settings):
    await said(runs.release, settings, "2h", "an incident", "anna")
    assert (await said(runs.show_release, settings))["live"] is True
    assert (await said(runs.stop_release, settings, "over", "anna"))["ended"] is True
    await said(runs.stop_release, settings, "over", "anna", code=1)
    found = await records_of(settings.kafka_url, topics.GATEWAY_COMMANDS, lambda record: True)
    assert {record.key.decode() for record in found} == {RELEASE_KEY}
    said_so_far = [COMMANDS.decode(record.value) for record in found]
    assert [one.action for one in said_so_far] == ["release", "allow"]
    assert said_so_far[0].revision < said_so_far[1].revision


async def test_a_broker_that_is_away_is_said_plainly(settings):
    away = settings.model_copy(update={"kafka_url": "127.0.0.1:9"})
    with pytest.raises(RetryableError, match="cannot be read"):
        await budgets.show_list(away, "", as_json=True, out=paper())


async def test_the_api_and_the_command_line_see_the_same(settings):
    pool = await open_pool(settings.database_url.get_secret_value())
    try:
        key = await ApiKeys(pool).create("finance", ["read", "budgets:write"])
        store = KafkaDefinitions(connection(settings.kafka_url), pool, WallClock().now, 4)
        entry = {"scope": {"team": "search"}, "amount_usd": "50", "period": "day"}
        async with client_of(settings, pool, key, definitions=store) as api:
            made = await api.put("/v1/budgets/by-api", json={"budget": entry, "reason": "from afar"})
            assert made.status_code == 201, made.text
            shown = await said(budgets.show_one, settings, "by-api", as_yaml=False)
            assert (shown["changed_by"], f'"{shown["version"]}"') == ("finance", made.headers["etag"])
            await said(budgets.withdraw, settings, "budget|by-api", "from near", "anna")
            late = await api.put(
                "/v1/budgets/by-api", json={"budget": entry, "reason": "r"}, headers={"If-Match": made.headers["etag"]}
            )
            assert late.status_code == 412
            await booked(settings)
            told = (await api.get("/v1/budgets/by-api/history")).json()["versions"]
            assert [(one["by"], one["reason"]) for one in told] == [("anna", "from near"), ("finance", "from afar")]
    finally:
        await pool.close()
