"""``make bench-scale``: how cost grows with workers, partitions, live cells and budgets, one at a time from a base.

Each point has a broker, a database and topics of its own, so that no point inherits anything from another.

    python -m loadtest.scale.run --factors cells,budgets --events 400000
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from loadtest.bench.events import Shape, budgets_yaml
from loadtest.bench.machine import describe, store
from loadtest.bench.measuring import BenchError, measure
from loadtest.bench.stage import (
    Stage,
    committed,
    end_offsets,
    fill_topic,
    history_start,
    make_topics,
    open_stage,
    prepare,
    worker,
    worker_settings,
)
from streams.clock import elapsed_s
from streams.embedded.process import ChildProcess

GROUP = "scale"
#: Measured and thrown away: the first point of a run showed a third less than the same point later.
WARM_UP = "warm-up"
RESTART_DEADLINE_S = 120.0
POLL_S = 0.05


class Point(NamedTuple):
    """What is varied, and what it is varied from."""

    workers: int = 1
    partitions: int = 8
    cells: int = 10_000
    budgets: int = 20


FACTORS: dict[str, tuple[int, ...]] = {
    "workers": (1, 2, 4),
    "partitions": (1, 4, 8, 16, 64),
    "cells": (1, 100, 10_000, 100_000),
    "budgets": (1, 20, 100, 1_000, 10_000),
}


def points(factors: list[str]) -> list[tuple[str, Point]]:
    """The points to measure: the base, then each factor's other values. The first is for the machine to get warm.

    >>> [(name, point.workers) for name, point in points(["workers"])]
    [('warm-up', 1), ('base', 1), ('workers', 2), ('workers', 4)]
    """
    base = Point()
    found = [(WARM_UP, base), ("base", base)]
    for factor in factors:
        for value in FACTORS[factor]:
            point = base._replace(**{factor: value})
            if point != base:
                found.append((factor, point))
    return found


def shape_of(point: Point, seed: int) -> Shape:
    """The events of a point. A team has at most one budget, so that more budgets do not mean more work an event."""
    cells = max(point.cells, point.budgets) if point.cells > 1 else 1
    return Shape(cells=cells, teams=min(cells, max(200, point.budgets)), seed=seed)


async def restart_s(child: ChildProcess, admin: AIOKafkaAdminClient, total: int) -> float | None:
    """Seconds from the start of a killed worker's successor to its first commit of something new; None at the end."""
    before = await committed(admin, GROUP)
    if before >= total:
        return None
    began = elapsed_s()
    child.start()
    try:
        while elapsed_s() - began < RESTART_DEADLINE_S:
            if await committed(admin, GROUP) > before:
                return round(elapsed_s() - began, 2)
            if not child.running:
                raise BenchError(str(child.failure("the restarted worker ended by itself")))
            await asyncio.sleep(POLL_S)
        raise BenchError(str(child.failure("the restarted worker made nothing durable")))
    finally:
        child.kill()


async def measure_point(stage: Stage, point: Point, options: argparse.Namespace) -> dict[str, Any]:
    """Fill, measure, kill, restart."""
    shape = shape_of(point, options.seed)
    budgets = stage.folder / "budgets.yaml"
    budgets.write_text(budgets_yaml(point.budgets, shape.teams))
    await make_topics(stage, point.partitions)
    await fill_topic(stage, shape, options.events, point.partitions, history_start())
    total = sum((await end_offsets(stage)).values())
    url = await prepare(stage, GROUP, point.partitions)
    settings = worker_settings(stage, GROUP, url, point.partitions, budgets)
    children = [worker(settings, stage.folder, index) for index in range(point.workers)]
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    await admin.start()
    try:
        found = await measure(
            children,
            lambda: committed(admin, GROUP),
            total,
            warm_up_s=options.warm_up,
            window_s=options.window,
        )
        found["restart_s"] = await restart_s(children[0], admin, total) if point.workers == 1 else None
    finally:
        await admin.close()
    return found


def show(rows: list[dict[str, Any]], out: Console) -> None:
    """The table: each row against the base."""
    table = Table(title="one factor at a time; × is against the base")
    for heading in ("factor", "value", "events/s", "CPU-s per million", "×", "peak MiB", "restart s", "load"):
        table.add_column(heading, justify="left" if heading == "factor" else "right")
    base = rows[0]["cpu_s_per_million"]
    for row in rows:
        value = "" if row["factor"] == "base" else f"{row['point'][row['factor']]:,}"
        restart = row["restart_s"]
        table.add_row(
            row["factor"], value, f"{row['events_per_s']:,}", f"{row['cpu_s_per_million']:.2f}",
            f"{row['cpu_s_per_million'] / base:.2f}", f"{row['peak_memory_mib']:,.0f}",
            f"{restart:.1f}" if restart is not None else "", f"{row['load_average'][0]}",
        )  # fmt: skip
    out.print(table)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--events", type=int, default=2_400_000, help="at each point; few cells are quick")
    parser.add_argument("--factors", default=",".join(FACTORS), help="separated by commas")
    parser.add_argument("--warm-up", type=float, default=2.0)
    parser.add_argument("--window", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Measure every point; returns the exit code."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    rows: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    for factor, point in points(options.factors.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="sluice-scale-"))
        try:
            async with open_stage(folder) as stage:
                found = await measure_point(stage, point, options)
                machine = describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}")
        except BenchError as error:
            out.print(f"{factor} {point}: {error}\nlogs: {folder}")
            return 1
        shutil.rmtree(folder, ignore_errors=True)
        if factor != WARM_UP:
            rows.append({"factor": factor, "point": point._asdict(), **found})
        out.print(f"  {factor} {tuple(point)}: {found['events_per_s']:,}/s, {found['cpu_s_per_million']} CPU-s/million")
    show(rows, out)
    if not options.no_store:
        out.print(f"stored as {store('scale', {'machine': machine, 'parameters': vars(options), 'points': rows})}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
