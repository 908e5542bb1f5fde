"""Slack: by bot token (updates go into the thread of an incident's first message, which a resolve edits) or by incoming
webhook (no threads). What a message looks like is in ``slack_blocks``.

With a token nothing but the answer to a post says where it is, so a post whose answer was lost is posted again, into
the same thread where there is one. Editing changes nothing when it is repeated, so it comes first.
"""

import json
import logging
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from streams.core.notifying import Notification
from streams.ports import Invitation, Inviting, PermanentError, RetryableError
from streams.settings_checks import is_loopback
from streams.sinks.slack_blocks import message
from streams.sinks.wording import clip

_wire = logging.getLogger("sluice.slack.wire")
# The client logs the webhook's address, which is a secret, when asked for details.
_wire.setLevel(logging.WARNING)
logger = logging.getLogger("sluice.slack")

TIMEOUT_S = 10
#: Answers of the Web API that say that it will be better later.
PASSING = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
     "team_added_to_org", "access_limited", "message_limit_exceeded"}
)  # fmt: skip
#: The thread is out of reach: its first message was deleted, or is in a channel that the bot has left.
GONE = frozenset(
    {"thread_not_found", "message_not_found", "invalid_thread_ts", "channel_not_found", "not_in_channel", "is_archived"}
)
_TODO = {
    "channel_not_found": "give the channel's id, and invite the app to it if it is private",
    "not_in_channel": "invite the app to the channel: /invite @its-name",
    "is_archived": "name another channel",
    "invalid_auth": "the bot token is wrong: install the app again and take its xoxb- token",
    "token_revoked": "install the app again and take its new xoxb- token",
    "account_inactive": "install the app again and take its new xoxb- token",
    "missing_scope": "give the app the scope chat:write and install it again",
}
#: What those who do not follow a thread have to see as well.
_TO_CHANNEL = ("worse", "escalated", "repeated")
_RECEIPT = re.compile(r"([A-Z0-9]{2,32}):(\d{1,16}\.\d{1,16})")


class Root(NamedTuple):
    """The first message of a thread."""

    channel: str
    ts: str


class _Slack:
    """What both ways to Slack share."""

    keeps_incidents = False

    def __init__(self, name: str, dashboard_url: str, runbook_url: str, inviting: Inviting | None) -> None:
        self.name = name
        self._dashboard_url = dashboard_url
        self._runbook_url = runbook_url
        self._inviting = inviting

    def _message(self, notification: Notification) -> tuple[str, list[dict[str, Any]]]:
        return message(notification, self._dashboard_url, self._runbook_url, self._invitation(notification))

    def _invitation(self, notification: Notification) -> Invitation | None:
        """Of an alert by itself: with others beside it, the message is for other people too."""
        if self._inviting is None or len(notification.alerts) != 1:
            return None
        return self._inviting.by_slack(notification.alerts[0])

    async def close(self) -> None:
        """Nothing is kept open."""


class SlackWebhookReceiver(_Slack):
    """Posts each message by itself; Slack's answer to a webhook names no message that could be answered or edited."""

    def __init__(
        self,
        webhook_url: str,
        *,
        name: str = "slack",
        dashboard_url: str = "",
        runbook_url: str = "",
        inviting: Inviting | None = None,
    ) -> None:
        super().__init__(name, dashboard_url, runbook_url, inviting)
        # No retry handlers: the outbox retries, with what Slack asked for.
        self._client = AsyncWebhookClient(webhook_url, timeout=TIMEOUT_S, retry_handlers=[], logger=_wire)
        _spare_proxy(self._client, webhook_url)

    async def send(self, notification: Notification, thread: str | None) -> str:
        """Deliver one message; the receipt is Slack's answer.

        Raises:
            RetryableError: network trouble, 429 or 5xx.
            PermanentError: Slack refused the message or the webhook is gone.
        """
        text, blocks = self._message(notification)
        try:
            response = await self._client.send(text=text, blocks=blocks)
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            # Only the kind of error, and no cause: their texts may hold the webhook's address.
            raise RetryableError(f"Slack cannot be reached: {type(error).__name__}") from None
        if response.status_code == 200:
            return str(response.body)
        reason = f"Slack answered {response.status_code}: {clip(str(response.body), 200)}"
        if response.status_code == 429 or response.status_code >= 500:
            raise RetryableError(reason, _asked(response.headers))
        raise PermanentError(reason)


class SlackBotReceiver(_Slack):
    """Posts with a bot token (scope ``chat:write``) into one channel, an incident's later messages into its thread."""

    def __init__(
        self,
        token: str,
        channel: str,
        *,
        name: str = "slack",
        api_url: str = "https://slack.com/api/",
        dashboard_url: str = "",
        runbook_url: str = "",
        inviting: Inviting | None = None,
    ) -> None:
        super().__init__(name, dashboard_url, runbook_url, inviting)
        self._channel = channel
        self._client = AsyncWebClient(token, base_url=api_url, timeout=TIMEOUT_S, retry_handlers=[], logger=_wire)
        _spare_proxy(self._client, api_url)

    async def send(self, notification: Notification, thread: str | None) -> str:
        """Deliver one message; the receipt names the channel and the message: ``C0123:1763730720.000100``.

        Raises:
            RetryableError: network trouble, 429, 5xx, or an answer that says so.
            PermanentError: Slack refused the message, the token or the channel; the text says what to do.
        """
        text, blocks = self._message(notification)
        said = {"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}
        said["metadata"] = {"event_type": "sluice_message", "event_payload": {"id": notification.notification_id}}
        root = root_of(thread)
        if root is not None and notification.action == "resolve":
            await self._edit(root, text, blocks)
        if root is not None:
            is_loud = notification.reason in _TO_CHANNEL
            try:
                return await self._post(
                    said | {"channel": root.channel, "thread_ts": root.ts, "reply_broadcast": is_loud}
                )
            except _RefusedError as error:
                if error.code not in GONE:
                    raise
                logger.warning("the thread of %s is gone: %s; a new message begins", notification.thread_key, error)
        return await self._post(said | {"channel": self._channel})

    async def _post(self, said: dict[str, Any]) -> str:
        answer = await self._call("chat.postMessage", said)
        return f"{answer.get('channel')}:{answer.get('ts')}"

    async def _edit(self, root: Root, text: str, blocks: list[dict[str, Any]]) -> None:
        """Make the first message say how it ended; where that is not possible any more, the thread says it."""
        try:
            await self._call("chat.update", {"channel": root.channel, "ts": root.ts, "text": text, "blocks": blocks})
        except _RefusedError as error:
            logger.info("the first message stays as it is: %s", error)

    async def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = await self._client.api_call(method, json=body)
            return dict(response.data) if isinstance(response.data, dict) else {}
        except SlackApiError as error:
            raise _failure(method, error.response) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RetryableError(f"Slack cannot be reached: {type(error).__name__}") from None
        except (AttributeError, TypeError, ValueError) as error:
            # The client cannot read an answer that is no JSON object.
            raise RetryableError(f"Slack answered {method} in a way that is none of its own: {error}") from None


class _RefusedError(PermanentError):
    """The Web API said no; ``code`` is its word."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _failure(method: str, response: Any) -> Exception:
    status = getattr(response, "status_code", None) or getattr(response, "status", 0)
    data = getattr(response, "data", None)
    code = str(data.get("error") or "") if isinstance(data, dict) else ""
    reason = f"Slack answered {method} with {status}" + (f": {clip(code, 100)}" if code else "")
    if status == 429 or status >= 500 or code in PASSING or not code:
        return RetryableError(reason, _asked(getattr(response, "headers", None) or {}))
    details = data.get("response_metadata") if isinstance(data, dict) else None
    if details and code in ("invalid_blocks", "invalid_arguments"):
        reason += f" {clip(json.dumps(details), 300)}"
    return _RefusedError(reason + (f" ({_TODO[code]})" if code in _TODO else ""), code)


def root_of(receipt: str | None) -> Root | None:
    """The message that a receipt names; None where it names none, as that of a webhook.

    >>> root_of("C0123:1763730720.000100"), root_of("ok"), root_of(None)
    (Root(channel='C0123', ts='1763730720.000100'), None, None)
    """
    found = _RECEIPT.fullmatch(receipt or "")
    return Root(*found.groups()) if found else None


def _asked(headers: Any) -> float | None:
    asked = headers.get("Retry-After") or headers.get("retry-after")
    return float(asked) if asked and str(asked).isdigit() else None


def _spare_proxy(client: AsyncWebhookClient | AsyncWebClient, url: str) -> None:
    """The clients take HTTPS_PROXY for every host, whatever NO_PROXY says."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        client.proxy = None
