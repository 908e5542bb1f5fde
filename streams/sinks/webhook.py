"""A generic webhook, signed as Standard Webhooks: who has the secret can tell that Sluice said it, whole and just now.

Headers ``webhook-id`` (the same on every retry), ``webhook-timestamp`` (seconds, of this try) and ``webhook-signature``
(``v1,`` and base64 of HMAC-SHA256 over ``id.timestamp.body``). The body is ``schemas/json/webhook_message.v1.json``.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from itertools import accumulate
from urllib.parse import urlsplit

import aiohttp
import msgspec

from schemas.alerts import Alert, Contributor
from schemas.instants import SECOND, format_instant
from schemas.notifications import NotificationData, WebhookMessage
from streams.core.notifying import Notification
from streams.ports import PermanentError, RetryableError
from streams.settings_checks import is_loopback
from streams.sinks import telling
from streams.sinks.wording import clip

#: A usual message has 2 KB; a group that is larger than this is cut, and says so.
BODY_BYTES_MAX = 256 * 1024
#: What all but alerts and paragraphs can take: heading, labels of the group, a character of which may have six bytes.
REST_MAX = 40_000
TEXT_MAX = 4_000
CONTRIBUTORS_MAX = 50
LABELS_MAX = 50
GROUP_LABELS_MAX = 8
ANSWER_MAX = 200
TIMEOUT_S = 10.0
#: Besides 5xx, answers that say nothing against the message.
PASSING = (408, 425, 429)


class WebhookReceiver:
    """Posts each message as JSON to one address.

    Args:
        secret: ``whsec_`` and base64, as Standard Webhooks has them.
        now: microseconds since 1970, for the time in the signature.
    """

    keeps_incidents = False

    def __init__(
        self, url: str, secret: str, now: Callable[[], int], *, name: str = "webhook", dashboard_url: str = ""
    ) -> None:
        self.name = name
        self._url = url
        self._key = key_of(secret)
        self._now = now
        self._dashboard_url = dashboard_url
        self._session: aiohttp.ClientSession | None = None

    async def send(self, notification: Notification, thread: str | None) -> str:
        """Deliver one message; the receipt is its ``webhook-id``.

        Raises:
            RetryableError: network or TLS trouble, 408, 425, 429 or 5xx.
            PermanentError: any other answer than 2xx; a redirect is not followed, it would carry the message elsewhere.
        """
        body = body_of(notification, self._dashboard_url)
        headers = signed(self._key, notification.notification_id, self._now() // SECOND, body)
        try:
            async with self._opened().post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                answer = clip((await response.content.read(ANSWER_MAX * 4)).decode("utf-8", "replace"), ANSWER_MAX)
                status, asked = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Only the kind of error, and no cause: an address may hold a secret.
            raise RetryableError(f"the webhook cannot be reached: {type(error).__name__}") from None
        if 200 <= status < 300:
            return notification.notification_id
        if status in PASSING or status >= 500:
            raise RetryableError(f"the webhook answered {status}: {answer}", float(asked) if asked.isdigit() else None)
        if status == 410:
            raise PermanentError("the webhook answered 410: nobody listens there any more; take it out of routes.yaml")
        raise PermanentError(f"the webhook answered {status}: {answer}")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # A proxy of the environment leads away from this machine, never to it.
            through_proxy = not is_loopback(urlsplit(self._url).hostname or "")
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=through_proxy)
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def key_of(secret: str) -> bytes:
    """The key in a Standard Webhooks secret.

    >>> key_of("whsec_c2x1aWNl")
    b'sluice'

    Raises:
        ValueError: it is no base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("a Standard Webhooks secret is whsec_ and base64 after it") from error
    if not key:
        raise ValueError("a Standard Webhooks secret must not be empty: whsec_ and base64 after it")
    return key


def signed(key: bytes, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of a message."""
    content = f"{message_id}.{at_s}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{signature}",
    }


def body_of(notification: Notification, dashboard_url: str = "") -> bytes:
    """The JSON of a message, at most ``BODY_BYTES_MAX``: alerts that do not fit are left out and counted."""
    alerts = [_bounded(alert) for alert in notification.alerts]
    sizes = [len(msgspec.json.encode(alert)) + 1 for alert in alerts]
    room = BODY_BYTES_MAX // 2 if notification.paragraphs else BODY_BYTES_MAX - REST_MAX
    shown = sum(size <= room for size in accumulate(sizes))
    left_out = telling.tally(notification, shown)
    data = NotificationData(
        notification_id=notification.notification_id,
        thread_key=notification.thread_key,
        action=notification.action,
        reason=notification.reason,
        receiver=notification.receiver,
        heading=telling.heading(notification),
        paragraphs=_paragraphs(notification),
        group={clip(k, 200): clip(v, 200) for k, v in list(notification.group.items())[:GROUP_LABELS_MAX]},
        firing=telling.firing(notification),
        ended=telling.ended(notification),
        alerts=tuple(alerts[:shown]),
        left_out=left_out.total(),
        left_out_by=dict(sorted(left_out.items())),
        dashboard_url=telling.dashboard(notification, dashboard_url),
    )
    message = WebhookMessage(
        type=f"ai.notification.{notification.action}.v1",
        timestamp=format_instant(notification.decided_at),
        data=data,
    )
    return msgspec.json.encode(message)


def _paragraphs(notification: Notification) -> tuple[str, ...]:
    """As many as fit into the other half of the body; a character has at most six bytes in JSON."""
    found: list[str] = []
    room = BODY_BYTES_MAX // 2 - REST_MAX
    for text in telling.paragraphs(notification):
        room -= len(msgspec.json.encode(text)) + 1
        if room < 0:
            return (*found, "…")
        found.append(text)
    return tuple(found)


def _bounded(alert: Alert) -> Alert:
    """The alert with its texts cut where they are absurdly long."""
    return msgspec.structs.replace(
        alert,
        scope_id=clip(alert.scope_id, TEXT_MAX),
        summary=clip(alert.summary, TEXT_MAX),
        action=clip(alert.action, TEXT_MAX),
        top_contributors=[
            Contributor(clip(each.name, TEXT_MAX // 10), each.cost_usd)
            for each in alert.top_contributors[:CONTRIBUTORS_MAX]
        ],
        labels={clip(k, 200): clip(v, 500) for k, v in list(alert.labels.items())[:LABELS_MAX]},
    )
