"""Budgets by API: defining, changing, overriding, showing back, and whose business it is. The ledger is real."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from schemas.instants import DAY, HOUR, format_instant, parse_instant
from streams.ports import BudgetStatus
from streams.settings import load_settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.ledger import PostgresLedger
from tests.integration.api_parts import HOUR_14, NO_BROKER, NOW, cell, client_of, spent_by
from tests.stores import MemoryDefinitions

TODAY = parse_instant("2026-11-21T00:00:00Z")
SEARCH = {"scope": {"team": "search"}, "amount_usd": "50", "period": "day"}
ORG = {"scope": {"org": "acme"}, "amount_usd": "900", "period": "month"}


@pytest.fixture
def store() -> MemoryDefinitions:
    return MemoryDefinitions(NOW)


@pytest.fixture
async def api(pool: asyncpg.Pool, store: MemoryDefinitions) -> AsyncIterator[httpx.AsyncClient]:
    """A caller that may define everything."""
    key = await ApiKeys(pool).create("finance", ["read", "budgets:write"])
    async with client_of(load_settings(kafka_url=NO_BROKER), pool, key, definitions=store) as client:
        yield client


@pytest.fixture
async def team(pool: asyncpg.Pool, store: MemoryDefinitions) -> AsyncIterator[httpx.AsyncClient]:
    """A caller whose key is bound to the team search, from another machine."""
    key = await ApiKeys(pool).create("search-lead", ["read", "budgets:write"], "search")
    settings = load_settings(kafka_url=NO_BROKER, api_host="0.0.0.0")
    async with client_of(settings, pool, key, definitions=store) as client:
        yield client


async def defined(api: httpx.AsyncClient, name: str = "search-daily", entry: dict[str, Any] = SEARCH) -> None:
    answer = await api.put(f"/v1/budgets/{name}", json={"budget": entry, "reason": "the year's plan"})
    assert answer.status_code == 201, answer.text


def status(
    budget: str, spent: int, *, start: int = TODAY, scope: str = "search", amount: int = 50, value: str = ""
) -> BudgetStatus:
    return BudgetStatus(
        budget_id=budget, scope_type="team", scope_id=scope, period="day", period_start=start, period_end=start + DAY,
        amount_nanos=amount * 10**9, spent_nanos=spent, crossed_percent=0, commanded="allow", mode="observe",
        sequence=1, stated_at=NOW, value=value,
    )  # fmt: skip


# -- defining -------------------------------------------------------------------------------------------------------


async def test_a_budget_is_read_back_in_the_words_in_which_it_was_written(api):
    await defined(api)
    found = (await api.get("/v1/budgets/search-daily")).json()
    assert found["budget"] == {"id": "search-daily", **SEARCH, "mode": "observe"}
    assert (found["version"], found["changed_by"], found["reason"]) == (1, "finance", "the year's plan")


async def test_what_is_read_can_be_changed_and_sent_back(api):
    await defined(api)
    read = await api.get("/v1/budgets/search-daily")
    changed = read.json()["budget"] | {"amount_usd": 75.5}
    body = {"budget": changed, "reason": "a launch"}
    written = await api.put("/v1/budgets/search-daily", json=body, headers={"If-Match": read.headers["etag"]})
    assert (written.status_code, written.headers["etag"]) == (200, '"2"')
    assert (await api.get("/v1/budgets/search-daily")).json()["budget"]["amount_usd"] == "75.5"


async def test_a_change_against_an_old_version_is_refused_and_says_which_one_stands(api, store):
    await defined(api)
    body = {"budget": SEARCH, "reason": "again"}
    assert (await api.put("/v1/budgets/search-daily", json=body, headers={"If-Match": '"1"'})).status_code == 200
    late = await api.put("/v1/budgets/search-daily", json=body, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["version"]) == (412, 2)
    assert "read it anew" in late.json()["detail"]
    assert store.version_of("budget|search-daily") == 2


@pytest.mark.parametrize(
    ("header", "code"),
    [
        pytest.param({}, 428, id="without If-Match: it has to be sent"),
        pytest.param({"If-Match": "*"}, 200, id="a star takes whatever stands"),
        pytest.param({"If-Match": "1"}, 400, id="a number without quotes is no ETag"),
        pytest.param({"If-Match": '"7"'}, 412, id="a version that never was"),
    ],
)
async def test_changing_what_stands(api, header, code):
    await defined(api)
    body = {"budget": SEARCH, "reason": "again"}
    assert (await api.put("/v1/budgets/search-daily", json=body, headers=header)).status_code == code


@pytest.mark.parametrize(
    ("entry", "where", "says"),
    [
        pytest.param(SEARCH | {"amount_usd": "0"}, "amount_usd", "more than 0", id="nothing"),
        pytest.param(SEARCH | {"amount_usd": -5}, "amount_usd", "more than 0", id="less than nothing"),
        pytest.param(SEARCH | {"amount_usd": "lots"}, "amount_usd", "not an amount", id="no amount"),
        pytest.param(SEARCH | {"period": "fortnight"}, "period", "'day'", id="no period"),
        pytest.param(SEARCH | {"timezone": "Moon/Sea"}, "timezone", "IANA", id="no time zone"),
        pytest.param(SEARCH | {"scope": {"planet": "x"}}, "scope.planet", "'team'", id="no attribute"),
        pytest.param(SEARCH | {"colour": "red"}, "colour", "spelling", id="an unknown member"),
        pytest.param(SEARCH | {"parent": "nobody"}, "parent", "no budget", id="a parent that is not there"),
        pytest.param(SEARCH | {"parent": "search-daily"}, "parent", "no budget", id="a parent that is itself"),
        pytest.param(SEARCH | {"id": "other"}, "id", "search-daily", id="another id than the address"),
    ],
)
async def test_a_wrong_budget_names_the_field_and_says_what_to_do(api, store, entry, where, says):
    answer = await api.put("/v1/budgets/search-daily", json={"budget": entry, "reason": "x"})
    assert answer.status_code == 422, answer.text
    found = {one["where"]: one["problem"] for one in answer.json()["errors"]}
    assert says in found[where]
    assert store.versions == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param('{"budget": {"x\\ud800": 1}, "reason": "r"}', 422, id="half a character"),
        pytest.param('{"budget": {"owner": "' + "a" * 70_000 + '"}, "reason": "r"}', 413, id="a novel"),
        pytest.param('{"budget": ' + "[" * 20_000 + "]" * 20_000 + ', "reason": "r"}', 400, id="a well"),
        pytest.param('{"budget": {"amount_usd": 1e999}, "reason": "r"}', 422, id="more than a number holds"),
        pytest.param('{"budget": {"match": {"team": {"a": {"b": 1}}}}, "reason": "r"}', 422, id="a tree for a value"),
        pytest.param('{"budget": "', 422, id="half a body"),
        pytest.param("", 422, id="no body"),
        pytest.param('{"budget": {}, "reason": "r", "extra": 1}', 422, id="a member that nobody knows"),
    ],
)
async def test_hostile_bodies_are_refused_and_nothing_is_written(api, store, content, code):
    headers = {"Content-Type": "application/json"}
    answer = await api.put("/v1/budgets/search-daily", content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json"), answer.text
    assert store.versions == []


async def test_every_wrong_field_is_named_at_once(api):
    entry = {"scope": {"team": "search"}, "amount_usd": "-1", "period": "never", "mode": "hope"}
    answer = await api.put("/v1/budgets/search-daily", json={"budget": entry, "reason": "x"})
    assert {one["where"] for one in answer.json()["errors"]} >= {"amount_usd", "period", "mode"}


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1_500])
async def test_nothing_changes_without_a_reason(api, store, reason):
    answer = await api.put("/v1/budgets/search-daily", json={"budget": SEARCH, "reason": reason})
    assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, "reason")
    assert store.versions == []


async def test_a_budget_that_is_withdrawn_keeps_its_history(api):
    await defined(api)
    gone = await api.delete("/v1/budgets/search-daily?reason=the team is no more", headers={"If-Match": '"1"'})
    assert gone.status_code == 204
    assert (await api.get("/v1/budgets/search-daily")).status_code == 404
    versions = (await api.get("/v1/budgets/search-daily/history")).json()["versions"]
    assert [(v["version"], v["withdrawn"], v["reason"], v["by"]) for v in versions] == [
        (2, True, "the team is no more", "finance"),
        (1, False, "the year's plan", "finance"),
    ]


async def test_a_history_is_of_one_budget_and_not_of_those_whose_names_begin_alike(api):
    await defined(api, "search")
    await defined(api, "search-daily")
    await api.post("/v1/budgets/search-daily/overrides", json={"extra_usd": 1, "until": "1h", "reason": "r"})
    versions = (await api.get("/v1/budgets/search/history")).json()["versions"]
    assert [v["key"] for v in versions] == ["budget|search"]


async def test_a_parent_may_be_another_budget_and_never_a_circle(api):
    await defined(api, "org", ORG)
    await defined(api, "search-daily", SEARCH | {"parent": "org"})
    around = {"budget": ORG | {"parent": "search-daily"}, "reason": "x"}
    answer = await api.put("/v1/budgets/org", json=around, headers={"If-Match": "*"})
    assert "circle" in answer.json()["errors"][0]["problem"]


# -- overrides and opening balances ---------------------------------------------------------------------------------


async def test_an_override_is_shown_until_it_ends_and_who_gave_it(api):
    await defined(api)
    body = {"extra_usd": "20", "until": "2h", "reason": "the launch went well"}
    given = (await api.post("/v1/budgets/search-daily/overrides", json=body)).json()
    assert (given["extra"], given["until"], given["by"]) == ("20", format_instant(NOW + 2 * HOUR), "finance")
    (shown,) = (await api.get("/v1/budgets/search-daily")).json()["overrides"]
    assert shown == given
    ended = await api.delete(f"/v1/budgets/search-daily/overrides/{given['id']}?reason=enough")
    assert ended.status_code == 204
    assert (await api.get("/v1/budgets/search-daily")).json()["overrides"] == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        pytest.param({"extra_usd": "0", "until": "2h", "reason": "r"}, "extra_usd", id="no more money"),
        pytest.param({"extra_usd": "-1", "until": "2h", "reason": "r"}, "extra_usd", id="less money"),
        pytest.param({"until": "2h", "reason": "r"}, "extra_usd", id="neither money nor lifting"),
        pytest.param({"extra_usd": "1", "until": "yesterday", "reason": "r"}, "until", id="no time"),
        pytest.param({"extra_usd": "1", "until": "2026-11-20T00:00:00Z", "reason": "r"}, "until", id="a past time"),
        pytest.param({"extra_usd": "1", "until": "9000d", "reason": "r"}, "until", id="for ever"),
        pytest.param({"extra_usd": "1", "until": "2h"}, "reason", id="no reason"),
        pytest.param({"lifts": True, "until": "2h", "reason": "r", "value": "k1"}, "value", id="of a budget for all"),
    ],
)
async def test_a_wrong_override_names_the_field(api, body, where):
    await defined(api)
    answer = await api.post("/v1/budgets/search-daily/overrides", json=body)
    assert (answer.status_code, [one["where"] for one in answer.json()["errors"]]) == (422, [where])


async def test_an_override_of_another_budget_is_not_ended_here(api):
    await defined(api)
    await defined(api, "org", ORG)
    body = {"lifts": True, "until": "2h", "reason": "r"}
    given = (await api.post("/v1/budgets/org/overrides", json=body)).json()
    answer = await api.delete(f"/v1/budgets/search-daily/overrides/{given['id']}?reason=x")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("body", "where"),
    [
        pytest.param({"period_start": "2026-11-21T05:00:00Z", "amount_usd": 1}, "period_start", id="within a period"),
        pytest.param({"period_start": "2026-11-21", "amount_usd": 1}, "period_start", id="no instant"),
        pytest.param({"period_start": "2026-11-21T00:00:00Z", "amount_usd": -1}, "amount_usd", id="negative"),
    ],
)
async def test_a_wrong_opening_balance_names_the_field(api, body, where):
    await defined(api)
    answer = await api.post("/v1/budgets/search-daily/opening-balance", json=body | {"reason": "moved"})
    assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, where)


# -- who spent it ---------------------------------------------------------------------------------------------------


async def test_showback_adds_up_to_what_the_budget_has_spent(api, pool):
    await defined(api)
    body = {"period_start": "2026-11-21T00:00:00Z", "amount_usd": "10", "reason": "before Sluice"}
    assert (await api.post("/v1/budgets/search-daily/opening-balance", json=body)).status_code == 200
    ledger = PostgresLedger(pool)
    await ledger.write_cells(
        [
            cell("search", "chat", "gpt-4o", HOUR_14, 2_000_000_000),
            cell("search", "answers", "gpt-4o", HOUR_14 - HOUR, 3_000_000_000),
            cell("search", "chat", "gpt-4o-mini", HOUR_14 - DAY, 9_000_000_000),
            cell("risk", "chat", "gpt-4o", HOUR_14, 7_000_000_000),
        ],
        [],
    )
    await ledger.write_budget_status([status("search-daily", 15_500_000_000)])
    for by, names in (
        ("feature", {"answers": "3", "chat": "2"}),
        ("model", {"gpt-4o": "5"}),
        ("team", {"search": "5"}),
        ("hour", {"2026-11-21T13:00:00Z": "3", "2026-11-21T14:00:00Z": "2"}),
    ):
        found = (await api.get(f"/v1/budgets/search-daily/showback?by={by}")).json()
        rows = {row["name"]: row["cost"] for row in found["rows"]}
        assert rows == names | {"opening balance": "10", "not known": "0.5"}
        assert (found["spent"], found["exact"]) == ("15.5", True)


async def test_showback_by_what_no_cell_knows_says_so_and_still_adds_up(api, pool):
    await defined(api)
    await PostgresLedger(pool).write_budget_status([status("search-daily", 15_500_000_000)])
    found = (await api.get("/v1/budgets/search-daily/showback?by=session")).json()
    assert (found["exact"], [row["cost"] for row in found["rows"]]) == (False, ["15.5"])
    assert "per: session" in found["note"]


async def shown(api, budget, by, **query):
    answer = await api.get(f"/v1/budgets/{budget}/showback", params={"by": by, **query})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return {row["name"]: row["cost"] for row in found["rows"]}, found["exact"]


async def test_every_budget_tells_its_keys_and_users_and_they_add_up(api, pool):
    await defined(api)
    await defined(api, "one-key", {"scope": {"key": "k1"}, "amount_usd": "9", "period": "day"})
    chat, answers = (
        cell("search", "chat", "gpt-4o", HOUR_14, 6 * 10**9),
        cell("search", "answers", "gpt-4o", HOUR_14 - HOUR, 3 * 10**9),
    )
    other = cell("risk", "chat", "gpt-4o", HOUR_14, 7 * 10**9)
    later = cell("search", "chat", "gpt-4o", HOUR_14, 1 * 10**9, segment=5)
    shares = [
        spent_by(chat, {("k1", "ann"): 1 * 10**9, ("k1", "bob"): 2 * 10**9, ("k2", "ann"): 3 * 10**9}),
        spent_by(answers, {("k1", "ann"): 2 * 10**9, ("", ""): 1 * 10**9}),
        spent_by(other, {("k1", "eve"): 7 * 10**9}),
        spent_by(later, {("k3", "ann"): 1 * 10**9}),
    ]
    await PostgresLedger(pool).write_cells([chat, answers, other, later], [])
    await PostgresLedger(pool).write_spenders(shares)
    assert await shown(api, "search-daily", "key") == ({"k1": "5", "k2": "3", "k3": "1", "": "1"}, True)
    assert await shown(api, "search-daily", "user") == ({"ann": "7", "bob": "2", "": "1"}, True)
    assert await shown(api, "one-key", "team") == ({"risk": "7", "search": "5"}, True)
    assert await shown(api, "one-key", "user") == ({"eve": "7", "ann": "3", "bob": "2"}, True)
    assert await shown(api, "one-key", "hour") == ({"2026-11-21T13:00:00Z": "2", "2026-11-21T14:00:00Z": "10"}, True)
    await defined(api, "users", {"per": "user", "match": {"team": "search"}, "amount_usd": "9", "period": "day"})
    assert await shown(api, "users", "key") == ({"k1": "5", "k2": "3", "k3": "1"}, True)
    assert await shown(api, "users", "feature", value="bob") == ({"chat": "2"}, True)


async def test_what_found_no_room_among_keys_and_users_is_a_row_of_its_own(api, pool):
    await defined(api)
    told, untold = (
        cell("search", "chat", "gpt-4o", HOUR_14, 9 * 10**9),
        cell("search", "old", "gpt-4o", HOUR_14, 2 * 10**9),
    )
    # Of an earlier revision of the cell: what it says is no part of what the cell says now.
    shares = [spent_by(told, {("k1", "ann"): 4 * 10**9, ("k1", "__other__"): 3 * 10**9})]
    shares += [spent_by(untold, {("k9", "zoe"): 2 * 10**9}, revision=-1)]
    gpu = cell("search", "train", "L40S", HOUR_14, 5 * 10**9)
    gpu = msgspec.structs.replace(gpu, dimensions=msgspec.structs.replace(gpu.dimensions, category="gpu"))
    await PostgresLedger(pool).write_cells([told, untold, gpu], [])
    await PostgresLedger(pool).write_spenders(shares)
    assert await shown(api, "search-daily", "key") == ({"k1": "7", "": "5", "__other__": "4"}, False)
    assert await shown(api, "search-daily", "user") == ({"__other__": "7", "": "5", "ann": "4"}, False)


async def test_a_row_that_is_not_newer_changes_nothing(api, pool):
    await defined(api)
    one, ledger = cell("search", "chat", "gpt-4o", HOUR_14, 2 * 10**9), PostgresLedger(pool)
    newest = spent_by(one, {("k1", "a\x00b"): 2 * 10**9})
    older = spent_by(one, {("k1", "a\x00b"): 1 * 10**9})
    older.rows[0].offset -= 1
    for said in ([newest], [older], [older, newest, older]):
        await ledger.write_cells([one], [])
        await ledger.write_spenders(said)
        assert await shown(api, "search-daily", "key") == ({"k1": "2"}, True)


async def test_a_budget_per_key_beside_it_makes_showback_by_key_exact(api, pool):
    await defined(api)
    await defined(api, "keys", {"per": "key", "match": {"team": "search"}, "amount_usd": "9", "period": "day"})
    rows = [status("search-daily", 15_500_000_000)]
    rows += [status("keys", nanos, value=key) for key, nanos in (("k1", 4 * 10**9), ("k2", 11 * 10**9))]
    await PostgresLedger(pool).write_budget_status(rows)
    found = (await api.get("/v1/budgets/search-daily/showback?by=key")).json()
    assert found["exact"] is True
    assert [(row["name"], row["cost"]) for row in found["rows"]] == [("k2", "11"), ("k1", "4"), ("not known", "0.5")]


async def test_a_budget_per_key_tells_its_keys_and_their_opening_balances_once(api, pool):
    await defined(api, "keys", {"per": "key", "match": {"team": "search"}, "amount_usd": "9", "period": "day"})
    body = {"period_start": "2026-11-21T00:00:00Z", "amount_usd": "3", "value": "k1", "reason": "before"}
    assert (await api.post("/v1/budgets/keys/opening-balance", json=body)).status_code == 200
    # What a budget states has the opening balance in it.
    rows = [status("keys", nanos, value=key) for key, nanos in (("k1", 5 * 10**9), ("k2", 1 * 10**9))]
    await PostgresLedger(pool).write_budget_status(rows)
    found = (await api.get("/v1/budgets/keys/showback?by=key")).json()
    assert (found["spent"], {row["name"]: row["cost"] for row in found["rows"]}) == ("6", {"k1": "5", "k2": "1"})
    one = (await api.get("/v1/budgets/keys/showback?by=key&value=k1")).json()
    assert (one["spent"], {row["name"]: row["cost"] for row in one["rows"]}) == ("5", {"k1": "5"})


async def test_a_rolling_budget_shows_back_the_hours_that_it_looks_back_over(api, pool):
    await defined(api, "rolls", {"scope": {"team": "search"}, "amount_usd": "9", "rolling": "2h"})
    cells = [cell("search", f"f{back}", "gpt-4o", HOUR_14 - back * HOUR, 10**9) for back in range(5)]
    ledger = PostgresLedger(pool)
    await ledger.write_cells(cells, [])
    await ledger.write_budget_status([status("rolls", 3 * 10**9, start=0)])
    found = (await api.get("/v1/budgets/rolls/showback")).json()
    assert {row["name"]: row["cost"] for row in found["rows"]} == {"f0": "1", "f1": "1", "f2": "1"}
    assert (found["spent"], found["exact"]) == ("3", True)


async def test_calls_of_exempt_models_are_nobodys_share(api, pool):
    await defined(api, entry=SEARCH | {"exempt_models": ["llama-*"]})
    cells = [
        cell("search", "chat", "gpt-4o", HOUR_14, 2_000_000_000),
        cell("search", "chat", "llama-3", HOUR_14, 5_000_000_000),
        cell("search", "chat", "llamaX3", HOUR_14, 1_000_000_000),
    ]
    await PostgresLedger(pool).write_cells(cells, [])
    found = (await api.get("/v1/budgets/search-daily/showback?by=model")).json()
    assert {row["name"]: row["cost"] for row in found["rows"]} == {"gpt-4o": "2", "llamaX3": "1"}


async def test_a_period_that_cuts_an_hour_in_two_is_said_not_to_be_exact(api):
    await defined(api, entry=SEARCH | {"timezone": "Asia/Kolkata"})
    found = (await api.get("/v1/budgets/search-daily/showback")).json()
    assert found["exact"] is False
    assert "two periods" in found["note"]


async def test_an_unknown_way_of_telling_is_refused_with_those_that_there_are(api):
    await defined(api)
    answer = await api.get("/v1/budgets/search-daily/showback?by=colour")
    assert answer.status_code == 422
    assert "feature" in answer.text


# -- where they stand -----------------------------------------------------------------------------------------------


async def test_the_list_says_which_budgets_have_counted_nothing_yet_and_who_overrides(api, pool):
    await defined(api)
    await defined(api, "org", ORG)
    await PostgresLedger(pool).write_budget_status([status("search-daily", 5 * 10**9)])
    await api.post("/v1/budgets/search-daily/overrides", json={"lifts": True, "until": "2h", "reason": "an incident"})
    found = (await api.get("/v1/budgets")).json()
    assert (found["defined"], found["idle"]) == (2, ["org"])
    (row,) = found["budgets"]
    assert [(one["by"], one["lifts"], one["reason"]) for one in row["overrides"]] == [("finance", True, "an incident")]


async def test_the_list_is_answered_while_the_broker_is_away(api, pool, store):
    await PostgresLedger(pool).write_budget_status([status("search-daily", 5 * 10**9)])
    store.away = True
    found = (await api.get("/v1/budgets")).json()
    assert (found["defined"], len(found["budgets"])) == (None, 1)
    assert (await api.get("/v1/budgets/search-daily")).status_code == 503


# -- whose business it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        pytest.param(SEARCH, 201, id="its own"),
        pytest.param(SEARCH | {"match": {"feature": "chat"}}, 201, id="a part of its own"),
        pytest.param({"per": "session", "match": {"team": "search"}, "amount_usd": 1, "period": "day"}, 201, id="its sessions"),
        pytest.param({"per": "user", "match": {"team": "search"}, "amount_usd": 1, "period": "day"}, 403, id="its users, who may work for others"),
        pytest.param(SEARCH | {"scope": {"team": "risk"}}, 403, id="another team's"),
        pytest.param(ORG, 403, id="everybody's"),
        pytest.param({"scope": {"feature": "chat"}, "match": {"team": "search"}, "amount_usd": 1, "period": "day"}, 403, id="a feature that others have too"),
        pytest.param({"scope": {"team": "search"}, "match": {"team": ["search", "risk"]}, "amount_usd": 1, "period": "day"}, 403, id="one shared with others"),
        pytest.param({"per": "session", "match": {"feature": "chat"}, "amount_usd": 1, "period": "day"}, 403, id="everybody's sessions"),
    ],
)  # fmt: skip
async def test_a_teams_key_defines_its_own_budgets_and_no_others(team, entry, code):
    answer = await team.put("/v1/budgets/one", json={"budget": entry, "reason": "r"})
    assert answer.status_code in (code, 422 if code == 403 else code), answer.text
    if answer.status_code == 422:
        assert "scope" in answer.text or "match" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/budgets/org", {"budget": SEARCH, "reason": "r"}),
        ("DELETE", "/v1/budgets/org?reason=r", None),
        ("POST", "/v1/budgets/org/overrides", {"lifts": True, "until": "1h", "reason": "r"}),
        ("POST", "/v1/budgets/org/opening-balance", {"period_start": "2026-11-01T00:00:00Z", "amount_usd": 1, "reason": "r"}),
        ("GET", "/v1/budgets/org", None),
        ("GET", "/v1/budgets/org/showback", None),
        ("GET", "/v1/budgets/org/history", None),
        ("PUT", "/v1/limits/one", {"limit": {"scope": {"org": "acme"}, "rpm": 5}, "reason": "r"}),
        ("POST", "/v1/grants", {"team": "search", "model": "gpt-5-pro", "reason": "r"}),
        ("DELETE", "/v1/grants/search/gpt-5-pro?reason=r", None),
        ("POST", "/v1/release", {"until": "1h", "reason": "r"}),
        ("DELETE", "/v1/release?reason=r", None),
    ],
)  # fmt: skip
async def test_a_teams_key_may_not_touch_or_see_what_is_not_its_own(api, team, method, path, body):
    await defined(api, "org", ORG)
    headers = {"If-Match": "*"} if method in ("PUT", "DELETE") and "org" in path else {}
    answer = await team.request(method, path, json=body, headers=headers)
    assert answer.status_code == 403, answer.text


async def test_a_teams_key_sees_its_own_budgets_alone(api, team):
    await defined(api, "org", ORG)
    await defined(api)
    found = (await team.get("/v1/budgets")).json()
    assert (found["defined"], found["idle"]) == (1, ["search-daily"])
    assert (await team.get("/v1/budgets/search-daily")).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "code"), [(["read"], 403), (["ingest", "gateway", "admin"], 403), (["approve"], 403), ([], 401)]
)
async def test_a_change_always_needs_a_key_of_the_scope_on_loopback_too(pool, store, scopes, code):
    key = await ApiKeys(pool).create("k", scopes) if scopes else ""
    async with client_of(load_settings(kafka_url=NO_BROKER), pool, key, definitions=store) as client:
        for method, path, body in (
            ("PUT", "/v1/budgets/one", {"budget": SEARCH, "reason": "r"}),
            ("PUT", "/v1/limits/one", {"limit": {}, "reason": "r"}),
            ("POST", "/v1/grants", {"team": "a", "model": "b", "reason": "r"}),
            ("POST", "/v1/release", {"until": "1h", "reason": "r"}),
        ):
            answer = await client.request(method, path, json=body)
            assert answer.status_code == code, (path, answer.text)
    assert store.versions == []
