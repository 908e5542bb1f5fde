"""What every receiver does: deliver, tell passing trouble from lasting trouble, and carry hostile text unharmed."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from aiohttp import web

from schemas import keys
from schemas.alerts import Alert, Contributor
from schemas.instants import format_instant
from streams.ports import PermanentError, RetryableError
from streams.settings import load_settings
from streams.sinks import mail as mail_module
from streams.sinks import pagerduty as pagerduty_module
from streams.sinks import slack as slack_module
from streams.sinks.pagerduty import PagerDutyReceiver
from streams.sinks.receivers import receivers
from streams.standins.runner import ROUTING_KEY, StandIns
from streams.standins.smtp import DROP, STALL
from tests.unit.records import NOON
from tests.unit.test_messages import spike

NAMES = ("pagerduty", "slack", "email")


def alert(**changes) -> Alert:
    key = "v1:budget_threshold:budget:search-daily:2026-11-21T00:00:00Z:100"
    status = changes.pop("status", "opened")
    fields = {
        "alert_id": keys.alert_id(key, 1, status),
        "dedup_key": key,
        "episode": 1,
        "status": status,
        "severity": "emergency",
        "tier": "page",
        "rule": "budget_threshold",
        "scope_type": "budget",
        "scope_id": "search-daily",
        "team_id": "search",
        "summary": "Budget search-daily (team search) passed 100 %: $50.10 of $50.00 this day",
        "occurred_at": format_instant(NOON),
        "stated_at": format_instant(NOON),
        "observed": "50.1",
        "expected": "50",
        "threshold": "100 %",
        "top_contributors": [Contributor("chat", "40"), Contributor("rank", "10.1")],
        "action": "team search is blocked at the gateways until the day ends",
    }
    return Alert(**(fields | changes))


class Stage:
    """The stand-ins with receivers pointed at them, and what arrived."""

    def __init__(self, standins: StandIns, monkeypatch) -> None:
        self.standins = standins
        for name, value in standins.environment().items():
            monkeypatch.setenv(name, value)
        self.receivers = receivers(load_settings())

    def arrived(self, name: str) -> int:
        return len(
            {
                "pagerduty": self.standins.pagerduty.events,
                "slack": self.standins.slack.messages,
                "email": self.standins.mail.messages,
            }[name]
        )

    def refused(self) -> list:
        return [*self.standins.pagerduty.refused, *self.standins.slack.refused]


@pytest.fixture
async def stage(tmp_path, monkeypatch):
    for module in (pagerduty_module, slack_module, mail_module):
        monkeypatch.setattr(module, "TIMEOUT_S", 1)
    monkeypatch.setattr(pagerduty_module._OneTry, "timeout", 1)
    async with StandIns(tmp_path) as standins:
        stage = Stage(standins, monkeypatch)
        yield stage
        for receiver in stage.receivers.values():
            await receiver.close()


@pytest.mark.parametrize("name", NAMES)
async def test_an_alert_arrives_and_leaves_a_receipt(stage, name):
    assert await stage.receivers[name].send(alert())
    assert (stage.arrived(name), stage.refused()) == (1, [])


@pytest.mark.parametrize("name", NAMES)
async def test_a_resolution_arrives(stage, name):
    await stage.receivers[name].send(alert())
    await stage.receivers[name].send(alert(status="resolved"))
    assert (stage.arrived(name), stage.refused()) == (2, [])


def _fail(stage: Stage, name: str, kind: str) -> None:
    if name == "email":
        stage.standins.mail.refusals.append({"passing": "451 later", "lasting": "554 no"}[kind])
    else:
        getattr(stage.standins, name).faults.plan("500")


@pytest.mark.parametrize("name", NAMES)
async def test_passing_trouble_may_be_tried_again_and_then_works(stage, name):
    _fail(stage, name, "passing")
    with pytest.raises(RetryableError):
        await stage.receivers[name].send(alert())
    await stage.receivers[name].send(alert())
    assert stage.arrived(name) == 1


@pytest.mark.parametrize("name", ["pagerduty", "slack"])
async def test_a_rate_limit_says_when_to_come_back(stage, name):
    getattr(stage.standins, name).faults.plan("429", retry_after_s=7)
    with pytest.raises(RetryableError) as caught:
        await stage.receivers[name].send(alert())
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["stall", "drop"])
async def test_a_receiver_that_hangs_or_hangs_up_may_be_tried_again(stage, name, kind):
    if name == "email":
        stage.standins.mail.refusals.append({"stall": STALL, "drop": DROP}[kind])
    else:
        getattr(stage.standins, name).faults.plan(kind, stall_s=3)
    async with asyncio.timeout(8):
        with pytest.raises(RetryableError):
            await stage.receivers[name].send(alert())


async def test_a_refused_page_is_not_tried_again(stage):
    receiver = PagerDutyReceiver("short", url=stage.standins.pagerduty_url, ca_file=stage.standins.ca_file)
    with pytest.raises(PermanentError, match="routing_key"):
        await receiver.send(alert())


async def test_a_webhook_that_is_gone_is_not_tried_again(stage):
    gone = slack_module.SlackReceiver(stage.standins.slack_url.replace("standin", "gone"))
    with pytest.raises(PermanentError, match="no_service"):
        await gone.send(alert())


async def test_a_mail_that_the_server_refuses_for_good_is_not_tried_again(stage):
    _fail(stage, "email", "lasting")
    with pytest.raises(PermanentError, match="554"):
        await stage.receivers["email"].send(alert())


async def test_a_certificate_nobody_vouches_for_is_trouble_and_not_trusted(stage):
    receiver = PagerDutyReceiver(ROUTING_KEY, url=stage.standins.pagerduty_url)
    with pytest.raises(RetryableError):
        await receiver.send(alert())
    assert stage.arrived("pagerduty") == 0


HOSTILE = '<!channel> *bold* <b>html</b> & "quotes"\r\nBcc: everyone@example.test\r\n\r\nbody \u202e'


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"summary": HOSTILE, "scope_id": HOSTILE, "action": HOSTILE}, id="hostile text"),
        pytest.param({"summary": "x" * 50_000, "action": "y" * 50_000, "scope_id": "z" * 5_000}, id="oversized text"),
        pytest.param({"top_contributors": [Contributor("c" * 3_000, "1")] * 50}, id="too many long drivers"),
    ],
)
async def test_any_text_is_carried_within_the_receivers_limits(stage, name, changes):
    await stage.receivers[name].send(alert(**changes))
    assert (stage.arrived(name), stage.refused()) == (1, [])


async def test_hostile_text_mentions_nobody_in_slack(stage):
    await stage.receivers["slack"].send(alert(summary=HOSTILE, scope_id=HOSTILE))
    (message,) = stage.standins.slack.messages
    # The header is plain text, which Slack shows as it is.
    parsed = [block for block in message["blocks"] if block["type"] != "header"]
    assert "<!channel>" not in message["text"] + json.dumps(parsed)


async def test_hostile_text_adds_no_header_and_no_markup_to_a_mail(stage):
    await stage.receivers["email"].send(alert(summary=HOSTILE))
    (mail,) = stage.standins.mail.messages
    assert mail["Bcc"] is None
    assert "<b>html</b>" not in mail.get_body(("html",)).get_content()


async def test_a_mails_resolution_answers_its_first_message(stage):
    await stage.receivers["email"].send(alert())
    await stage.receivers["email"].send(alert(status="resolved"))
    first, second = stage.standins.mail.messages
    assert second["In-Reply-To"] == second["References"] == first["Message-ID"]


async def test_a_mail_goes_to_the_budgets_owner_where_there_is_one(stage):
    await stage.receivers["email"].send(alert(owner="lead@example.test"))
    await stage.receivers["email"].send(alert(owner="nobody in particular"))
    assert [mail["To"] for mail in stage.standins.mail.messages] == ["lead@example.test", "on-call@example.test"]


async def test_one_overspend_is_one_incident_that_ends(stage):
    for status in ("opened", "updated", "resolved"):
        await stage.receivers["pagerduty"].send(alert(status=status))
    (incident,) = stage.standins.pagerduty.incidents
    assert (incident.triggers, incident.severity, incident.resolved_at is not None) == (2, "critical", True)


async def test_a_page_whose_answer_was_lost_is_still_one_incident_when_sent_again(stage):
    stage.standins.pagerduty.faults.plan("lose_answer")
    with pytest.raises(RetryableError):
        await stage.receivers["pagerduty"].send(alert())
    await stage.receivers["pagerduty"].send(alert())
    (incident,) = stage.standins.pagerduty.incidents
    assert incident.triggers == 2


async def test_a_page_after_the_resolve_is_a_new_incident(stage):
    for episode, status in ((1, "opened"), (1, "resolved"), (2, "opened")):
        await stage.receivers["pagerduty"].send(alert(status=status, episode=episode))
    first, second = stage.standins.pagerduty.incidents
    assert (first.resolved_at is None, second.resolved_at is None) == (False, True)


async def test_receivers_on_this_machine_are_reached_past_a_proxy(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with StandIns(tmp_path) as standins:
        stage = Stage(standins, monkeypatch)
        for name in NAMES:
            await stage.receivers[name].send(alert())
            await stage.receivers[name].close()
            assert stage.arrived(name) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"status": 502, "body": b"\xff\xfe bad", "content_type": "text/html"}, id="bytes"),
        pytest.param({"status": 307, "headers": {"Location": "/services/SECRET"}}, id="a redirect without end"),
    ],
)
async def test_an_odd_answer_to_a_webhook_may_be_tried_again_and_gives_no_secret_away(answer, caplog):
    caplog.set_level(logging.DEBUG)

    async def odd(request: web.Request) -> web.Response:
        return web.Response(charset="utf-8" if "content_type" in answer else None, **answer)

    app = web.Application()
    app.router.add_post("/{any:.*}", odd)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        with pytest.raises(RetryableError) as caught:
            await slack_module.SlackReceiver(f"http://127.0.0.1:{port}/services/SECRET").send(alert())
        assert "SECRET" not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("greeting", "login"),
    [
        pytest.param(b"220 hello\r\n", b"535 5.7.8 wrong password\r\n", id="the login is refused"),
        pytest.param(b"554 no service\r\n", b"", id="the greeting is a refusal"),
    ],
)
async def test_a_mail_waits_for_a_server_that_can_be_mended(greeting, login):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while line := await reader.readline():
            words = {b"EHLO": b"250-hello\r\n250 AUTH PLAIN\r\n", b"AUTH": login}
            writer.write(words.get(line.split()[0].upper(), b"250 ok\r\n"))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        receiver = mail_module.MailReceiver(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            sender="s@example.test",
            recipients=["a@example.test"],
            username="u",
            password="p",
            tls="none",
        )
        with pytest.raises(RetryableError, match="smtp_"):
            await receiver.send(alert())


async def test_a_mail_that_needs_tls_is_not_sent_in_the_clear(stage):
    receiver = mail_module.MailReceiver(
        "127.0.0.1",
        stage.standins.smtp_port,
        sender="s@example.test",
        recipients=["a@example.test"],
        tls="starttls",
    )
    with pytest.raises(RetryableError):
        await receiver.send(alert())
    assert stage.arrived("email") == 0


GOLDEN = Path(__file__).parent / "golden"


def _pagerduty_text(stage: Stage) -> str:
    (event,) = stage.standins.pagerduty.events
    return _as_json({name: event[name] for name in sorted(event) if name not in ("routing_key", "received_at")})


def _slack_text(stage: Stage) -> str:
    (message,) = stage.standins.slack.messages
    return _as_json({name: message[name] for name in ("text", "blocks")})


def _mail_text(stage: Stage) -> str:
    (mail,) = stage.standins.mail.messages
    headers = [f"{name}: {mail[name]}" for name in ("Subject", "From", "To", "Date", "Message-ID")]
    return "\n".join([*headers, "", mail.get_body(("plain",)).get_content().replace("\r\n", "\n")])


def _as_json(found: dict) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("name", "golden", "text"),
    [
        pytest.param("pagerduty", "pagerduty.json", _pagerduty_text, id="PagerDuty"),
        pytest.param("slack", "slack.json", _slack_text, id="Slack"),
        pytest.param("email", "mail.txt", _mail_text, id="e-mail"),
    ],
)
async def test_what_arrives_is_the_agreed_text(stage, name, golden, text):
    """A changed golden file is a changed interface: read it as the person on call would."""
    await stage.receivers[name].send(spike(owner="lead@example.test"))
    assert text(stage) == (GOLDEN / golden).read_text()
