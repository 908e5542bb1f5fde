"""``make bench``: Sluice and its peers on the same filled topic, one after another, twice around.

python -m loadtest.bench.run --events 3000000 --repetitions 2 --only sluice,bytewax
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from loadtest.bench.contenders import CONTENDERS, Scene
from loadtest.bench.events import Shape, Stream, budgets_yaml, size_on_wire
from loadtest.bench.figures import cpu_ratios, middle, ratios
from loadtest.bench.machine import describe, store
from loadtest.bench.measuring import BenchError, measure
from loadtest.bench.stage import (
    Stage,
    cpu_s,
    delete_topics,
    end_offsets,
    fill_topic,
    history_start,
    make_topics,
    open_stage,
)
from schemas import topics
from streams.clock import elapsed_s


async def compare(stage: Stage, names: list[str], options: argparse.Namespace, out: Console) -> dict[str, Any]:
    """Fill the topic, then measure everybody; returns the result without its date and commit."""
    shape = Shape(cells=options.cells, teams=min(options.teams, options.cells), seed=options.seed)
    budgets = stage.folder / "budgets.yaml"
    budgets.write_text(budgets_yaml(options.budgets, shape.teams))
    await make_topics(stage, options.partitions)
    start = history_start()
    took = await fill_topic(stage, shape, options.events, options.partitions, start)
    ends = await end_offsets(stage)
    total = sum(ends.values())
    sample = Stream(shape, options.partitions, start).chunk()
    size = sum(map(size_on_wire, sample)) / len(sample)
    out.print(f"{total:,} events of {size:.0f} bytes in {took:.0f} s; partitions hold {sorted(ends.values())}")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    scene = Scene(stage, options.partitions, budgets)
    failures: list[str] = []
    # Round and round, so that what else the machine does falls on all alike.
    for repetition in range(options.repetitions):
        for name in names:
            try:
                runs[name].append(await _one_run(scene, name, repetition, total, options, out))
            except BenchError as error:
                # One that broke must not cost what the others showed; it is in the result, and the exit code tells.
                failures.append(f"{name}, repetition {repetition}")
                out.print(f"{failures[-1]}: {error}")
            # What one run stated is nothing that the next should read.
            await delete_topics(stage, [topic.name for topic in topics.STATEMENTS])
            await make_topics(stage, options.partitions)
    systems = {name: middle(found) for name, found in runs.items() if found}
    return {
        "machine": describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}"),
        "parameters": {
            **shape._asdict(),
            "events": total,
            "bytes_per_event": round(size),
            "partitions": options.partitions,
            "events_per_partition": ends,
            "budgets": options.budgets,
            "compression": "lz4",
            "batch_bytes_max": 131_072,
            "warm_up_s": options.warm_up,
            "window_s": options.window,
            "sluice_stages": "meter",
        },
        "systems": systems,
        "ratios": ratios({name: found["events_per_s"] for name, found in systems.items()}),
        "cpu_ratios": cpu_ratios({name: found["cpu_s_per_million"] for name, found in systems.items()}),
        "failures": failures,
        "runs": runs,
    }


async def _one_run(
    scene: Scene, name: str, repetition: int, total: int, options: argparse.Namespace, out: Console
) -> dict[str, Any]:
    stage, run = scene.stage, f"{name.replace('_', '-')}-{repetition}"
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    await admin.start()
    try:
        contender = await CONTENDERS[name](scene, run)
        broker_before, began = cpu_s(stage.broker.pid), elapsed_s()
        found = await measure(
            (contender.child,),
            lambda: contender.progress(admin),
            total,
            warm_up_s=options.warm_up,
            window_s=options.window,
        )
        found["broker_cpu_share"] = round((cpu_s(stage.broker.pid) - broker_before) / (elapsed_s() - began), 2)
    finally:
        await admin.close()
    out.print(
        f"  {run:16} {found['events_per_s']:>9,} events/s {found['cpu_s_per_million']:>8.2f} CPU-s/million "
        f"{found['peak_memory_mib']:>6.0f} MiB over {found['seconds']:.1f} s, load {found['load_average'][0]}"
    )
    return found


def show(result: dict[str, Any], out: Console) -> None:
    """The table."""
    table = Table(title="the same work on the same topic")
    for heading in ("", "events/s", "range", "CPU-s per million", "peak MiB", "Sluice is", "its CPU"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, found in result["systems"].items():
        ratio = result["ratios"].get(name)
        low, high = found["events_per_s_range"]
        table.add_row(
            name,
            f"{found['events_per_s']:,.0f}",
            f"{low:,}–{high:,}",
            f"{found['cpu_s_per_million']:.2f}",
            f"{found['peak_memory_mib']:,.0f}",
            f"{ratio:.2f}×" if ratio is not None else "",
            f"{result['cpu_ratios'][name]:.2f}×" if ratio is not None else "",
        )
    out.print(table)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--teams", type=int, default=200)
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds after the first commit that do not count")
    parser.add_argument("--window", type=float, default=20.0, help="seconds that count")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, separated by commas")
    parser.add_argument("--keep", action="store_true", help="leave logs and data where they are, and say where")
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run the comparison; returns the exit code."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    failed = True
    try:
        async with open_stage(folder) as stage:
            result = await compare(stage, options.only.split(","), options, out)
        show(result, out)
        if not options.no_store:
            out.print(f"stored as {store('bench', result)}")
        failed = bool(result["failures"])
    except BenchError as error:
        out.print(str(error))
    finally:
        if options.keep or failed:
            out.print(f"logs and data: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
