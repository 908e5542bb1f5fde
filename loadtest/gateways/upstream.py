"""A small OpenAI that answers on loopback, whole or streamed, and says how many tokens it used.

How it behaves is said in the first message: ``words=200 prompt=400 seconds=0.5 fail=500``.
"""

import asyncio
import itertools
import json
from typing import Any

from aiohttp import web

#: Dollars per million tokens, input and output, as the catalogue has them.
PRICES = {"gpt-4o": (2.50, 10.00), "gpt-4o-mini": (0.15, 0.60)}
STREAM_PARTS = 5


class Upstream:
    """Counts what it answered; ``nanos`` is what that costs at list price."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.answered = 0
        self.under_way = 0
        self.nanos = 0
        self.by_model: dict[str, int] = {}
        self.requests: list[dict[str, Any]] = []

    def application(self) -> web.Application:
        """The server."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        wish = dict(part.split("=") for part in str(body["messages"][0]["content"]).split() if "=" in part)
        if wish.get("fail") == body["model"] or wish.get("fail") == "all":
            raise web.HTTPInternalServerError(text=json.dumps({"error": {"message": "broken on purpose"}}))
        asked = [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body]
        usage = {
            "prompt_tokens": int(wish.get("prompt", 400)),
            "completion_tokens": min([int(wish.get("words", 200)), *asked]),
        }
        usage["total_tokens"] = sum(usage.values())
        self.under_way += 1
        try:
            answer = self._stream if body.get("stream") else self._whole
            return await answer(request, body, usage, float(wish.get("seconds", 0.5)))
        except ConnectionResetError:
            return web.Response()  # Its reader hung up.
        finally:
            self.under_way -= 1

    def _count(self, model: str, usage: dict[str, int]) -> None:
        into, out = PRICES[model]
        self.answered += 1
        self.nanos += round((usage["prompt_tokens"] * into + usage["completion_tokens"] * out) * 1_000)
        self.by_model[model] = self.by_model.get(model, 0) + 1

    async def _whole(
        self, request: web.Request, body: dict[str, Any], usage: dict[str, int], seconds: float
    ) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        self._count(body["model"], usage)
        message = {"role": "assistant", "content": "word " * 20}
        return web.json_response(self._frame(body, "chat.completion", "message", message, "stop") | {"usage": usage})

    async def _stream(
        self, request: web.Request, body: dict[str, Any], usage: dict[str, int], seconds: float
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        # Counted as it begins: an upstream bills a stream whose reader went away.
        self._count(body["model"], usage)
        frame = self._frame(body, "chat.completion.chunk", "delta", {"role": "assistant", "content": "word "}, None)
        for part in range(STREAM_PARTS):
            await asyncio.sleep(seconds / STREAM_PARTS)
            frame["choices"][0]["finish_reason"] = "stop" if part == STREAM_PARTS - 1 else None
            await response.write(b"data: " + json.dumps(frame).encode() + b"\n\n")
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b"data: " + json.dumps(frame | {"choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    def _frame(
        self, body: dict[str, Any], kind: str, part: str, content: dict[str, str], finish: str | None
    ) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{next(self._numbers):08d}",
            "object": kind,
            "created": 1_800_000_000,
            "model": body["model"],
            "choices": [{"index": 0, part: content, "finish_reason": finish}],
        }
