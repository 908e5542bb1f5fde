"""Errors as RFC 9457 problem details: what is wrong, and what to do about it. No internals, no secrets."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from streams.core.alert_life import LifeError
from streams.core.approvals import LinkError, RunError
from streams.core.defining import RequestError
from streams.ports import ConflictError, PermanentError, RetryableError

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
RETRY_AFTER_S = "5"
_WHAT_TO_DO = {
    401: "Send 'Authorization: Bearer slk_…' with a live key; an operator makes one with `sluice keys create`.",
    403: "Use a key that has the scope named here; `sluice keys create --scope …` makes one.",
    404: "See /openapi.json for what there is.",
    405: "See /openapi.json for what there is.",
}


class ProblemResponse(JSONResponse):
    """A JSON answer of type ``application/problem+json``."""

    media_type = CONTENT_TYPE


def problem(
    status: int, detail: Any, headers: Mapping[str, str] | None = None, errors: Sequence[Any] = ()
) -> ProblemResponse:
    """A problem document. ``detail`` is for people; ``errors`` lists what is wrong in the request, one by one."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if isinstance(detail, str):
        body["detail"] = detail
    elif isinstance(detail, Mapping):
        # A router may add members of its own, as RFC 9457 allows.
        body |= dict(detail)
    if status in _WHAT_TO_DO and "action" not in body:
        body["action"] = _WHAT_TO_DO[status]
    if errors:
        body["errors"] = list(errors)
    return ProblemResponse(jsonable_encoder(body), status, dict(headers or {}))


def install(api: FastAPI) -> None:
    """Answer every error of this application with a problem document."""

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> ProblemResponse:
        return problem(error.status_code, error.detail, error.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> ProblemResponse:
        found = [
            {"where": ".".join(str(part) for part in one["loc"]), "problem": _sentence(one)} for one in error.errors()
        ]
        listed = "; ".join(f"{one['where'].partition('.')[2]}: {one['problem']}" for one in found[:5])
        return problem(422, f"The request has {len(found)} error(s): {listed}", errors=found)

    @api.exception_handler(RetryableError)
    async def later(request: Request, error: RetryableError) -> ProblemResponse:
        return problem(503, str(error), {"Retry-After": f"{error.retry_after_s or 5:g}"})

    _install_definitions(api)

    async def no_database(request: Request, error: Exception) -> ProblemResponse:
        log.warning("%s %s: the database did not answer: %r", request.method, request.url.path, error)
        action = "Try again; if it stays, /readyz says what is missing."
        return problem(
            503,
            {"detail": "The ledger cannot be read now.", "action": action},
            {"Retry-After": RETRY_AFTER_S},
        )

    for kind in DATABASE_ERRORS:
        api.add_exception_handler(kind, no_database)

    @api.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> ProblemResponse:
        # Starlette logs the traceback itself once this answer is out.
        return problem(500, "An error of Sluice, not of your request. The service's log has the traceback.")


def _install_definitions(api: FastAPI) -> None:
    """What can be wrong with a change of definitions."""

    @api.exception_handler(RequestError)
    async def cannot_be_defined(request: Request, error: RequestError) -> ProblemResponse:
        errors = [{"where": wrong.where, "problem": wrong.problem} for wrong in error.wrongs]
        return problem(422, f"The request has {len(errors)} error(s): {error}", errors=errors)

    @api.exception_handler(ConflictError)
    async def somebody_was_faster(request: Request, error: ConflictError) -> ProblemResponse:
        action = f'Read it again and send If-Match: "{error.found}".' if error.found else "Send it without If-Match."
        return problem(412, {"detail": str(error), "version": error.found, "action": action})

    @api.exception_handler(RunError)
    async def not_with_this_run(request: Request, error: RunError) -> ProblemResponse:
        return problem(409, str(error))

    @api.exception_handler(LifeError)
    async def not_as_it_stands(request: Request, error: LifeError) -> ProblemResponse:
        return problem(409, str(error))

    @api.exception_handler(LinkError)
    async def no_link(request: Request, error: LinkError) -> ProblemResponse:
        return problem(409, str(error))

    @api.exception_handler(PermanentError)
    async def not_taken(request: Request, error: PermanentError) -> ProblemResponse:
        return problem(413, str(error))


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such parameter"
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")
