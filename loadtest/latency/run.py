"""``make bench-latency``: from a produced event to the ledger, to its alert, and to the gateway that obeys.

A probe is one call that alone exhausts its team's budget, sent by a gateway's real publisher at an instant fixed
beforehand, under a constant background. Everything is timed from that instant, so a service that falls behind cannot
make a sample look better by delaying it, and a sample that never arrives counts as an error.

    python -m loadtest.latency.run --rates 1000,5000,20000 --samples 150
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from loadtest.bench.events import Shape, budget_lines, budgets_yaml
from loadtest.bench.figures import summary
from loadtest.bench.load import LoadOrder, LoadReport
from loadtest.bench.machine import busy_s, describe, load_average, store
from loadtest.bench.stage import (
    Stage,
    committed,
    cpu_s,
    end_offsets,
    make_topics,
    open_stage,
    prepare,
    worker,
    worker_settings,
)
from loadtest.latency.legs import LEGS, legs
from loadtest.latency.watching import Watchers
from schemas.events import UsageEvent
from schemas.instants import SECOND
from streams.clock import WallClock, elapsed_s
from streams.embedded.process import ChildProcess

PARTITIONS = 8
#: Background before the first probe.
WARM_UP_S = 10.0
#: How long after the last probe answers are waited for.
ANSWER_S = 30.0
#: Microseconds that preparing an event of the background takes at most.
PREPARED_US = 40
DRAIN_S = 120.0
#: 20 000 output tokens of this model cost 1.50 dollars: above every probe's budget, below a runaway request.
PROBE_MODEL, PROBE_TOKENS, PROBE_BUDGET_USD = "claude-opus-4-1", 20_000, "1"


def probe_name(rate: int, number: int) -> str:
    """The team of a probe, and the id of its budget."""
    return f"probe-{rate}-{number:04d}"


def budgets_of_probes(rates: list[int], samples: int, background: int, teams: int) -> str:
    """The background's budgets, and one for every probe, in enforce mode, with the blocking rung alone."""
    lines = [budgets_yaml(background, teams).rstrip("\n")]
    for name in (probe_name(rate, number) for rate in rates for number in range(samples)):
        lines += budget_lines(name, name, PROBE_BUDGET_USD, "enforce", "month")
        lines += ["    thresholds:", "      - {percent: 100, severity: emergency, action: block}"]
    return "\n".join(lines) + "\n"


def schedule(samples: int, seconds: float, start: int, seed: int) -> list[int]:
    """When each probe is sent: evenly spread, each at random within its share, so that no timer is met in step."""
    random, share = Random(seed), seconds * SECOND / samples
    return [start + int((number + random.random()) * share) for number in range(samples)]


async def one_rate(
    stage: Stage, watchers: Watchers, rate: int, options: argparse.Namespace, pids: dict[str, int]
) -> dict[str, Any]:
    """All probes under one background rate; returns the figures of that rate, with each process's share of a core."""
    clock = WallClock()
    seconds = WARM_UP_S + options.seconds + 2.0
    # Filling the batches takes its time before anything is measured.
    start = clock.now() + SECOND + int(rate * seconds * PREPARED_US)
    order = LoadOrder(
        bootstrap=stage.broker.bootstrap,
        partitions=PARTITIONS,
        start=start,
        seconds=seconds,
        shape=Shape(rate=float(rate), seed=rate, cells=options.cells),
        is_prepared=True,
    )
    command = (sys.executable, "-m", "loadtest.bench.load", msgspec.json.encode(order).decode())
    load = ChildProcess(f"load {rate}", command, stage.folder / f"load-{rate}.log")
    load.start()
    await asyncio.sleep(max(0.0, (start - clock.now()) / SECOND))
    pids = {**pids, "load": load.pid}
    before, began = _cpu(pids), elapsed_s()
    times = schedule(options.samples, options.seconds, start + int(WARM_UP_S * SECOND), rate)
    names = [probe_name(rate, number) for number in range(options.samples)]
    watchers.expect(dict(zip(names, times, strict=True)))
    late = 0
    for name, time in zip(names, times, strict=True):
        await asyncio.sleep(max(0.0, (time - clock.now()) / SECOND))
        late = max(late, clock.now() - time)
        event = UsageEvent(
            provider="anthropic",
            request_model=PROBE_MODEL,
            response_model=PROBE_MODEL,
            output_tokens=PROBE_TOKENS,
            team_id=name,
            feature="probe",
        )
        watchers.publisher.publish(event, id=name, time=time)
    shares = {name: round((now - before[name]) / (elapsed_s() - began), 2) for name, now in _cpu(pids).items()}
    await watchers.answered(ANSWER_S)
    while load.running:
        await asyncio.sleep(0.1)
    report = msgspec.json.decode(load.log.read_bytes().splitlines()[-1], type=LoadReport)
    return {
        "rate": rate,
        "sent_per_s": round(report.sent / order.seconds),
        "load_behind_ms_max": round(report.behind_ms_max, 1),
        "probe_late_ms_max": round(late / 1_000, 1),
        "missing": watchers.missing(),
        "backlog_at_end": watchers.backlog,
        "load_average": load_average(),
        "cpu_share": shares,
        **{name: summary(values) for name, values in watchers.latencies_ms().items() if values},
    }


def _cpu(pids: dict[str, int]) -> dict[str, float]:
    """Processor seconds of each process so far, of all that runs here, and what the host kept for others."""
    machine, stolen = busy_s()
    return {name: cpu_s(pid) for name, pid in pids.items()} | {"machine": machine, "stolen": stolen}


async def drained(stage: Stage, group: str) -> bool:
    """Wait until the worker has folded and committed all there is; False when it takes too long."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    await admin.start()
    try:
        until = elapsed_s() + DRAIN_S
        total = sum((await end_offsets(stage)).values())
        while elapsed_s() < until:
            if await committed(admin, group) >= total:
                return True
            await asyncio.sleep(0.5)
        return False
    finally:
        await admin.close()


async def measure(stage: Stage, options: argparse.Namespace, out: Console) -> dict[str, Any]:
    """METER in one worker and what follows in another, rate after rate."""
    rates = [int(rate) for rate in options.rates.split(",")]
    await make_topics(stage, PARTITIONS)
    budgets = stage.folder / "budgets.yaml"
    budgets.write_text(budgets_of_probes(rates, options.samples, options.budgets, Shape().teams))
    url = await prepare(stage, "latency", PARTITIONS)
    # Apart, as an operator has them where delay matters: folding a full fetch takes its time, and in one process a
    # command would wait for it.
    stages = {"meter": ["meter"], "rest": ["budget", "detect", "ledger", "notify"]}
    children = [
        worker(worker_settings(stage, "latency", url, PARTITIONS, budgets, stages=names), stage.folder, index)
        for index, names in enumerate(stages.values())
    ]

    async def are_ready() -> bool:
        return all(child.log.with_suffix(".ready").exists() for child in children)

    for child in children:
        child.start()
    found: list[dict[str, Any]] = []
    try:
        await children[0].ready(are_ready, 120.0)
        for rate in rates:
            async with Watchers(stage.broker.bootstrap, url) as watchers:
                pids = {name: child.pid for name, child in zip(stages, children, strict=True)}
                pids |= {"broker": stage.broker.pid, "probes": os.getpid()}
                figures = await one_rate(stage, watchers, rate, options, pids)
            figures["kept_up"] = await drained(stage, "latency-meter")
            figures |= await legs(stage.broker.bootstrap, PARTITIONS, *watchers.probes())
            found.append(figures)
            out.print(f"  {rate:,}/s: " + ", ".join(f"{k} {figures[k]['p50']:.0f} ms" for k in _kinds(figures)))
            if not figures["kept_up"]:
                out.print("  the worker did not work off the backlog; higher rates are left out")
                break
    finally:
        for child in children:
            await child.stop()
    return {
        "machine": describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}"),
        "parameters": {**vars(options), "partitions": PARTITIONS, "warm_up_s": WARM_UP_S, "workers": stages},
        "unit": "ms from the intended send time",
        "rates": found,
    }


def _kinds(figures: dict[str, Any]) -> list[str]:
    return [kind for kind in ("ledger", "alert", "gateway") if kind in figures]


def show(result: dict[str, Any], out: Console) -> None:
    """The table."""
    table = Table(title="milliseconds from the intended send time")
    for heading in ("events/s", "until", "samples", "p50", "p90", "p99", "max", "missing", "load"):
        table.add_column(heading, justify="left" if heading == "until" else "right")
    names = {"ledger": "in the ledger", "alert": "alert on alerts.v1", "gateway": "the gateway refuses"}
    for figures in result["rates"]:
        for kind in _kinds(figures):
            row = figures[kind]
            table.add_row(
                f"{figures['rate']:,}", names[kind], str(row["samples"]),
                *(f"{row[name]:,.0f}" for name in ("p50", "p90", "p99", "max")),
                str(figures["missing"][kind]), f"{figures['load_average'][0]}",
            )  # fmt: skip
    out.print(table)
    for figures in result["rates"]:
        rows = {"p50": {leg: row["p50"] for leg, row in figures["legs"].items()}} | {
            f"slowest, at {row['at_s']} s": row for row in figures["slowest"]
        }
        shares = ", ".join(f"{name} {share:.2f}" for name, share in figures["cpu_share"].items())
        out.print(f"{figures['rate']:,}/s, of a core: {shares}")
        out.print("  where the time went:")
        for name, row in rows.items():
            out.print(f"  {name:<22}" + ", ".join(f"{leg} {row[leg]:,.0f}" for leg in LEGS if leg in row))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-latency", description=__doc__)
    parser.add_argument("--rates", default="1000,5000,20000", help="background events a second, with commas")
    parser.add_argument("--samples", type=int, default=150, help="probes at each rate")
    parser.add_argument("--seconds", type=float, default=60.0, help="over which the probes of a rate are spread")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--budgets", type=int, default=20, help="of the background's teams")
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run all rates; returns the exit code."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-latency-"))
    async with open_stage(folder) as stage:
        result = await measure(stage, options, out)
    show(result, out)
    if not options.no_store:
        out.print(f"stored as {store('latency', result)}")
    missing = sum(sum(figures["missing"].values()) for figures in result["rates"])
    if missing:
        out.print(f"{missing} answers never came; logs: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
