"""``make e2e-gateway``: one budget of 5 dollars across two real gateways, two hundred clients, and the hour's end.

Real Kafka, PostgreSQL and a Sluice worker; two real LiteLLM proxies with the plugin; an upstream that says what it
used. Exits 1 where the final spend is not within 95..102 % of the budget, or anything else is not as it should be.

    python -m loadtest.gateways.run [--only traps] [--clients 200] [--allow-overshoot]
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH, reset_tzpath

import aiohttp
import asyncpg
from aiohttp import web
from rich.console import Console
from rich.markup import escape

from loadtest.bench.machine import describe, store
from loadtest.gateways import measures, traps
from loadtest.gateways.clients import Answer, Crowd, ask
from loadtest.gateways.enforcer import Enforcer
from loadtest.gateways.proxies import Proxy
from loadtest.gateways.upstream import Upstream
from loadtest.gateways.zone import NAME, write_zone
from schemas.instants import SECOND
from streams.clock import WallClock, elapsed_s
from streams.embedded.process import EmbeddedError
from streams.settings import load_settings
from streams.supervisor import Supervisor

#: The budget's hour ends so long after the start of the rig: start-up, crowd, and some time closed.
LIFE_S = 270
BUDGET_USD = 5
#: 400 tokens in and 250 out of gpt-4o cost 0.0035 dollars: 0.07 % of the budget.
WISH = "prompt=400 words=250 seconds=0.6"
CLOSED_S = 6.0
CLOSES_WITHIN_S = 180.0
OPENS_WITHIN_S = 60.0
LOWEST, HIGHEST = 95.0, 102.0
BUDGETS = """\
budgets:
  - id: search-hourly
    scope: {{team: search}}
    amount_usd: "{amount}"
    period: hour
    timezone: {zone}
    mode: enforce
    hard: true
"""


class RigError(Exception):
    """What the rig was to show did not come true."""


class Rig:
    """Everything that runs, and what was found."""

    def __init__(self, out: Console, folder: Path, options: argparse.Namespace) -> None:
        self.out = out
        self.folder = folder
        self.options = options
        self.upstream = Upstream()
        self.upstream_url = ""
        self.found: dict[str, Any] = {}
        self.began = elapsed_s()
        #: When the budget's hour ends, microseconds since 1970.
        self.ends = (WallClock().now() // SECOND + LIFE_S) * SECOND

    def say(self, text: str) -> None:
        """A line with the seconds since the start."""
        self.out.print(f"{elapsed_s() - self.began:6.1f} s  {text}")

    def now(self) -> int:
        """Microseconds since 1970."""
        return WallClock().now()

    def fail(self, why: str) -> None:
        """Raises RigError."""
        raise RigError(why)

    async def run(self) -> None:
        """The whole story; raises RigError."""
        runner = web.AppRunner(self.upstream.application(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.upstream_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        (self.folder / "budgets.yaml").write_text(BUDGETS.format(amount=BUDGET_USD, zone=NAME))
        zones = write_zone(self.folder, self.ends // SECOND)
        os.environ["PYTHONTZPATH"] = os.pathsep.join([str(zones), *TZPATH])
        reset_tzpath()
        settings = load_settings(state_dir=self.folder / "state", api_port=0, budgets=self.folder / "budgets.yaml")
        try:
            async with Supervisor(settings, fast_start=True) as running:
                self.say(f"Sluice runs; the budget's hour ends at {self._left_s() + elapsed_s() - self.began:.0f} s")
                await self._with_proxies(running)
        finally:
            await runner.cleanup()

    async def _with_proxies(self, running: Supervisor) -> None:
        proxies = [Proxy(n, self.folder, self.upstream_url, running.kafka_url) for n in ("eu-1", "eu-2")]
        limit = aiohttp.TCPConnector(limit=0)
        try:
            for proxy in proxies:
                proxy.start()
            await asyncio.gather(*(proxy.ready() for proxy in proxies))
            async with aiohttp.ClientSession(connector=limit, timeout=aiohttp.ClientTimeout(total=90)) as session:
                for proxy in proxies:  # The first call waits for the gate to have read all commands.
                    _demand(
                        (await ask(session, proxy.url, key="sk-lone")).status == 200, f"{proxy.name} does not serve"
                    )
                self.say("two LiteLLM proxies serve")
                if self.options.only != "budget":
                    await self._with_traps(session, running, proxies[0])
                if self.options.only != "traps":
                    async with Enforcer(self.folder, self.upstream_url, running.kafka_url) as enforcer:
                        await self._budget(session, running, proxies, enforcer)
        finally:
            for proxy in proxies:
                await proxy.child.stop(deadline_s=5)

    async def _with_traps(self, session: aiohttp.ClientSession, running: Supervisor, proxy: Proxy) -> None:
        where = (proxy.url, running.kafka_url, running.settings.partitions)
        await traps.check(self, session, *where)
        await measures.check(self, session, *where, f"litellm-{proxy.name}-0")

    async def _budget(
        self, session: aiohttp.ClientSession, running: Supervisor, proxies: list[Proxy], enforcer: Enforcer
    ) -> None:
        urls = [proxy.url for proxy in proxies]
        before = self.upstream.nanos
        crowd = Crowd(urls, self.options.clients, WISH)
        running_crowd = asyncio.create_task(crowd.run(session))
        began = elapsed_s()
        try:
            while not all(crowd.closed_for(url) >= CLOSED_S for url in urls):
                if running_crowd.done():
                    running_crowd.result()
                _demand(elapsed_s() - began < CLOSES_WITHIN_S, f"never closed: {crowd.by_gateway}")
                await asyncio.sleep(0.1)
        finally:
            crowd.end()
        await running_crowd
        expected = self.upstream.nanos - before
        refused_s = min(crowd.first_refused.values()) - began
        closed_s = max(crowd.last_served.values()) - began
        served = crowd.statuses[200]
        self.say(
            f"the first call refused {refused_s:.1f} s after the crowd came, the last one served after "
            f"{closed_s:.1f} s: {served:,} served, {crowd.statuses[429]:,} refused"
        )
        self.found |= {
            "seconds_to_first_refusal": round(refused_s, 1), "seconds_to_last_served": round(closed_s, 1),
            "served": served, "refused": crowd.statuses[429], "slowest_call_s": round(crowd.slowest_s, 2),
        }  # fmt: skip
        _demand(set(crowd.statuses) == {200, 429}, f"calls came to other ends: {crowd.statuses}")
        commands = await self._refusals(session, crowd, proxies, enforcer)
        who = "both proxies and HAProxy" if enforcer.is_there else "both proxies"
        self.say(f"{who} refuse by the same command: {', '.join(sorted(commands))}")
        self.found["haproxy_refused"] = enforcer.is_there
        spent = await self._spent(running, expected)
        percent = spent / (BUDGET_USD * 1e9) * 100
        self.found |= {"final_spend_usd": spent / 1e9, "percent_of_budget": round(percent, 2)}
        self.out.rule()
        self.out.print(f"final spend {spent / 1e9:.4f} USD of {BUDGET_USD} USD: {percent:.2f} % of the budget")
        self.out.rule()
        await self._reopens(session, proxies, enforcer)
        if not LOWEST <= percent <= HIGHEST:
            text = f"the final spend is {percent:.2f} % of the budget, and not within {LOWEST:g}..{HIGHEST:g} %"
            if not self.options.allow_overshoot:
                raise RigError(text)
            self.out.print(f"ALLOWED THIS TIME: {text}")

    async def _refusals(
        self, session: aiohttp.ClientSession, crowd: Crowd, proxies: list[Proxy], enforcer: Enforcer
    ) -> set[str]:
        """Every gateway refuses now, and says why, when to come back, and by which command."""
        answers: list[Answer] = list(crowd.refusals)
        for proxy in proxies:
            answers.append(await ask(session, proxy.url))
            _demand(answers[-1].status == 429, f"{proxy.name} serves again before the hour's end")
        for answer in answers:
            message = (answer.body.get("error") or {}).get("message", "")
            _demand("search-hourly" in message, f"the message does not name the budget: {answer.body}")
            _demand(int(answer.headers.get("Retry-After", 0)) > 0, f"no Retry-After: {answer.headers}")
        found = {answer.headers.get("x-sluice-command", "") for answer in answers}
        _demand(len(found) >= 1 and "" not in found, f"no command is named: {found}")
        latest = {answer.headers["x-sluice-command"] for answer in answers[-len(proxies) :]}
        _demand(len(latest) == 1, f"the gateways obey different commands: {latest}")
        wrong = await enforcer.refuses(session)
        _demand(not wrong, wrong)
        return latest

    async def _spent(self, running: Supervisor, expected: int) -> int:
        """What the ledger says, once it holds every call that the upstream answered."""
        database = await asyncpg.connect(running.database_url)
        spent = 0
        try:
            until = elapsed_s() + 30
            while spent < expected and elapsed_s() < until:
                spent = int(
                    await database.fetchval(
                        "select coalesce(sum(cost_nanos), 0) from ledger_cells where team_id = 'search'"
                    )
                )
                await asyncio.sleep(0.2)
        finally:
            await database.close()
        _demand(spent == expected, f"the ledger has {spent} nanodollars, and the upstream answered for {expected}")
        return spent

    async def _reopens(self, session: aiohttp.ClientSession, proxies: list[Proxy], enforcer: Enforcer) -> None:
        """After the hour both serve again, by themselves."""
        pids = [proxy.child.pid for proxy in proxies]
        _demand(self._left_s() > 0, "the hour ended before the budget was seen closed: the machine is too busy")
        self.say(f"closed for another {self._left_s():.0f} s")
        await asyncio.sleep(max(0.0, self._left_s() - 1.0))
        for proxy in proxies:
            _demand((await ask(session, proxy.url)).status == 429, f"{proxy.name} serves before the hour's end")
        waited: dict[str, float] = {}
        while len(waited) < len(proxies) and self._left_s() > -OPENS_WITHIN_S:
            for proxy in proxies:
                if proxy.name not in waited and (await ask(session, proxy.url, wish="seconds=0")).status == 200:
                    waited[proxy.name] = round(-self._left_s(), 1)
            await asyncio.sleep(0.2)
        _demand(len(waited) == len(proxies), f"still closed {OPENS_WITHIN_S:g} s after the hour: served by {waited}")
        wrong = await enforcer.serves(session, OPENS_WITHIN_S)
        _demand(not wrong, wrong)
        _demand([proxy.child.pid for proxy in proxies] == pids, "a proxy was restarted")
        self.found["seconds_to_reopen"] = waited
        self.say(f"the hour is over, and both serve again without a restart, after {waited} s")

    def _left_s(self) -> float:
        return (self.ends - WallClock().now()) / SECOND


def _demand(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise RigError(otherwise)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make e2e-gateway", description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--only", choices=("traps", "budget"), help="one of the two parts")
    parser.add_argument("--allow-overshoot", action="store_true", help="print the final spend, whatever it is")
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-gateways-"))
    rig = Rig(out, folder, options)
    try:
        await rig.run()
    except (RigError, EmbeddedError) as error:
        out.print(f"[bold red]FAILED[/]: {escape(str(error))}; logs: {folder}", soft_wrap=True)
        return 1
    if not options.no_store and options.only is None:
        out.print(f"stored as {store('gateways', {'machine': describe('Apache Kafka'), 'gateways': rig.found})}")
    if options.keep:
        out.print(f"logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    out.print("PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
