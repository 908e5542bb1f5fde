"""HTTP ingest of CloudEvents: structured, batch and binary mode, and LiteLLM's OpenMeter logger as it is.

202 means that every in-sync replica of the broker has all events of the request. A batch is all or nothing:
one bad event and none is published. After a 503 some may have arrived; sending all again is safe.
"""

from collections.abc import Mapping
from typing import Protocol

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from schemas.cloudevents import (
    BATCH_TYPE,
    JSON_TYPE,
    STRUCTURED_TYPE,
    Envelope,
    EnvelopeError,
    read_structured,
)
from streams.clock import Clock, WallClock
from streams.ports import PermanentError, RetryableError
from streams.settings import Settings
from streams.sources.access import Keys, read_body, require_scope
from streams.sources.intake import Problem, Rules, read_array, read_binary, to_records
from streams.sources.publisher import Record

SCOPE = "ingest"
PROBLEMS_SHOWN_MAX = 1_000


class Publisher(Protocol):
    """Takes records to Kafka (``streams.sources.publisher.UsagePublishing``)."""

    async def publish_all(self, records: list[Record]) -> int:
        """Publish and wait for the acknowledgements.

        Raises:
            RetryableError: trying again may help.
            PermanentError: it cannot.
        """
        ...


class Unreadable(Exception):
    """A request whose events can't all be taken; ``problems`` names each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


def ingest_router(publisher: Publisher, keys: Keys, settings: Settings, clock: Clock | None = None) -> APIRouter:
    """``POST /v1/events``, and the same at ``/api/v1/events``, where LiteLLM's OpenMeter logger posts to."""
    router = APIRouter(tags=["ingest"])
    watch = clock or WallClock()

    async def take(request: Request) -> JSONResponse:
        key = await require_scope(request, keys, SCOPE)
        body = await read_body(request, settings.ingest_body_bytes_max)
        rules = Rules(settings.tokens_max, frozenset(settings.openmeter_types), key.team_id)
        try:
            records = records_of(request.headers, body, rules, settings.ingest_batch_max, watch.now())
        except Unreadable as error:
            return refusal(error.problems)
        return await publish(publisher, records)

    router.add_api_route("/v1/events", take, methods=["POST"], status_code=202, summary="Publish CloudEvents")
    router.add_api_route("/api/v1/events", take, methods=["POST"], include_in_schema=False)
    return router


def records_of(headers: Mapping[str, str], body: bytes, rules: Rules, batch_max: int, now: int) -> list[Record]:
    """The records that a request asks to publish, whatever its mode; ``headers`` are in lower case.

    Raises:
        Unreadable: with every problem of every event.
        HTTPException: 413 for too many events, 415 for a content type that holds no CloudEvents.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    envelopes: list[Envelope] = []
    unread: list[Problem] = []
    try:
        if kind == BATCH_TYPE:
            envelopes, unread = read_array(body)
        elif kind == STRUCTURED_TYPE:
            envelopes = [read_structured(body)]
        elif kind == JSON_TYPE and (headers.get("ce-id") or headers.get("ce-type")):
            envelopes = [read_binary(headers, body)]
        else:
            raise HTTPException(
                415,
                f"content type {kind[:64]!r}: send {STRUCTURED_TYPE}, {BATCH_TYPE}, or {JSON_TYPE} with ce-* headers",
            )
    except EnvelopeError as error:
        raise Unreadable([Problem(0, str(error))]) from error
    count = len(envelopes) + len(unread)
    if count > batch_max:
        raise HTTPException(413, f"{count} events in one batch; send at most {batch_max}")
    skipped = {problem.place for problem in unread}
    indexes = [index for index in range(count) if index not in skipped]
    records, problems = to_records(envelopes, rules, now, indexes)
    if unread or problems:
        raise Unreadable(sorted(unread + problems))
    return records


async def publish(publisher: Publisher, records: list[Record]) -> JSONResponse:
    """Publish and answer: 202, 413 where a record is too large for the broker, 503 where it takes none."""
    try:
        accepted = await publisher.publish_all(records)
    except PermanentError as error:
        raise HTTPException(413, str(error)) from error
    except RetryableError as error:
        wait_s = max(1, round(error.retry_after_s or 5))
        detail = f"not all events were published, send the same request again: {error}"
        raise HTTPException(503, detail, {"Retry-After": str(wait_s)}) from error
    return JSONResponse({"accepted": accepted}, 202)


def refusal(problems: list[Problem]) -> JSONResponse:
    """400 with every problem and the place of its event; nothing was published."""
    shown = [{"index": problem.place, "reason": problem.reason} for problem in problems[:PROBLEMS_SHOWN_MAX]]
    detail = f"nothing was published: {len(problems)} problems"
    return JSONResponse({"detail": detail, "problems": shown}, 400)
