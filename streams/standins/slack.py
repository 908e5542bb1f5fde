"""A stand-in for a Slack incoming webhook, strict about the documented contract and Block Kit's limits."""

import json
from typing import Any

from aiohttp import web

from streams.standins.faults import Faults, admin_fault

PATH = "/services/T0000/B0000/standin"


class SlackStandIn:
    """Keeps the messages that Slack would have shown."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.faults = Faults()
        self.messages: list[dict[str, Any]] = []
        self.refused: list[str] = []

    def application(self) -> web.Application:
        """The HTTP application."""
        app = web.Application()
        app.router.add_post(PATH, self._post)
        app.router.add_post("/services/{rest:.*}", self._unknown)
        app.router.add_get("/messages", self._show)
        app.router.add_post("/admin/faults", self._plan)
        return app

    async def _post(self, request: web.Request) -> web.Response:
        struck = await self.faults.strike(request)
        if struck is not None:
            return struck
        error = check(await request.read())
        if error:
            self.refused.append(error)
            return web.Response(status=400, text=error)
        self.messages.append(await request.json() | {"received_at": self._clock.now()})
        return self.faults.answer(request, web.Response(text="ok"))

    async def _unknown(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text="no_service")

    async def _plan(self, request: web.Request) -> web.Response:
        return await admin_fault(request, self.faults)

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self.messages)


def check(raw: bytes) -> str | None:
    """Slack's error text for a message that it would refuse; None for a good one."""
    try:
        body = json.loads(raw)
    except ValueError:
        return "invalid_payload"
    if not isinstance(body, dict):
        return "invalid_payload"
    if not (isinstance(body.get("text"), str) and body["text"].strip()):
        return "no_text"
    if len(body["text"]) > 40_000:
        return "msg_too_long"
    blocks = body.get("blocks", [])
    if not isinstance(blocks, list) or len(blocks) > 50 or not all(_block_is_valid(block) for block in blocks):
        return "invalid_blocks"
    return None


def _block_is_valid(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    kind = block.get("type")
    if kind == "header":
        return _text_is_valid(block.get("text"), 150, ("plain_text",))
    if kind == "section":
        fields = block.get("fields", [])
        if not isinstance(fields, list) or (not block.get("text") and not fields):
            return False
        return (not block.get("text") or _text_is_valid(block["text"], 3_000)) and (
            len(fields) <= 10 and all(_text_is_valid(field, 2_000) for field in fields)
        )
    if kind == "context":
        elements = block.get("elements", [])
        return (
            isinstance(elements, list)
            and 0 < len(elements) <= 10
            and all(_text_is_valid(element, 3_000) for element in elements)
        )
    return kind in ("divider", "actions", "image")


def _text_is_valid(text: Any, length: int, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> bool:
    return (
        isinstance(text, dict)
        and text.get("type") in kinds
        # Slack refuses the option of the other kind.
        and ("verbatim" if text["type"] == "plain_text" else "emoji") not in text
        and isinstance(text.get("text"), str)
        and 0 < len(text["text"]) <= length
    )
