"""``make bench-detect``: what ROLLUP and the detectors of hours cost beside METER, at 10 000 live scopes.

The real path without a broker: METER's shell folds the bench's events and flushes by its own rules; what it writes is
packed into compressed record batches, and ROLLUP reads and rolls it up in its own rounds; what that writes goes to the
detectors alike, and all write their states. Only processor time counts, each stage's own: decoding, encoding and
packing included, the network not. METER's own time is the clock: it is busy, as under the bench, and all else happens
beside it.

Scopes have learned three weeks. What closing an hour costs comes once an hour and is told apart.

    python -m loadtest.detect_cost --seconds 102
"""

import argparse
import asyncio
import gc
import random
import sys
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from time import process_time
from types import SimpleNamespace
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from detectors.base import Observation
from detectors.spend_spike import SpendSpike, SpendSpikeState
from loadtest.bench.events import Made, Shape, Stream
from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import history_start
from loadtest.fold import rules
from schemas import topics
from schemas.instants import HOUR, MINUTE, SECOND
from streams.agents.hours import HoursAgent, RegimeAgent, SpikeAgent, UnusualAgent
from streams.agents.meter import FLUSHING_SHARE, Meter
from streams.agents.rollup import ROUND_MAX_S, SHARE, RollupAgent
from streams.core.composition import Composition
from streams.core.detect_multivariate import UnusualPolicy, UnusualState, judge_hour
from streams.core.detect_regime import RegimePolicy, RegimeState, step_regime
from streams.core.detect_regime_ratios import HourTotals
from streams.core.detect_spike_policy import SpikePolicy
from streams.transport import Outgoing, RecordBatch
from streams.transport.fetching import Unread

PER_BATCH = 240
FLUSH_S, INTERVAL_S = 0.25, 2.0
TARGET_PERCENT = 5.0
LZ4 = 3


class Clock:
    """Event time."""

    def __init__(self, now: int) -> None:
        self.at = now

    def now(self) -> int:
        return self.at

    def observe(self, event_time: int, source: str = "") -> None:
        """It is set."""


def packed(records: Iterable[Outgoing], first: int, at_ms: int) -> list[bytes]:
    """Records as a producer sends them."""
    found: list[bytes] = []
    builder = None
    for offset, each in enumerate(records):
        if builder is None or builder.append(offset, at_ms, each.key, each.value, list(each.headers)) is None:
            if builder is not None:
                found.append(bytes(builder.build()))
            builder = DefaultRecordBatchBuilder(
                magic=2, compression_type=LZ4, is_transactional=0, producer_id=-1, producer_epoch=-1,
                base_sequence=-1, batch_size=262_144,
            )  # fmt: skip
            builder.append(offset, at_ms, each.key, each.value, list(each.headers))
    if builder is not None:
        found.append(bytes(builder.build()))
    return found


class Wire:
    """Stands where the broker is: packs what is written, and hands it to whoever reads that topic."""

    def __init__(self) -> None:
        self.partitions = 1
        self.producer = self
        self.consumer = SimpleNamespace(end_of=lambda topic, partition: 0, flow_active=True)
        self.sent: defaultdict[str, list[bytes]] = defaultdict(list)
        self.count: defaultdict[str, int] = defaultdict(int)
        self.bytes: defaultdict[str, int] = defaultdict(int)

    async def write(self, records: list[Outgoing], partitions: int) -> int:
        by_topic: defaultdict[str, list[Outgoing]] = defaultdict(list)
        for record in records:
            by_topic[record.topic].append(record)
        for topic, own in by_topic.items():
            batches = packed(own, self.count[topic], 1_000)
            self.count[topic] += len(own)
            self.bytes[topic] += sum(map(len, batches))
            self.sent[topic] += batches
        return len(records)

    def taken(self, topic: str) -> list[bytes]:
        return self.sent.pop(topic, [])


class TableFace:
    """A table that packs its changelog, and keeps nothing."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.app, self._name, self.fenced = wire, name, False

    async def write(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> int:
        written = await self.app.write([Outgoing(self._name, partition, key, value) for key, value in entries], 1)
        self.app.taken(self._name)
        return written

    async def confirm(self) -> bool:
        return True


class Ledger:
    async def durable_offsets(self) -> dict[str, int]:
        return {}


class Batch:
    """A delivered batch, as agents have it."""

    def __init__(self, topic: str, begin: int, records: list[Any]) -> None:
        end = begin + len(records)
        self.value = RecordBatch(topic, 0, begin, end, Unread.of(begin, end, records))

    def ack(self) -> None:
        """Nothing is committed."""


def unpacked(batches: Iterable[bytes]) -> list[Any]:
    """Records as a consumer reads them."""
    found: list[Any] = []
    for whole in batches:
        memory = MemoryRecords(whole)
        while memory.has_next():
            found += list(memory.next_batch())
    return found


class Rig:
    """METER, ROLLUP and the detectors of hours over one partition."""

    def __init__(self, shape: Shape) -> None:
        self.start = history_start()
        self.stream = Stream(shape, 1, self.start)
        self.wire = Wire()
        self.clock = Clock(self.start)
        face = lambda name: TableFace(self.wire, name)  # noqa: E731
        self.meter = Meter(
            face("meter"), face("digests"), rules(shape), Ledger(), (topics.USAGE_EVENTS,), epoch=0,
            writer=lambda: "1-a", flush_interval_s=FLUSH_S, scope_interval_s=0.05,
        )  # fmt: skip
        self.rollup = RollupAgent(face("rollup"), self.clock, interval_s=INTERVAL_S)
        self.spikes = SpikeAgent(face("spikes"), self.clock, SpikePolicy())
        self.regimes = RegimeAgent(face("regimes"), self.clock, RegimePolicy())
        self.unusuals = UnusualAgent(face("unusuals"), self.clock, UnusualPolicy())
        self.detectors = {"spikes": self.spikes, "regimes": self.regimes, "unusuals": self.unusuals}
        for agent in (self.meter, self.rollup, *self.detectors.values()):
            agent._table.on_load(0, {})
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.offsets: defaultdict[str, int] = defaultdict(int)
        self.events = 0
        self.rounds = 0

    async def measured(self, stage: str, step: Any) -> float:
        began = process_time()
        await step
        spent = process_time() - began
        self.spent[stage] += spent
        return spent

    async def fold(self, made: list[Made]) -> float:
        """One fetch of events; METER's seconds."""
        records = [Outgoing(topics.USAGE_EVENTS, 0, each.key, each.value, tuple(each.headers)) for each in made]
        self.clock.at = max(self.clock.at, made[-1].time)
        builder_at = self.clock.at // 1_000
        begin = self.offsets[topics.USAGE_EVENTS]
        whole = []
        for first in range(0, len(records), PER_BATCH):
            for each in packed(records[first : first + PER_BATCH], 0, builder_at):
                raw = bytearray(each)
                raw[:8] = (begin + first).to_bytes(8, "big")
                whole.append(bytes(raw))
        self.offsets[topics.USAGE_EVENTS] += len(records)
        self.events += len(records)
        event = Batch(topics.USAGE_EVENTS, begin, [])
        batches = [batch for each in whole for batch in _opened(each)]
        unread = Unread(begin, begin + len(records), builder_at, batches)
        event.value = RecordBatch(topics.USAGE_EVENTS, 0, begin, begin + len(records), unread)
        return await self.measured("meter", self.meter._take(event))

    async def flush(self) -> tuple[float, float]:
        """METER's flush; its seconds, and those by which it paces itself. The bytes go to ROLLUP."""
        found = []

        async def flushed() -> None:
            found.append(await self.meter.flush())

        spent = await self.measured("meter", flushed())
        await self.measured("rollup", self._hand_over())
        return spent, found[0]

    async def _hand_over(self) -> None:
        records = unpacked(self.wire.taken(topics.SPEND_CELLS))
        self.rollup.take(Batch(topics.SPEND_CELLS, self.offsets[topics.SPEND_CELLS], records))
        self.offsets[topics.SPEND_CELLS] += len(records)

    async def round(self) -> float:
        """A round of ROLLUP, and the detectors behind it; ROLLUP's seconds."""
        spent = await self.measured("rollup", self.rollup.round())
        self.rounds += 1
        batches = self.wire.taken(topics.SPEND_HOURS)
        for name, agent in self.detectors.items():
            await self.measured(name, self._judge(agent, batches))
        return spent

    async def _judge(self, agent: HoursAgent[Any], batches: list[bytes]) -> None:
        # As on a worker: a fetch brings up to a megabyte.
        begin = self.offsets[agent.name]
        for several in (batches[at : at + 4] for at in range(0, len(batches), 4)):
            records = unpacked(several)
            await agent.take([Batch(topics.SPEND_HOURS, begin, records).value])
            begin += len(records)
        self.offsets[agent.name] = begin

    async def tick(self) -> None:
        for name, agent in self.detectors.items():
            await self.measured(name, agent.tick_all([0]))

    def teach(self) -> None:
        """Three weeks, to all."""
        hour = self.start - self.start % HOUR
        spike, (habits, unusual) = _taught_spend(hour), _taught_habits(hour)
        for scope, state in self.spikes._states[0].items():
            self.spikes._states[0][scope] = replace(state, history=spike, next_close=hour, outlooks={})
        for scope in self.spikes._states[0]:
            self.regimes._states[0][scope] = replace(habits, scope=scope)
            self.unusuals._states[0][scope] = replace(unusual, scope=scope)


def _opened(whole: bytes) -> list[Any]:
    memory, found = MemoryRecords(whole), []
    while memory.has_next():
        found.append(memory.next_batch())
    return found


def _taught_spend(until: int) -> SpendSpikeState:
    dice, detector = random.Random(1), SpendSpike()
    for hour in range(until - 22 * 24 * HOUR, until, HOUR):
        nanos = int(1_000_000_000_000 * (1 + dice.random()))
        detector.learn(Observation(hour, hour + HOUR, nanos), is_anomalous=False)
    return detector.state()


def _taught_habits(until: int) -> tuple[RegimeState, UnusualState]:
    dice, state, unusual = random.Random(1), RegimeState(scope="team:a"), UnusualState(scope="team:a")
    for hour in range(until - 8 * 24 * HOUR, until, HOUR):
        requests = dice.randrange(500, 900)
        totals = HourTotals(
            requests=requests, errors=requests // 50, cache_hits=requests // 9, input_tokens=requests * 900,
            cached_tokens=requests * dice.randrange(200, 300), output_tokens=requests * dice.randrange(90, 110),
            cost_nanos=requests * dice.randrange(2_000_000, 2_200_000), models={"a": 3, "b": 1},
        )  # fmt: skip
        state, _ = step_regime(state, hour, totals, hour + HOUR, RegimePolicy())
        unusual, _ = judge_hour(unusual, hour, totals, Composition(), hour + HOUR, UnusualPolicy())
    return state, unusual


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, teach, run beside each other, close an hour."""
    rig = Rig(Shape(cells=options.cells, teams=options.teams, rate=50_000.0))
    made = iter(rig.stream)
    take = lambda: list(islice(made, 2_000))  # noqa: E731
    while rig.events < options.cells * 30:
        await rig.fold(take())
    await rig.flush()
    await rig.round()
    rig.teach()
    # The first look at an hour is part of closing the one before.
    await rig.fold(take())
    while rig.events < options.cells * 40:
        await rig.fold(take())
    await rig.flush()
    round_at = _pause(await rig.round())
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    rig.spent.clear()
    rig.events = rig.rounds = 0
    before = dict(rig.wire.bytes)
    wall, flush_at, tick_at = 0.0, FLUSH_S, 10.0
    while wall < options.seconds:
        wall += await rig.fold(take())
        if wall >= flush_at:
            spent, cost = await rig.flush()
            wall += spent
            flush_at = wall + max(FLUSH_S, cost / FLUSHING_SHARE)
        if wall >= round_at:
            round_at = wall + _pause(await rig.round())
        if wall >= tick_at:
            await rig.tick()
            tick_at = wall + 10.0
    running = dict(rig.spent)
    written = {topic: rig.wire.bytes[topic] - before.get(topic, 0) for topic in rig.wire.bytes}
    found = {
        "scopes": len(rig.spikes._states[0]),
        "cells": len(rig.rollup._found[0].rolling.rollup.cells),
        "events": rig.events,
        "meter_s": round(running["meter"], 3),
        "events_per_s": round(rig.events / running["meter"]),
        "rounds": rig.rounds,
        "seconds_between_rounds": round(wall / max(1, rig.rounds), 1),
        "percent_of_meter": {name: round(100 * spent / running["meter"], 2) for name, spent in running.items()},
        "megabytes_written": {name: round(size / 1e6, 1) for name, size in sorted(written.items())},
    }
    hour = await _closing(rig)
    found["seconds_to_close_an_hour"] = {name: round(spent, 2) for name, spent in hour.items()}
    whole = sum(running[name] for name in ("rollup", *rig.detectors)) / running["meter"]
    found["closing_percent"] = round(100 * sum(hour.values()) / 3_600, 3)
    found["whole_percent"] = round(100 * whole + found["closing_percent"], 2)
    return found


def _pause(cost_s: float) -> float:
    """Until the next round, as ROLLUP has it."""
    return max(INTERVAL_S, min(cost_s / SHARE, ROUND_MAX_S))


async def _closing(rig: Rig) -> dict[str, float]:
    """All scopes' hours end at once."""
    rig.spent.clear()
    later = rig.clock.at - rig.clock.at % HOUR + HOUR + 6 * MINUTE
    state = rig.meter._states[topics.USAGE_EVENTS, 0]
    # One event past the hour: the watermark passes, and nothing else changes.
    state.stream_time = rig.clock.at = later
    rig.meter._stated_at.clear()
    await rig.flush()
    rig.spent.clear()
    await rig.round()
    await rig.tick()
    rig.clock.at += 6 * MINUTE + SECOND
    await rig.tick()
    return dict(rig.spent)


def main(arguments: list[str]) -> int:
    """Measure, print, store; 1 where it is more than the target."""
    parser = argparse.ArgumentParser(prog="make bench-detect", description=__doc__)
    parser.add_argument("--seconds", type=float, default=102.0, help="of METER's own time")
    parser.add_argument("--cells", type=int, default=14_000)
    parser.add_argument("--teams", type=int, default=400)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    options, out = parser.parse_args(arguments), Console(highlight=False)
    found = asyncio.run(measure(options))
    table = Table("stage", "% of METER's time")
    for name, percent in found["percent_of_meter"].items():
        table.add_row(name, f"{percent:.2f}")
    table.add_row("closing hours", f"{found['closing_percent']:.2f}")
    table.add_row("all but METER", f"{found['whole_percent']:.2f}")
    out.print(table)
    out.print(
        f"{found['scopes']:,} live scopes of {found['cells']:,} cells, {found['events_per_s']:,} events/s, a round in"
        f" {found['seconds_between_rounds']} s; closing an hour: {found['seconds_to_close_an_hour']}"
    )
    if not options.no_store:
        parameters = {"seconds": options.seconds, "cells": options.cells, "teams": options.teams}
        whole = {"machine": describe(""), "parameters": parameters, "load_average": load_average(), "cost": found}
        out.print(f"stored as {store('detect', whole)}")
    return 0 if found["whole_percent"] < TARGET_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
