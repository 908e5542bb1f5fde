"""A stand-in for Slack: an incoming webhook, ``chat.postMessage`` and ``chat.update``, strict about the documented
contract and Block Kit's limits.

The Web API answers 200 with ``{"ok": false, "error": …}`` where it refuses, and 429 with Retry-After where it is asked
too often. ``chat.update`` wants the channel's id and not its name, and edits only what is there.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from schemas.instants import SECOND
from streams.standins.faults import Faults, Pace, admin_fault

PATH = "/services/T0000/B0000/standin"
BOT_TOKEN = "xoxb-standin-token"
CHANNEL, CHANNEL_NAME = "C0STANDIN", "#alerts"
#: Of all texts of a message together; not documented, and what people were refused at.
TEXTS_MAX = 11_000


class Posted(msgspec.Struct, kw_only=True):
    """One message of the channel, as it reads now; ``edits`` are the bodies of its updates."""

    ts: str
    body: dict[str, Any]
    edits: list[dict[str, Any]] = []

    @property
    def thread_ts(self) -> str | None:
        """The message that it answers."""
        return self.body.get("thread_ts")

    @property
    def now(self) -> dict[str, Any]:
        """What people see."""
        return self.body | (self.edits[-1] if self.edits else {})


class SlackStandIn:
    """Keeps the messages that Slack would have shown: ``messages`` are all of them, ``posted`` those of the bot."""

    def __init__(self, clock: Any, per_minute_max: int | None = None) -> None:
        self._clock = clock
        self.faults = Faults()
        self.pace = Pace(per_minute_max)
        self.messages: list[dict[str, Any]] = []
        self.posted: list[Posted] = []
        self.refused: list[str] = []
        #: Words of refusal for the next calls of the Web API, such as ``"not_in_channel"``.
        self.errors: list[str] = []

    def application(self) -> web.Application:
        """The HTTP application."""
        app = web.Application()
        app.router.add_post(PATH, self._post)
        app.router.add_post("/services/{rest:.*}", self._unknown)
        app.router.add_post("/api/{method}", self._api)
        app.router.add_get("/messages", self._show)
        app.router.add_post("/admin/faults", self._plan)
        return app

    async def _post(self, request: web.Request) -> web.Response:
        struck = await self.faults.strike(request) or self.pace.hold(self._clock.now())
        if struck is not None:
            return struck
        error = check(await request.read())
        if error:
            self.refused.append(error)
            return web.Response(status=400, text=error)
        self.messages.append(await request.json() | {"received_at": self._clock.now()})
        return self.faults.answer(request, web.Response(text="ok"))

    async def _api(self, request: web.Request) -> web.Response:
        struck = await self.faults.strike(request) or self.pace.hold(self._clock.now())
        if struck is not None:
            return struck
        calls = {"chat.postMessage": self._post_message, "chat.update": self._update}
        if request.headers.get("Authorization") != f"Bearer {BOT_TOKEN}":
            answer: dict[str, Any] = {"ok": False, "error": "invalid_auth"}
        elif request.match_info["method"] not in calls:
            answer = {"ok": False, "error": "unknown_method"}
        elif self.errors:
            answer = {"ok": False, "error": self.errors.pop(0)}
        else:
            raw = await request.read()
            refusal = "invalid_post_type" if request.content_type != "application/json" else check(raw)
            answer = (
                {"ok": False, "error": refusal} if refusal else calls[request.match_info["method"]](json.loads(raw))
            )
            if refusal:
                self.refused.append(refusal)
        return self.faults.answer(request, web.json_response(answer))

    def _judged(
        self, content_type: str, raw: bytes, call: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        refusal = check(raw) if content_type == "application/json" else "invalid_post_type"
        if refusal is None:
            return call(json.loads(raw))
        self.refused.append(refusal)
        return {"ok": False, "error": refusal}

    def _post_message(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("channel") not in (CHANNEL, CHANNEL_NAME):
            return {"ok": False, "error": "channel_not_found"}
        thread = body.get("thread_ts")
        if thread is not None and self._found(thread) is None:
            return {"ok": False, "error": "thread_not_found"}
        now = self._clock.now()
        message = Posted(ts=f"{now // SECOND}.{len(self.posted):06d}", body=body)
        self.posted.append(message)
        self.messages.append(body | {"received_at": now})
        return {"ok": True, "channel": CHANNEL, "ts": message.ts, "message": {"text": body["text"], "ts": message.ts}}

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("channel") != CHANNEL:
            return {"ok": False, "error": "channel_not_found"}
        message = self._found(body.get("ts"))
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        message.edits.append(body)
        return {"ok": True, "channel": CHANNEL, "ts": message.ts, "text": body["text"]}

    def _found(self, ts: Any) -> Posted | None:
        return next((message for message in self.posted if message.ts == ts), None)

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
    if sum(map(_text_length, blocks)) > TEXTS_MAX:
        return "msg_blocks_too_long"
    return None


def _text_length(node: Any) -> int:
    if isinstance(node, dict):
        return sum(len(value) if isinstance(value, str) else _text_length(value) for value in node.values())
    return sum(map(_text_length, node)) if isinstance(node, list) else 0


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
