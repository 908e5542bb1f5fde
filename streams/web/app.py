"""The HTTP application: reads of the ledger, the sources that write, the dashboard. Who may read: ``reading``."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams import metrics
from streams.clock import Clock, WallClock, elapsed_s
from streams.ports import DefinitionStore, ReleaseSwitch
from streams.settings import Settings
from streams.sources.access import Keys
from streams.sources.billing import billing_router
from streams.sources.ingest import Publisher, ingest_router
from streams.web import (
    alerts,
    budget_changes,
    budgets,
    digests,
    forecasts,
    health,
    limits,
    pagerduty_hook,
    problems,
    releasing,
    reviews,
    runs,
    showback,
    silences,
    spend,
    views,
)
from streams.web.readiness import BrokerProbe
from streams.web.writing import Known

STATIC = Path(__file__).parent / "static"
#: The page loads nothing from elsewhere and runs no inline script, so neither can anything injected into it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: In this order: a run's id and an alert's key may have slashes in them.
ROUTED = (
    health, spend, views, budgets, budget_changes, showback, forecasts, limits, runs, releasing, alerts, silences,
    reviews, pagerduty_hook, digests,
)  # fmt: skip
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def create_api(
    settings: Settings,
    pool: asyncpg.Pool,
    publisher: Publisher,
    keys: Keys,
    clock: Clock | None = None,
    *,
    definitions: DefinitionStore | None = None,
    releases: ReleaseSwitch | None = None,
) -> FastAPI:
    """Put the API together from parts that are open already; whoever opened them closes them.

    Args:
        settings: who may read without a key, limits of what is posted, the webhook's secret.
        pool: of the ledger's database.
        publisher: takes posted records to Kafka.
        keys: knows the API keys.
        clock: the wall's unless given.
        definitions: where budgets and the like are read and written; without it they cannot be.
        releases: opens every gate at once.
    """
    api = FastAPI(
        title="Sluice",
        version=version("sluice"),
        description="AI spend as it happens. Amounts are exact decimal strings of US dollars, instants RFC 3339.",
        # Their pages load scripts from elsewhere; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
    )
    api.state.settings = settings
    api.state.pool = pool
    api.state.keys = keys
    api.state.clock = clock or WallClock()
    api.state.known = Known(definitions)
    api.state.releases = releases
    api.state.probe = BrokerProbe(settings)
    for part in ROUTED:
        api.include_router(part.router)
    api.include_router(ingest_router(publisher, keys, settings))
    api.include_router(billing_router(publisher, settings))

    @api.get("/", include_in_schema=False)
    async def dashboard() -> FileResponse:
        return FileResponse(STATIC / "index.html", media_type="text/html")

    @api.get("/alerts", include_in_schema=False)
    async def alerts_page() -> FileResponse:
        return FileResponse(STATIC / "alerts.html", media_type="text/html")

    api.mount("/assets", StaticFiles(directory=STATIC), name="assets")
    problems.install(api)
    api.add_middleware(Edge)
    return api


class Edge:
    """Outermost: security headers on every answer, and its time and status as metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = elapsed_s()
        status = 500

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(MutableHeaders(scope=message), scope["path"])
            await send(message)

        try:
            await self._app(scope, receive, send_dressed)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = _route_of(scope)
            metrics.API_REQUESTS.labels(route=route, method=method, status=str(status)).inc()
            metrics.API_SECONDS.labels(route=route).observe(elapsed_s() - began)


def _dress(headers: MutableHeaders, path: str) -> None:
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    page = path in ("/", "/alerts") or path.startswith("/assets/")
    # Pages may be kept but are asked about again, so an upgrade shows at once; figures are never kept.
    headers.setdefault("Cache-Control", "no-cache" if page else "no-store")


def _route_of(scope: Scope) -> str:
    """The route's template, never the path as called: paths are not a bounded set."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "")) or ("/assets" if scope["path"].startswith("/assets/") else "none")
