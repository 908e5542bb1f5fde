"""The stand-ins, a receiver of each kind pointed at them, and what arrived: what the suites of receivers stand on."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from schemas import keys
from schemas.alerts import Alert, Contributor
from schemas.instants import HOUR, format_instant
from streams.core.notifying import Notification
from streams.ports import Receiver
from streams.settings import load_settings
from streams.sinks.receivers import receivers
from streams.standins.runner import StandIns
from streams.standins.smtp import DROP, STALL
from streams.standins.webhook import SECRET
from tests.unit.records import NOON

#: Every kind of receiver that the suite is about.
NAMES = ("pagerduty", "slack", "slack_bot", "email", "webhook")
#: Those with HTTP: rate limits with Retry-After, answers that are lost.
ON_THE_WEB = ("pagerduty", "slack", "slack_bot", "webhook")
HOSTILE = '<!channel> *bold* <b>html</b> & "quotes"\r\nBcc: everyone@example.test\r\n\r\nbody \u202e'


class Target(NamedTuple):
    """A target as the routes file has one."""

    url: str = ""
    secret: str = ""
    webhook_url: str = ""
    bot_token: str = ""
    channel: str = ""
    routing_key: str = ""
    to: Sequence[str] = ()


class Integration(NamedTuple):
    """An integration as the routes file has one."""

    kind: str
    target: Target | None


def alert(**changes: Any) -> Alert:
    """A budget that is spent."""
    scope = changes.get("scope_id", "search-daily")[:60]
    key = f"v1:budget_threshold:budget:{scope}:2026-11-21T00:00:00Z:100"
    status = changes.pop("status", "opened")
    fields = {
        "alert_id": keys.alert_id(key, changes.get("episode", 1), status),
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


def over(**changes: Any) -> Alert:
    """The same, ended."""
    ended = {"status": "resolved", "stated_at": format_instant(NOON + HOUR), "action": ""}
    return alert(**(ended | changes))


def told(*alerts: Alert, action: str = "trigger", reason: str = "opened", **changes: Any) -> Notification:
    """A message about alerts; one about a spent budget where none is given."""
    alerts = alerts or (alert(),)
    fields = {
        "notification_id": keys.digest("test", action, reason, *(a.alert_id for a in alerts)),
        "receiver": "r",
        "thread_key": alerts[0].dedup_key,
        "action": action,
        "reason": reason,
        "alerts": alerts,
        "decided_at": NOON,
    }
    return Notification(**(fields | changes))


def ended(*alerts: Alert, **changes: Any) -> Notification:
    """The last message of an incident."""
    return told(*(alerts or (over(),)), action="resolve", reason="resolved", **changes)


def group_of(count: int, **changes: Any) -> Notification:
    """A group: all but one fire."""
    members = [
        alert(scope_id=f"budget-{number:03d}", summary=f"Budget budget-{number:03d} passed 100 %")
        for number in range(count)
    ]
    return told(*members[:-1], over(scope_id=f"budget-{count:03d}"), group={"team": "search"}, **changes)


class Stage:
    """The stand-ins with receivers pointed at them, and what arrived."""

    def __init__(self, standins: StandIns, monkeypatch) -> None:
        self.standins = standins
        for name, value in standins.environment().items():
            monkeypatch.setenv(name, value)
        self.receivers = self.made(webhook=Integration("webhook", Target(url=standins.webhook_url, secret=SECRET)))
        for name, value in standins.environment(bot=True).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("SLUICE_SLACK_WEBHOOK_URL")
        self.receivers["slack_bot"] = self.made()["slack"]

    def made(self, **integrations: Integration) -> dict[str, Receiver]:
        """What the settings of now make, and the routes file."""
        return receivers(load_settings(), integrations)

    def served(self, name: str) -> Any:
        """The stand-in of a receiver."""
        return {"slack_bot": self.standins.slack, "email": self.standins.mail}.get(name) or getattr(self.standins, name)

    def arrived(self, name: str) -> int:
        """How many messages there are."""
        served = self.served(name)
        return len(served.events if name == "pagerduty" else served.messages)

    def refused(self) -> list:
        """What a stand-in would not take because of what it says."""
        return [*self.standins.pagerduty.refused, *self.standins.slack.refused, *self.standins.webhook.refused]

    def plan(self, name: str, kind: str, **more: Any) -> None:
        """Let the next message fail: ``passing``, ``lasting``, ``stall`` or ``drop``."""
        served = self.served(name)
        if name == "email":
            answers = {"passing": "451 later", "lasting": "554 no", "stall": STALL, "drop": DROP}
            served.refusals.append(answers[kind])
        elif kind != "lasting":
            served.faults.plan({"passing": "500"}.get(kind, kind), **more)
        elif name == "slack_bot":
            served.errors.append("not_in_channel")
        elif name == "webhook":
            served.statuses.append(422)
        else:
            served.faults.plan("400")

    def said(self, name: str) -> str:
        """All that arrived, as text."""
        served = self.served(name)
        if name == "email":
            return "\n".join(
                mail.get_body((kind,)).get_content() for mail in served.messages for kind in ("plain", "html")
            )
        if name == "webhook":
            return repr(served.messages)
        return json.dumps(served.events if name == "pagerduty" else served.messages, ensure_ascii=False)
