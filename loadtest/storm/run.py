"""``make storm``: ten thousand alerts of two hundred groups in a minute, against receivers that fail.

The alerts are records of ``alerts.v1`` on real Kafka; two real workers run NOTIFY, one of which is killed on the way
and comes back. The receivers are the strict stand-ins, and they fail, stall, answer 429, lose answers and restart. In
the end every group was delivered and ended, nothing was doubled under another key, and no receiver was asked more often
than it may be; whatever is not so is printed, and the exit code is 1.

    python -m loadtest.storm.run --groups 200 --alerts 10000
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import Stage, make_topics, open_stage, prepare, worker, worker_settings
from loadtest.storm.alerts import Said, storm
from loadtest.storm.town import IDS, Town
from loadtest.storm.verdict import broken, figures, is_over
from schemas.topics import ALERTS
from streams.clock import WallClock, elapsed_s
from streams.embedded.process import ChildProcess
from streams.sinks.postgres import open_pool

PARTITIONS = 8
WAIT_S, INTERVAL_S = 1.0, 5.0
#: A worker is killed at the height of it.
KILL_AT_S = 30.0
READY_S = 120.0
END_S = 900.0
_PROGRESS = """
select (select coalesce(sum(next_offset), 0)::int from notify_offsets) as read,
    (select count(*) from alerts where status <> 'resolved') as open,
    count(*) filter (where state = 'owed') as owed, count(*) filter (where state = 'sent') as sent from outbox
"""


async def rage(stage: Stage, said: Sequence[Said]) -> float:
    """Produce every statement when it is made; returns how late the last one was, in seconds."""
    producer = AIOKafkaProducer(bootstrap_servers=stage.broker.bootstrap, acks="all", linger_ms=5)
    await producer.start()
    began, late = elapsed_s(), 0.0
    encode = msgspec.json.Encoder().encode
    try:
        for one in said:
            if (ahead := one.at_s - (elapsed_s() - began)) > 0.005:
                await asyncio.sleep(ahead)
            await producer.send(ALERTS, key=one.alert.dedup_key.encode(), value=encode(one.alert))
            late = max(late, elapsed_s() - began - one.at_s)
        await producer.flush()
    finally:
        await producer.stop()
    return late


async def watch(pool: asyncpg.Pool, out: Console) -> None:
    """Say every ten seconds how far it is."""
    began = elapsed_s()
    while True:
        row = await pool.fetchrow(_PROGRESS)
        out.print(
            f"  {elapsed_s() - began:3.0f} s: {row['read']:,} statements read, {row['open']:,} alerts open,"
            f" {row['owed']:,} messages owed, {row['sent']:,} sent"
        )
        await asyncio.sleep(10.0)


async def befall(town: Town, out: Console) -> None:
    """The weather, said as it comes."""
    began, tasks = elapsed_s(), []
    for weather in town.weather():
        await asyncio.sleep(max(0.0, weather.at_s - (elapsed_s() - began)))
        out.print(f"  {weather.at_s:3.0f} s: {weather.words}")
        tasks.append(asyncio.create_task(weather.comes()))
    await asyncio.gather(*tasks)


async def kill_one(children: list[ChildProcess], again: ChildProcess, out: Console) -> None:
    """SIGKILL for a worker, and another in its place."""
    await asyncio.sleep(KILL_AT_S)
    out.print(f"  {KILL_AT_S:3.0f} s: a worker is killed")
    children[1].kill()
    await asyncio.sleep(3.0)
    again.start()
    children[1] = again


async def ended(pool: asyncpg.Pool, statements: int) -> bool:
    """Wait until everything was read and nobody is owed anything."""
    until = elapsed_s() + END_S
    while elapsed_s() < until:
        read = await pool.fetchval("select coalesce(sum(next_offset), 0) from notify_offsets")
        if read >= statements and await is_over(pool):
            return True
        await asyncio.sleep(0.5)
    return False


async def measure(stage: Stage, options: argparse.Namespace, out: Console) -> tuple[dict[str, Any], list[str]]:
    """The whole storm; the figures, and what was not as promised."""
    await make_topics(stage, PARTITIONS)
    url = await prepare(stage, "storm", PARTITIONS)
    budgets, routes = stage.folder / "budgets.yaml", stage.folder / "routes.yaml"
    budgets.write_text("budgets: []\n")
    pool = await open_pool(url, size_max=2)
    async with Town(stage.folder) as town:
        os.environ.update(town.environment())
        routes.write_text(town.routes(WAIT_S, INTERVAL_S))
        settings = worker_settings(stage, "storm", url, PARTITIONS, budgets, stages=["notify"], routes_file=routes)
        *children, again = [worker(settings, stage.folder, index) for index in (0, 1, 1)]

        async def are_ready() -> bool:
            return all(child.log.with_suffix(".ready").exists() for child in children)

        try:
            for child in children:
                child.start()
            await children[0].ready(are_ready, READY_S)
            said = storm(options.groups, options.alerts, options.seconds, options.calm, WallClock().now(), options.seed)
            began, watching = elapsed_s(), asyncio.create_task(watch(pool, out))
            late, *_ = await asyncio.gather(rage(stage, said), befall(town, out), kill_one(children, again, out))
            is_ended = await ended(pool, len(said))
            took = elapsed_s() - began
            watching.cancel()
        finally:
            for child in children:
                await child.stop()
        found = await figures(pool, town)
        wrong = await broken(pool, town, options.groups, options.alerts)
    await pool.close()
    if not is_ended:
        wrong.insert(0, f"it had not ended after {END_S:.0f} s")
    return {
        "machine": describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}"),
        "parameters": {**vars(options), "group_wait_s": WAIT_S, "group_interval_s": INTERVAL_S, "workers": 2},
        "weather": [f"{weather.at_s:.0f} s: {weather.words}" for weather in town.weather()]
        + [f"{KILL_AT_S:.0f} s: a worker is killed, and another comes 3 s later"],
        "statements": len(said),
        "producer_late_s_max": round(late, 3),
        "until_the_end_s": round(took, 1),
        "load_average": load_average(),
        **found,
        "broken": wrong,
    }, wrong


def show(result: dict[str, Any], out: Console) -> None:
    """The table, and what it comes to."""
    table = Table(title=f"{result['statements']:,} statements of {result['groups']} groups")
    for heading in ("receiver", "sent", "in digests", "superseded", "most a minute", "may", "first word p50", "p99"):
        table.add_column(heading, justify="left" if heading == "receiver" else "right")
    for name, ident in IDS.items():
        states, first = result["messages"].get(ident, {}), result["first_word_s"].get(name) or {}
        table.add_row(
            ident, *(f"{states.get(state, 0):,}" for state in ("sent", "digested", "superseded")),
            str(result["most_in_a_minute"][name]), str(result["limit_per_minute"][name]),
            *(f"{first[at]:.1f} s" if first else "" for at in ("p50", "p99")),
        )  # fmt: skip
    out.print(table)
    out.print(
        f"{result['incidents']} incidents, {result['incidents_resolved']} resolved; {result['failed_tries']} attempts"
        f" failed, {result['copies']} messages to the fallback, {result['digests']} digests;"
        f" all over after {result['until_the_end_s']:.0f} s"
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="within which all alerts open")
    parser.add_argument("--calm", type=float, default=60.0, help="within which, after that, all end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-storm-"))
    async with open_stage(folder) as stage:
        result, wrong = await measure(stage, options, out)
    show(result, out)
    if not options.no_store:
        out.print(f"stored as {store('storm', result)}")
    for line in wrong:
        out.print(f"NOT AS PROMISED: {line}")
    if wrong:
        out.print(f"logs: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
