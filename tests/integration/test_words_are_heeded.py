"""From what people say by API and PagerDuty to what NOTIFY then says to whom: the whole way, on a real PostgreSQL."""

import httpx
import pytest
from pydantic import SecretStr

from streams.clock import WallClock
from streams.settings import Settings
from streams.sinks.api_keys import ApiKeys
from streams.sources.publisher import UsagePublishing
from streams.web.app import create_api
from tests.integration.api_parts import NO_BROKER, got
from tests.integration.notify_parts import People, alert
from tests.integration.test_pagerduty_hook import SECRET, post, webhook

SETTINGS = Settings(kafka_url=NO_BROKER, pagerduty_webhook_secret=SecretStr(SECRET))
ONE = alert("a", team_id="search")


@pytest.fixture
async def client(pool):
    """By the clock on the wall, as NOTIFY is."""
    key = await ApiKeys(pool).create("anna", ["alerts:write", "read"])
    api = create_api(SETTINGS, pool, UsagePublishing({"bootstrap_servers": [NO_BROKER]}), ApiKeys(pool))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://127.0.0.1", headers=headers
    ) as opened:
        yield opened


async def heard(people: People) -> set[tuple[str, str, str]]:
    """What is said without that any timer runs out."""
    await people.flush()
    return {(said.receiver, said.action, said.reason) for said in await people.take()}


async def silence(client, **said) -> str:
    body = {"matchers": ["team=search"], "ends": "2h", "reason": "a load test"} | said
    answer = await client.post("/v1/silences", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_an_acknowledgement_reaches_the_other_receivers_at_once(client, pool):
    people = await People(pool).hear(ONE)
    await heard(people)
    await client.put(f"/v1/alerts/{ONE.dedup_key}/acknowledgement", json={"by": "Anna"})
    assert await heard(people) == {
        ("pagerduty", "acknowledge", "acknowledged"),
        ("slack", "acknowledge", "acknowledged"),
    }
    assert await heard(people) == set()


async def test_what_pagerduty_says_reaches_slack_and_does_not_go_back(client, pool):
    people = await People(pool).hear(ONE)
    await heard(people)
    (sent,) = [said for said in people.heard if said.receiver == "pagerduty"]
    await post(client, webhook("acknowledged", key=sent.thread_key, at=WallClock().now()))
    assert await heard(people) == {("slack", "acknowledge", "acknowledged")}
    found = (await got(client, f"/v1/alerts/{ONE.dedup_key}"))["alert"]
    assert (found["stage"], found["acknowledged"]["by"]) == ("acknowledged", "Anna Tenex")


async def test_a_silenced_alert_is_told_to_nobody_until_its_silence_is_ended(client, pool):
    name = await silence(client)
    people = await People(pool).hear(ONE)
    assert await heard(people) == set()
    assert (await got(client, f"/v1/alerts/{ONE.dedup_key}"))["alert"]["stage"] == "silenced"
    assert (await client.delete(f"/v1/silences/{name}")).status_code == 200
    assert await heard(people) == {("pagerduty", "trigger", "opened"), ("slack", "trigger", "opened")}


async def test_an_alert_that_ends_within_a_silence_is_told_to_whom_it_was_told(client, pool):
    people = await People(pool).hear(ONE)
    await heard(people)
    await silence(client)
    await heard(people)
    await people.hear(alert("a", "resolved", second=9, team_id="search"))
    await heard(people)
    assert {(said.receiver, said.action) for said in people.heard if said.action == "resolve"} == {
        ("pagerduty", "resolve"), ("slack", "resolve"),
    }  # fmt: skip


async def test_what_was_sent_is_in_the_story_with_its_receipt(client, pool):
    people = await People(pool).hear(ONE)
    await heard(people)
    found = await got(client, f"/v1/alerts/{ONE.dedup_key}")
    assert {(sent["receiver"], sent["state"], sent["receipt"][:7]) for sent in found["deliveries"]} == {
        ("pagerduty", "sent", "receipt"), ("slack", "sent", "receipt"),
    }  # fmt: skip
    assert all(sent["sent_at"] for sent in found["deliveries"])


async def test_the_story_has_each_statement_that_was_recorded_once(client, pool):
    said = [
        ONE,
        alert("a", "updated", second=5, severity="critical", team_id="search"),
        alert("a", "resolved", second=9),
    ]
    for _ in range(2):
        await People(pool).hear(*said, source="alerts.v1@0-0", begin=7)
    again = alert("a", episode=2, second=20, team_id="search")
    await People(pool).hear(again)
    found = (await got(client, f"/v1/alerts/{ONE.dedup_key}"))["episodes"]
    assert [[(one["status"], one["severity"]) for one in each["statements"]] for each in found] == [
        [("opened", "emergency")],
        [("resolved", "emergency"), ("updated", "critical"), ("opened", "emergency")],
    ]


async def test_words_on_an_alert_that_nobody_was_told_of_are_kept_all_the_same(client, pool):
    await People(pool).hear(alert("a", tier="note", team_id="search"))
    answer = await client.put(f"/v1/alerts/{ONE.dedup_key}/acknowledgement", json={})
    assert answer.json()["stage"] == "acknowledged"
