"""What a message looks like in Slack: Block Kit inside its limits, with a text for notifications.

Besides the documented limits of each block Slack refuses a message whose texts are too long together: some 13 000
characters, less with many blocks. What others wrote is escaped, makes no links, mentions nobody and sets no markup.
"""

import re
from typing import Any

from schemas.alerts import Alert
from streams.core.notifying import Notification
from streams.ports import Invitation
from streams.sinks import telling
from streams.sinks.wording import brief, cause, clip, facts, web_link

HEADER_MAX = 150
SECTION_MAX = 3_000
#: Our own bounds, so that all texts together stay below 9 000 characters.
FIELD_MAX = 400
HEADING_MAX = 1_100
WHY_MAX = 1_400
DONE_MAX = 700
GROUPED_MAX = 650
LINE_MAX = 600
PARAGRAPHS_MAX = 2_400
REPORT_MAX = 7_000
LINK_MAX = 400
#: Alerts of a group that are told whole, and in a line each; the rest is counted.
WHOLE_MAX = 5
LINES_MAX = 15
GROUP_LINE_MAX = 160
MARKS = {"emergency": "🔴", "critical": "🟠", "warning": "🟡", "info": "🔵"}
OVER, TOLD, SEEN = "✅", "📋", "👀"
_SHORT = ("Where", "How much", "Since", "Ended", "Period")
_WHY = ("Why", "By", "Drivers")
#: Signs that would begin or end bold, italic, struck or code; within a word they are only signs.
_MARKUP = re.compile(r"(?<!\w)[*_~`]|[*_~`](?!\w)")
_LOOKALIKES = {"*": "∗", "_": "ˍ", "~": "∼", "`": "ˋ"}
_NO_QUOTE = "\u200b"

Block = dict[str, Any]


def escape(text: str) -> str:
    """Slack's three control characters; nothing else starts a mention or a link.

    >>> escape("<!channel> & <@U1>")
    '&lt;!channel&gt; &amp; &lt;@U1&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(text: str) -> str:
    """Text that markup cannot be made of, as it is read; names such as ``gpt_4o`` stay as they are.

    >>> plain("*bold* gpt_4o `rm`"), plain("> quoted")[1:]
    ('∗bold∗ gpt_4o ˋrmˋ', '> quoted')
    """
    text = _MARKUP.sub(lambda found: _LOOKALIKES[found.group()], text)
    return _NO_QUOTE + text if text.startswith(">") else text


def message(
    notification: Notification, dashboard_url: str = "", runbook_url: str = "", invitation: Invitation | None = None
) -> tuple[str, list[Block]]:
    """The text for notifications, and the blocks."""
    heading = telling.heading(notification)
    head = f"{mark(notification)} {heading}"
    blocks: list[Block] = [
        {"type": "header", "text": {"type": "plain_text", "text": clip(head, HEADER_MAX), "emoji": True}}
    ]
    if len(head) > HEADER_MAX:
        blocks.append(_section("", heading, HEADING_MAX))
    blocks += _paragraphs(notification)
    alerts = notification.alerts
    if len(alerts) == 1:
        blocks += _one(alerts[0])
    else:
        whole, lines, rest = telling.parts(notification, WHOLE_MAX, LINES_MAX)
        blocks += [_among_others(alert, known) for alert, known in whole]
        if lines:
            text = "\n".join(f"{_sign(alert)} {fit(telling.line(alert), GROUP_LINE_MAX)}" for alert in lines)
            blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}})
        if rest:
            blocks.append(_context([fit(rest, LINK_MAX)]))
    if invitation and web_link(invitation.url):
        link = f"<{escape(invitation.url)}|Approve or refuse>, until {escape(invitation.until)}"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": link, "verbatim": True}})
    if foot := _foot(notification, dashboard_url, runbook_url):
        blocks.append(_context(foot))
    return fit(head, SECTION_MAX), blocks


def mark(notification: Notification) -> str:
    """The sign before a heading; the severity is said in words at the foot as well."""
    standing = telling.standing(notification)
    if standing == "ended":
        return OVER
    if notification.action == "acknowledge":
        return SEEN
    return TOLD if notification.action == "tell" else MARKS.get(standing, TOLD)


def _one(alert: Alert) -> list[Block]:
    found = facts(alert)
    fields = [_mrkdwn(f"*{name}*\n", value, FIELD_MAX) for name, value in found if name in _SHORT]
    blocks: list[Block] = [{"type": "section", "fields": fields}] if fields else []
    why = [(name, value) for name, value in found if name in _WHY]
    if why:
        room = WHY_MAX // len(why) - 1
        text = "\n".join(f"*{name}* {fit(value, room - len(name) - 3)}" for name, value in why)
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}})
    for name, value in found:
        if name == "Done":
            blocks.append(_section(f"*{name}* ", value, DONE_MAX))
        elif name == "Next":
            # Our own words, with commands in backticks.
            text = f"*{name}* {escape(value)}"
            blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}})
    return blocks


def _among_others(alert: Alert, known: list[tuple[str, str]]) -> Block:
    """One section: the cause, where and how much and since when, why, what was done, what to do."""
    lines = [f"{_sign(alert)} *{fit(cause(alert), GROUPED_MAX // 2)}*", fit(brief(alert), GROUPED_MAX // 2)]
    for name, value in known:
        room = GROUPED_MAX - sum(len(line) + 1 for line in lines) - len(name) - 3
        if name in (*_WHY, "Done", "Next") and room >= 40:
            is_ours = name == "Next" and len(escape(value)) <= room
            lines.append(f"*{name}* {escape(value) if is_ours else fit(value, room)}")
    return {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines), "verbatim": True}}


def _sign(alert: Alert) -> str:
    return OVER if telling.is_over(alert) else MARKS[alert.severity]


def _paragraphs(notification: Notification) -> list[Block]:
    """Sections of as many paragraphs as there is room for, and how many there was none for."""
    room = PARAGRAPHS_MAX if notification.alerts else REPORT_MAX
    texts = telling.paragraphs(notification)
    sections: list[str] = []
    for number, text in enumerate(texts):
        if room < LINE_MAX:
            sections.append(f"… and {len(texts) - number} more; the dashboard has all of them.")
            break
        said = _within([fit(line, LINE_MAX) for line in text.split("\n")], min(room, SECTION_MAX))
        room -= len(said) + 2
        if sections and len(sections[-1]) + 2 + len(said) <= SECTION_MAX:
            sections[-1] += f"\n\n{said}"
        else:
            sections.append(said)
    return [{"type": "section", "text": {"type": "mrkdwn", "text": each, "verbatim": True}} for each in sections]


def _within(lines: list[str], room: int) -> str:
    """As many whole lines as fit, and a sign where some do not."""
    found = ""
    for number, line in enumerate(lines):
        if len(found) + len(line) + 3 > room:
            return f"{found}\n…"
        found += f"\n{line}" if number else line
    return found


def _foot(notification: Notification, dashboard_url: str, runbook_url: str) -> list[str]:
    found = []
    if notification.alerts:
        words = (telling.standing(notification), telling.rules(notification), telling.about(notification))
        found.append(fit(" · ".join(part for part in words if part), LINK_MAX))
    links = [
        ("Dashboard", telling.dashboard(notification, dashboard_url)),
        *telling.runbooks(notification, runbook_url),
    ]
    # A link that is too long is left out whole: half of one leads nowhere.
    shown = [f"<{escape(url)}|{fit(name, 80)}>" for name, url in links if len(escape(url)) <= LINK_MAX]
    return [*found, " · ".join(shown)] if shown else found


def _context(texts: list[str]) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True} for text in texts]}


def _section(lead: str, text: str, length: int) -> Block:
    return {"type": "section", "text": _mrkdwn(lead, text, length)}


def _mrkdwn(lead: str, text: str, length: int) -> dict[str, Any]:
    """Our own markup and their text; verbatim, so that Slack makes no links or mentions out of it."""
    return {"type": "mrkdwn", "text": lead + fit(text, length - len(lead)), "verbatim": True}


def fit(text: str, length: int) -> str:
    """Text that is escaped and without markup, of at most ``length`` characters, never cut within an escape."""
    text = plain(text)
    room = length
    while len(escaped := escape(clip(text, room))) > length:
        # An escape has at most five characters, so this never cuts more than it must.
        room -= max(1, (len(escaped) - length) // 5)
    return escaped
