"""A worker killed between any two steps of a delivery leaves exactly one incident, and it ends."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from streams.clock import WallClock
from streams.sinks.postgres import migrate, open_pool
from streams.standins.pagerduty import PagerDutyStandIn
from streams.standins.runner import StandIns
from tests.integration.notify_parts import alert

pytestmark = pytest.mark.integration
DEADLINE_S = 30.0
STEPS = {
    "storing": "with the alert stored and not committed",
    "placing": "with the alert placed and not committed",
    "recorded": "with the batch recorded and its offset not acknowledged to Kafka",
    "deciding": "with the group's words decided and not written",
    "flushed": "with the group flushed",
    "leased": "with the row leased",
    "requested": "with the request sent and not taken",
    "taken": "with the request taken and not answered",
    "answered": "with the response received",
    "marked": "with the row marked",
}


class Worker:
    """One process, until it dies or is stopped."""

    def __init__(self, order: dict[str, str], settings: dict[str, str], log: Path) -> None:
        self._order, self._settings, self._log = order, settings, log
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Worker":
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.integration.notify_worker", json.dumps(self._order),
                env=os.environ | self._settings, stdout=log, stderr=log,
            )  # fmt: skip
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._process is not None and self._process.returncode is None:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    async def died(self) -> None:
        """Wait until it was killed."""
        assert self._process is not None
        async with asyncio.timeout(DEADLINE_S):
            code = await self._process.wait()
        assert code == -signal.SIGKILL, self._log.read_text()[-3000:]


class Deadly(PagerDutyStandIn):
    """Kills who sends it a planned action, before it takes the event or before it answers."""

    plan: tuple[str, str] = ("", "")
    kill: Callable[[], None]

    async def _enqueue(self, request: web.Request) -> web.Response:
        step, action = self.plan
        event = await request.json()
        if step == "requested" and event["event_action"] == action:
            self.plan = ("", "")
            self.kill()
            return web.Response(status=500)
        answer = await super()._enqueue(request)
        if step == "taken" and event["event_action"] == action:
            self.plan = ("", "")
            self.kill()
        return answer


class Scene:
    """A feed of alerts, a database, the stand-ins, and workers one after the other."""

    def __init__(self, folder: Path, database_url: str, pool: Any, standins: StandIns) -> None:
        self.pool, self.standins = pool, standins
        self._folder = folder
        self._order = {
            "database_url": database_url,
            "feed": str(folder / "feed"),
            "acked": str(folder / "acked"),
        }
        (folder / "feed").touch()

    def say(self, status: str, second: int) -> None:
        """One more statement of the alert."""
        with (self._folder / "feed").open("ab") as feed:
            feed.write(msgspec.json.encode(alert("search", status, second=second)) + b"\n")

    def worker(self, step: str = "", of: str = "") -> Worker:
        """One that dies at a step, or lives."""
        own = Worker(self._order | {"step": step, "of": of}, self.standins.environment(), self._folder / "worker.log")
        deadly = self.standins.pagerduty
        assert isinstance(deadly, Deadly)
        deadly.plan, deadly.kill = (step, of), own.kill
        return own

    async def until(self, what: str, condition: Callable[[], Awaitable[Any]]) -> None:
        """Poll until it holds."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not await condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            rows = await self.pool.fetch("select receiver, action, state, attempts, last_error from outbox")
            log = (self._folder / "worker.log").read_text()[-2000:]
            pytest.fail(f"waited for {what}; the outbox holds {[dict(row) for row in rows]}; the log ends:\n{log}")

    async def told(self, action: str) -> bool:
        """Whether everybody was told, and that is on record."""
        rows = await self.pool.fetch("select state from outbox where action = $1", action)
        owed = await self.pool.fetchval("select count(*) from outbox where state = 'owed'")
        return len(rows) == 3 - 1 and not owed


@pytest.fixture
async def scene(tmp_path, database_url):
    await migrate(database_url)
    pool = await open_pool(database_url)
    standins = StandIns(tmp_path)
    standins.pagerduty = Deadly(WallClock())
    async with standins:
        yield Scene(tmp_path, database_url, pool, standins)
    await pool.close()


@pytest.mark.parametrize("step", [pytest.param(step, id=words) for step, words in STEPS.items()])
async def test_a_worker_killed_at_any_step_leaves_one_incident_that_ends(scene, step):
    scene.say("opened", 0)
    async with scene.worker(step, "trigger") as first:
        await first.died()
    async with scene.worker(step, "resolve") as second:
        await scene.until("the page", lambda: scene.told("trigger"))
        assert [each.resolved_at for each in scene.standins.pagerduty.incidents] == [None]
        scene.say("resolved", 9)
        await second.died()
    async with scene.worker():
        await scene.until("the end", lambda: scene.told("resolve"))
    (incident,) = scene.standins.pagerduty.incidents
    assert incident.resolved_at is not None
    assert {event["dedup_key"] for event in scene.standins.pagerduty.events} == {alert("search").dedup_key}
    assert incident.triggers <= 2
    # Slack has no key of its own: a message is said again only by a crash, and there were two.
    assert 2 <= len(scene.standins.slack.messages) <= 4
    assert await scene.pool.fetchval("select next_offset from notify_offsets") == 2
