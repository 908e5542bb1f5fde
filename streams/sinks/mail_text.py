"""The text of a mail, to be read in a terminal of 80 columns."""

import textwrap

from schemas.alerts import Alert
from streams.core.notifying import Notification
from streams.ports import Invitation
from streams.sinks import telling
from streams.sinks.wording import cause, facts, web_link

WIDTH = 76
#: Alerts of a group that are told whole; the rest is counted.
ALERTS_MAX = 25
_LABEL = len("How much")


def text_of(
    notification: Notification, dashboard_url: str = "", runbook_url: str = "", invitation: Invitation | None = None
) -> str:
    """The whole text; lines are wrapped, but for links."""
    parts = [_wrapped(telling.heading(notification))]
    alerts = notification.alerts
    if len(alerts) > 1 and (about := telling.about(notification)):
        parts.append(_wrapped(f"All of {about}."))
    parts += ["\n".join(_wrapped(line) for line in text.split("\n")) for text in telling.paragraphs(notification)]
    if len(alerts) == 1:
        parts.append(_facts(alerts[0]))
    else:
        parts += [_numbered(number, alert) for number, alert in enumerate(alerts[:ALERTS_MAX], 1)]
        if rest := telling.left_out(notification, ALERTS_MAX):
            parts.append(_wrapped(rest))
    if invitation and invitation.url:
        parts.append(f"Approve or refuse:\n{invitation.url}\n{_wrapped(for_you(invitation))}")
    links = [("Dashboard", web_link(dashboard_url)), *telling.runbooks(notification, runbook_url)]
    shown = [f"{name:<{_LABEL + 1}} {url}" for name, url in links if url]
    if shown:
        parts.append("\n".join(shown))
    return "\n\n".join(parts) + "\n"


def for_you(invitation: Invitation) -> str:
    """What to know of a link that decides."""
    return f"The link decides once, until {invitation.until}, for whoever has it: do not pass it on."


def _numbered(number: int, alert: Alert) -> str:
    """One alert of a group, under a rule."""
    state = "ended" if telling.is_over(alert) else alert.severity
    head = f"{number}. {state.upper()} "
    return f"{head}{'-' * (WIDTH - len(head))}\n{_wrapped(cause(alert))}\n{_facts(alert)}"


def _facts(alert: Alert) -> str:
    return "\n".join(_wrapped(value, f"{name:<{_LABEL + 2}}") for name, value in facts(alert))


def _wrapped(text: str, lead: str = "") -> str:
    """Lines of at most ``WIDTH``, hanging under a lead; what cannot be broken, as a link, stays whole."""
    filled = textwrap.fill(
        text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return filled or lead.rstrip()
