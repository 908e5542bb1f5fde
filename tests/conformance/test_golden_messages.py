"""How messages read, in every channel. A changed golden file is a changed interface: read it as whoever gets it would.

``SLUICE_GOLDEN=write`` in the environment writes them anew, to be reviewed like code.
"""

import json
import os
from pathlib import Path

import msgspec
import pytest

from schemas import keys
from schemas.alerts import Alert, Contributor, Driver, Drivers
from schemas.instants import parse_instant
from streams.core.notifying import Notification
from streams.ports import Invitation
from streams.sinks import mail, pagerduty, slack_blocks, webhook

GOLDEN = Path(__file__).parent / "golden"
DASHBOARD, RUNBOOKS = "https://sluice.example.test", "https://wiki.example.test/runbooks/{rule}"


def made(rule: str, scope: str, summary: str, at: str, **changes) -> Alert:
    scope_type, _, scope_id = scope.partition(":")
    key = keys.alert_dedup_key(rule, scope, f"{at[:13]}:00:00Z")
    status = changes.get("status", "opened")
    fields = {
        "alert_id": keys.alert_id(key, 1, status),
        "dedup_key": key,
        "episode": 1,
        "status": status,
        "severity": "critical",
        "tier": "page",
        "rule": rule,
        "scope_type": scope_type,
        "scope_id": scope_id,
        "summary": summary,
        "occurred_at": at,
        "stated_at": f"{at[:-3]}01Z",
    }
    return Alert(**(fields | changes))


SPIKE = made(
    "spend_spike", "team:search", "Team search spent $84.20 by 14:32 UTC, 3.1× the expected $27.10 (feature chat drives 71 %)",
    "2026-11-21T14:32:00Z", team_id="search", observed="84.2", expected="27.1", threshold="40.65",
    period_start="2026-11-21T14:00:00Z", period_end="2026-11-21T15:00:00Z", owner="lead@example.test",
    labels={"environment": "production", "cost_centre": "cc-7"},
    drivers=Drivers(
        volume="6.1", model_mix="48.2", tokens_per_request="3", cache="0", price="-0.2",
        by=[Driver("feature", "chat", "51.3"), Driver("model", "gpt-4o", "44.1"), Driver("key", "k-17", "40.0")],
    ),
    top_contributors=[Contributor("chat", "60"), Contributor("rank", "20.5"), Contributor("embed", "3.7")],
)  # fmt: skip
BUDGET = made(
    "budget_threshold", "budget:search-daily", "Budget search-daily (team search) passed 100 %: $50.10 of $50.00 this day",
    "2026-11-21T14:40:00Z", severity="emergency", team_id="search", observed="50.1", expected="50", threshold="100 %",
    period_start="2026-11-21T00:00:00Z", period_end="2026-11-22T00:00:00Z", owner="lead@example.test",
    action="team search is blocked at the gateways until the day ends",
    top_contributors=[Contributor("chat", "40"), Contributor("rank", "10.1")],
)  # fmt: skip
GPUS = made(
    "gpu_idle", "gpu:GPU-5f2a", "GPU GPU-5f2a (H100 on node-7) of team ml idles at 2 % on average over the last hour, and"
    " costs $95.04 a day", "2026-11-21T13:05:00Z", severity="warning", tier="ticket", team_id="ml", observed="2",
    threshold="20", unit="%", owner="ml@example.test",
)  # fmt: skip
LOOP = made(
    "runaway_request", "team:support", "One request of team support had 182,000 tokens, 45.5× the usual 4,000",
    "2026-11-21T14:05:00Z", status="resolved", stated_at="2026-11-21T15:06:00Z", team_id="support", feature="summaries",
    observed="182000", expected="4000", threshold="50000", unit="tokens",
    top_contributors=[Contributor("182,000 tokens on gpt-4o by key k-3: req-77", "1.2")],
)  # fmt: skip
ASKED = made(
    "approval_wanted", "budget:run-lab/ft-7", "Training run lab/ft-7 of team search announced $250.00: it needs the team"
    " lead's approval", "2026-11-21T09:00:00Z", severity="warning", tier="ticket", team_id="search", observed="250",
)  # fmt: skip
INVITATION = Invitation(
    ("lead@example.test",), "https://sluice.example.test/v1/approvals/abc.def", "2026-11-23 09:00 UTC"
)


def told(
    *alerts: Alert, action: str = "trigger", reason: str = "opened", thread_key: str = "", **changes
) -> Notification:
    fields = {
        "notification_id": keys.digest("golden", action, reason, *(each.alert_id for each in alerts)),
        "receiver": "platform/oncall",
        "thread_key": thread_key or alerts[0].dedup_key,
        "action": action,
        "reason": reason,
        "alerts": alerts,
        "decided_at": parse_instant("2026-11-21T14:40:02Z"),
    }
    return Notification(**(fields | changes))


BUDGET_OVER = msgspec.structs.replace(
    BUDGET, status="resolved", summary="Budget search-daily (team search) is below 100 % again: the day is over", action="",
    stated_at="2026-11-22T00:00:01Z",
)  # fmt: skip
CROWD = [
    msgspec.structs.replace(SPIKE, dedup_key=f"k{n}", scope_id=f"team-{n:02d}", team_id="", labels={},
                            summary=f"Team team-{n:02d} spent ${80 - n}.00 by 14:32 UTC") for n in range(40)
]  # fmt: skip
ENDED = [msgspec.structs.replace(each, status="resolved", stated_at="2026-11-21T15:05:00Z") for each in CROWD]
MESSAGES = {
    "spike": told(SPIKE),
    "budget": told(BUDGET),
    "budget-escalated": told(
        BUDGET, reason="escalated", paragraphs=("Nobody has acknowledged it for 15 minutes; platform/oncall was told first.",)
    ),
    "budget-resolved": told(BUDGET_OVER, action="resolve", reason="resolved"),
    "budget-acknowledged": told(BUDGET, action="acknowledge", heading="Acknowledged by ann (PagerDuty): Budget search-daily"),
    "group": told(BUDGET, SPIKE, GPUS, LOOP, reason="joined", thread_key="g1", group={"environment": "production"}),
    "large-group": told(*CROWD, thread_key="g2", group={"cost_centre": "cc-7"}),
    "crowd": told(*CROWD, reason="joined", thread_key="g3", held_back={"critical": 3, "warning": 4_797, "ended": 12}),
    "crowd-resolved": told(*ENDED, action="resolve", reason="resolved", thread_key="g3", held_back={"ended": 4_812}),
    "approval": told(ASKED),
    "digest": told(
        action="tell", reason="digest", thread_key="d1", heading="43 messages were held back in the last 10 minutes",
        paragraphs=("40 of them about spend spikes, of 12 teams; 3 about idle GPUs.", "Still firing: 31, the worst critical."),
    ),
    "report": told(
        action="tell", reason="report", thread_key="w47", heading="Week 47 of team search: $1,204.10 spent, 60 % of its budget",
        paragraphs=(
            "Spend: $1,204.10, 12 % more than the week before.\nForecast: $1,890.00 of $2,000.00 by the end of the month.",
            "Top drivers:\nchat $840.00\nrank $310.50\nembed $53.60",
            "Alerts: 2 critical (1 in review), 5 warnings.",
        ),
        group={"team": "search", "owner": "lead@example.test"},
    ),
}  # fmt: skip
#: PagerDuty takes no reports; a webhook is told a large group whole, which nobody would read.
NOT_KEPT = {("report", "pagerduty.json")} | {
    (name, "webhook.json") for name in ("large-group", "crowd", "crowd-resolved")
}


def as_json(found) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def in_pagerduty(notification: Notification) -> str:
    action, properties = pagerduty.event(notification, DASHBOARD, RUNBOOKS)
    return as_json({"event_action": action, "dedup_key": notification.thread_key} | properties)


def in_slack(notification: Notification) -> str:
    invited = INVITATION if notification is MESSAGES["approval"] else None
    text, blocks = slack_blocks.message(notification, DASHBOARD, RUNBOOKS, invited)
    return as_json({"text": text, "blocks": blocks})


def mailed(notification: Notification):
    is_first = notification.reason in ("opened", "digest", "report")
    return mail.compose(
        notification,
        "sluice@example.test",
        ["lead@example.test"],
        None if is_first else "<first@example.test>",
        DASHBOARD,
        RUNBOOKS,
        INVITATION if notification is MESSAGES["approval"] else None,
    )


def in_mail(notification: Notification) -> str:
    composed = mailed(notification)
    names = ("Subject", "From", "To", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted")
    headers = [f"{name}: {composed[name]}" for name in names if composed[name]]
    return "\n".join([*headers, "", composed.get_body(("plain",)).get_content().replace("\r\n", "\n")])


def in_html(notification: Notification) -> str:
    html = mailed(notification).get_body(("html",)).get_content().replace("\r\n", "\n")
    return html.replace("><tr", ">\n<tr").replace("><div", ">\n<div").replace("><p", ">\n<p")


def in_webhook(notification: Notification) -> str:
    return as_json(json.loads(webhook.body_of(notification, DASHBOARD)))


CHANNELS = {
    "pagerduty.json": in_pagerduty,
    "slack.json": in_slack,
    "mail.txt": in_mail,
    "mail.html": in_html,
    "webhook.json": in_webhook,
}


def as_written(name: str, text: str) -> str:
    """The golden text, which is written first where that is asked for."""
    path = GOLDEN / name
    if os.environ.get("SLUICE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return path.read_text()


@pytest.mark.parametrize(
    ("name", "channel"),
    [(name, channel) for name in MESSAGES for channel in CHANNELS if (name, channel) not in NOT_KEPT],
)
def test_a_message_is_the_agreed_text(name, channel):
    text = CHANNELS[channel](MESSAGES[name])
    assert text == as_written(f"{name}.{channel}", text)


def test_no_golden_file_is_of_a_message_that_is_gone():
    known = {f"{n}.{c}" for n in MESSAGES for c in CHANNELS if (n, c) not in NOT_KEPT}
    assert {path.name for path in GOLDEN.iterdir()} == known
