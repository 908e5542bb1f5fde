"""Faults that a stand-in answers with: as many as were asked for, then the truth again."""

import asyncio
from collections import deque
from typing import Annotated, Literal, NamedTuple

import msgspec
from aiohttp import web

from schemas.instants import MINUTE, SECOND

#: ``lose_answer``: the message is taken, and the connection ends before the answer.
Kind = Literal["400", "429", "500", "stall", "drop", "lose_answer"]
_LOSES_ANSWER = web.RequestKey("loses_answer", bool)


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
        if fault.kind in ("400", "500"):
            return web.Response(status=int(fault.kind), text="as it was planned")
        if fault.kind == "lose_answer":
            request[_LOSES_ANSWER] = True
            return None
        if fault.kind == "stall":
            await asyncio.sleep(fault.stall_s)
            return web.Response(status=504, text="stalled")
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def answer(self, request: web.Request, response: web.Response) -> web.Response:
        """The response to a message that was taken, or the end of the connection where it is to be lost."""
        if request.get(_LOSES_ANSWER) and request.transport is not None:
            request.transport.abort()
        return response


class Pace:
    """How many requests a receiver takes in a sliding minute; the others are told to come back.

    Args:
        per_minute_max: none sets no limit; may be changed while it runs.
    """

    def __init__(self, per_minute_max: int | None = None) -> None:
        self.per_minute_max = per_minute_max
        #: When requests were let through, and how many were not.
        self.passed: deque[int] = deque()
        self.held = 0

    def hold(self, now: int) -> web.Response | None:
        """The answer to a request that comes too fast."""
        if self.per_minute_max is None:
            return None
        while self.passed and self.passed[0] <= now - MINUTE:
            self.passed.popleft()
        if len(self.passed) >= self.per_minute_max:
            self.held += 1
            wait_s = max(1, -(-(self.passed[0] + MINUTE - now) // SECOND)) if self.passed else 60
            return web.Response(status=429, text="rate limited", headers={"Retry-After": str(wait_s)})
        self.passed.append(now)
        return None


async def admin_fault(request: web.Request, faults: Faults) -> web.Response:
    """``POST /admin/faults {"kind": "429", "times": 2, "retry_after_s": 1}``"""
    try:
        plan = msgspec.json.decode(await request.read(), type=_Plan)
    except msgspec.MsgspecError as error:
        return web.json_response({"error": str(error)}, status=400)
    faults.plan(plan.kind, plan.times, retry_after_s=plan.retry_after_s, stall_s=plan.stall_s)
    return web.json_response({"planned": True})


class _Plan(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    times: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    retry_after_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 1.0
    stall_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 30.0
