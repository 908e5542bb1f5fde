"""The receivers of the storm: strict stand-ins behind doors that count who comes, and the weather that they have."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from aiohttp import web

from schemas.instants import SECOND, to_datetime
from streams.clock import WallClock, elapsed_s
from streams.standins.certificate import make_certificate
from streams.standins.faults import Pace
from streams.standins.pagerduty import PagerDutyStandIn
from streams.standins.runner import HOST, ROUTING_KEY
from streams.standins.slack import BOT_TOKEN, CHANNEL, SlackStandIn
from streams.standins.smtp import MailStandIn
from streams.standins.webhook import PATH as WEBHOOK_PATH
from streams.standins.webhook import SECRET as WEBHOOK_SECRET
from streams.standins.webhook import WebhookStandIn

#: What each may be sent in a minute, as routes.yaml has it and as the stand-ins watch it.
PER_MINUTE = {"pagerduty": 300, "slack": 60, "webhook": 600, "email": 60}
#: The integrations' ids.
IDS = {"pagerduty": "on-call/pagerduty", "slack": "room/slack", "webhook": "desk/webhook", "email": "duty/email"}


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: ``fails``: 503. ``stalls``: no answer in time. ``busy``: 429. ``forgets``: takes the message and loses the answer.
Mood = Literal["fails", "stalls", "busy", "forgets", "cuts"]
#: Longer than anybody waits who came while it stalled.
STALLS_ON_S = 15.0


class Door:
    """A server on a port of its own that can be shut, cutting everybody off, and opened again.

    Of each path it lets ``per_minute`` requests in within any minute and answers 429 to the others: Slack limits each
    method by itself, and a message that edits the first of its thread is a call of two.
    """

    def __init__(self, app: web.Application, per_minute: int, context: ssl.SSLContext | None = None) -> None:
        #: When each request came, in seconds, by path, whatever became of it.
        self.arrivals: dict[str, list[float]] = {}
        self._paces: dict[str, Pace] = {}
        self._per_minute = per_minute
        self._mood: Mood | None = None
        self._mood_ends = 0.0
        app.middlewares.append(self._counted())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        self._context = context
        self._site: web.TCPSite | None = None
        self.port = 0

    def _counted(self) -> Any:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.arrivals.setdefault(request.path, []).append(elapsed_s())
            pace = self._paces.setdefault(request.path, Pace(self._per_minute))
            held = pace.hold(round(elapsed_s() * SECOND))
            return held or await self._in_mood(request, handler)

        return count

    def be(self, mood: "Mood", seconds: float) -> None:
        """Answer so for a while."""
        self._mood, self._mood_ends = mood, elapsed_s() + seconds

    async def _in_mood(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        mood, left_s = self._mood, self._mood_ends - elapsed_s()
        if mood is None or left_s <= 0:
            return await handler(request)
        if mood == "busy":
            return web.Response(status=429, headers={"Retry-After": str(max(1, round(left_s)))})
        if mood == "stalls":
            await asyncio.sleep(left_s + STALLS_ON_S)
        if mood == "forgets":
            # It takes the message, and nobody hears of it.
            await handler(request)
        if mood in ("forgets", "cuts") and request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    @property
    def held(self) -> int:
        """How many came above the limit."""
        return sum(pace.held for pace in self._paces.values())

    async def open(self) -> None:
        """Listen, on the port of before."""
        if self._runner.server is None:
            await self._runner.setup()
        self._site = web.TCPSite(self._runner, HOST, self.port, ssl_context=self._context, reuse_address=True)
        await self._site.start()
        self.port = self.port or self._runner.addresses[0][1]

    async def shut(self) -> None:
        """Listen no more, and cut off who is here."""
        if self._site is not None:
            await self._site.stop()
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()

    async def close(self) -> None:
        """For good."""
        await self._runner.cleanup()


class Weather(NamedTuple):
    """Something bad, when it comes (seconds from the beginning), in words, and how."""

    at_s: float
    words: str
    comes: Callable[[], Awaitable[None]]


class Town:
    """``async with Town(folder) as town``: PagerDuty, Slack (by bot), a webhook and a mail server."""

    def __init__(self, folder: Path) -> None:
        clock = WallClock()
        self._folder, self._clock = folder, clock
        self.pagerduty = PagerDutyStandIn(clock)
        self.slack = SlackStandIn(clock)
        self.webhook = WebhookStandIn(clock)
        self.mail = MailStandIn()
        self.doors: dict[str, Door] = {}
        self.mail_arrivals: list[float] = []
        self._smtp: asyncio.Server | None = None
        self._smtp_port = 0
        self._ca_file = folder / "ca.pem"

    async def __aenter__(self) -> Self:
        now = to_datetime(self._clock.now())
        self._ca_file, context = await asyncio.to_thread(make_certificate, self._folder, now)
        self.doors = {
            "pagerduty": Door(self.pagerduty.application(), PER_MINUTE["pagerduty"], context),
            "slack": Door(self.slack.application(), PER_MINUTE["slack"]),
            "webhook": Door(self.webhook.application(), PER_MINUTE["webhook"]),
        }
        for door in self.doors.values():
            await door.open()
        take = self.mail.handle_DATA

        async def counted(*of: Any) -> str:
            self.mail_arrivals.append(elapsed_s())
            return await take(*of)

        self.mail.handle_DATA = counted  # type: ignore[method-assign]
        self._smtp = await asyncio.get_running_loop().create_server(self.mail.protocol, HOST, 0)
        self._smtp_port = self._smtp.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for door in self.doors.values():
            await door.close()
        if self._smtp is not None:
            self._smtp.close()

    def arrivals(self) -> Mapping[str, list[list[float]]]:
        """When each receiver was asked, in seconds, by what of it."""
        by_door = {name: list(door.arrivals.values()) for name, door in self.doors.items()}
        return by_door | {"email": [self.mail_arrivals]}

    def environment(self) -> dict[str, str]:
        """The settings of workers, and the secrets that ``routes`` refers to."""
        return {
            "STORM_ROUTING_KEY": ROUTING_KEY,
            "STORM_BOT_TOKEN": BOT_TOKEN,
            "STORM_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "SLUICE_PAGERDUTY_URL": f"https://{HOST}:{self.doors['pagerduty'].port}",
            "SLUICE_PAGERDUTY_CA_FILE": str(self._ca_file.absolute()),
            "SLUICE_SLACK_API_URL": f"http://{HOST}:{self.doors['slack'].port}/api/",
            "SLUICE_SMTP_HOST": HOST,
            "SLUICE_SMTP_PORT": str(self._smtp_port),
            "SLUICE_SMTP_TLS": "none",
            "SLUICE_MAIL_TO": "on-call@example.test",
            "SLUICE_MAIL_FROM": "sluice@example.test",
        }

    def routes(self, wait_s: float, interval_s: float) -> str:
        """routes.yaml: a group for each team, told to PagerDuty, Slack and a webhook; mail is the fallback."""
        limit = {name: f"{{messages: {most}, per: 1m}}" for name, most in PER_MINUTE.items()}
        hook = f"http://{HOST}:{self.doors['webhook'].port}{WEBHOOK_PATH}"
        return f"""
receivers:
  - name: on-call
    pagerduty: {{routing_key: env:STORM_ROUTING_KEY}}
    rate_limit: {limit["pagerduty"]}
    fallback: duty
  - name: room
    slack: {{bot_token: env:STORM_BOT_TOKEN, channel: {CHANNEL}}}
    rate_limit: {limit["slack"]}
    fallback: duty
  - name: desk
    webhook: {{url: "{hook}", secret: env:STORM_WEBHOOK_SECRET}}
    rate_limit: {limit["webhook"]}
  - name: duty
    email: {{to: [duty@example.test]}}
    rate_limit: {limit["email"]}
route:
  receiver: [on-call, room, desk]
  group_by: [team]
  group_wait: {round(wait_s * 1000)}ms
  group_interval: {round(interval_s * 1000)}ms
"""

    def weather(self, scale: float = 1.0) -> list[Weather]:
        """What befalls the receivers, over some 80 s times ``scale``."""

        def is_in(name: str, mood: Mood, seconds: float) -> Callable[[], Awaitable[None]]:
            async def comes() -> None:
                self.doors[name].be(mood, seconds * scale)

            return comes

        def restart(name: str, seconds: float) -> Callable[[], Awaitable[None]]:
            async def comes() -> None:
                await self.doors[name].shut()
                await asyncio.sleep(seconds * scale)
                await self.doors[name].open()

            return comes

        async def mail_refuses() -> None:
            self.mail.refusals += ["451 later"] * 5

        found = [
            Weather(4, "PagerDuty fails for 5 s", is_in("pagerduty", "fails", 5)),
            Weather(6, "Slack fails for 5 s", is_in("slack", "fails", 5)),
            Weather(12, "PagerDuty stalls for 5 s", is_in("pagerduty", "stalls", 5)),
            Weather(14, "the webhook stalls for 5 s", is_in("webhook", "stalls", 5)),
            Weather(20, "PagerDuty answers 429 for 4 s", is_in("pagerduty", "busy", 4)),
            Weather(22, "Slack answers 429 for 4 s", is_in("slack", "busy", 4)),
            Weather(27, "PagerDuty restarts and is away for 8 s", restart("pagerduty", 8)),
            Weather(34, "Slack is away for 8 s", restart("slack", 8)),
            Weather(38, "the webhook is away for 5 s", restart("webhook", 5)),
            Weather(44, "PagerDuty takes events and loses the answers for 3 s", is_in("pagerduty", "forgets", 3)),
            Weather(46, "the mail server says 451 five times", mail_refuses),
            Weather(50, "Slack cuts connections for 4 s", is_in("slack", "cuts", 4)),
            Weather(66, "PagerDuty fails for 5 s", is_in("pagerduty", "fails", 5)),
            Weather(72, "PagerDuty restarts and is away for 5 s", restart("pagerduty", 5)),
            Weather(80, "PagerDuty takes events and loses the answers for 3 s", is_in("pagerduty", "forgets", 3)),
        ]
        return [one._replace(at_s=one.at_s * scale) for one in found]
