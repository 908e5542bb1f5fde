"""Answers and planned events by API: who may say what, what is refused and why, and what is read back."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from msgspec.structs import replace

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import HOUR, format_instant
from streams.settings import load_settings
from streams.sinks.api_keys import ApiKeys
from tests.integration.api_parts import HOUR_14, NO_BROKER, NOW, client_of
from tests.stores import MemoryDefinitions, record_alerts

KEY = "v1:spend_spike:team:search:2026-11-21T14:00:00Z"
NO = {"answer": "no", "reason": "the nightly export"}
LAUNCH = {"scope": "team:search", "from": "1h", "until": "6h", "amount_usd": 500, "reason": "the launch"}


@pytest.fixture(autouse=True)
async def alerts(pool: asyncpg.Pool) -> None:
    await record_alerts(pool, [(each, ()) for each in (spike(), spike("ads", 13), spike("ads", 12), budget())])


@pytest.fixture
def store() -> MemoryDefinitions:
    return MemoryDefinitions(NOW)


@pytest.fixture
async def api(pool: asyncpg.Pool, store: MemoryDefinitions) -> AsyncIterator[httpx.AsyncClient]:
    key = await ApiKeys(pool).create("on-call", ["read", "budgets:write"])
    async with client_of(load_settings(kafka_url=NO_BROKER), pool, key, definitions=store) as client:
        yield client


@pytest.fixture
async def team(pool: asyncpg.Pool, store: MemoryDefinitions) -> AsyncIterator[httpx.AsyncClient]:
    """A caller whose key is bound to the team search, from another machine."""
    key = await ApiKeys(pool).create("search-lead", ["read", "budgets:write"], "search")
    settings = load_settings(kafka_url=NO_BROKER, api_host="0.0.0.0")
    async with client_of(settings, pool, key, definitions=store) as client:
        yield client


def spike(team: str = "search", hour: int = 14) -> Alert:
    at = format_instant(HOUR_14 + (hour - 14) * HOUR)
    key = keys.alert_dedup_key("spend_spike", f"team:{team}", at)
    return Alert(
        alert_id=keys.alert_id(key, 1, "opened"), dedup_key=key, episode=1, status="opened", severity="critical",
        tier="page", rule="spend_spike", scope_type="team", scope_id=team, summary=f"Team {team} spends $60.00",
        occurred_at=at, stated_at=at, period_start=at, period_end=format_instant(HOUR_14 + (hour - 13) * HOUR),
        team_id=team, teaches=f"team:{team}",
    )  # fmt: skip


def budget() -> Alert:
    key = "v1:budget_threshold:budget:b:2026:100"
    return Alert(
        alert_id=keys.alert_id(key, 1, "opened"), dedup_key=key, episode=1, status="opened", severity="emergency",
        tier="page", rule="budget_threshold", scope_type="budget", scope_id="b", summary="b is used up",
        occurred_at=format_instant(NOW), stated_at=format_instant(NOW), team_id="search",
    )  # fmt: skip


def path(key: str) -> str:
    return f"/v1/alerts/{quote(key, safe='')}/feedback"


# -- answers --------------------------------------------------------------------------------------------------------


async def test_an_answer_is_taken_read_back_and_replaced_with_who_when_and_why(api, store):
    first = await api.post(path(KEY), json=NO)
    assert (first.status_code, first.json()["version"], first.json()["teaches"]) == (201, 1, "team:search")
    second = await api.post(path(KEY), json={"answer": "yes", "reason": "it was a loop after all"})
    assert (second.status_code, second.json()["version"]) == (200, 2)
    found = (await api.get(path(KEY))).json()["answers"]
    assert [(each["answer"], each["version"], each["by"], each["reason"]) for each in found] == [
        ("yes", 2, "on-call", "it was a loop after all"), ("no", 1, "on-call", "the nightly export"),
    ]  # fmt: skip
    assert found[0]["at"] == format_instant(NOW)
    listed = (await api.get("/v1/feedback")).json()["answers"]
    assert [(each["alert"], each["answer"]) for each in listed] == [(KEY, "yes")]
    assert (await api.get("/v1/feedback?answer=no")).json()["answers"] == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(KEY, id="its dedup key"),
        pytest.param("v1:spend_spike:team:sea", id="the only beginning of one"),
        pytest.param("3f1f9d6a", id="its id, as `sluice alerts list` shows it"),
    ],
)
async def test_how_an_alert_is_named(api, pool, name):
    if ":" not in name:
        name = await pool.fetchval("select left(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 8)", KEY)
    assert (await api.post(path(name), json=NO)).json()["alert"] == KEY


async def test_planned_says_how_much_and_until_when(api, store):
    body = {"answer": "planned", "amount_usd": "100", "until": "3h", "reason": "the backfill"}
    found = (await api.post(path(KEY), json=body)).json()
    assert (found["amount"], found["until"]) == ("100", format_instant(NOW + 3 * HOUR))
    (answer,) = (await store.current()).values()
    assert (answer.starts, answer.nanos, answer.known_from) == (HOUR_14, 100 * 10**9, NOW)


async def test_what_learns_nothing_is_recorded_all_the_same(api):
    found = await api.post(path(budget().dedup_key), json=NO)
    assert (found.status_code, found.json()["teaches"]) == (201, "")


@pytest.mark.parametrize(
    ("key", "body", "code", "says"),
    [
        pytest.param(KEY, NO | {"reason": " "}, 422, "say why", id="without a reason"),
        pytest.param(KEY, NO | {"answer": "maybe"}, 422, "'yes', 'no' or 'planned'", id="another word"),
        pytest.param(KEY, NO | {"amount_usd": 5}, 422, "goes with `planned`, not with `no`", id="an amount with no"),
        pytest.param(KEY, NO | {"until": "2h"}, 422, "goes with `planned`", id="an end with no"),
        pytest.param(KEY, NO | {"answer": "planned"}, 422, "is no amount of dollars", id="planned without an amount"),
        pytest.param(
            KEY, NO | {"answer": "planned", "amount_usd": 1, "until": "2020-01-01T00:00:00Z"}, 422, "is past",
            id="planned until the past",
        ),
        pytest.param(
            budget().dedup_key, NO | {"answer": "planned", "amount_usd": 1}, 422, "nothing that is planned quietens",
            id="planned money on a budget's alert",
        ),
        pytest.param("v1:nothing", NO, 404, "there is no alert 'v1:nothing'", id="an alert that never was"),
        pytest.param("v1:spend_spike:team:ads", NO, 409, "write more of it", id="the beginning of two"),
    ],
)  # fmt: skip
async def test_what_is_refused_and_why(api, store, key, body, code, says):
    answer = await api.post(path(key), json=body)
    assert (answer.status_code, says in answer.text) == (code, True), answer.text
    assert store.versions == []


async def test_a_team_answers_its_own_alerts_and_reads_its_own_answers(team, api):
    assert (await team.post(path(KEY), json=NO)).status_code == 201
    ads = spike("ads", 13).dedup_key
    refused = await team.post(path(ads), json=NO)
    assert (refused.status_code, "is not about team search alone" in refused.text) == (403, True)
    assert (await api.post(path(ads), json=NO)).status_code == 201
    assert (await team.get(path(ads))).status_code == 404
    assert [each["alert"] for each in (await team.get("/v1/feedback")).json()["answers"]] == [KEY]


async def test_reading_is_not_answering(pool, store):
    key = await ApiKeys(pool).create("dashboard", ["read"])
    async with client_of(load_settings(kafka_url=NO_BROKER), pool, key, definitions=store) as reader:
        assert (await reader.post(path(KEY), json=NO)).status_code == 403
        assert (await reader.post("/v1/planned", json=LAUNCH)).status_code == 403


async def test_a_word_on_the_organisations_spike_is_one_on_the_spikes_of_its_teams(api, pool, store):
    parts = [spike("a"), spike("b"), spike("c", 10)]
    told = [replace(each, ancestors=("org:acme",)) for each in parts]
    whole = replace(
        spike(),
        scope_type="org",
        scope_id="acme",
        team_id="",
        dedup_key="v1:spend_spike:org:acme:14",
        teaches="org:acme",
    )
    await record_alerts(pool, [(each, ()) for each in (*told, whole)])
    assert (await api.post(path(parts[1].dedup_key), json=NO | {"answer": "yes"})).json()["also"] == []
    found = (await api.post(path(whole.dedup_key), json=NO)).json()
    assert found["also"] == [parts[0].dedup_key], "b has a word of its own, c was hours before"
    assert {each.alert: each.answer for each in (await store.current()).values()} == {
        whole.dedup_key: "no", parts[0].dedup_key: "no", parts[1].dedup_key: "yes",
    }  # fmt: skip


# -- planned events -------------------------------------------------------------------------------------------------


async def test_an_event_is_declared_listed_and_withdrawn_before_it_begins(api, store):
    made = await api.post("/v1/planned", json=LAUNCH)
    assert made.status_code == 201, made.text
    found = made.json()
    assert (found["from"], found["until"]) == (format_instant(NOW + HOUR), format_instant(NOW + 7 * HOUR))
    assert (found["amount"], found["phase"], found["by"], found["reason"]) == ("500", "ahead", "on-call", "the launch")
    assert [each["id"] for each in (await api.get("/v1/planned")).json()["events"]] == [found["id"]]
    gone = await api.delete(f"/v1/planned/{found['id']}", params={"reason": "postponed"})
    assert (gone.status_code, (await api.get("/v1/planned")).json()["events"]) == (204, [])


async def test_an_event_that_runs_ends_now_and_what_it_cost_stays_planned(api, store):
    made = (await api.post("/v1/planned", json=LAUNCH | {"from": "now", "id": "launch"})).json()
    assert (made["id"], made["phase"]) == ("launch", "running")
    assert (await api.delete("/v1/planned/launch", params={"reason": "done"})).status_code == 204
    (event,) = (await api.get("/v1/planned", params={"over": True})).json()["events"]
    assert (event["phase"], event["until"], event["version"]) == ("over", format_instant(NOW), 2)
    again = await api.delete("/v1/planned/launch", params={"reason": "done"})
    assert (again.status_code, "nothing left to end" in again.text) == (422, True)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"scope": "search"}, "scope", id="a scope without its kind"),
        pytest.param({"scope": "budget:b"}, "scope", id="something that spend is not watched by"),
        pytest.param({"scope": "team_feature:search"}, "scope", id="a team's feature without the feature"),
        pytest.param({"from": "yesterday"}, "from", id="no time"),
        pytest.param({"from": "2026-10-01T00:00:00Z"}, "from", id="long ago"),
        pytest.param({"from": "2026-11-21T01:00:00Z", "until": "2h"}, "until", id="over before it is declared"),
        pytest.param({"until": "90d"}, "until", id="longer than two months"),
        pytest.param({"amount_usd": "0"}, "amount_usd", id="nothing more than usual"),
        pytest.param({"reason": ""}, "reason", id="no reason"),
        pytest.param({"id": "the launch!"}, "id", id="a name that cannot be typed"),
    ],
)
async def test_an_event_that_cannot_be_declared_names_its_field(api, store, changes, where):
    refused = await api.post("/v1/planned", json=LAUNCH | changes)
    assert (refused.status_code, [each["where"] for each in refused.json()["errors"]]) == (422, [where]), refused.text
    assert store.versions == []


async def test_a_name_that_is_taken_is_a_conflict(api):
    assert (await api.post("/v1/planned", json=LAUNCH | {"id": "launch"})).status_code == 201
    assert (await api.post("/v1/planned", json=LAUNCH | {"id": "launch"})).status_code == 412


@pytest.mark.parametrize(
    ("scope", "code"),
    [("team:search", 201), ("team_feature:search/chat", 201), ("team:ads", 403), ("org:acme", 403), ("model:o3", 403)],
)
async def test_a_team_plans_for_itself(team, scope, code):
    assert (await team.post("/v1/planned", json=LAUNCH | {"scope": scope})).status_code == code


async def test_a_team_sees_its_own_events(team, api):
    for scope in ("team:ads", "team_feature:search/chat"):
        await api.post("/v1/planned", json=LAUNCH | {"scope": scope})
    seen = (await team.get("/v1/planned")).json()["events"]
    assert [each["scope"] for each in seen] == ["team_feature:search/chat"]
