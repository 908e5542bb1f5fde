"""``make soak``: a constant load for a long time, in which hours pass like minutes; does memory stay flat?

Event time runs sixty times as fast as the wall clock, under ``clock=stream``: every minute a new hour's cells come to
life and older ones are let go, budgets' periods end, the de-duplication window moves on. At the end the worker is
killed under the same load and started again.

    python -m loadtest.soak.run --minutes 60 --rate 2000
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from loadtest.bench.events import Shape, budget_lines, team_name
from loadtest.bench.load import LoadOrder
from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import (
    Stage,
    committed,
    cpu_s,
    end_offsets,
    make_topics,
    memory_mib,
    open_stage,
    prepare,
    worker,
    worker_settings,
)
from loadtest.restart.milestones import milestones
from loadtest.soak.flatness import judge
from schemas.instants import HOUR, SECOND
from streams.clock import WallClock, elapsed_s
from streams.embedded.process import ChildProcess

PARTITIONS = 8
GROUP = "soak"
SAMPLE_S = 10.0
#: How long the killed worker stays down, under load, and how long its successor may take.
DOWN_S = 10.0
RESTART_S = 120.0
POLL_S = 0.05


def budgets(count: int) -> str:
    """Hourly and daily budgets in turn: their periods end all the time."""
    lines = ["budgets:"]
    for number in range(count):
        period = ("hour", "day")[number % 2]
        lines += budget_lines(f"soak-{number:03d}", team_name(number), "1000000000", "observe", period)
    return "\n".join(lines) + "\n"


async def soak(child: ChildProcess, admin: AIOKafkaAdminClient, stage: Stage, minutes: float) -> list[dict[str, Any]]:
    """Sample the worker until the time is over; raises EmbeddedError when it ends by itself."""
    samples: list[dict[str, Any]] = []
    began = elapsed_s()
    while (passed := elapsed_s() - began) < minutes * 60:
        if not child.running:
            raise child.failure("the worker ended by itself")
        done, total = await committed(admin, GROUP), sum((await end_offsets(stage)).values())
        samples.append(
            {
                "at_s": round(passed, 1),
                "rss_mib": memory_mib(child.pid),
                "cpu_s": cpu_s(child.pid),
                "events": done,
                "behind": total - done,
            }
        )
        await asyncio.sleep(SAMPLE_S - (elapsed_s() - began) % SAMPLE_S)
    return samples


async def restart(child: ChildProcess, admin: AIOKafkaAdminClient, stage: Stage, url: str) -> dict[str, Any]:
    """SIGKILL, a pause in which a backlog grows, and the successor's first seconds."""
    child.kill()
    await asyncio.sleep(DOWN_S)
    database = await asyncpg.connect(url)
    try:
        before = await _in_ledger(database)
        backlog = sum((await end_offsets(stage)).values()) - await committed(admin, GROUP)
        ready_file = child.log.with_suffix(".ready")
        ready_file.unlink(missing_ok=True)
        began, began_at = elapsed_s(), datetime.now().astimezone()
        child.start()
        found: dict[str, Any] = {"backlog_events": backlog, "ready_s": None, "first_event_in_ledger_s": None}
        while (passed := elapsed_s() - began) < RESTART_S:
            if found["ready_s"] is None and ready_file.exists():
                found["ready_s"] = round(passed, 2)
            if await _in_ledger(database) > before:
                found["first_event_in_ledger_s"] = round(passed, 2)
                break
            await asyncio.sleep(POLL_S)
        told = milestones(child.log.read_text().splitlines(), began_at)
        return found | {"log": [each._asdict() for each in told]}
    finally:
        await database.close()


async def _in_ledger(database: asyncpg.Connection) -> int:
    return int(await database.fetchval("select coalesce(sum(next_offset), 0) from ledger_sources"))


async def measure(stage: Stage, options: argparse.Namespace, out: Console) -> dict[str, Any]:
    """Load, soak, kill, restart."""
    await make_topics(stage, PARTITIONS)
    budgets_file = stage.folder / "budgets.yaml"
    budgets_file.write_text(budgets(options.budgets))
    url = await prepare(stage, GROUP, PARTITIONS)
    settings = worker_settings(stage, GROUP, url, PARTITIONS, budgets_file, clock="stream", log_level="INFO")
    child = worker(settings, stage.folder)
    start = WallClock().now() + 5 * SECOND
    seconds = options.minutes * 60 + DOWN_S + RESTART_S
    order = LoadOrder(
        bootstrap=stage.broker.bootstrap,
        partitions=PARTITIONS,
        start=start,
        seconds=seconds,
        shape=Shape(rate=float(options.rate), cells=options.cells),
        speed=options.speed,
        # So early that event time never comes near the wall clock.
        event_start=start - int(seconds * SECOND * options.speed) - HOUR,
    )
    command = (sys.executable, "-m", "loadtest.bench.load", msgspec.json.encode(order).decode())
    load = ChildProcess("load", command, stage.folder / "load.log")
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    await admin.start()
    try:
        load.start()
        child.start()
        samples = await soak(child, admin, stage, options.minutes)
        restarted = await restart(child, admin, stage, url)
    finally:
        load.kill()
        await child.stop()
        await admin.close()
    flatness = judge([(sample["at_s"], sample["rss_mib"]) for sample in samples])
    return {
        "machine": describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}"),
        "parameters": {**vars(options), "partitions": PARTITIONS, "workers": 1},
        "load_average": load_average(),
        "flatness": flatness._asdict(),
        "restart": restarted,
        "samples": samples,
    }


def show(result: dict[str, Any], out: Console) -> None:
    """The table and the verdict."""
    samples, found = result["samples"], result["flatness"]
    table = Table(title="the worker's resident memory")
    for heading in ("minute", "MiB", "events folded", "behind"):
        table.add_column(heading, justify="right")
    for sample in samples[:: max(1, len(samples) // 12)]:
        table.add_row(
            f"{sample['at_s'] / 60:.1f}", f"{sample['rss_mib']:.0f}", f"{sample['events']:,}", f"{sample['behind']:,}"
        )
    out.print(table)
    out.print(
        f"{found['verdict']}: {found['mib_per_hour']:+.1f} MiB an hour over the last {found['minutes']:.0f} minutes, "
        f"{found['growth_percent']:+.1f} % of {found['median_mib']:.0f} MiB"
    )
    restarted = result["restart"]
    out.print(f"restart after SIGKILL: {json.dumps({key: restarted[key] for key in restarted if key != 'log'})}")
    for line in restarted["log"]:
        out.print(f"  {line['at_s']:7.2f}  {line['text']}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--speed", type=float, default=60.0, help="how fast event time runs")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--budgets", type=int, default=50)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run it; the exit code is 1 when memory is not flat or the worker did not come back."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-soak-"))
    async with open_stage(folder) as stage:
        result = await measure(stage, options, out)
    show(result, out)
    if not options.no_store:
        out.print(f"stored as {store('soak', result)}")
    if result["flatness"]["verdict"] == "growing" or result["restart"]["first_event_in_ledger_s"] is None:
        out.print(f"logs: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
