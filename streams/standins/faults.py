"""Faults that a stand-in answers with: as many as were asked for, then the truth again."""

import asyncio
from collections import deque
from typing import Literal, NamedTuple

from aiohttp import web

Kind = Literal["429", "500", "stall", "drop"]


class Fault(NamedTuple):
    """One answer that goes wrong."""

    kind: Kind
    retry_after_s: float = 1.0
    stall_s: float = 30.0


class Faults:
    """A queue of faults; empty means that all is well."""

    def __init__(self) -> None:
        self._planned: deque[Fault] = deque()

    def plan(self, kind: Kind, times: int = 1, *, retry_after_s: float = 1.0, stall_s: float = 30.0) -> None:
        """Answer the next ``times`` requests with this fault."""
        self._planned.extend([Fault(kind, retry_after_s, stall_s)] * times)

    async def strike(self, request: web.Request) -> web.Response | None:
        """The planned fault for this request, if there is one."""
        if not self._planned:
            return None
        fault = self._planned.popleft()
        if fault.kind == "429":
            return web.Response(status=429, text="rate limited", headers={"Retry-After": str(int(fault.retry_after_s))})
        if fault.kind == "500":
            return web.Response(status=500, text="internal error")
        if fault.kind == "stall":
            await asyncio.sleep(fault.stall_s)
            return web.Response(status=504, text="stalled")
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)


async def admin_fault(request: web.Request, faults: Faults) -> web.Response:
    """``POST /admin/faults {"kind": "429", "times": 2, "retry_after_s": 1}``"""
    body = await request.json()
    faults.plan(
        body["kind"],
        int(body.get("times", 1)),
        retry_after_s=float(body.get("retry_after_s", 1.0)),
        stall_s=float(body.get("stall_s", 30.0)),
    )
    return web.json_response({"planned": True})
