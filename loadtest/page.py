"""``make bench-page``: from the call that crosses a budget to its page at PagerDuty.

A probe is one call that alone exhausts its team's budget, sent by a gateway's real publisher at an instant fixed
beforehand, under a constant background. Its page is timed from that instant to its arrival at the strict PagerDuty
stand-in: METER, BUDGET, ``alerts.v1``, the group in PostgreSQL, the outbox and the request over TLS. A probe whose page
never comes, or comes twice, counts as an error.

    python -m loadtest.page --rate 1000 --samples 200
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from gateway.publisher import UsagePublisher
from loadtest.bench.events import Shape
from loadtest.bench.figures import summary
from loadtest.bench.load import LoadOrder
from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import Stage, make_topics, open_stage, prepare, worker, worker_settings
from loadtest.latency.run import PROBE_MODEL, PROBE_TOKENS, budgets_of_probes, probe_name, schedule
from schemas.events import UsageEvent
from schemas.instants import SECOND
from streams.clock import WallClock, elapsed_s
from streams.embedded.process import ChildProcess
from streams.sinks.postgres import open_pool
from streams.standins.runner import StandIns

PARTITIONS = 8
WARM_UP_S, ANSWER_S = 10.0, 60.0
STAGES = {"meter": ["meter"], "rest": ["budget", "detect", "ledger", "notify"]}
#: Where in a message's way the time goes: from the alert's statement to its page's being owed, sent, and taken.
_WAY = """
select a.body->>'team_id' as team, extract(epoch from a.stated_at) as stated, extract(epoch from o.owed_at) as owed,
    extract(epoch from o.sent_at) as sent
from outbox o join outbox_alerts using (notification_id) join alerts a using (dedup_key)
where o.receiver = 'pagerduty' and o.action = 'trigger'
"""


async def probe(stage: Stage, options: argparse.Namespace, standins: StandIns) -> tuple[dict[str, int], list[str]]:
    """Send every probe and wait for its page; when each was sent, and the teams of the pages in order."""
    clock, start = WallClock(), WallClock().now() + SECOND
    order = LoadOrder(
        bootstrap=stage.broker.bootstrap,
        partitions=PARTITIONS,
        start=start,
        seconds=WARM_UP_S + options.seconds + 2.0,
        shape=Shape(rate=float(options.rate), seed=options.rate, cells=options.cells),
    )
    command = (sys.executable, "-m", "loadtest.bench.load", msgspec.json.encode(order).decode())
    load = ChildProcess("load", command, stage.folder / "load.log")
    load.start()
    times = schedule(options.samples, options.seconds, start + int(WARM_UP_S * SECOND), options.rate)
    sent = {probe_name(options.rate, number): time for number, time in enumerate(times)}
    publisher = UsagePublisher({"bootstrap_servers": stage.broker.bootstrap}, source="//gateway/probe")
    await publisher.start()
    for name, time in sent.items():
        await asyncio.sleep(max(0.0, (time - clock.now()) / SECOND))
        event = UsageEvent(
            provider="anthropic",
            request_model=PROBE_MODEL,
            response_model=PROBE_MODEL,
            output_tokens=PROBE_TOKENS,
            team_id=name,
            feature="probe",
        )
        publisher.publish(event, id=name, time=time)
    until = elapsed_s() + ANSWER_S
    while len(paged(standins)) < len(sent) and elapsed_s() < until:
        await asyncio.sleep(0.1)
    await publisher.stop()
    while load.running:
        await asyncio.sleep(0.1)
    return sent, list(paged(standins))


def paged(standins: StandIns) -> dict[str, int]:
    """When each probe's incident was opened, by team."""
    return {
        one.payload["group"]: one.opened_at
        for one in standins.pagerduty.incidents
        if one.payload["group"].startswith("probe-")
    }


async def measure(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """METER in one worker and what follows in another, as where delay matters."""
    await make_topics(stage, PARTITIONS)
    budgets = stage.folder / "budgets.yaml"
    budgets.write_text(budgets_of_probes([options.rate], options.samples, options.budgets, Shape().teams))
    url = await prepare(stage, "page", PARTITIONS)
    async with StandIns(stage.folder) as standins:
        os.environ.update(standins.environment())
        children = [
            worker(worker_settings(stage, "page", url, PARTITIONS, budgets, stages=names), stage.folder, index)
            for index, names in enumerate(STAGES.values())
        ]

        async def are_ready() -> bool:
            return all(child.log.with_suffix(".ready").exists() for child in children)

        try:
            for child in children:
                child.start()
            await children[0].ready(are_ready, 120.0)
            sent, _ = await probe(stage, options, standins)
        finally:
            for child in children:
                await child.stop()
        came = paged(standins)
        pages = Counter(
            one.payload["group"] for one in standins.pagerduty.incidents if one.payload["group"].startswith("probe-")
        )
    pool = await open_pool(url, size_max=1)
    ways = [row for row in await pool.fetch(_WAY) if row["team"] in sent]
    await pool.close()
    seconds = [(came[name] - at) / SECOND for name, at in sent.items() if name in came]
    return {
        "machine": describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}"),
        "parameters": {**vars(options), "partitions": PARTITIONS, "workers": STAGES},
        "unit": "seconds from the intended send time of the crossing call",
        "page": summary(seconds) if seconds else {},
        "within_5_s": sum(each <= 5.0 for each in seconds),
        "missing": len(sent) - len(seconds),
        "doubled": sum(count > 1 for count in pages.values()),
        "parts": {
            "stated to owed": summary([float(row["owed"] - row["stated"]) for row in ways]) if ways else {},
            "owed to sent": summary([float(row["sent"] - row["owed"]) for row in ways if row["sent"]]) if ways else {},
        },
        "load_average": load_average(),
        # Below 0: the rig and all that it measures went before other programs.
        "nice": os.nice(0),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-page", description=__doc__)
    parser.add_argument("--rate", type=int, default=1_000, help="background events a second")
    parser.add_argument("--samples", type=int, default=150, help="probes; PagerDuty takes 120 a minute")
    parser.add_argument("--seconds", type=float, default=150.0, help="over which the probes are spread")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--budgets", type=int, default=20, help="of the background's teams")
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    return parser.parse_args(arguments)


async def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    options, out = parse(arguments), Console(width=120, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-page-"))
    async with open_stage(folder) as stage:
        result = await measure(stage, options)
    row = result["page"]
    if row:
        out.print(
            f"crossing to page, {row['samples']} samples at {options.rate:,} events/s: p50 {row['p50']:.2f} s,"
            f" p90 {row['p90']:.2f} s, p99 {row['p99']:.2f} s, most {row['max']:.2f} s;"
            f" {result['within_5_s']} within 5 s, {result['missing']} missing, {result['doubled']} doubled"
        )
    for name, part in result["parts"].items():
        if part:
            out.print(f"  {name}: p50 {part['p50']:.3f} s, p99 {part['p99']:.3f} s")
    if not options.no_store:
        out.print(f"stored as {store('page', result)}")
    if result["missing"] or result["doubled"]:
        out.print(f"logs: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
