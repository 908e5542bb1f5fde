"""Health, readiness and metrics: what machines ask."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.instants import SECOND, to_datetime, to_micros
from streams import metrics
from streams.sinks.reviews import count_reviews
from streams.sinks.silences import load_silences
from streams.web import queries
from streams.web.answers import Readiness
from streams.web.problems import DATABASE_ERRORS
from streams.web.readiness import BrokerProbe, missing_parts
from streams.web.reading import Parts, Reading, Surroundings, present

router = APIRouter(tags=["health"])


def _probe(request: Request) -> BrokerProbe:
    probe: BrokerProbe = request.app.state.probe
    return probe


@router.get("/healthz", summary="Whether this process answers")
async def healthz() -> dict[str, str]:
    """Always 200: restart the process only where this does not answer."""
    return {"status": "ok"}


@router.get("/readyz", summary="Whether the service can do its work", responses={503: {"model": Readiness}})
async def readyz(parts: Parts, probe: Annotated[BrokerProbe, Depends(_probe)]) -> JSONResponse:
    """200 where the ledger is migrated and the broker has the topics; else 503 and what is missing."""
    missing = await missing_parts(parts.pool, probe)
    answer = Readiness(ready=not missing, missing=missing)
    return JSONResponse(answer.model_dump(), 503 if missing else 200)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def read_metrics(parts: Parts, reader: Reading) -> Response:
    """This process and, from the ledger, the whole service: lag, open alerts, throttles, messages owed."""
    reader.sees_all()
    try:
        await _take_from_ledger(parts)
        metrics.LEDGER_UP.set(1)
    except DATABASE_ERRORS:
        # The rest of the metrics is what an operator needs then.
        metrics.LEDGER_UP.set(0)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _take_from_ledger(parts: Surroundings) -> None:
    """Set the gauges that speak for the whole service. No await between clearing and setting: scrapes overlap."""
    now = await present(parts)
    sources = await queries.sources(parts.pool)
    alerts = await queries.count_open_alerts(parts.pool)
    throttles = await queries.throttles(parts.pool, to_datetime(now), "")
    outbox = await queries.outbox_counts(parts.pool)
    receivers = await queries.receivers(parts.pool)
    reviews = await count_reviews(parts.pool, parts.clock.now())
    silences = len(await load_silences(parts.pool, parts.clock.now()))
    unanswered = await queries.count_unanswered_jobs(parts.pool, to_datetime(now))
    gauges = (metrics.SOURCE_LAG_SECONDS, metrics.SOURCE_NEXT_OFFSET, metrics.ALERTS_OPEN)
    for gauge in (*gauges, metrics.RECEIVER_UP, metrics.OUTBOX_OLDEST_SECONDS):
        gauge.clear()
    for row in sources:
        if (stream_time := to_micros(row["stream_time"])) > 0:
            lag_us = max(now - stream_time, 0)
            metrics.SOURCE_LAG_SECONDS.labels(slot=row["slot"]).set(lag_us / SECOND)
        metrics.SOURCE_NEXT_OFFSET.labels(slot=row["slot"]).set(row["next_offset"])
    for row in alerts:
        metrics.ALERTS_OPEN.labels(rule=row["rule"], severity=row["severity"]).set(row["alerts"])
    for row in receivers:
        metrics.RECEIVER_UP.labels(receiver=row["receiver"]).set(row["up"])
        metrics.OUTBOX_OLDEST_SECONDS.labels(receiver=row["receiver"]).set(row["oldest_s"])
    for state, number in reviews.items():
        metrics.REVIEWS_OPEN.labels(state=state).set(number)
    metrics.SILENCES_LIVE.set(silences)
    metrics.THROTTLES_ACTIVE.set(len(throttles))
    metrics.JOBS_UNANSWERED.set(unanswered)
    metrics.OUTBOX_OWED.set(outbox.get("owed", 0))
    metrics.OUTBOX_GIVEN_UP.set(outbox.get("given_up", 0))
