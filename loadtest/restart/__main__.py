"""``make bench-restart``: how long after a SIGKILL a worker folds new events again, and where that time goes.

The worker has live cells, a long changelog and a full de-duplication window, and a million events wait for it.

    python -m loadtest.restart --ids 18000000 --rewrites 5000000
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from loadtest.bench.events import Shape, budgets_yaml
from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import (
    Stage,
    committed,
    cpu_s,
    end_offsets,
    fill_topic,
    make_topics,
    memory_mib,
    open_stage,
    prepare,
    worker,
    worker_settings,
)
from loadtest.restart.milestones import milestones, phases
from loadtest.restart.rewrites import rewrite
from schemas.instants import HOUR, SECOND
from streams.clock import WallClock, elapsed_s
from streams.core.dedupe import GENERATIONS
from streams.embedded.process import ChildProcess
from streams.topic_admin import changelog

GROUP = "restart"
WINDOW_S = 3_600
DEADLINE_S = 400.0
POLL_S = 0.05
#: The window is full, and its present generation nearly so: about the most that a restart has to read again.
SHARE_OF_PRESENT = 0.9


class Load:
    """The events before the kill, which fill a window of event time, and those that wait after it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rate = options.ids / WINDOW_S
        self.shape = Shape(cells=options.cells // 2, rate=self.rate, duplicates=0.02)
        #: Event time: a window and most of a generation, in the past, in two hours (so each cell is there twice).
        self.seconds = WINDOW_S + SHARE_OF_PRESENT * WINDOW_S / GENERATIONS
        now = WallClock().now()
        self.start = now - now % HOUR - 4 * HOUR
        self.count = int(self.seconds * self.rate * (1 + self.shape.duplicates))
        self.behind = options.behind

    async def before(self, stage: Stage, partitions: int) -> float:
        """Fill what is folded before the kill; returns the seconds it took."""
        return await fill_topic(stage, self.shape, self.count, partitions, self.start)

    async def after(self, stage: Stage, partitions: int) -> float:
        """Fill what waits for the restart."""
        start = self.start + int(self.seconds * SECOND)
        return await fill_topic(stage, self.shape, self.behind, partitions, start, first_part=2)


async def _fold_all(child: ChildProcess, admin: AIOKafkaAdminClient, total: int) -> float:
    began = elapsed_s()
    while await committed(admin, GROUP) < total:
        if not child.running:
            raise child.failure("the worker ended by itself")
        if elapsed_s() - began > DEADLINE_S:
            raise child.failure("the worker did not fold the load in time")
        await asyncio.sleep(POLL_S)
    return elapsed_s() - began


async def _in_ledger(database: asyncpg.Connection) -> int:
    return int(await database.fetchval("select coalesce(sum(next_offset), 0) from ledger_sources"))


async def restart(
    child: ChildProcess, admin: AIOKafkaAdminClient, database: asyncpg.Connection, total: int
) -> dict[str, Any]:
    """Start the killed worker again and watch it from outside until it has caught up."""
    before, in_ledger = await committed(admin, GROUP), await _in_ledger(database)
    child.log.with_suffix(".ready").unlink(missing_ok=True)
    found: dict[str, Any] = {"behind": total - before, "in_ledger_s": None, "committed_s": None, "caught_up_s": None}
    began, began_at = elapsed_s(), datetime.now().astimezone()
    child.start()
    while found["caught_up_s"] is None:
        await asyncio.sleep(POLL_S)
        passed = round(elapsed_s() - began, 2)
        if not child.running or passed > DEADLINE_S:
            raise child.failure("the restarted worker did not catch up")
        if found["in_ledger_s"] is None and await _in_ledger(database) > in_ledger:
            found["in_ledger_s"] = passed
        done = await committed(admin, GROUP)
        if found["committed_s"] is None and done > before:
            found["committed_s"] = passed
        if done >= total:
            found["caught_up_s"] = passed
    told = milestones(child.log.read_text().splitlines(), began_at)
    return found | {
        "phases": [phase._asdict() for phase in phases(told)],
        "log": [each._asdict() for each in told],
        "cpu_s": cpu_s(child.pid),
        "peak_memory_mib": memory_mib(child.pid, peak=True),
    }


async def measure(stage: Stage, options: argparse.Namespace, out: Console) -> dict[str, Any]:
    """Load, kill, make the changelog long, put events behind, restart."""
    await make_topics(stage, options.partitions)
    budgets = stage.folder / "budgets.yaml"
    budgets.write_text(budgets_yaml(options.budgets, 200))
    url = await prepare(stage, GROUP, options.partitions)
    settings = worker_settings(
        stage, GROUP, url, options.partitions, budgets, log_level="INFO", dedupe_window_s=WINDOW_S
    )
    child = worker(settings, stage.folder)
    load = Load(options)
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    await admin.start()
    database = await asyncpg.connect(url)
    try:
        child.start()
        filled_s = await load.before(stage, options.partitions)
        folded_s = await _fold_all(child, admin, sum((await end_offsets(stage)).values()))
        out.print(f"  {load.count:,} events made in {filled_s:.0f} s and folded {folded_s:.0f} s later")
        # Sealed generations are kept one at a flush.
        await asyncio.sleep(options.settle)
        child.kill()
        began = elapsed_s()
        rewritten = await rewrite(
            stage.broker.bootstrap, changelog(GROUP, "meter").name, options.partitions, options.rewrites
        )
        out.print(f"  killed; {rewritten:,} entries written again in {elapsed_s() - began:.0f} s")
        await load.after(stage, options.partitions)
        total = sum((await end_offsets(stage)).values())
        found = await restart(child, admin, database, total)
    finally:
        await child.stop()
        await database.close()
        await admin.close()
    return {
        "machine": describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}"),
        "parameters": {**vars(options), "events": load.count, "rewritten": rewritten, "stages": settings.stages},
        "load_average": load_average(),
        "restart": found,
    }


def show(result: dict[str, Any], out: Console) -> None:
    """The table of phases, and what the log says beside it."""
    found = result["restart"]
    table = Table(title="from the start of the process")
    for heading in ("phase", "took s", "ended at s"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase in found["phases"]:
        table.add_row(phase["name"], f"{phase['took_s']:.2f}", f"{phase['ended_s']:.2f}")
    for name, key in (("in the ledger", "in_ledger_s"), ("committed", "committed_s"), ("caught up", "caught_up_s")):
        table.add_row(f"{name} (seen from outside)", "", f"{found[key]:.2f}" if found[key] is not None else "never")
    out.print(table)
    for line in found["log"]:
        out.print(f"  {line['at_s']:7.2f}  {line['text']}")
    out.print(f"{found['behind']:,} events behind; {found['cpu_s']:.1f} CPU-s, {found['peak_memory_mib']:.0f} MiB")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-restart", description=__doc__)
    parser.add_argument("--ids", type=int, default=4_000_000, help="in the de-duplication window of an hour")
    parser.add_argument("--cells", type=int, default=10_000, help="live")
    parser.add_argument("--rewrites", type=int, default=1_200_000, help="of entries in METER's changelog, at least")
    parser.add_argument("--behind", type=int, default=1_000_000, help="events that come while the worker is down")
    parser.add_argument("--budgets", type=int, default=50)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--settle", type=float, default=10.0, help="seconds between the last event and the kill")
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    options, out = parse(arguments), Console(width=150, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-restart-"))
    out.print(f"logs: {folder}")
    async with open_stage(folder) as stage:
        result = await measure(stage, options, out)
    show(result, out)
    if not options.no_store:
        out.print(f"stored as {store('restart', result)}")
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
