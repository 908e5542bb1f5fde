"""A stand-in for PagerDuty's Events API v2, strict about the documented contract.

Source: PagerDuty developer documentation, Events API v2 ("Send an Alert Event"): required fields, lengths,
the severity enum, 202 with a dedup key or 400 with a list of errors. After a resolve, the same dedup key opens
a new incident; a resolve through another routing key does nothing.
"""

import json
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from streams.clock import Clock
from streams.standins.faults import Faults, Pace, admin_fault

BODY_MAX = 512 * 1024
SEVERITIES = ("critical", "error", "warning", "info")
ACTIONS = ("trigger", "acknowledge", "resolve")


class Incident(msgspec.Struct, kw_only=True):
    """One incident, from its trigger to its resolve. Times are microseconds since 1970."""

    routing_key: str
    dedup_key: str
    summary: str
    severity: str
    opened_at: int
    payload: dict[str, Any]
    triggers: int = 1
    acknowledged_at: int | None = None
    resolved_at: int | None = None


class PagerDutyStandIn:
    """Keeps incidents per routing and dedup key; ``incidents`` in the order of their opening.

    Args:
        clock: for the times of incidents.
        per_minute_max: events in a sliding minute; none sets no limit.
    """

    def __init__(self, clock: Clock, per_minute_max: int | None = None) -> None:
        self._clock = clock
        self.faults = Faults()
        self.pace = Pace(per_minute_max)
        self.incidents: list[Incident] = []
        self.events: list[dict[str, Any]] = []
        self.refused: list[list[str]] = []

    def application(self) -> web.Application:
        """The HTTP application."""
        app = web.Application(client_max_size=BODY_MAX * 2)
        app.router.add_post("/v2/enqueue", self._enqueue)
        app.router.add_get("/incidents", self._show)
        app.router.add_get("/events", self._show_events)
        app.router.add_post("/admin/faults", self._plan)
        return app

    async def _enqueue(self, request: web.Request) -> web.Response:
        struck = await self.faults.strike(request) or self.pace.hold(self._clock.now())
        if struck is not None:
            return struck
        raw = await request.read()
        errors = check(request.content_type, raw)
        if errors:
            self.refused.append(errors)
            return web.json_response(
                {"status": "invalid event", "message": "Event object is invalid", "errors": errors},
                status=400,
            )
        event = json.loads(raw)
        now = self._clock.now()
        key = event.get("dedup_key") or f"standin-{len(self.events)}"
        self.events.append(event | {"received_at": now})
        self._apply(event, key, now)
        return self.faults.answer(
            request,
            web.json_response({"status": "success", "message": "Event processed", "dedup_key": key}, status=202),
        )

    def _apply(self, event: dict[str, Any], key: str, now: int) -> None:
        current = next(
            (
                i
                for i in reversed(self.incidents)
                if (i.routing_key, i.dedup_key) == (event["routing_key"], key) and i.resolved_at is None
            ),
            None,
        )
        if event["event_action"] == "trigger":
            if current is not None:
                current.triggers += 1
                return
            payload = event["payload"]
            self.incidents.append(
                Incident(
                    routing_key=event["routing_key"],
                    dedup_key=key,
                    summary=payload["summary"],
                    severity=payload["severity"],
                    opened_at=now,
                    payload=payload,
                )
            )
        elif current is not None and event["event_action"] == "resolve":
            current.resolved_at = now
        elif current is not None:
            current.acknowledged_at = now

    async def _plan(self, request: web.Request) -> web.Response:
        return await admin_fault(request, self.faults)

    async def _show_events(self, request: web.Request) -> web.Response:
        return web.json_response(self.events)

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response([msgspec.to_builtins(incident) for incident in self.incidents])


def check(content_type: str, raw: bytes) -> list[str]:
    """Everything that PagerDuty would refuse an event for."""
    if len(raw) > BODY_MAX:
        return ["the event is larger than 512 KB"]
    if content_type != "application/json":
        return [f"content type is {content_type}, not application/json"]
    try:
        event = json.loads(raw)
    except ValueError:
        return ["the body is not JSON"]
    if not isinstance(event, dict):
        return ["the body is not an object"]
    errors = []
    routing_key = event.get("routing_key")
    if not (isinstance(routing_key, str) and len(routing_key) == 32):
        errors.append("'routing_key' must be a string of 32 characters")
    action = event.get("event_action")
    if action not in ACTIONS:
        errors.append(f"'event_action' must be one of {', '.join(ACTIONS)}")
    key = event.get("dedup_key")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= 255):
        errors.append("'dedup_key' must be a string of at most 255 characters")
    if action in ("acknowledge", "resolve") and not key:
        errors.append("'dedup_key' is missing or blank")
    if action == "trigger":
        errors += _check_payload(event.get("payload"))
    for link in event.get("links") or []:
        if not (isinstance(link, dict) and link.get("href")):
            errors.append("each of 'links' needs a 'href'")
    return errors


def _check_payload(payload: Any) -> list[str]:
    if not isinstance(payload, dict):
        return ["'payload' is missing or blank"]
    errors = [
        f"'payload.{name}' is missing or blank"
        for name in ("summary", "source", "severity")
        if not (isinstance(payload.get(name), str) and payload[name])
    ]
    if len(str(payload.get("summary", ""))) > 1024:
        errors.append("'payload.summary' is longer than 1024 characters")
    if payload.get("severity") not in SEVERITIES:
        errors.append(f"'payload.severity' must be one of {', '.join(SEVERITIES)}")
    if "timestamp" in payload:
        try:
            datetime.fromisoformat(payload["timestamp"])
        except (TypeError, ValueError):
            errors.append("'payload.timestamp' is not ISO 8601")
    if not isinstance(payload.get("custom_details", {}), dict):
        errors.append("'payload.custom_details' must be an object")
    return errors
