"""PagerDuty Events API v2 through the ``pagerduty`` client (the successor of pdpyras).

The dedup key is the notification's thread: after a resolve the same key opens a new incident, which is what a new
episode is; and where a resolve was lost, the next trigger joins the open incident. The client sleeps and retries inside
a call, on 429 without end; here it tries once, in a thread of its own, and the outbox retries.
"""

import asyncio
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pagerduty
from pagerduty import EventsApiV2Client

from schemas.alerts import Severity
from schemas.instants import format_instant
from streams.core.notifying import Notification
from streams.ports import PermanentError, RetryableError
from streams.settings_checks import is_loopback
from streams.sinks import telling
from streams.sinks.wording import clip, facts

SEVERITIES: dict[Severity, str] = {
    "emergency": "critical",
    "critical": "error",
    "warning": "warning",
    "info": "info",
}
SUMMARY_MAX = 1024
#: PagerDuty's own bound is 512 KB of the whole event, with the routing key and the client's JSON in it.
EVENT_BYTES_MAX = 500_000
#: Alerts of a group that an incident lists; people read the first few, and the dashboard has all.
ALERTS_MAX = 25
NOTES_MAX = 20
CALLS_AT_ONCE_MAX = 4
TIMEOUT_S = 10.0


class _OneTry(EventsApiV2Client):
    """The client without its retries."""

    max_network_attempts = 0
    timeout = TIMEOUT_S

    def postprocess(self, response: Any, *_: Any, **__: Any) -> None:
        """Raise before the client's own retry logic sees a failure."""
        if response.status_code == 429 or response.status_code >= 500:
            raise RetryableError(
                f"PagerDuty answered {response.status_code}", _seconds(response.headers.get("retry-after"))
            )
        if response.status_code >= 400:
            raise PermanentError(f"PagerDuty answered {response.status_code}: {clip(response.text, 500)}")


class PagerDutyReceiver:
    """Pages on-call: triggers, acknowledges and resolves one incident per thread."""

    #: A message sent twice is one incident.
    keeps_incidents = True

    def __init__(
        self,
        routing_key: str,
        *,
        name: str = "pagerduty",
        url: str = "https://events.pagerduty.com",
        ca_file: Path | None = None,
        dashboard_url: str = "",
        runbook_url: str = "",
    ) -> None:
        self.name = name
        verify: Any = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        # A proxy of the environment leads away from this machine, never to it.
        through_proxy = not is_loopback(urlsplit(url).hostname or "")
        self._client = _OneTry(routing_key, base_url=url.rstrip("/"), verify=verify, trust_env=through_proxy)
        self._dashboard_url = dashboard_url
        self._runbook_url = runbook_url
        # Threads of its own: a PagerDuty that stalls must not take the ones that everything else shares.
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE_MAX, thread_name_prefix=f"sluice-{name}")

    async def send(self, notification: Notification, thread: str | None) -> str:
        """Deliver one message; the receipt is PagerDuty's dedup key.

        Raises:
            RetryableError: network trouble, 429 or 5xx.
            PermanentError: PagerDuty refused the event, or it is a report, which nobody shall be woken for.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._send, notification)

    def _send(self, notification: Notification) -> str:
        action, properties = event(notification, self._dashboard_url, self._runbook_url)
        try:
            return str(self._client.send_event(action, notification.thread_key, **properties))
        except (RetryableError, PermanentError):
            raise
        except pagerduty.ServerHttpError as error:
            raise RetryableError(f"PagerDuty: {error}") from error
        except pagerduty.HttpError as error:
            raise PermanentError(f"PagerDuty: {error}") from error
        except pagerduty.Error as error:
            # The client's own sentence speaks of its retries; its cause says what happened.
            raise RetryableError(f"PagerDuty cannot be reached: {error.__cause__ or error!r}") from error

    async def close(self) -> None:
        """Close the connection pool; a call that is under way ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def event(notification: Notification, dashboard_url: str = "", runbook_url: str = "") -> tuple[str, dict[str, Any]]:
    """The action and, where it is a trigger, what an event says besides its keys.

    Raises:
        PermanentError: the message is a report.
    """
    if notification.action in ("acknowledge", "resolve"):
        return notification.action, {}
    if notification.action == "tell" and notification.reason != "digest":
        raise PermanentError("PagerDuty takes no reports, only incidents: name slack or email for them in routes.yaml")
    shown = min(len(notification.alerts), ALERTS_MAX)
    while True:
        properties = _properties(notification, shown, dashboard_url, runbook_url)
        if shown == 0 or len(json.dumps(properties)) <= EVENT_BYTES_MAX:
            return "trigger", properties
        shown //= 2


def _properties(notification: Notification, shown: int, dashboard_url: str, runbook_url: str) -> dict[str, Any]:
    first = notification.alerts[0] if notification.alerts else None
    payload: dict[str, Any] = {
        "summary": clip(telling.heading(notification), SUMMARY_MAX),
        "source": "sluice",
        "severity": SEVERITIES[telling.worst(notification) or "warning"],
        "timestamp": first.occurred_at if first else format_instant(notification.decided_at),
        "custom_details": _details(notification, shown),
    }
    if first is not None:
        payload |= {
            "component": clip(first.scope_id, 255),
            "group": clip(telling.about(notification) or first.team_id or first.feature or first.scope_type, 255),
            "class": first.rule,
        }
    page = telling.dashboard(notification, dashboard_url)
    links = [{"href": url, "text": name} for name, url in telling.links(notification, dashboard_url, runbook_url)]
    found: dict[str, Any] = {"payload": payload, "links": links, "client": "Sluice"}
    return found | ({"client_url": page} if page else {})


def _details(notification: Notification, shown: int) -> dict[str, str]:
    """One alert: its facts. Several: those of the worst, then one line for each."""
    found = {f"note {number}": text for number, text in enumerate(telling.paragraphs(notification, NOTES_MAX), 1)}
    alerts = notification.alerts[:shown]
    if alerts:
        found |= {name.lower(): value for name, value in facts(alerts[0])}
    if len(notification.alerts) > 1:
        found["alerts"] = telling.counts(notification)
        found |= {f"alert {number:02d}": telling.line(alert) for number, alert in enumerate(alerts, 1)}
        if rest := telling.left_out(notification, shown):
            found["more"] = rest
    return found


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
