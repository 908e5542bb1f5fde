"""Slack by incoming webhook: Block Kit inside its limits, with a text fallback. Hostile text is escaped."""

from typing import Any

import aiohttp
from slack_sdk.webhook.async_client import AsyncWebhookClient

from schemas.alerts import Alert
from streams.ports import PermanentError, RetryableError
from streams.sinks.wording import clip, facts, title

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

    def __init__(self, webhook_url: str, *, dashboard_url: str = "") -> None:
        # No retry handlers: the outbox retries, with what Slack asked for.
        self._client = AsyncWebhookClient(webhook_url, timeout=TIMEOUT_S, retry_handlers=[])
        self._dashboard_url = dashboard_url

    async def send(self, alert: Alert) -> str:
        """Deliver one alert statement; the receipt is Slack's answer.

        Raises:
            RetryableError: network trouble, 429 or 5xx.
            PermanentError: Slack refused the message or the webhook is gone.
        """
        text, blocks = message(alert, self._dashboard_url)
        try:
            response = await self._client.send(text=text, blocks=blocks)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RetryableError(f"Slack cannot be reached: {error!r}") from error
        if response.status_code == 200:
            return str(response.body)
        reason = f"Slack answered {response.status_code}: {clip(str(response.body), 200)}"
        if response.status_code == 429 or response.status_code >= 500:
            asked = response.headers.get("Retry-After") or response.headers.get("retry-after")
            raise RetryableError(reason, float(asked) if asked and asked.isdigit() else None)
        raise PermanentError(reason)

    async def close(self) -> None:
        """Nothing is kept open."""


def message(alert: Alert, dashboard_url: str = "") -> tuple[str, list[dict[str, Any]]]:
    """The fallback text and the blocks of one alert statement."""
    mark = "✅" if alert.status == "resolved" else MARKS[alert.severity]
    head = f"{mark} {title(alert)}"
    fields = [
        {"type": "mrkdwn", "text": clip(f"*{name}*\n{escape(value)}", FIELD_MAX)}
        for name, value in facts(alert)
        if name not in ("Done", "Next")
    ]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": clip(head, HEADER_MAX), "emoji": True}}
    ]
    if len(head) > HEADER_MAX:
        blocks.append(_section(escape(title(alert))))
    if fields:
        blocks.append({"type": "section", "fields": fields[:FIELDS_MAX]})
    for name, value in facts(alert):
        if name in ("Done", "Next"):
            blocks.append(_section(f"*{name}* {escape(value)}"))
    if dashboard_url:
        link = f"<{dashboard_url}|Open the dashboard>"
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": link}]})
    return clip(escape(head), SECTION_MAX), blocks


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clip(text, SECTION_MAX)}}
