"""The text of a mail, to be read in a terminal of 80 columns."""

import re
import textwrap

from streams.core.notifying import Notification
from streams.ports import Invitation
from streams.sinks import telling
from streams.sinks.wording import cause, facts

WIDTH = 76
#: Alerts of a group that are told whole, and in a line each; the rest is counted.
WHOLE_MAX = 8
LINES_MAX = 50
_LABEL = len("How much")
_COMMAND = re.compile(r"`[^`]{1,60}`")
#: Stands for a space where no line may end; no text that comes here has control characters.
_KEPT = "\x1a"


def text_of(
    notification: Notification, dashboard_url: str = "", runbook_url: str = "", invitation: Invitation | None = None
) -> str:
    """The whole text; lines are wrapped, but for links."""
    parts = [_wrapped(telling.heading(notification))]
    alerts = notification.alerts
    if len(alerts) > 1 and (about := telling.about(notification)):
        parts.append(_wrapped(f"In common: {about}."))
    parts += ["\n".join(_wrapped(line) for line in text.split("\n")) for text in telling.paragraphs(notification)]
    if len(alerts) == 1:
        parts.append(_facts(facts(alerts[0])))
    elif alerts:
        parts += _group(notification)
    if invitation and invitation.url:
        parts.append(f"Approve or refuse:\n{invitation.url}\n{_wrapped(for_you(invitation))}")
    links = [
        ("Dashboard", telling.dashboard(notification, dashboard_url)),
        *telling.runbooks(notification, runbook_url),
    ]
    shown = [f"{name:<{_LABEL + 1}} {url}" for name, url in links]
    if shown:
        parts.append("\n".join(shown))
    return "\n\n".join(parts) + "\n"


def for_you(invitation: Invitation) -> str:
    """What to know of a link that decides."""
    return f"The link decides once, until {invitation.until}, for whoever has it: do not pass it on."


def _group(notification: Notification) -> list[str]:
    whole, lines, rest = telling.parts(notification, WHOLE_MAX, LINES_MAX)
    found = []
    for number, (alert, known) in enumerate(whole, 1):
        head = f"{number}. {'ended' if telling.is_over(alert) else alert.severity} "
        found.append(f"{head}{'-' * (WIDTH - len(head))}\n{_wrapped(cause(alert))}\n{_facts(known)}")
    if lines:
        first = len(whole) + 1
        told = [_wrapped(telling.line(alert), f"{number}. ") for number, alert in enumerate(lines, first)]
        found.append("\n".join([f"And {'-' * (WIDTH - 4)}", *told]))
    return [*found, _wrapped(rest)] if rest else found


def _facts(found: list[tuple[str, str]]) -> str:
    return "\n".join(_wrapped(value, f"{name:<{_LABEL + 2}}") for name, value in found)


def _wrapped(text: str, lead: str = "") -> str:
    """Lines of at most ``WIDTH``, hanging under a lead; links and commands in backticks stay whole, to be copied."""
    whole = _COMMAND.sub(lambda found: found.group().replace(" ", _KEPT), text)
    filled = textwrap.fill(
        whole, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return filled.replace(_KEPT, " ") or lead.rstrip()
