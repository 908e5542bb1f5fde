"""What every receiver does: deliver, tell passing trouble from lasting trouble, and carry hostile text unharmed.

What only one of them does is in ``test_receiver_kinds``, and how messages read in ``test_golden_messages``.
"""

import asyncio
import logging

import pytest
from aiohttp import web

from schemas.instants import to_datetime
from streams.clock import WallClock
from streams.core.notifying import Notification
from streams.ports import PermanentError, RetryableError
from streams.sinks import mail as mail_module
from streams.sinks import pagerduty as pagerduty_module
from streams.sinks import slack as slack_module
from streams.sinks import webhook as webhook_module
from streams.sinks.mail import MailReceiver
from streams.sinks.pagerduty import PagerDutyReceiver
from streams.sinks.slack import SlackBotReceiver, SlackWebhookReceiver
from streams.sinks.webhook import WebhookReceiver
from streams.standins.certificate import make_certificate
from streams.standins.runner import ROUTING_KEY, StandIns
from streams.standins.webhook import SECRET
from tests.conformance.receiver_stage import (
    HOSTILE,
    NAMES,
    ON_THE_WEB,
    Stage,
    alert,
    ended,
    group_of,
    over,
    told,
)

every_receiver = pytest.mark.parametrize("name", NAMES)


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


@every_receiver
async def test_a_message_arrives_and_leaves_a_receipt(stage, name):
    assert await stage.receivers[name].send(told(), None)
    assert (stage.arrived(name), stage.refused()) == (1, [])


@every_receiver
async def test_a_resolve_after_its_trigger_arrives(stage, name):
    thread = await stage.receivers[name].send(told(), None)
    assert await stage.receivers[name].send(ended(), thread)
    assert (stage.arrived(name), stage.refused()) == (2, [])


@every_receiver
async def test_a_resolve_whose_trigger_is_not_known_any_more_arrives(stage, name):
    assert await stage.receivers[name].send(ended(), None)
    assert (stage.arrived(name), stage.refused()) == (1, [])


@every_receiver
async def test_an_acknowledgement_arrives(stage, name):
    thread = await stage.receivers[name].send(told(), None)
    await stage.receivers[name].send(told(action="acknowledge", heading="Acknowledged by ann"), thread)
    assert (stage.arrived(name), stage.refused()) == (2, [])


@every_receiver
async def test_a_thread_of_another_kind_does_no_harm(stage, name):
    """The receiver may have been another one when the thread began: a webhook that became a bot, or a fallback."""
    for thread in ("ok", "C0OTHER:1.000001", "<a@b>", "x" * 300, "\r\nBcc: a@b"):
        await stage.receivers[name].send(told(alert(alert_id=thread)), thread)
    assert (stage.arrived(name), stage.refused()) == (5, [])


@every_receiver
async def test_passing_trouble_may_be_tried_again_and_then_works(stage, name):
    stage.plan(name, "passing")
    with pytest.raises(RetryableError):
        await stage.receivers[name].send(told(), None)
    await stage.receivers[name].send(told(), None)
    assert stage.arrived(name) == 1


@every_receiver
async def test_lasting_trouble_is_not_tried_again(stage, name):
    stage.plan(name, "lasting")
    with pytest.raises(PermanentError):
        await stage.receivers[name].send(told(), None)
    assert stage.arrived(name) == 0


@pytest.mark.parametrize("name", ON_THE_WEB)
async def test_a_rate_limit_says_when_to_come_back(stage, name):
    stage.plan(name, "429", retry_after_s=7)
    with pytest.raises(RetryableError) as caught:
        await stage.receivers[name].send(told(), None)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("name", ON_THE_WEB)
async def test_one_call_is_one_try(stage, name):
    """The outbox counts, waits and gives up; a client that tries by itself would do so behind its back."""
    stage.plan(name, "429", times=2)
    for _ in range(2):
        with pytest.raises(RetryableError):
            await stage.receivers[name].send(told(), None)
    await stage.receivers[name].send(told(), None)
    assert stage.arrived(name) == 1


@every_receiver
@pytest.mark.parametrize("kind", ["stall", "drop"])
async def test_a_receiver_that_hangs_or_hangs_up_may_be_tried_again(stage, name, kind):
    stage.plan(name, kind, **({} if name == "email" else {"stall_s": 30}))
    async with asyncio.timeout(8):
        with pytest.raises(RetryableError):
            await stage.receivers[name].send(told(), None)


@every_receiver
async def test_a_receiver_that_hangs_holds_up_nothing_else(stage, name):
    stage.plan(name, "stall", **({} if name == "email" else {"stall_s": 30}))
    sending = asyncio.create_task(stage.receivers[name].send(told(), None))
    beats = 0
    async with asyncio.timeout(8):
        while not sending.done():
            await asyncio.sleep(0.01)
            beats += 1
    assert isinstance(sending.exception(), RetryableError)
    assert beats >= 20


def _untrusting(name: str, url: str, port: int):
    """A receiver that is sent to a server whose certificate nobody vouches for."""
    if name == "pagerduty":
        return PagerDutyReceiver(ROUTING_KEY, url=url)
    if name == "slack":
        return SlackWebhookReceiver(f"{url}/services/x")
    if name == "slack_bot":
        return SlackBotReceiver("xoxb-1", "C1", api_url=f"{url}/api/")
    if name == "webhook":
        return WebhookReceiver(f"{url}/hook", SECRET, lambda: 0)
    return MailReceiver("127.0.0.1", port, sender="s@x.test", recipients=["a@x.test"], tls="tls")


@every_receiver
async def test_a_certificate_nobody_vouches_for_is_trouble_and_not_trusted(stage, name, tmp_path):
    taken = []

    async def take(request: web.Request) -> web.Response:
        taken.append(await request.read())
        return web.json_response({"ok": True, "dedup_key": "k", "channel": "C1", "ts": "1.1"})

    app = web.Application()
    app.router.add_post("/{any:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    _, context = make_certificate(tmp_path / "other", to_datetime(WallClock().now()))
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        receiver = _untrusting(name, f"https://127.0.0.1:{port}", port)
        with pytest.raises(RetryableError):
            await receiver.send(told(), None)
        await receiver.close()
    finally:
        await runner.cleanup()
    assert taken == []


ANY_TEXT = [
    pytest.param(told(alert(summary=HOSTILE, scope_id=HOSTILE, action=HOSTILE, owner=HOSTILE)), id="hostile text"),
    pytest.param(told(alert(summary="x" * 50_000, action="y" * 50_000, scope_id="z" * 5_000)), id="oversized text"),
    pytest.param(
        told(alert(summary="&" * 50_000, action="<" * 50_000, scope_id=">" * 5_000)), id="nothing but escapes"
    ),
    pytest.param(told(alert(summary="", scope_id="")), id="hardly any text"),
    pytest.param(
        told(alert(labels={f"{HOSTILE}{n}": "v" * 9_000 for n in range(60)})), id="many long labels with hostile names"
    ),
    pytest.param(told(alert(observed="NaN", expected="Infinity", threshold="-0")), id="figures that are none"),
    pytest.param(told(heading=HOSTILE, paragraphs=(HOSTILE,) * 3), id="a hostile heading and paragraphs"),
    pytest.param(group_of(200), id="a group of two hundred"),
    pytest.param(
        told(
            *(alert(scope_id=f"{n}{'<' * 4_000}", summary="&" * 9_000, action="<" * 9_000) for n in range(60)),
            group={"team": "<" * 9_000},
        ),
        id="a group of sixty, each oversized",
    ),
    pytest.param(
        told(heading="h" * 9_000, paragraphs=tuple("p&" * 5_000 for _ in range(500))),
        id="more paragraphs than there is room for",
    ),
]


@every_receiver
@pytest.mark.parametrize("notification", ANY_TEXT)
async def test_any_text_is_carried_within_the_receivers_limits(stage, name, notification):
    await stage.receivers[name].send(notification, None)
    assert (stage.arrived(name), stage.refused()) == (1, [])


@every_receiver
async def test_a_group_says_how_many_fire_and_what_was_cut(stage, name):
    await stage.receivers[name].send(group_of(60), None)
    said = stage.said(name)
    assert "59 firing, 1 ended: Budget budget-000" in said
    assert "left_out=0" in said if name == "webhook" else "the dashboard has all of them" in said


@every_receiver
async def test_a_group_of_three_is_told_whole(stage, name):
    await stage.receivers[name].send(told(alert(), alert(scope_id="b-2"), over(scope_id="b-3")), None)
    said = stage.said(name)
    assert all(scope in said for scope in ("search-daily", "b-2", "b-3"))
    assert "the dashboard has all of them" not in said


@every_receiver
async def test_a_digest_of_what_was_held_back_arrives(stage, name):
    digest = told(
        action="tell",
        reason="digest",
        heading="43 messages were held back",
        paragraphs=("40 of team search", "3 of ml"),
    )
    await stage.receivers[name].send(digest, None)
    assert (stage.arrived(name), stage.refused(), "43 messages were held back" in stage.said(name)) == (1, [], True)


@every_receiver
async def test_a_report_without_alerts_arrives_or_is_refused_for_good(stage, name):
    report = Notification(
        notification_id="n", receiver=name, thread_key="week", action="tell", reason="report", alerts=(),
        heading="Week 47 of team search", paragraphs=("Spent $120.00 of $300.00.", "chat $80.00\nrank $40.00"),
        decided_at=1,
    )  # fmt: skip
    if name == "pagerduty":
        with pytest.raises(PermanentError, match="no reports"):
            await stage.receivers[name].send(report, None)
        return
    await stage.receivers[name].send(report, None)
    assert (stage.arrived(name), "Week 47" in stage.said(name)) == (1, True)


@every_receiver
async def test_a_message_sent_twice_bears_the_same_name(stage, name):
    """After a crash between the answer and its record: whoever compares ids finds one message."""
    for _ in range(2):
        await stage.receivers[name].send(told(), None)
    standins = stage.standins
    names = {
        "pagerduty": lambda: [incident.dedup_key for incident in standins.pagerduty.incidents],
        "slack": lambda: [None],
        "slack_bot": lambda: {posted.body["metadata"]["event_payload"]["id"] for posted in standins.slack.posted},
        "email": lambda: {mail["Message-ID"] for mail in standins.mail.messages},
        "webhook": lambda: standins.webhook.messages,
    }[name]()
    assert len(names) == 1


@every_receiver
async def test_receivers_on_this_machine_are_reached_past_a_proxy(tmp_path, monkeypatch, name):
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with StandIns(tmp_path) as standins:
        stage = Stage(standins, monkeypatch)
        await stage.receivers[name].send(told(), None)
        assert stage.arrived(name) == 1
        for receiver in stage.receivers.values():
            await receiver.close()


@pytest.mark.parametrize("name", ["slack", "slack_bot", "webhook"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"status": 502, "body": b"\xff\xfe bad", "content_type": "text/html"}, id="bytes"),
        pytest.param({"status": 503, "text": "<html>maintenance</html>"}, id="a page"),
        pytest.param({"status": 307, "headers": {"Location": "/services/SECRET"}}, id="a redirect without end"),
    ],
)
async def test_an_odd_answer_gives_no_secret_away(name, answer, caplog):
    caplog.set_level(logging.DEBUG)

    async def odd(request: web.Request) -> web.Response:
        return web.Response(charset="utf-8" if "content_type" in answer else None, **answer)

    app = web.Application()
    app.router.add_post("/{any:.*}", odd)
    app.router.add_get("/{any:.*}", odd)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        receiver = {
            "slack": lambda: SlackWebhookReceiver(f"{url}/services/SECRET"),
            "slack_bot": lambda: SlackBotReceiver("xoxb-SECRET", "C1", api_url=f"{url}/api/"),
            "webhook": lambda: WebhookReceiver(f"{url}/SECRET", "whsec_U0VDUkVU", lambda: 0),
        }[name]()
        # A webhook that moved is a setting to mend; everything else may pass.
        expected = PermanentError if (name, answer["status"]) == ("webhook", 307) else RetryableError
        with pytest.raises(expected) as caught:
            await receiver.send(told(), None)
        await receiver.close()
        assert "SECRET" not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    finally:
        await runner.cleanup()
