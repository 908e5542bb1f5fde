"""Who may change definitions, and what is defined now.

A change needs a key, on loopback too: of scope ``budgets:write``, or ``approve`` for a run's approval. One that is
bound to a team changes that team's own budgets and nothing else. The key's name is who, ``reason`` is why.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.budgets import Budget, Definition
from streams.clock import elapsed_s
from streams.core.defining import not_the_teams
from streams.core.definitions import Definitions
from streams.ports import ConflictError, DefinitionStore, ReleaseSwitch, RetryableError
from streams.sources.access import read_body, require_scope
from streams.web.reading import Parts, Surroundings

#: What was read is good for so long; what this process writes, it reads anew at once.
KNOWN_FOR_S = 1.0
#: A broker that did not answer is left alone for so long.
UNKNOWN_FOR_S = 5.0
READ_TIMEOUT_S = 10.0
#: Of what is posted here; a budget with sixteen rungs has a few thousand.
BODY_BYTES_MAX = 65_536
_TAG = re.compile(r'(?:W/)?"(\d{1,18})"')


def _text(value: object) -> object:
    """JSON knows numbers as well: 12.5 and "12.5" are the same amount."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Amount = Annotated[str, BeforeValidator(_text), Field(max_length=64)]
Reason = Annotated[str, Field(max_length=2_000, description="Why: it stands in the history for everybody to read.")]


class _BoundedRequest(Request):
    async def body(self) -> bytes:
        if not hasattr(self, "_read"):
            self._read = await read_body(self, BODY_BYTES_MAX)
        return self._read


class BoundedRoute(APIRoute):
    """Reads no more of a body than any definition needs, before anything else is done with it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(_BoundedRequest(request.scope, request.receive))

        return bounded


class Body(BaseModel):
    """What is posted: nothing that nobody knows."""

    model_config = ConfigDict(extra="forbid")


class Writer(NamedTuple):
    """A caller that may change definitions; ``team`` is the only team whose budgets it may touch, empty: all."""

    name: str
    team: str

    def may(self, definition: Definition, known: Definitions) -> None:
        """Go on where the definition is this caller's business.

        Raises:
            HTTPException: 403, with why not.
        """
        if problem := not_the_teams(self.team, definition, known):
            raise HTTPException(403, f"the API key {self.name!r} belongs to team {self.team!r}: {problem}")

    def concerns_all(self, what: str) -> None:
        """Go on for a key that is bound to no team.

        Raises:
            HTTPException: 403.
        """
        if self.team:
            raise HTTPException(403, f"{what} concerns every team; use a key that is not bound to one")


async def writer(request: Request, parts: Parts) -> Writer:
    """The caller, if it may define.

    Raises:
        HTTPException: 401, 403 or 503 as ``require_scope`` says.
    """
    info = await require_scope(request, parts.keys, "budgets:write")
    return Writer(info.name, info.team_id)


Writing = Annotated[Writer, Depends(writer)]


class Known:
    """What is defined, asked of the store at most once a second by all readers together."""

    def __init__(self, store: DefinitionStore | None) -> None:
        self._store = store
        self._held: Definitions | None = None
        self._problem = ""
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def now(self, *, fresh: bool = False) -> Definitions:
        """The definitions; ``fresh`` asks in any case.

        Raises:
            RetryableError: the broker cannot be read now.
        """
        async with self._asking:
            if fresh or elapsed_s() >= self._until:
                await self._ask()
            if self._held is None or self._problem:
                raise RetryableError(self._problem, UNKNOWN_FOR_S)
            return self._held

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                self._held = Definitions().changed(await self.store().current())
            self._problem, self._until = "", elapsed_s() + KNOWN_FOR_S
        except (RetryableError, TimeoutError) as error:
            self._problem = str(error) or "what is defined cannot be read now: the broker does not answer"
            self._until = elapsed_s() + UNKNOWN_FOR_S

    def store(self) -> DefinitionStore:
        """Where definitions are written.

        Raises:
            RetryableError: this process has none.
        """
        if self._store is None:
            raise RetryableError("this API was started without a store of definitions", UNKNOWN_FOR_S)
        return self._store

    def forget(self) -> None:
        """After a write: the next reader asks anew."""
        self._until = 0.0


class Defining(Surroundings):
    """What of ``app.state`` the routers that define use besides."""

    known: Known
    releases: ReleaseSwitch | None


def _defining(request: Request) -> Defining:
    state: Defining = request.app.state
    return state


Store = Annotated[Defining, Depends(_defining)]


async def publish(
    parts: Defining, changes: Sequence[Definition], by: str, reason: str, expected: Mapping[str, int] | None = None
) -> Sequence[Any]:
    """Write, and let nobody read what was before.

    Raises:
        ConflictError: somebody else was faster.
    """
    try:
        return await parts.known.store().publish(changes, by=by, reason=reason, expected=expected)
    finally:
        parts.known.forget()


async def withdraw(parts: Defining, key: str, by: str, reason: str, expected: int | None = None) -> None:
    """End a definition.

    Raises:
        HTTPException: 404, there is none.
        ConflictError: somebody else was faster.
    """
    try:
        found = await parts.known.store().withdraw(key, by=by, reason=reason, expected=expected)
    finally:
        parts.known.forget()
    if not found:
        raise HTTPException(404, f"there is no {key.replace('|', ' ', 1)} to withdraw")


def budget_named(known: Definitions, budget_id: str) -> Budget:
    """The budget of an id.

    Raises:
        HTTPException: 404.
    """
    found = known.of_budget(budget_id)
    if found is None:
        raise HTTPException(404, {"detail": f"there is no budget {budget_id[:64]!r}", "action": "See /v1/budgets."})
    return found


def expected_version(if_match: str | None, key: str, standing: int) -> int | None:
    """The version that the caller read; None for any (``*``). 0 stands for none.

    Raises:
        HTTPException: 428 where something stands and the caller does not say what it read; 400 for another form.
    """
    if if_match is None:
        if standing:
            what = f"{key.replace('|', ' ', 1)} is at version {standing}"
            raise HTTPException(
                428, {"detail": f"{what}: send If-Match", "action": f'Read it, then send If-Match: "{standing}".'}
            )
        return 0
    if if_match.strip() == "*":
        if not standing:
            raise ConflictError(key, 1, 0)
        return None
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise HTTPException(400, f'If-Match is the ETag that was read, such as "3", or *; not {if_match[:40]!r}')
    return int(found[1])
