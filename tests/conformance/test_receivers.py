"""What every receiver does: deliver, tell passing trouble from lasting trouble, and carry hostile text unharmed."""

import asyncio
import json

import pytest

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
from tests.unit.records import NOON

NAMES = ("pagerduty", "slack", "email")


def alert(**changes) -> Alert:
    key = "v1:budget_threshold:budget:search-daily:2026-11-21T00:00:00Z:100"
    status = changes.pop("status", "opened")
    fields = dict(
        alert_id=keys.alert_id(key, 1, status), dedup_key=key, episode=1, status=status, severity="emergency",
        tier="page", rule="budget_threshold", scope_type="budget", scope_id="search-daily", team_id="search",
        summary="Budget search-daily (team search) passed 100 %: $50.10 of $50.00 this day",
        occurred_at=format_instant(NOON), stated_at=format_instant(NOON), observed="50.1", expected="50",
        threshold="100 %", top_contributors=[Contributor("chat", "40"), Contributor("rank", "10.1")],
        action="team search is blocked at the gateways until the day ends",
    )  # fmt: skip
    return Alert(**(fields | changes))


class Stage:
    """The stand-ins with receivers pointed at them, and what arrived."""

    def __init__(self, standins: StandIns, monkeypatch) -> None:
        self.standins = standins
        for name, value in standins.environment().items():
            monkeypatch.setenv(name, value)
        self.receivers = receivers(load_settings())

    def arrived(self, name: str) -> int:
        return len({"pagerduty": self.standins.pagerduty.events, "slack": self.standins.slack.messages,
                    "email": self.standins.mail.messages}[name])  # fmt: skip

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


@pytest.mark.parametrize("name", ["pagerduty", "slack"])
@pytest.mark.parametrize("kind", ["stall", "drop"])
async def test_a_receiver_that_hangs_or_hangs_up_may_be_tried_again(stage, name, kind):
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


HOSTILE = "<!channel> *bold* <b>html</b> & \"quotes\"\r\nBcc: everyone@example.test\r\n\r\nbody \u202e"


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
