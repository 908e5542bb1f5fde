"""PagerDuty's V3 webhook over the API: signatures, which alert an incident means, and what a word on it does."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.instants import MINUTE, SECOND, format_instant
from streams.settings import Settings
from streams.sinks.acknowledgements import load_acknowledgements
from tests.integration.alert_rows import KEY, alert, put, tell
from tests.integration.api_parts import NO_BROKER, NOW, client_of

SECRET = "the-subscription's-own-secret"
SETTINGS = Settings(kafka_url=NO_BROKER, pagerduty_webhook_secret=SecretStr(SECRET))
PATH = "/v1/webhooks/pagerduty"
ANNA = {"id": "PLH1HKV", "type": "user_reference", "summary": "Anna Tenex", "self": "x", "html_url": "y"}
OURS = {"id": "P1", "type": "events_api_v2_inbound_integration_reference", "summary": "Sluice"}


@pytest.fixture
async def client(pool):
    async with client_of(SETTINGS, pool) as opened:
        yield opened


def webhook(kind: str, *, key: str = KEY, at: int = NOW, agent: Any = ANNA) -> bytes:
    """As the overview of V3 webhooks has it."""
    data = {
        "id": "PGR0VU2", "type": "incident", "number": 2, "status": "triggered", "incident_key": key, "title": "x",
        "assignees": [ANNA], "urgency": "high", "resolve_reason": None, "service": {"id": "PF9KMXH"},
    }  # fmt: skip
    event = {
        "id": "5ac64822-4adc-4fda-ade0-410becf0de4f", "event_type": f"incident.{kind}", "resource_type": "incident",
        "occurred_at": format_instant(at), "agent": agent, "client": {"name": "PagerDuty"}, "data": data,
    }  # fmt: skip
    return json.dumps({"event": event}).encode()


def signature(body: bytes, secret: str = SECRET) -> str:
    return "v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def post(client, body: bytes, header: str | None = None):
    return await client.post(PATH, content=body, headers={"X-PagerDuty-Signature": header or signature(body)})


async def in_hand(pool) -> dict[tuple[str, int], str]:
    found = await load_acknowledgements(pool, [KEY, "other"])
    return {key: word.by for key, word in found.items()}


async def test_an_incident_that_is_acknowledged_there_is_acknowledged_here(client, pool):
    await put(pool, alert(at=NOW - MINUTE))
    answer = await post(client, webhook("acknowledged"))
    assert (answer.status_code, answer.json()["alerts"]) == (202, [KEY])
    assert await in_hand(pool) == {(KEY, 1): "Anna Tenex"}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (lambda body: signature(body, "another secret"), 401),
        (lambda body: signature(body + b" "), 401),
        (lambda body: signature(body).removeprefix("v1="), 401),
        (lambda body: signature(body).replace("v1=", "v2="), 401),
        (lambda body: "v1=", 401),
        (lambda body: "v1=\u00e9\u00e9", 401),
        (lambda body: ",".join(["v1=" + "0" * 64] * 20) + "," + signature(body), 401),
        (lambda body: signature(body, "the new secret") + "," + signature(body), 202),
        (lambda body: signature(body) + " , " + signature(body, "the new secret"), 202),
    ],
    ids=[
        "of another secret", "of another body", "without its version", "of another version", "empty", "not ASCII",
        "behind more than anybody sends", "the old secret's after the new one's", "the other way round",
    ],
)  # fmt: skip
async def test_a_webhook_counts_where_one_signature_is_of_its_body_and_our_secret(client, pool, header, status):
    await put(pool, alert(at=NOW - MINUTE))
    body = webhook("acknowledged")
    raw = header(body).encode("latin-1")
    answer = await client.post(PATH, content=body, headers={b"X-PagerDuty-Signature": raw})
    assert answer.status_code == status
    assert bool(await in_hand(pool)) is (status == 202)


async def test_without_a_signature_or_a_secret_nothing_is_taken(client, pool):
    assert (await client.post(PATH, content=webhook("acknowledged"))).status_code == 401
    async with client_of(Settings(kafka_url=NO_BROKER), pool) as off:
        answer = await post(off, webhook("acknowledged"))
        assert (answer.status_code, "pagerduty_webhook_secret" in answer.json()["detail"]) == (503, True)


@pytest.mark.parametrize(
    ("words", "who"),
    [
        (["acknowledged"], "Anna Tenex"),
        (["acknowledged", "unacknowledged"], None),
        (["resolved"], "Anna Tenex"),
        (["resolved", "reopened"], None),
        (["unacknowledged"], None),
        (["escalated"], None),
        (["annotated"], None),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
async def test_who_has_it_in_hand_after_some_words(client, pool, words, who):
    await put(pool, alert(at=NOW - MINUTE))
    for place, word in enumerate(words):
        assert (await post(client, webhook(word, at=NOW + place * SECOND))).status_code == 202
    assert await in_hand(pool) == ({(KEY, 1): who} if who else {})


async def test_webhooks_that_come_in_the_wrong_order_or_twice_say_the_same(client, pool):
    await put(pool, alert(at=NOW - MINUTE))
    later, earlier = webhook("unacknowledged", at=NOW + SECOND), webhook("acknowledged")
    for body in (later, earlier, earlier, later):
        assert (await post(client, body)).status_code == 202
    assert await in_hand(pool) == {}
    assert await pool.fetchval("select count(*) from acknowledgements") == 2


async def test_sluices_own_words_that_come_back_say_nothing(client, pool):
    await put(pool, alert(at=NOW - MINUTE))
    for kind in ("acknowledged", "resolved"):
        assert (await post(client, webhook(kind, agent=OURS))).json()["taken"] == 0
    assert await in_hand(pool) == {}


async def test_a_timeout_there_that_nobody_caused_gives_the_alert_back(client, pool):
    await put(pool, alert(at=NOW - MINUTE))
    await post(client, webhook("acknowledged"))
    await post(client, webhook("unacknowledged", at=NOW + SECOND, agent=None))
    assert await in_hand(pool) == {}


async def test_a_late_word_is_about_the_episode_of_its_time(client, pool):
    await put(pool, alert(at=NOW - 10 * MINUTE))
    await put(pool, alert("resolved", at=NOW - 5 * MINUTE))
    await put(pool, alert(episode=2, at=NOW - MINUTE))
    await post(client, webhook("acknowledged", at=NOW - 8 * MINUTE))
    assert await in_hand(pool) == {(KEY, 1): "Anna Tenex"}


async def test_an_incident_of_a_group_means_every_alert_in_it(client, pool):
    for key in (KEY, "other"):
        await put(pool, alert(key=key, at=NOW - MINUTE))
    group = "v1:group:search"
    await tell(pool, alert(), "pagerduty", group, alert(key="other"))
    await post(client, webhook("acknowledged", key=group))
    assert set(await in_hand(pool)) == {(KEY, 1), ("other", 1)}


@pytest.mark.parametrize(
    "body",
    [
        webhook("acknowledged", key="of another service"),
        b'{"event": {"id": "1", "event_type": "pagey.ping", "occurred_at": "2026-11-21T14:00:00.510Z", "agent": null,'
        b' "client": null, "data": {"message": "Hello from your friend Pagey!", "type": "ping"}}}',
        webhook("acknowledged").replace(b'"incident"', b'"incident_note"'),
    ],
    ids=["an incident of somebody else", "the test of the settings page", "a note"],
)
async def test_what_is_not_about_our_alerts_is_taken_and_does_nothing(client, pool, body):
    await put(pool, alert(at=NOW - MINUTE))
    answer = await post(client, body)
    assert (answer.status_code, answer.json()["taken"]) == (202, 0)
    assert await in_hand(pool) == {}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"event": {}}', b"\xff\xfe", webhook("acknowledged").replace(b"Z", b"")]
)
async def test_what_is_no_webhook_is_refused_with_400(client, pool, body):
    assert (await post(client, body)).status_code == 400
