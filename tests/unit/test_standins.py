"""The stand-ins refuse what the real services document that they refuse: a lenient one would prove nothing."""

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from schemas.instants import SECOND
from streams.clock import WallClock
from streams.sinks import webhook as webhook_sink
from streams.standins import pagerduty, slack, webhook
from streams.standins.faults import Pace


def event(**changes):
    payload = {"summary": "s", "source": "sluice", "severity": "error", "timestamp": "2026-11-21T12:00:00Z"}
    whole = {"routing_key": "k" * 32, "event_action": "trigger", "dedup_key": "d", "payload": payload}
    return whole | changes


def payload(**changes):
    return event(payload=event()["payload"] | changes)


GOOD_EVENTS = [
    pytest.param(event(), id="a whole trigger"),
    pytest.param({k: v for k, v in event().items() if k != "dedup_key"}, id="a trigger without a dedup key"),
    pytest.param({"routing_key": "k" * 32, "event_action": "resolve", "dedup_key": "d"}, id="a bare resolve"),
    pytest.param(payload(summary="s" * 1024), id="a summary of 1024 characters"),
    pytest.param(event(dedup_key="d" * 255), id="a dedup key of 255 characters"),
    pytest.param(event(links=[{"href": "https://example.test", "text": "t"}]), id="a link"),
]
BAD_EVENTS = [
    pytest.param(event(routing_key="k" * 31), "routing_key", id="a routing key of 31 characters"),
    pytest.param(event(routing_key=None), "routing_key", id="no routing key"),
    pytest.param(event(event_action="open"), "event_action", id="an unknown action"),
    pytest.param(event(event_action="resolve", dedup_key=""), "dedup_key", id="a resolve of nothing"),
    pytest.param(event(event_action="acknowledge", dedup_key=None), "dedup_key", id="an acknowledgement of nothing"),
    pytest.param(event(dedup_key="d" * 256), "dedup_key", id="a dedup key of 256 characters"),
    pytest.param(event(payload=None), "payload", id="a trigger without payload"),
    pytest.param(payload(summary=""), "payload.summary", id="an empty summary"),
    pytest.param(payload(summary="s" * 1025), "payload.summary", id="a summary of 1025 characters"),
    pytest.param(payload(source=None), "payload.source", id="no source"),
    pytest.param(payload(severity="emergency"), "payload.severity", id="a severity that PagerDuty lacks"),
    pytest.param(payload(timestamp="today"), "payload.timestamp", id="a timestamp that is none"),
    pytest.param(payload(custom_details="text"), "payload.custom_details", id="details that are no object"),
    pytest.param(event(links=[{"text": "t"}]), "links", id="a link to nowhere"),
    pytest.param(["not", "an", "object"], "object", id="a list"),
]


@pytest.mark.parametrize("good", GOOD_EVENTS)
def test_pagerduty_takes(good):
    assert pagerduty.check("application/json", json.dumps(good).encode()) == []


@pytest.mark.parametrize(("bad", "names"), BAD_EVENTS)
def test_pagerduty_refuses_and_names(bad, names):
    (error,) = pagerduty.check("application/json", json.dumps(bad).encode())[:1]
    assert names in error


@pytest.mark.parametrize(
    ("content_type", "raw", "names"),
    [
        pytest.param("text/plain", json.dumps(event()).encode(), "content type", id="another content type"),
        pytest.param("application/json", b"{", "not JSON", id="half a document"),
        pytest.param("application/json", b"\xff\xfe", "not JSON", id="bytes that are no text"),
        pytest.param("application/json", json.dumps(payload(x="x" * 530_000)).encode(), "512 KB", id="over 512 KB"),
    ],
)
def test_pagerduty_refuses_a_body(content_type, raw, names):
    assert names in pagerduty.check(content_type, raw)[0]


def plain(text="t"):
    return {"type": "plain_text", "text": text}


def mrkdwn(text="t"):
    return {"type": "mrkdwn", "text": text}


HEADER = {"type": "header", "text": plain()}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"text": "t"}, id="text alone"),
        pytest.param({"text": "t", "blocks": [HEADER] * 50}, id="50 blocks"),
        pytest.param({"text": "t", "blocks": [{"type": "header", "text": plain("h" * 150)}]}, id="header of 150"),
        pytest.param({"text": "t", "blocks": [{"type": "section", "text": mrkdwn("s" * 3000)}]}, id="section of 3000"),
        pytest.param({"text": "t", "blocks": [{"type": "section", "fields": [mrkdwn()] * 10}]}, id="ten fields"),
    ],
)
def test_slack_takes(message):
    assert slack.check(json.dumps(message).encode()) is None


@pytest.mark.parametrize(
    ("message", "error"),
    [
        pytest.param([], "invalid_payload", id="a list"),
        pytest.param({"blocks": [HEADER]}, "no_text", id="no fallback text"),
        pytest.param({"text": " "}, "no_text", id="blank text"),
        pytest.param({"text": 5}, "no_text", id="a number for text"),
        pytest.param({"text": "t" * 40_001}, "msg_too_long", id="text of 40001"),
        pytest.param({"text": "t", "blocks": [HEADER] * 51}, "invalid_blocks", id="51 blocks"),
        pytest.param({"text": "t", "blocks": {}}, "invalid_blocks", id="blocks that are no list"),
        pytest.param({"text": "t", "blocks": [{"type": "poem"}]}, "invalid_blocks", id="an unknown block"),
        pytest.param(
            {"text": "t", "blocks": [{"type": "header", "text": mrkdwn()}]}, "invalid_blocks", id="mrkdwn header"
        ),
        pytest.param(
            {"text": "t", "blocks": [{"type": "header", "text": plain("h" * 151)}]},
            "invalid_blocks",
            id="header of 151",
        ),
        pytest.param({"text": "t", "blocks": [{"type": "section"}]}, "invalid_blocks", id="an empty section"),
        pytest.param(
            {"text": "t", "blocks": [{"type": "section", "text": mrkdwn("s" * 3001)}]},
            "invalid_blocks",
            id="section of 3001",
        ),
        pytest.param(
            {"text": "t", "blocks": [{"type": "section", "fields": [mrkdwn()] * 11}]},
            "invalid_blocks",
            id="eleven fields",
        ),
        pytest.param(
            {"text": "t", "blocks": [{"type": "section", "fields": [mrkdwn("f" * 2001)]}]},
            "invalid_blocks",
            id="field of 2001",
        ),
        pytest.param(
            {"text": "t", "blocks": [{"type": "section", "fields": 3}]}, "invalid_blocks", id="fields that are no list"
        ),
        pytest.param(
            {"text": "t", "blocks": [{"type": "section", "text": mrkdwn() | {"emoji": True}}]},
            "invalid_blocks",
            id="emoji of mrkdwn",
        ),
    ],
)
def test_slack_refuses(message, error):
    assert slack.check(json.dumps(message).encode()) == error


SECTION = {"type": "section", "text": mrkdwn("s" * 2_900)}


def test_slack_refuses_texts_that_are_too_long_together():
    assert slack.check(json.dumps({"text": "t", "blocks": [SECTION] * 3}).encode()) is None
    assert slack.check(json.dumps({"text": "t", "blocks": [SECTION] * 4}).encode()) == "msg_blocks_too_long"


@pytest.fixture
async def slack_api():
    """A call of Slack's Web API with a bot token."""
    standin = slack.SlackStandIn(WallClock())
    async with TestClient(TestServer(standin.application())) as client:

        async def call(method, body, token=slack.BOT_TOKEN):
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.post(f"/api/{method}", json=body, headers=headers)
            assert answer.status == 200
            return await answer.json()

        yield call


POST = {"channel": slack.CHANNEL, "text": "t"}


@pytest.mark.parametrize(
    ("method", "changes", "error"),
    [
        pytest.param("chat.postMessage", {"channel": "C0OTHER"}, "channel_not_found", id="an unknown channel"),
        pytest.param("chat.postMessage", {"thread_ts": "1.1"}, "thread_not_found", id="an unknown thread"),
        pytest.param("chat.postMessage", {"text": ""}, "no_text", id="no text"),
        pytest.param("chat.update", {"ts": "1.1"}, "message_not_found", id="an edit of nothing"),
        pytest.param(
            "chat.update", {"channel": slack.CHANNEL_NAME}, "channel_not_found", id="an edit by a channel's name"
        ),
        pytest.param("chat.shout", {}, "unknown_method", id="an unknown method"),
    ],
)
async def test_slacks_web_api_refuses(slack_api, method, changes, error):
    assert await slack_api(method, POST | changes) == {"ok": False, "error": error}


async def test_slacks_web_api_refuses_another_token(slack_api):
    assert (await slack_api("chat.postMessage", POST, token="xoxb-other"))["error"] == "invalid_auth"


async def test_slacks_web_api_takes_a_message_its_thread_and_its_edit(slack_api):
    first = await slack_api("chat.postMessage", POST | {"channel": slack.CHANNEL_NAME})
    assert (first["ok"], first["channel"]) == (True, slack.CHANNEL)
    second = await slack_api("chat.postMessage", POST | {"thread_ts": first["ts"]})
    edit = await slack_api("chat.update", POST | {"ts": first["ts"], "text": "edited"})
    assert (second["ok"], edit["ok"], second["ts"] != first["ts"]) == (True, True, True)


def signed(seconds_ago: int = 0) -> dict[str, str]:
    """A signature of now: a run of all tests may take longer than one is good for."""
    now = WallClock().now() // SECOND - seconds_ago
    return webhook_sink.signed(webhook_sink.key_of(webhook.SECRET), "n", now, b"{}")


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        pytest.param(dict, "Missing required headers", id="no signature"),
        pytest.param(
            lambda: signed() | {"webhook-signature": "v1,AAAA"}, "No matching signature", id="another signature"
        ),
        pytest.param(lambda: signed() | {"webhook-signature": "what?"}, "", id="a signature that is none"),
        pytest.param(lambda: signed() | {"webhook-id": "m"}, "No matching signature", id="another id"),
        pytest.param(lambda: signed(3_600), "too old", id="an hour ago"),
        pytest.param(signed, "missing required field", id="signed, but another body than the schema's"),
    ],
)
async def test_a_webhook_refuses(headers, says):
    standin = webhook.WebhookStandIn(WallClock())
    async with TestClient(TestServer(standin.application())) as client:
        answer = await client.post(webhook.PATH, data=b"{}", headers=headers())
        assert (answer.status, says in await answer.text(), standin.messages) == (400, True, [])


def test_a_pace_lets_so_many_through_in_any_minute_and_says_when_to_come_back():
    pace = Pace(2)
    assert [pace.hold(at * SECOND) for at in (0, 10)] == [None, None]
    held = pace.hold(20 * SECOND)
    assert (held.status, held.headers["Retry-After"], pace.held) == (429, "40", 1)
    assert [pace.hold(61 * SECOND), pace.hold(62 * SECOND).status] == [None, 429]


def test_a_pace_without_a_limit_holds_nothing():
    assert [Pace().hold(0) for _ in range(1_000)] == [None] * 1_000
