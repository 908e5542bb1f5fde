"""PagerDuty, Slack, SMTP and a webhook to try Sluice against, on loopback, and the settings that point at them."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from schemas.instants import to_datetime
from streams.clock import Clock, WallClock
from streams.standins.certificate import make_certificate
from streams.standins.pagerduty import PagerDutyStandIn
from streams.standins.slack import BOT_TOKEN, CHANNEL, PATH, SlackStandIn
from streams.standins.smtp import MailStandIn
from streams.standins.webhook import PATH as WEBHOOK_PATH
from streams.standins.webhook import WebhookStandIn

HOST = "127.0.0.1"
ROUTING_KEY = "0123456789abcdef0123456789abcdef"


class StandIns:
    """``async with StandIns(folder) as standins``: four servers on free ports, stopped at the end."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self._folder = folder
        self._clock = clock or WallClock()
        self._runners: list[web.AppRunner] = []
        self._smtp: asyncio.Server | None = None
        self.pagerduty = PagerDutyStandIn(self._clock)
        self.slack = SlackStandIn(self._clock)
        self.mail = MailStandIn()
        self.webhook = WebhookStandIn(self._clock)
        self.pagerduty_url = self.slack_url = self.slack_api_url = self.webhook_url = ""
        self.smtp_port = 0
        self.ca_file = folder / "ca.pem"

    async def __aenter__(self) -> Self:
        now = to_datetime(self._clock.now())
        self.ca_file, context = await asyncio.to_thread(make_certificate, self._folder, now)
        self.pagerduty_url = f"https://{HOST}:{await self._serve(self.pagerduty.application(), context)}"
        slack = f"http://{HOST}:{await self._serve(self.slack.application())}"
        self.slack_url, self.slack_api_url = f"{slack}{PATH}", f"{slack}/api/"
        self.webhook_url = f"http://{HOST}:{await self._serve(self.webhook.application())}{WEBHOOK_PATH}"
        loop = asyncio.get_running_loop()
        self._smtp = await loop.create_server(self.mail.protocol, HOST, 0)
        self.smtp_port = self._smtp.sockets[0].getsockname()[1]
        return self

    async def _serve(self, app: web.Application, context: Any = None) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, HOST, 0, ssl_context=context)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self._runners:
            await runner.cleanup()
        if self._smtp is not None:
            self._smtp.close()

    def environment(self, *, bot: bool = False) -> dict[str, str]:
        """The settings that make a worker use these receivers; ``bot``: Slack by its Web API, with threads."""
        slack = {"SLUICE_SLACK_WEBHOOK_URL": self.slack_url}
        if bot:
            slack = {
                "SLUICE_SLACK_BOT_TOKEN": BOT_TOKEN,
                "SLUICE_SLACK_CHANNEL": CHANNEL,
                "SLUICE_SLACK_API_URL": self.slack_api_url,
            }
        return slack | {
            "SLUICE_PAGERDUTY_URL": self.pagerduty_url,
            "SLUICE_PAGERDUTY_CA_FILE": str(self.ca_file.absolute()),
            "SLUICE_PAGERDUTY_ROUTING_KEY": ROUTING_KEY,
            "SLUICE_SMTP_HOST": HOST,
            "SLUICE_SMTP_PORT": str(self.smtp_port),
            "SLUICE_SMTP_TLS": "none",
            "SLUICE_MAIL_TO": "on-call@example.test",
            "SLUICE_MAIL_FROM": "sluice@example.test",
        }
