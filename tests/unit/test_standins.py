"""The stand-ins refuse what the real services document that they refuse: a lenient one would prove nothing."""

import json

import pytest

from streams.standins import pagerduty, slack


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
