"""PagerDuty Events API v2 through the ``pagerduty`` client (the successor of pdpyras).

The dedup key is the alert's own: after a resolve the same key opens a new incident, which is what a new
episode is; and where a resolve was lost, the next trigger joins the open incident. The client sleeps and
retries inside a call, on 429 without end; here it tries once, in a thread, and the outbox retries.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pagerduty
from pagerduty import EventsApiV2Client

from schemas.alerts import Alert, Severity
from streams.ports import PermanentError, RetryableError
from streams.settings_checks import is_loopback
from streams.sinks.wording import clip, facts, title, web_link

SEVERITIES: dict[Severity, str] = {
    "emergency": "critical",
    "critical": "error",
    "warning": "warning",
    "info": "info",
}
SUMMARY_MAX = 1024
DETAIL_MAX = 4_000
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
    """Pages on-call: triggers on opened and updated, resolves on resolved."""

    name = "pagerduty"

    def __init__(
        self,
        routing_key: str,
        *,
        url: str = "https://events.pagerduty.com",
        ca_file: Path | None = None,
        dashboard_url: str = "",
    ) -> None:
        verify: Any = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        # A proxy of the environment leads away from this machine, never to it.
        through_proxy = not is_loopback(urlsplit(url).hostname or "")
        self._client = _OneTry(routing_key, base_url=url.rstrip("/"), verify=verify, trust_env=through_proxy)
        self._dashboard_url = dashboard_url
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE_MAX)

    async def send(self, alert: Alert) -> str:
        """Deliver one alert statement; the receipt is PagerDuty's dedup key.

        Raises:
            RetryableError: network trouble, 429 or 5xx.
            PermanentError: PagerDuty refused the event.
        """
        async with self._turns:
            return await asyncio.to_thread(self._send, alert)

    def _send(self, alert: Alert) -> str:
        try:
            if alert.status == "resolved":
                return str(self._client.resolve(alert.dedup_key))
            return str(
                self._client.trigger(
                    clip(title(alert), SUMMARY_MAX),
                    source="sluice",
                    dedup_key=alert.dedup_key,
                    severity=SEVERITIES[alert.severity],
                    payload={
                        "timestamp": alert.occurred_at,
                        "component": clip(alert.scope_id, 255),
                        "group": clip(alert.team_id or alert.feature or alert.scope_type, 255),
                        "class": alert.rule,
                    },
                    custom_details={name.lower(): clip(value, DETAIL_MAX) for name, value in facts(alert)},
                    links=self._links(alert),
                )
            )
        except (RetryableError, PermanentError):
            raise
        except pagerduty.ServerHttpError as error:
            raise RetryableError(f"PagerDuty: {error}") from error
        except pagerduty.HttpError as error:
            raise PermanentError(f"PagerDuty: {error}") from error
        except pagerduty.Error as error:
            # The client's own sentence speaks of its retries; its cause says what happened.
            raise RetryableError(f"PagerDuty cannot be reached: {error.__cause__ or error!r}") from error

    def _links(self, alert: Alert) -> list[dict[str, str]]:
        links = []
        if self._dashboard_url:
            links.append({"href": self._dashboard_url, "text": "Dashboard"})
        if web_link(alert.runbook):
            links.append({"href": alert.runbook, "text": "Runbook"})
        return links

    async def close(self) -> None:
        """Close the connection pool."""
        self._client.close()


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
