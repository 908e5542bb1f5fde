"""What one kind of receiver does and the others cannot: incidents, threads, edits, headers, signatures, recipients."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from email.utils import make_msgid

import msgspec
import pytest
from standardwebhooks import Webhook

from streams.clock import WallClock
from streams.ports import PermanentError, RetryableError
from streams.settings import SettingsError
from streams.sinks import mail as mail_module
from streams.sinks import pagerduty as pagerduty_module
from streams.sinks import slack as slack_module
from streams.sinks import webhook as webhook_module
from streams.sinks.pagerduty import PagerDutyReceiver
from streams.sinks.slack import SlackBotReceiver, SlackWebhookReceiver
from streams.sinks.webhook import WebhookReceiver
from streams.standins.runner import StandIns
from streams.standins.slack import CHANNEL, CHANNEL_NAME
from streams.standins.webhook import SECRET
from tests.conformance.receiver_stage import HOSTILE, Integration, Stage, Target, alert, ended, group_of, over, told


@pytest.fixture
async def stage(tmp_path, monkeypatch):
    for module in (pagerduty_module, slack_module, mail_module, webhook_module):
        monkeypatch.setattr(module, "TIMEOUT_S", 1)
    monkeypatch.setattr(pagerduty_module._OneTry, "timeout", 1)
    async with StandIns(tmp_path) as standins:
        stage = Stage(standins, monkeypatch)
        yield stage
        for receiver in stage.receivers.values():
            await receiver.close()


# PagerDuty


async def test_one_overspend_is_one_incident_that_ends(stage):
    for message in (told(), told(reason="worse"), ended()):
        await stage.receivers["pagerduty"].send(message, None)
    (incident,) = stage.standins.pagerduty.incidents
    assert (incident.triggers, incident.severity, incident.resolved_at is not None) == (2, "critical", True)


async def test_an_acknowledgement_acknowledges_the_incident(stage):
    await stage.receivers["pagerduty"].send(told(), None)
    await stage.receivers["pagerduty"].send(told(action="acknowledge"), None)
    (incident,) = stage.standins.pagerduty.incidents
    assert (incident.acknowledged_at is not None, incident.resolved_at) == (True, None)


async def test_a_page_whose_answer_was_lost_is_still_one_incident_when_sent_again(stage):
    stage.plan("pagerduty", "lose_answer")
    with pytest.raises(RetryableError):
        await stage.receivers["pagerduty"].send(told(), None)
    await stage.receivers["pagerduty"].send(told(), None)
    (incident,) = stage.standins.pagerduty.incidents
    assert incident.triggers == 2


async def test_a_page_after_the_resolve_is_a_new_incident(stage):
    for message in (told(), ended(), told(alert(episode=2))):
        await stage.receivers["pagerduty"].send(message, None)
    first, second = stage.standins.pagerduty.incidents
    assert (first.resolved_at is None, second.resolved_at is None) == (False, True)


@pytest.mark.parametrize(
    ("severities", "paged_as"),
    [
        pytest.param(["info"], "info", id="info"),
        pytest.param(["warning"], "warning", id="warning"),
        pytest.param(["critical"], "error", id="critical"),
        pytest.param(["emergency"], "critical", id="emergency"),
        pytest.param(["warning", "emergency", "info"], "critical", id="a group is as bad as its worst"),
    ],
)
async def test_severities_are_pagerdutys(stage, severities, paged_as):
    alerts = [alert(scope_id=f"b-{n}", severity=severity) for n, severity in enumerate(severities)]
    await stage.receivers["pagerduty"].send(told(*alerts), None)
    (incident,) = stage.standins.pagerduty.incidents
    assert incident.severity == paged_as


async def test_what_has_ended_does_not_make_a_page_worse(stage):
    await stage.receivers["pagerduty"].send(told(alert(severity="warning"), over(severity="emergency")), None)
    assert stage.standins.pagerduty.incidents[0].severity == "warning"


async def test_a_wrong_routing_key_is_named(stage):
    receiver = PagerDutyReceiver("short", url=stage.standins.pagerduty_url, ca_file=stage.standins.ca_file)
    with pytest.raises(PermanentError, match="routing_key"):
        await receiver.send(told(), None)
    await receiver.close()


async def test_stalled_pages_take_no_threads_but_their_own(stage):
    """What else runs in threads, files and names of hosts, must not wait for PagerDuty."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    stage.standins.pagerduty.faults.plan("stall", times=3, stall_s=30)
    pages = [asyncio.create_task(stage.receivers["pagerduty"].send(told(), None)) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(asyncio.to_thread(int), 0.5) == 0
    assert not any(page.done() for page in pages)
    found = await asyncio.gather(*pages, return_exceptions=True)
    assert [type(each) for each in found] == [RetryableError] * 3


# Slack


async def test_updates_go_into_the_thread_and_the_resolve_edits_its_first_message(stage):
    bot = stage.receivers["slack_bot"]
    thread = await bot.send(told(), None)
    await bot.send(told(reason="joined"), thread)
    await bot.send(ended(), thread)
    first, second, third = stage.standins.slack.posted
    assert thread == f"{CHANNEL}:{first.ts}"
    assert (first.thread_ts, second.thread_ts, third.thread_ts) == (None, first.ts, first.ts)
    assert first.body["blocks"][0]["text"]["text"].startswith("🔴 Budget search-daily")
    assert first.now["blocks"][0]["text"]["text"].startswith("✅ Resolved: ")


async def test_a_channel_by_name_is_edited_by_its_id(stage):
    bot = SlackBotReceiver("xoxb-standin-token", CHANNEL_NAME, api_url=stage.standins.slack_api_url)
    thread = await bot.send(told(), None)
    await bot.send(ended(), thread)
    assert len(stage.standins.slack.posted[0].edits) == 1


@pytest.mark.parametrize(
    ("reason", "seen"),
    [("joined", False), ("left", False), ("better", False), ("worse", True), ("escalated", True), ("repeated", True)],
)
async def test_what_must_not_be_missed_is_shown_to_the_channel_too(stage, reason, seen):
    thread = await stage.receivers["slack_bot"].send(told(), None)
    await stage.receivers["slack_bot"].send(told(reason=reason), thread)
    assert stage.standins.slack.posted[1].body["reply_broadcast"] is seen


async def test_where_the_first_message_was_deleted_a_new_one_begins(stage):
    receipt = await stage.receivers["slack_bot"].send(ended(), f"{CHANNEL}:1.000001")
    (message,) = stage.standins.slack.posted
    assert (message.thread_ts, receipt) == (None, f"{CHANNEL}:{message.ts}")


async def test_a_resolve_whose_edit_was_refused_is_said_in_the_thread(stage):
    thread = await stage.receivers["slack_bot"].send(told(), None)
    stage.standins.slack.errors.append("edit_window_closed")
    await stage.receivers["slack_bot"].send(ended(), thread)
    first, second = stage.standins.slack.posted
    assert (first.edits, second.thread_ts) == ([], first.ts)


async def test_a_resolve_whose_edit_met_passing_trouble_is_tried_again_whole(stage):
    thread = await stage.receivers["slack_bot"].send(told(), None)
    stage.plan("slack_bot", "429", retry_after_s=3)
    with pytest.raises(RetryableError) as caught:
        await stage.receivers["slack_bot"].send(ended(), thread)
    await stage.receivers["slack_bot"].send(ended(), thread)
    first, second = stage.standins.slack.posted
    assert (caught.value.retry_after_s, len(first.edits), second.thread_ts) == (3, 1, first.ts)


async def test_a_post_whose_answer_was_lost_is_repeated_in_the_same_thread(stage):
    thread = await stage.receivers["slack_bot"].send(told(), None)
    stage.plan("slack_bot", "lose_answer")
    with pytest.raises(RetryableError):
        await stage.receivers["slack_bot"].send(told(reason="joined"), thread)
    await stage.receivers["slack_bot"].send(told(reason="joined"), thread)
    first, *rest = stage.standins.slack.posted
    assert [message.thread_ts for message in rest] == [first.ts] * 2


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        pytest.param("not_in_channel", PermanentError, "/invite", id="the bot was not invited"),
        pytest.param("invalid_auth", PermanentError, "xoxb-", id="a wrong token"),
        pytest.param("missing_scope", PermanentError, "chat:write", id="a right is missing"),
        pytest.param("an_error_of_tomorrow", PermanentError, "an_error_of_tomorrow", id="a word that is new here"),
        pytest.param("ratelimited", RetryableError, "ratelimited", id="too many, said with a 200"),
        pytest.param("internal_error", RetryableError, "internal_error", id="Slack's own trouble"),
    ],
)
async def test_a_refusal_of_the_web_api_says_what_to_do(stage, error, kind, says):
    stage.standins.slack.errors.append(error)
    with pytest.raises(kind, match=says):
        await stage.receivers["slack_bot"].send(told(), None)


async def test_a_webhook_that_is_gone_is_not_tried_again(stage):
    gone = SlackWebhookReceiver(stage.standins.slack_url.replace("standin", "gone"))
    with pytest.raises(PermanentError, match="no_service"):
        await gone.send(told(), None)


@pytest.mark.parametrize("name", ["slack", "slack_bot"])
@pytest.mark.parametrize(
    "message",
    [
        pytest.param(told(alert(summary=HOSTILE, scope_id=HOSTILE, action=HOSTILE)), id="one alert"),
        pytest.param(told(alert(summary=HOSTILE), alert(scope_id=HOSTILE)), id="a group"),
        pytest.param(told(heading=HOSTILE, paragraphs=(HOSTILE,), group={HOSTILE: HOSTILE}), id="a heading"),
    ],
)
async def test_hostile_text_mentions_nobody_and_marks_nothing_up(stage, name, message):
    await stage.receivers[name].send(message, None)
    (arrived,) = stage.standins.slack.messages
    # The header is plain text, which Slack shows as it is.
    parsed = json.dumps([block for block in arrived["blocks"] if block["type"] != "header"]) + arrived["text"]
    assert "<!channel>" not in parsed
    assert "*bold*" not in parsed


# E-mail


async def test_a_mails_later_messages_answer_its_first(stage):
    mail = stage.receivers["email"]
    thread = await mail.send(told(), None)
    await mail.send(told(reason="worse"), thread)
    await mail.send(ended(), thread)
    first, second, third = stage.standins.mail.messages
    assert thread == first["Message-ID"]
    assert second["In-Reply-To"] == third["In-Reply-To"] == thread
    assert second["References"] == third["References"] == f"{first['References']} {thread}"
    assert len({first["Message-ID"], second["Message-ID"], third["Message-ID"]}) == 3


async def test_mails_of_a_thread_belong_together_even_where_the_first_is_not_known(stage):
    await stage.receivers["email"].send(told(), None)
    await stage.receivers["email"].send(ended(), None)
    await stage.receivers["email"].send(told(alert(scope_id="other")), None)
    first, second, other = stage.standins.mail.messages
    assert first["References"] == second["References"] != other["References"]


async def test_a_thread_that_is_no_message_id_makes_no_header(stage):
    await stage.receivers["email"].send(told(), "<a@b>\r\nBcc: everyone@example.test")
    (mail,) = stage.standins.mail.messages
    assert (mail["Bcc"], "everyone" in mail.as_string()) == (None, False)


async def test_hostile_text_adds_no_header_and_no_markup_to_a_mail(stage):
    await stage.receivers["email"].send(told(alert(summary=HOSTILE), alert(scope_id=HOSTILE)), make_msgid())
    (mail,) = stage.standins.mail.messages
    assert mail["Bcc"] is None
    assert "<b>html</b>" not in mail.get_body(("html",)).get_content()


LEAD, CHIEF, ALL = "lead@example.test", "chief@example.test", "on-call@example.test"


@pytest.mark.parametrize(
    ("to", "owners", "recipients"),
    [
        pytest.param(None, [LEAD], {LEAD}, id="as the settings have it: the owner"),
        pytest.param(None, ["nobody in particular"], {ALL}, id="whose owner has no address: mail_to"),
        pytest.param(None, [LEAD, CHIEF], {LEAD, CHIEF}, id="a group: every owner"),
        pytest.param(None, [LEAD, ""], {LEAD, ALL}, id="a group with an alert of nobody"),
        pytest.param(["ml@x.test"], [LEAD], {"ml@x.test"}, id="addresses: they alone"),
        pytest.param(["ml@x.test", "owner"], [LEAD], {"ml@x.test", LEAD}, id="addresses and the owner"),
        pytest.param(["owner"], [LEAD, LEAD], {LEAD}, id="nobody twice"),
    ],
)
async def test_a_mail_goes_to(stage, to, owners, recipients):
    receiver = stage.made(mails=Integration("email", None if to is None else Target(to=to)))["mails"]
    await receiver.send(told(*(alert(scope_id=f"b-{n}", owner=owner) for n, owner in enumerate(owners))), None)
    (mail,) = stage.standins.mail.messages
    assert set(mail["To"].split(", ")) == recipients


@pytest.mark.parametrize(
    ("owner", "to"), [(LEAD, LEAD), ("", ALL), ("nobody", ALL)], ids=["who is named", "nobody is named", "no address"]
)
async def test_a_report_goes_to(stage, owner, to):
    report = told(action="tell", reason="report", heading="Week 47", group={"owner": owner}, thread_key="w")
    await stage.receivers["email"].send(msgspec.structs.replace(report, alerts=()), None)
    assert stage.standins.mail.messages[0]["To"] == to


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
            await receiver.send(told(), None)


async def test_a_mail_that_needs_tls_is_not_sent_in_the_clear(stage):
    receiver = mail_module.MailReceiver(
        "127.0.0.1", stage.standins.smtp_port, sender="s@example.test", recipients=["a@example.test"], tls="starttls"
    )
    with pytest.raises(RetryableError):
        await receiver.send(told(), None)
    assert stage.arrived("email") == 0


# Generic webhook


async def test_a_message_is_signed_anew_on_every_try_under_the_same_id():
    times = iter([1_800_000_000_000_000, 1_800_000_060_000_000])
    seen = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n")[1:]) if k}
        body = await reader.readexactly(int(headers["content-length"]))
        seen.append((headers, body))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        receiver = WebhookReceiver(f"http://127.0.0.1:{port}/", SECRET, lambda: next(times))
        for _ in range(2):
            await receiver.send(told(), None)
        await receiver.close()
    (first, body), (second, again) = seen
    assert body == again
    assert first["webhook-id"] == second["webhook-id"] == told().notification_id
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1800000000", "1800000060")
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda h, b: (h, b.replace(b"trigger", b"resolve")), id="another body"),
        pytest.param(lambda h, b: (h | {"webhook-id": "other"}, b), id="another id"),
        pytest.param(
            lambda h, b: (h | {"webhook-timestamp": str(int(h["webhook-timestamp"]) + 1)}, b), id="another time"
        ),
        pytest.param(lambda h, b: (h | {"webhook-signature": "v1," + "A" * 43 + "="}, b), id="another signature"),
    ],
)
def test_a_signature_holds_for_what_was_signed_alone(spoil):
    body = webhook_module.body_of(told())
    headers = webhook_module.signed(webhook_module.key_of(SECRET), "n", WallClock().now() // 1_000_000, body)
    assert Webhook(SECRET).verify(body, headers)
    spoiled, other = spoil(headers, body)
    with pytest.raises(Exception, match=r"(?i)signature|match"):
        Webhook(SECRET).verify(other, spoiled)


async def test_who_gets_a_message_twice_can_tell(stage):
    stage.plan("webhook", "lose_answer")
    with pytest.raises(RetryableError):
        await stage.receivers["webhook"].send(told(), None)
    await stage.receivers["webhook"].send(told(), None)
    assert (len(stage.standins.webhook.messages), set(stage.standins.webhook.received.values())) == (1, {2})


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        pytest.param(408, RetryableError, "408", id="the request took too long"),
        pytest.param(425, RetryableError, "425", id="too early"),
        pytest.param(503, RetryableError, "503", id="closed for a while"),
        pytest.param(302, PermanentError, "302", id="a redirect is not followed"),
        pytest.param(401, PermanentError, "401", id="the signature was not accepted"),
        pytest.param(410, PermanentError, "routes.yaml", id="nobody listens there any more"),
    ],
)
async def test_answers_of_a_webhook(stage, status, kind, says):
    stage.standins.webhook.statuses.append(status)
    with pytest.raises(kind, match=says):
        await stage.receivers["webhook"].send(told(), None)


async def test_a_group_is_told_whole_as_far_as_there_is_room_and_counted_beyond(stage):
    alerts = [alert(scope_id=f"b-{n}", summary="x" * 3_900) for n in range(200)]
    await stage.receivers["webhook"].send(told(*alerts), None)
    (message,) = stage.standins.webhook.messages
    assert (message.data.firing, len(message.data.alerts) + message.data.left_out) == (200, 200)
    assert 40 < len(message.data.alerts) < 60


# What the settings and the routes file make


async def test_the_routes_file_makes_receivers_beside_those_of_the_settings(stage, tmp_path, monkeypatch):
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    made = stage.made(
        **{
            "ml/pagerduty": Integration("pagerduty", Target(routing_key=f"file:{tmp_path / 'key'}")),
            "ml/slack": Integration("slack", Target(channel="C0STANDIN")),
            "ml/hook": Integration("webhook", Target(url=stage.standins.webhook_url, secret="env:HOOK_SECRET")),
            "slack": Integration("slack", None),
        }
    )
    assert list(made) == ["pagerduty", "slack", "email", "ml/pagerduty", "ml/slack", "ml/hook"]
    for name in ("ml/pagerduty", "ml/slack", "ml/hook"):
        await made[name].send(told(), None)
        assert made[name].name == name
    assert (stage.arrived("pagerduty"), stage.arrived("slack_bot"), stage.arrived("webhook")) == (1, 1, 1)
    for receiver in made.values():
        await receiver.close()


@pytest.mark.parametrize(
    ("kind", "target", "problem"),
    [
        pytest.param("webhook", Target(url="ftp://x", secret=SECRET), "https://", id="no web address"),
        pytest.param("webhook", Target(url="https://x", secret="no base64!"), "whsec_", id="no secret"),
        pytest.param("webhook", Target(url="https://x", secret="env:NOT_SET"), "NOT_SET is not set", id="no variable"),
        pytest.param("webhook", Target(url="https://x", secret="file:/no/such"), "cannot read /no/such", id="no file"),
        pytest.param("pagerduty", Target(routing_key="short"), "32 characters", id="a short routing key"),
        pytest.param("email", Target(to=["a@x.test\r\nBcc: b@x.test"]), "no mail address", id="a header in an address"),
        pytest.param("email", Target(to=["the team"]), "no mail address", id="a name for an address"),
        pytest.param("slack", Target(webhook_url="hooks.slack.com/x"), "https://", id="a hook without https"),
        pytest.param("webhook", None, "says nothing of where to", id="no target"),
        pytest.param("carrier_pigeon", Target(), "no kind of receiver", id="another kind"),
    ],
)
def test_a_receiver_that_cannot_be_made_says_why_and_gives_no_secret_away(stage, kind, target, problem):
    with pytest.raises(SettingsError) as caught:
        stage.made(pigeon=Integration(kind, target), other=Integration("pagerduty", Target(routing_key="also short")))
    lines = caught.value.problems
    assert [line.partition(":")[0] for line in lines] == ["receiver pigeon", "receiver other"]
    assert problem in lines[0]
    assert "no base64!" not in str(caught.value)


def test_a_group_names_its_shared_labels():
    assert "team search" in json.dumps(pagerduty_module.event(group_of(3))[1])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def test_a_server_that_is_not_there_may_be_tried_again():
    receiver = WebhookReceiver(f"http://127.0.0.1:{free_port()}/", SECRET, lambda: 0)
    with pytest.raises(RetryableError, match="cannot be reached"):
        await receiver.send(told(), None)
    await receiver.close()
