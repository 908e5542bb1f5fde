"""``/v1/decide``: asks the gate for gateways that can ask over HTTP, as Envoy's ext_authz and nginx's auth_request do.

    python -m gateway.decide --kafka 127.0.0.1:9092 --name eu-1 --listen 127.0.0.1:8687

The call is described by ``x-sluice-…`` headers, which the asking gateway must set itself: whoever can set them can
claim any team. 200 lets the call go, with ``x-sluice-…`` headers that say what to change; 429 refuses it, with the
reason and Retry-After. Whoever can reach the port can ask, so it listens on loopback unless told otherwise.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, Literal

from aiohttp import web

from gateway.gate import ThrottleGate
from gateway.measures import SCOPE_TYPES, Decision

PATH = "/v1/decide"
#: ``x-sluice-cost-center`` -> ``cost_center``.
HEADERS = {f"x-sluice-{name.replace('_', '-')}": name for name in SCOPE_TYPES}
TOKENS = "x-sluice-tokens"
#: ``?deny=403`` for gateways that understand no other refusal, as nginx does.
DENIALS = {"403": 403, "429": 429, "503": 503}


def identities(headers: Mapping[str, str], body: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """Who calls what: headers before the query's parameters before a JSON body's fields.

    Raises:
        ValueError: tokens are no number.
    """
    found: dict[str, Any] = {}
    for header, name in HEADERS.items():
        value = headers.get(header) or query.get(name) or body.get(name)
        if value:
            found[name] = str(value)
    tokens = headers.get(TOKENS) or query.get("tokens") or body.get("tokens")
    if tokens:
        found["tokens"] = int(tokens)
    return found


def answer(decision: Decision, deny: str = "") -> web.Response:
    """The decision as gateways read it."""
    headers = {"x-sluice-action": decision.action, "Cache-Control": "no-store"}
    body: dict[str, Any] = {"allowed": decision.allowed, "action": decision.action, "reason": decision.reason}
    if decision.command is not None:
        headers |= {"x-sluice-budget": decision.command.budget_id, "x-sluice-command": decision.command.command_id}
        body |= {"budget_id": decision.command.budget_id, "command_id": decision.command.command_id}
    if decision.reason:
        headers["x-sluice-reason"] = decision.reason
    if not decision.allowed:
        headers["Retry-After"] = str(decision.retry_after_s)
        body["retry_after_s"] = decision.retry_after_s
    if decision.model_fallback is not None:
        headers["x-sluice-model"] = body["model"] = decision.model_fallback
    if decision.max_tokens is not None:
        headers["x-sluice-max-tokens"] = str(decision.max_tokens)
        body["max_tokens"] = decision.max_tokens
    status = 200 if decision.allowed else DENIALS.get(deny, decision.http_status)
    safe = {name: _one_line(value) for name, value in headers.items()}
    return web.json_response(body, status=status, headers=safe)


def application(gate: ThrottleGate) -> web.Application:
    """``/v1/decide`` with anything after it (Envoy appends the path of the call), ``/healthz`` and ``/readyz``."""

    async def decide(request: web.Request) -> web.Response:
        body: Any = {}
        # Envoy sends the headers of the call itself, its Content-Type too, without the body.
        if request.path == PATH and request.content_type == "application/json" and request.can_read_body:
            try:
                body = json.loads(await request.text() or "{}")
            except ValueError:
                return web.json_response({"detail": "the body is not JSON"}, status=400)
        try:
            asked = identities(request.headers, body if isinstance(body, dict) else {}, request.query)
        except ValueError:
            return web.json_response({"detail": "tokens is a whole number"}, status=400)
        return answer(gate.check(**asked), request.query.get("deny", ""))

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "up"})

    async def ready(_: web.Request) -> web.Response:
        found = {"ready": gate.ready, "connected": gate.connected, "commands": len(gate.live())}
        return web.json_response(found, status=200 if gate.ready else 503)

    app = web.Application(client_max_size=65_536)
    app.router.add_route("*", PATH, decide)
    app.router.add_route("*", PATH + "/{call:.*}", decide)
    app.router.add_get("/healthz", health)
    app.router.add_get("/readyz", ready)
    return app


async def serve(
    connection: Mapping[str, Any],
    *,
    name: str,
    host: str,
    port: int,
    fail: Literal["open", "closed"],
    idempotence: bool = True,
) -> int:
    """Answer until SIGINT or SIGTERM; returns the exit code."""
    ended = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, ended.set)
    gate = ThrottleGate(connection, gateway=name, fail=fail, idempotence=idempotence)
    runner = web.AppRunner(application(gate), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await gate.start(ready_within_s=5)
        print(
            f"/v1/decide on http://{host}:{runner.addresses[0][1]}, {'ready' if gate.ready else 'not ready'}",
            flush=True,
        )
        await ended.wait()
    finally:
        await runner.cleanup()
        await gate.stop()
    return 0


def _one_line(text: str) -> str:
    """Fit for a header: what people wrote into a budget may hold anything."""
    return " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.decide", description=__doc__)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--name", default=f"decide-{socket.gethostname()}", help="of this one, in acknowledgements")
    parser.add_argument("--listen", default="127.0.0.1:8687", help="host:port; port 0 is any free one")
    parser.add_argument("--fail", choices=("open", "closed"), default="open", help="until all commands have been read")
    options = parser.parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    connection = {"bootstrap_servers": options.kafka}
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(serve(connection, name=options.name, host=host, port=int(port), fail=options.fail))
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
