"""What a whole message says: its heading with the cause in it, whom it is about, which alerts fit, and what was cut."""

from collections import Counter
from typing import NamedTuple
from urllib.parse import quote

from schemas.alerts import Alert, Severity
from streams.core.notifying import Notification, standing_of
from streams.sinks.wording import ONLY_TOLD, brief, cause, clip, facts, one_line, rule_words, runbook, web_link, where

HEADING_MAX = 1_024
PARAGRAPH_MAX = 2_000
PARAGRAPHS_MAX = 100
GROUP_LABELS_MAX = 8
RULES_MAX = 3
#: A longer link to one alert is given up for the page of all.
LINK_MAX = 400
#: Worst first.
SEVERITIES: tuple[Severity, ...] = ("emergency", "critical", "warning", "info")
#: What is over is counted as this.
ENDED = "ended"
#: Why a message comes, where that is more than that something fires.
_LEADS = {
    "updated": "Update: ",
    "worse": "Worse: ",
    "better": "Better: ",
    "repeated": "Still: ",
    "escalated": "Not acknowledged: ",
}
_TELLS = {"digest": "Messages were held back", "report": "Report"}


def is_over(alert: Alert) -> bool:
    """Whether an alert of a message has ended."""
    return alert.status == "resolved"


def firing(notification: Notification) -> int:
    """How many of its alerts fire, named or held back."""
    return tally(notification).total() - ended(notification)


def ended(notification: Notification) -> int:
    """How many of its alerts have ended, named or held back."""
    return tally(notification)[ENDED]


def tally(notification: Notification, shown: int = 0) -> Counter[str]:
    """How many alerts a message is about beyond the first ``shown``: by severity, or as ``ended``."""
    return Counter(map(standing_of, notification.alerts[shown:])) + Counter(notification.held_back)


def worst(notification: Notification) -> Severity | None:
    """The worst severity that fires, or that did where all have ended; None without alerts."""
    found = [a.severity for a in notification.alerts if not is_over(a)] or [a.severity for a in notification.alerts]
    return min(found, key=SEVERITIES.index) if found else None


def standing(notification: Notification) -> str:
    """The worst severity that fires, or ``ended``; ``closed`` where what fires is told elsewhere or muted from now on;
    empty for what is about no alert."""
    if not notification.alerts:
        return "ended" if notification.action == "resolve" else ""
    if not firing(notification):
        return "ended"
    return "closed" if notification.action == "resolve" else worst(notification) or ""


def rules(notification: Notification) -> str:
    """What the rules of its alerts are called, the first few."""
    found = list(dict.fromkeys(rule_words(alert.rule) for alert in notification.alerts))
    return ", ".join(found[:RULES_MAX]) + ("…" if len(found) > RULES_MAX else "")


def runbooks(notification: Notification, template: str = "") -> list[tuple[str, str]]:
    """The first few runbooks of its alerts and what to call them."""
    found = {book: alert.rule for alert in reversed(notification.alerts) if (book := runbook(alert, template))}
    shown = list(reversed(found.items()))[:RULES_MAX]
    return [(f"Runbook: {rule_words(rule)}" if len(shown) > 1 else "Runbook", book) for book, rule in shown]


def dashboard(notification: Notification, url: str) -> str:
    """The page of the alert, of the alerts, or the dashboard where it is about none; empty without an address."""
    base = web_link(url).rstrip("/")
    if not base or not notification.alerts:
        return base
    page = f"{base}/alerts"
    exact = f"{page}#{quote(notification.alerts[0].dedup_key, safe=':/')}"
    return exact if len(notification.alerts) == 1 and len(exact) <= LINK_MAX else page


def links(notification: Notification, dashboard_url: str, runbook_template: str) -> list[tuple[str, str]]:
    """What a message links to, by name."""
    page = dashboard(notification, dashboard_url)
    return ([("Dashboard", page)] if page else []) + runbooks(notification, runbook_template)


def heading(notification: Notification) -> str:
    """The first line: why this message comes, how many alerts it is about, and the cause of the worst."""
    if notification.heading:
        return clip(one_line(notification.heading), HEADING_MAX)
    alerts = notification.alerts
    if not alerts:
        return _TELLS.get(notification.reason, "Resolved" if notification.action == "resolve" else "Sluice")
    if len(alerts) == 1:
        return clip(_lead(notification, alerts[0]) + cause(alerts[0]), HEADING_MAX)
    if notification.action == "resolve":
        number = f"{tally(notification).total():,}"
        over = f"Resolved, all {number} alerts have ended" if notification.held_back else f"Resolved, {number} alerts"
        what = f"No longer told here, {number} alerts" if firing(notification) else over
        return clip(f"{what}: {cause(alerts[0])}", HEADING_MAX)
    said = f"{_lead(notification, None)}{counts(notification)}: "
    return clip(said + cause(alerts[0]), HEADING_MAX)


def _lead(notification: Notification, alert: Alert | None) -> str:
    if alert is not None and is_over(alert):
        return "Resolved: "
    if notification.action == "resolve":
        return "No longer told here: "
    if notification.action == "acknowledge":
        return "Acknowledged: "
    found = _LEADS.get(notification.reason, "")
    return found or ("Update: " if alert is not None and alert.status == "updated" else "")


def counts(notification: Notification) -> str:
    """How many of its alerts fire and how many have ended."""
    over, fires = ended(notification), firing(notification)
    return ", ".join(part for part in (f"{fires:,} firing" if fires or not over else "", _of("ended", over)) if part)


def _of(what: str, number: int) -> str:
    return f"{number:,} {what}" if number else ""


def about(notification: Notification) -> str:
    """The labels that a group shares, for people; empty where there are none, or where it is one alert by itself."""
    shared = [(n, v) for n, v in notification.group.items() if v and n != "alert"][:GROUP_LABELS_MAX]
    return one_line(", ".join(f"{clip(name.replace('_', ' '), 40)} {clip(value, 200)}" for name, value in shared))


def paragraphs(notification: Notification, most: int = PARAGRAPHS_MAX) -> list[str]:
    """Its first paragraphs, with the line breaks of their own and no other control characters, and what was cut."""
    texts = notification.paragraphs
    shown = [clip("\n".join(map(one_line, text.split("\n"))).strip(), PARAGRAPH_MAX) for text in texts[:most]]
    left = len(texts) - len(shown)
    return [text for text in shown if text] + ([f"… and {left} more; the dashboard has all of them."] if left else [])


class Parts(NamedTuple):
    """How a group is told: some alerts whole, some in a line each, and of the rest how many."""

    whole: list[tuple[Alert, list[tuple[str, str]]]]
    lines: list[Alert]
    left_out: str


def parts(notification: Notification, whole_max: int, lines_max: int) -> Parts:
    """A group's alerts in order, with the facts of those that are told whole.

    A next step is said once for each rule, and that nothing was done is not said at all. What fires comes first, so
    what has ended is cut before it.
    """
    alerts = notification.alerts
    asked: set[str] = set()
    whole = []
    for alert in alerts[:whole_max]:
        found = [(n, v) for n, v in facts(alert) if v != ONLY_TOLD and not (n == "Next" and alert.rule in asked)]
        if not is_over(alert):
            asked.add(alert.rule)
        whole.append((alert, found))
    return Parts(whole, list(alerts[whole_max : whole_max + lines_max]), left_out(notification, whole_max + lines_max))


def line(alert: Alert) -> str:
    """One alert of many: its state, its cause, and of where, how much and since when what the cause does not name."""
    said, rest = cause(alert), brief(alert)
    state = "ended" if is_over(alert) else alert.severity
    place = f"{where(alert)} · "
    return f"{state}: {said} · {rest.removeprefix(place) if alert.scope_id in said else rest}"


def left_out(notification: Notification, shown: int) -> str:
    """What of a group a message has no room for; empty where all is shown."""
    rest = tally(notification, shown)
    if not rest:
        return ""
    words = ", ".join(part for what in (*SEVERITIES, ENDED) if (part := _of(what, rest[what])))
    return f"… and {rest.total():,} more ({words}); the dashboard has all of them."
