"""The second kind of gateway: HAProxy, driven over its admin socket by ``gateway.haproxy``, where it is installed."""

import os
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from loadtest.bench.machine import ROOT
from streams.clock import elapsed_s
from streams.embedded.process import ChildProcess, free_port, http_status

PROGRAM = shutil.which("haproxy") or "/usr/sbin/haproxy"
CONFIG = """\
global
    stats socket {folder}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
backend rates
    stick-table type string len 96 size 100k expire 2m store http_req_rate(60s)
frontend calls
    bind 127.0.0.1:{port}
    http-request set-var-fmt(txn.team) "team:%[req.hdr(x-sluice-team)]"
    http-request set-var(txn.why) var(txn.team),map_str({folder}/blocked.map)
    http-request return status 429 content-type text/plain hdr Retry-After "%[var(txn.why),word(1,' ')]" \
hdr x-sluice-action block lf-string "%[var(txn.why),regsub('^[0-9]+ ','')]" if {{ var(txn.why) -m found }}
    http-request track-sc0 var(txn.team) table rates
    http-request set-var(txn.over) var(txn.team),map_str_int({folder}/limits.map,1000000000)
    http-request return status 429 content-type text/plain hdr Retry-After 60 hdr x-sluice-action rate_limit \
string "Too many calls." if {{ sc_http_req_rate(0),sub(txn.over) gt 0 }}
    default_backend upstream
backend upstream
    server one {upstream}
"""


class Enforcer:
    """``async with``: a real HAProxy before the upstream, and the process that drives it."""

    def __init__(self, folder: Path, upstream: str, kafka: str) -> None:
        self.is_there = os.access(PROGRAM, os.X_OK)
        self._folder = folder / "haproxy"
        self.port = free_port()
        self._url = f"http://127.0.0.1:{self.port}"
        self._folder.mkdir()
        config = self._folder / "haproxy.cfg"
        config.write_text(CONFIG.format(folder=self._folder, port=self.port, upstream=urlsplit(upstream).netloc))
        self._proxy = ChildProcess("haproxy", (PROGRAM, "-db", "-f", str(config)), self._folder / "haproxy.log")
        program = (sys.executable, "-m", "gateway.haproxy")
        options = ("--kafka", kafka, "--name", "haproxy", "--socket", str(self._folder / "admin.sock"))
        self._driver = ChildProcess(
            "haproxy's driver", (*program, *options, "--maps", str(self._folder)), self._folder / "driver.log",
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        if not self.is_there:
            print(
                "!!! HAPROXY IS MISSING (apt-get install haproxy): the second kind of gateway is NOT PROVEN", flush=True
            )
            return self
        for name in ("blocked.map", "limits.map"):
            (self._folder / name).touch()
        self._proxy.start()

        async def listens() -> bool:
            return await http_status(self.port, "/") is not None

        await self._proxy.ready(listens, 15.0)
        self._driver.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_there:
            await self._driver.stop(deadline_s=5)
            await self._proxy.stop(deadline_s=2)

    async def refuses(self, session: aiohttp.ClientSession) -> str:
        """What is wrong, where it does not refuse the budget's team alone, and say why."""
        if not self.is_there:
            return ""
        status, headers, text = await self._call(session, "search")
        if status != 429 or "search-hourly" not in text or not int(headers.get("Retry-After", 0)):
            return f"HAProxy answers {status} {text!r} {headers}"
        other, _, _ = await self._call(session, "support")
        return "" if other == 200 else f"HAProxy refuses another team: {other}"

    async def serves(self, session: aiohttp.ClientSession, within_s: float) -> str:
        """What is wrong, where it does not serve the team again."""
        if not self.is_there:
            return ""
        until = elapsed_s() + within_s
        while (status := (await self._call(session, "search"))[0]) != 200:
            if elapsed_s() > until:
                return f"HAProxy still answers {status}"
        return ""

    async def _call(self, session: aiohttp.ClientSession, team: str) -> tuple[int, dict[str, str], str]:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "seconds=0"}]}
        url, headers = f"{self._url}/v1/chat/completions", {"x-sluice-team": team}
        async with session.post(url, json=body, headers=headers) as response:
            return response.status, dict(response.headers), await response.text()
