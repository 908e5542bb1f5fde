"""A small storm over two workers' loops: every group is delivered and ends, once, and no receiver is above its limit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from loadtest.storm.alerts import Said, storm
from loadtest.storm.town import Town
from loadtest.storm.verdict import broken, figures, is_over
from streams.agents.deliver import Deliverer
from streams.agents.notify import ByRoutes, Dispatcher, Woken
from streams.clock import WallClock
from streams.core.delivery import policies
from streams.core.routes import Routes
from streams.core.routes_file import load_routes
from streams.delivering import Batch
from streams.settings import load_settings
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.receivers import receivers
from streams.sinks.silences import load_silences

pytestmark = pytest.mark.integration
GROUPS, ALERTS, RAGE_S, CALM_S = 30, 400, 6.0, 3.0
SCALE = 0.1
DEADLINE_S = 90.0


@contextlib.asynccontextmanager
async def crew(url: str, routes: Routes) -> AsyncIterator[PostgresGroups]:
    """A worker's dispatcher and deliverer."""
    pool = await open_pool(url)
    reach = receivers(load_settings(), routes.integrations())
    groups, outbox = PostgresGroups(pool, load_silences, load_acknowledgements), PostgresOutbox(pool)
    keeping = [(name, receiver.keeps_incidents) for name, receiver in reach.items()]
    fallbacks = {name: routes.fallbacks(name) for name in reach}
    woken = Woken()
    loops: Sequence[Any] = (
        Dispatcher(groups, routes, Woken(), woken),
        Deliverer(outbox, reach, policies(routes, keeping), fallbacks, woken, send_s=1.0, lease_s=1.5),
    )
    tasks = [asyncio.create_task(loop.run_background()) for loop in loops]
    try:
        yield groups
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for receiver in reach.values():
            await receiver.close()
        await pool.close()


async def rage(groups: PostgresGroups, routes: Routes, said: Sequence[Said], source: str) -> None:
    """Record statements when they are made, in batches of what has come."""
    began, done, placing = WallClock().now(), 0, ByRoutes(routes)
    while done < len(said):
        passed = (WallClock().now() - began) / 1_000_000
        due = [one for one in said[done:] if one.at_s <= passed]
        batch = Batch(source, done + len(due), [(done + n, one.alert) for n, one in enumerate(due)])
        await groups.record(batch, placing)
        done += len(due)
        await asyncio.sleep(0.05)


async def befall(town: Town) -> None:
    """The weather."""
    began = WallClock().now()
    for weather in town.weather(SCALE):
        await asyncio.sleep(max(0.0, weather.at_s - (WallClock().now() - began) / 1_000_000))
        await weather.comes()


async def test_a_small_storm_reaches_everybody_once_and_ends(database_url, tmp_path, monkeypatch):
    await migrate(database_url)
    watch = await open_pool(database_url)
    async with Town(tmp_path) as town:
        for name, value in town.environment().items():
            monkeypatch.setenv(name, value)
        routes = load_routes(town.routes(wait_s=0.3, interval_s=1.0), ())
        said = storm(GROUPS, ALERTS, RAGE_S, CALM_S, WallClock().now())
        async with crew(database_url, routes) as one, crew(database_url, routes) as other:
            weather = asyncio.create_task(befall(town))
            await asyncio.gather(rage(one, routes, said[::2], "s-0"), rage(other, routes, said[1::2], "s-1"))
            await weather
            try:
                async with asyncio.timeout(DEADLINE_S):
                    while not await is_over(watch):
                        await asyncio.sleep(0.1)
            except TimeoutError:
                rows = await watch.fetch("select * from notify_receivers")
                owed = await watch.fetch(
                    "select receiver, action, reason, attempts, due_at, leased_until, last_error, now() from outbox"
                    " where state = 'owed' order by position limit 20"
                )
                print(*map(dict, rows), *map(dict, owed), sep="\n")
                pytest.fail(f"it did not end: {await figures(watch, town)}")
        found = await figures(watch, town)
        print(found)
        assert await broken(watch, town, GROUPS, ALERTS) == []
        assert found["digests"] > 0
        assert found["failed_tries"] > 0
    await watch.close()
