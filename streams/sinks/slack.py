"""Slack by incoming webhook: Block Kit inside its limits, with a text fallback. Hostile text is escaped."""

import logging
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import aiohttp
from slack_sdk.webhook.async_client import AsyncWebhookClient

from schemas.alerts import Alert
from streams.ports import Invitation, Inviting, PermanentError, RetryableError
from streams.settings_checks import is_loopback
from streams.sinks.wording import clip, facts, title, web_link

_wire = logging.getLogger("sluice.slack.wire")
# The client logs the webhook's address, which is a secret, when asked for details.
_wire.setLevel(logging.WARNING)

HEADER_MAX = 150
SECTION_MAX = 3_000
FIELD_MAX = 2_000
FIELDS_MAX = 10
TIMEOUT_S = 10
MARKS = {"emergency": "🔴", "critical": "🟠", "warning": "🟡", "info": "🔵"}


def escape(text: str) -> str:
    """Slack's three control characters; nothing else starts a mention or a link.

    >>> escape("<!channel> & <@U1>")
    '&lt;!channel&gt; &amp; &lt;@U1&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class SlackReceiver:
    """Posts each alert statement as one message."""

    name = "slack"

    def __init__(self, webhook_url: str, *, dashboard_url: str = "", inviting: Inviting | None = None) -> None:
        # No retry handlers: the outbox retries, with what Slack asked for.
        self._client = AsyncWebhookClient(webhook_url, timeout=TIMEOUT_S, retry_handlers=[], logger=_wire)
        host = urlsplit(webhook_url).hostname or ""
        if is_loopback(host) or proxy_bypass(host):
            # The client takes HTTPS_PROXY for every host, whatever NO_PROXY says.
            self._client.proxy = None
        self._dashboard_url = dashboard_url
        self._inviting = inviting

    async def send(self, alert: Alert) -> str:
        """Deliver one alert statement; the receipt is Slack's answer.

        Raises:
            RetryableError: network trouble, 429 or 5xx.
            PermanentError: Slack refused the message or the webhook is gone.
        """
        invitation = self._inviting.by_slack(alert) if self._inviting else None
        text, blocks = message(alert, self._dashboard_url, invitation)
        try:
            response = await self._client.send(text=text, blocks=blocks)
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            # Only the kind of error, and no cause: their texts may hold the webhook's address.
            raise RetryableError(f"Slack cannot be reached: {type(error).__name__}") from None
        if response.status_code == 200:
            return str(response.body)
        reason = f"Slack answered {response.status_code}: {clip(str(response.body), 200)}"
        if response.status_code == 429 or response.status_code >= 500:
            asked = response.headers.get("Retry-After") or response.headers.get("retry-after")
            raise RetryableError(reason, float(asked) if asked and asked.isdigit() else None)
        raise PermanentError(reason)

    async def close(self) -> None:
        """Nothing is kept open."""


def message(
    alert: Alert, dashboard_url: str = "", invitation: Invitation | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """The fallback text and the blocks of one alert statement."""
    mark = "✅" if alert.status == "resolved" else MARKS[alert.severity]
    head = f"{mark} {title(alert)}"
    fields = [_mrkdwn(f"*{name}*\n", value, FIELD_MAX) for name, value in facts(alert) if name not in ("Done", "Next")]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": clip(head, HEADER_MAX), "emoji": True}}
    ]
    if len(head) > HEADER_MAX:
        blocks.append(_section("", title(alert)))
    if fields:
        blocks.append({"type": "section", "fields": fields[:FIELDS_MAX]})
    for name, value in facts(alert):
        if name in ("Done", "Next"):
            blocks.append(_section(f"*{name}* ", value))
    if invitation and invitation.url:
        link = f"<{escape(invitation.url)}|Approve or refuse>, until {invitation.until}"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": link, "verbatim": True}})
    links = [("Open the dashboard", dashboard_url), ("Runbook", alert.runbook)]
    shown = [f"<{escape(link)}|{name}>" for name, link in links if web_link(link)]
    if shown:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": "  ".join(shown)}]})
    return _fit(head, SECTION_MAX), blocks


def _section(lead: str, text: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(lead, text, SECTION_MAX)}


def _mrkdwn(lead: str, text: str, length: int) -> dict[str, Any]:
    """Our own markup and their text; verbatim, so that Slack makes no links or mentions out of it."""
    return {"type": "mrkdwn", "text": lead + _fit(text, length - len(lead)), "verbatim": True}


def _fit(text: str, length: int) -> str:
    """Escaped text of at most ``length`` characters, never cut within an escape."""
    room = length
    while len(escaped := escape(clip(text, room))) > length:
        # An escape has at most five characters, so this never cuts more than it must.
        room -= max(1, (len(escaped) - length) // 5)
    return escaped
