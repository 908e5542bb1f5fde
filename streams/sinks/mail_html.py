"""The HTML of a mail: tables and inline styles alone, which is what mail programs agree on. All text is escaped."""

import re
from html import escape

from schemas.alerts import Alert
from streams.core.notifying import Notification
from streams.ports import Invitation
from streams.sinks import telling
from streams.sinks.mail_text import LINES_MAX, WHOLE_MAX, for_you
from streams.sinks.wording import cause, facts

#: Of the bar beside an alert, and of the word in it: dark enough to be read on white.
COLOURS = {"emergency": "#b3261e", "critical": "#c2410c", "warning": "#a16207", "info": "#1d4ed8"}
OVER = "#15803d"
_PLAIN = "#6b7280"
_COMMAND = re.compile(r"`([^`]+)`")
_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_TITLE = "font-size:18px;font-weight:bold;line-height:1.3"
_LEFT = f"padding:3px 16px 3px 0;color:{_PLAIN};vertical-align:top;white-space:nowrap;font-weight:normal"


def html_of(
    notification: Notification, dashboard_url: str = "", runbook_url: str = "", invitation: Invitation | None = None
) -> str:
    """The whole document."""
    alerts = notification.alerts
    parts = [_heading(notification)]
    parts += [f"<p style='margin:0 0 12px'>{_lines(text)}</p>" for text in telling.paragraphs(notification)]
    if len(alerts) == 1:
        parts.append(_table(facts(alerts[0])))
    elif alerts:
        parts.append(_group(notification))
    if invitation and invitation.url:
        button = "padding:8px 16px;background:#1d4ed8;color:#ffffff;text-decoration:none;border-radius:4px"
        decide = f"<a href='{escape(invitation.url, quote=True)}' style='{button}'>Approve or refuse</a>"
        note = f"<p style='margin:0 0 16px;color:{_PLAIN}'>{escape(for_you(invitation))}</p>"
        parts.append(f"<p style='margin:20px 0 14px'>{decide}</p>{note}")
    parts.append(_links(notification, dashboard_url, runbook_url))
    body = f"{_FONT};font-size:14px;line-height:1.45;color:#111827;max-width:640px;margin:0;padding:12px"
    return f"<!DOCTYPE html><html><body style='margin:0'><div style=\"{body}\">{''.join(parts)}</div></body></html>"


def _heading(notification: Notification) -> str:
    standing = telling.standing(notification)
    colour = OVER if standing == "ended" else COLOURS.get(standing, _PLAIN)
    about = telling.about(notification) if notification.alerts else ""
    words = " · ".join(part for part in (standing, telling.rules(notification), about) if part)
    over_line = f"<div style='color:{colour};font-size:13px;font-weight:bold'>{escape(words)}</div>" if words else ""
    title = escape(telling.heading(notification))
    bar = f"border-left:4px solid {colour};padding:2px 0 2px 12px;margin:0 0 16px"
    return f"<div style='{bar}'>{over_line}<div style='{_TITLE}'>{title}</div></div>"


def _group(notification: Notification) -> str:
    whole, lines, rest = telling.parts(notification, WHOLE_MAX, LINES_MAX)
    found = [_card(alert, known) for alert, known in whole]
    if lines:
        told = "".join(f"<li style='margin:0 0 4px'>{escape(telling.line(alert))}</li>" for alert in lines)
        found.append(f"<ul style='margin:0 0 12px;padding:0 0 0 18px;font-size:13px'>{told}</ul>")
    if rest:
        found.append(f"<p style='margin:0 0 12px;color:{_PLAIN}'>{escape(rest)}</p>")
    return "".join(found)


def _card(alert: Alert, known: list[tuple[str, str]]) -> str:
    """One alert of a group."""
    over = telling.is_over(alert)
    colour = OVER if over else COLOURS[alert.severity]
    state = f"<span style='color:{colour};font-weight:bold'>{'ended' if over else alert.severity}</span>"
    title = f"<div style='margin:0 0 4px'>{state} · <b>{escape(cause(alert))}</b></div>"
    bar = f"border-left:3px solid {colour};padding:2px 0 2px 12px;margin:0 0 18px"
    return f"<div style='{bar}'>{title}{_table(known)}</div>"


def _table(known: list[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><th align='left' style='{_LEFT}'>{escape(name)}</th><td style='padding:3px 0;word-break:break-word'>"
        f"{_commands(value) if name == 'Next' else escape(value)}</td></tr>"
        for name, value in known
    )
    return f"<table role='presentation' cellspacing='0' style='border-collapse:collapse;font-size:14px'>{rows}</table>"


def _commands(text: str) -> str:
    """Our own words: what is in backticks is a command."""
    return _COMMAND.sub(r"<code>\1</code>", escape(text))


def _links(notification: Notification, dashboard_url: str, runbook_url: str) -> str:
    links = [
        ("Dashboard", telling.dashboard(notification, dashboard_url)),
        *telling.runbooks(notification, runbook_url),
    ]
    shown = " · ".join(f"<a href='{escape(url, quote=True)}'>{escape(name)}</a>" for name, url in links)
    return f"<p style='margin:16px 0 0'>{shown}</p>" if shown else ""


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.split("\n"))
