"""A dead man's switch to try the heartbeat against: what Healthchecks.io takes, on loopback."""

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from aiohttp import web

UUID = "5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"


class Ping(NamedTuple):
    """One request: ``fail`` or empty, how it came, and its body."""

    what: str
    method: str
    body: str


class DeadMansSwitch:
    """Keeps what it heard; ``refuses`` answers 503."""

    def __init__(self) -> None:
        self.url = ""
        self.pings: list[Ping] = []
        self.refuses = False

    async def _ping(self, request: web.Request) -> web.Response:
        if self.refuses:
            return web.Response(status=503)
        what = request.match_info.get("what", "")
        self.pings.append(Ping(what, request.method, (await request.read()).decode()))
        return web.Response(text="OK")

    def verdicts(self) -> list[str]:
        """What was said, without repetitions."""
        said = [ping.what or "well" for ping in self.pings]
        return [word for number, word in enumerate(said) if not number or said[number - 1] != word]


@contextlib.asynccontextmanager
async def dead_mans_switch() -> AsyncIterator[DeadMansSwitch]:
    """One that listens."""
    switch = DeadMansSwitch()
    app = web.Application()
    for path in (f"/{UUID}", f"/{UUID}/{{what}}"):
        app.router.add_route("*", path, switch._ping)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    switch.url = f"http://127.0.0.1:{runner.addresses[0][1]}/{UUID}"
    try:
        yield switch
    finally:
        await runner.cleanup()
