"""From the event that makes an hour strange to its spike's alert, through real Kafka and a whole worker.

Teams get four days of plain spend, played as fast as they are read; then one call each, at an instant of its own, costs
as much as several of their days. Told are milliseconds from sending that call to the alert on ``alerts.v1``.

    python -m loadtest.latency.spikes --teams 20
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from aiokafka import AIOKafkaConsumer
from rich.console import Console

from gateway.publisher import UsagePublisher
from loadtest.bench.figures import summary
from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import Stage, make_topics, open_stage, prepare, worker, worker_settings
from schemas.events import UsageEvent
from schemas.instants import HOUR, MINUTE, SECOND
from schemas.readers import ALERTS
from schemas.topics import ALERTS as ALERTS_TOPIC
from schemas.topics import SPEND_HOURS
from streams.clock import WallClock, elapsed_s

PARTITIONS = 4
HISTORY_HOURS = 96
#: Of this model a million output tokens cost 75 dollars.
MODEL = "claude-opus-4-1"
READ_S, ANSWER_S = 240.0, 90.0


def call(team: str, tokens: int) -> UsageEvent:
    """A call that costs as many times 0.075 dollars as it has thousands of tokens."""
    return UsageEvent(
        provider="anthropic", request_model=MODEL, response_model=MODEL, output_tokens=tokens, team_id=team,
        feature=f"{team}-chat",
    )  # fmt: skip


async def play(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """History, surges, alerts."""
    await make_topics(stage, PARTITIONS)
    budgets = stage.folder / "budgets.yaml"
    budgets.write_text("budgets: []\n")
    url = await prepare(stage, "spikes", PARTITIONS)
    child = worker(worker_settings(stage, "spikes", url, PARTITIONS, budgets), stage.folder)

    async def is_ready() -> bool:
        return child.log.with_suffix(".ready").exists()

    child.start()
    publisher = UsagePublisher({"bootstrap_servers": stage.broker.bootstrap}, source="//gateway/probe")
    reader = AIOKafkaConsumer(
        ALERTS_TOPIC, SPEND_HOURS, bootstrap_servers=stage.broker.bootstrap, auto_offset_reset="earliest"
    )
    clock, teams = WallClock(), [f"team-{number:03d}" for number in range(options.teams)]
    try:
        await child.ready(is_ready, 120.0)
        await publisher.start()
        await reader.start()
        now = clock.now()
        first = now - now % HOUR - HISTORY_HOURS * HOUR
        for hour in range(first, now - now % HOUR + HOUR, HOUR):
            for team in teams:
                at = min(hour + 30 * MINUTE, now)
                publisher.publish(call(team, 13_000), id=f"{team}-{hour}", time=at)
            # Real time passes between two hours: what is said of one is heard before the next.
            await asyncio.sleep(options.pace)
        running = now - now % HOUR
        await _until(
            reader, lambda record: record.topic == SPEND_HOURS and f"|{running}|".encode() in record.key, READ_S
        )
        await asyncio.sleep(10.0)
        dice, sent = Random(7), {}
        for team in teams:
            await asyncio.sleep(dice.random() * 2)
            sent[team] = clock.now()
            publisher.publish(call(team, 2_000_000), id=f"{team}-surge", time=sent[team])
        return {"unit": "ms from sending to alerts.v1", **await _answers(reader, sent, clock)}
    finally:
        await reader.stop()
        await publisher.stop()
        await child.stop()


async def _until(reader: AIOKafkaConsumer, is_it: Any, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        async for record in reader:
            if is_it(record):
                return


async def _answers(reader: AIOKafkaConsumer, sent: dict[str, int], clock: WallClock) -> dict[str, Any]:
    found: dict[str, float] = {}
    until = elapsed_s() + ANSWER_S
    while len(found) < len(sent) and elapsed_s() < until:
        for records in (await reader.getmany(timeout_ms=20)).values():
            for record in records:
                if record.topic != ALERTS_TOPIC or record.value is None:
                    continue
                alert = ALERTS.decode(record.value)
                if alert.rule == "spend_spike" and alert.scope_type == "team" and alert.scope_id in sent:
                    found.setdefault(alert.scope_id, (clock.now() - sent[alert.scope_id]) / (SECOND / 1_000))
    return {"alert": summary(list(found.values())) if found else {}, "missing": len(sent) - len(found)}


async def main(arguments: list[str]) -> int:
    """Measure, print, store; 1 where an alert never came."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.latency.spikes", description=__doc__)
    parser.add_argument("--teams", type=int, default=20)
    parser.add_argument("--pace", type=float, default=0.4, help="seconds for an hour of history")
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    options, out = parser.parse_args(arguments), Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="sluice-spikes-"))
    async with open_stage(folder) as stage:
        found = await play(stage, options)
        machine = describe(f"Apache Kafka {stage.broker.version}", f"PostgreSQL {stage.postgres.version}")
    out.print(found)
    if not options.no_store:
        whole = {"machine": machine, "parameters": vars(options), "load_average": load_average(), **found}
        out.print(f"stored as {store('spike-latency', whole)}")
    return 1 if found["missing"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
