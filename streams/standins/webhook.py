"""A stand-in for whoever listens to a webhook: it checks signatures with the library of Standard Webhooks and bodies
against the published types, and takes what comes twice once.
"""

from typing import Any

import msgspec
from aiohttp import web
from standardwebhooks import Webhook

from schemas.notifications import WebhookMessage
from streams.standins.faults import Faults, Pace, admin_fault

PATH = "/hooks/sluice"
SECRET = "whsec_c3RhbmQtaW4gc2VjcmV0IG9mIHNsdWljZQ=="
BODY_BYTES_MAX = 300_000


class WebhookStandIn:
    """Keeps what was said: ``messages`` each once, ``received`` how often every id came."""

    def __init__(self, clock: Any, per_minute_max: int | None = None) -> None:
        self._clock = clock
        self._webhook = Webhook(SECRET)
        self.faults = Faults()
        self.pace = Pace(per_minute_max)
        self.messages: list[WebhookMessage] = []
        self.received: dict[str, int] = {}
        self.refused: list[str] = []
        #: What else it answers to the next messages: ``410`` where nobody listens any more.
        self.statuses: list[int] = []

    def application(self) -> web.Application:
        """The HTTP application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX * 2)
        app.router.add_post(PATH, self._take)
        app.router.add_get("/messages", self._show)
        app.router.add_post("/admin/faults", self._plan)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        struck = await self.faults.strike(request) or self.pace.hold(self._clock.now())
        if struck is not None:
            return struck
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), text="as it was planned")
        raw = await request.read()
        try:
            if len(raw) > BODY_BYTES_MAX:
                raise ValueError(f"{len(raw)} bytes are too many")
            # The library raises more than its own error: a malformed signature is a ValueError.
            self._webhook.verify(raw, {name.lower(): value for name, value in request.headers.items()})
            message = msgspec.json.decode(raw, type=WebhookMessage)
        except Exception as error:
            self.refused.append(str(error))
            return web.Response(status=400, text=f"{error}")
        name = request.headers["webhook-id"]
        self.received[name] = self.received.get(name, 0) + 1
        if self.received[name] == 1:
            self.messages.append(message)
        return self.faults.answer(request, web.Response(status=204))

    async def _plan(self, request: web.Request) -> web.Response:
        return await admin_fault(request, self.faults)

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response([msgspec.to_builtins(message) for message in self.messages])
