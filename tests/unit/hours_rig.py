"""ROLLUP and the detectors of hours behind it, over tables and topics in memory: what they keep, say, and resume from."""

import asyncio
from collections import defaultdict
from typing import Any

import msgspec

from schemas import topics
from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE
from schemas.keys import cell_id
from schemas.readers import ALERTS
from schemas.statements import CellStatement, Dimensions, Source, Totals, Watermark
from streams.agents import entries
from streams.agents.hours import RegimeAgent, SpikeAgent, UnusualAgent
from streams.agents.rollup import RollupAgent
from streams.core.detect_multivariate import UnusualPolicy
from streams.core.detect_regime import RegimePolicy
from streams.core.detect_spike_policy import SpikePolicy
from streams.transport import Outgoing, RecordBatch
from streams.transport.fetching import Unread
from tests.unit.records import RawRecord

USD = 1_000_000_000


class Crash(Exception):
    """The process dies here."""


class Clock:
    """Event time."""

    def __init__(self, now: int) -> None:
        self.at = now

    def now(self) -> int:
        return self.at

    def observe(self, event_time: int, source: str = "") -> None:
        """It is set."""


class Wire:
    """The broker: what was written to each topic, in order."""

    def __init__(self) -> None:
        self.partitions = 1
        self.producer = self
        self.log: defaultdict[str, list[RawRecord]] = defaultdict(list)

    async def write(self, records: list[Outgoing], partitions: int) -> int:
        for each in records:
            log = self.log[each.topic]
            log.append(RawRecord(len(log), 0, each.value, key=each.key))
        return len(records)


class Table:
    """What is durable, by partition."""

    def __init__(self, wire: Wire, kept: dict[int, dict[bytes, bytes]]) -> None:
        self.app, self.kept, self.fenced, self.dies = wire, kept, False, False

    async def write(self, partition: int, changed: Any) -> int:
        if self.dies:
            raise Crash
        for key, value in changed:
            if value is None:
                self.kept[partition].pop(key, None)
            else:
                self.kept[partition][key] = value
        return 1

    async def confirm(self) -> bool:
        return True


class Delivered:
    """A batch in an agent's hands."""

    def __init__(self, batch: RecordBatch) -> None:
        self.value, self.acked = batch, False

    def ack(self) -> None:
        self.acked = True


class Hours:
    """Two partitions of cells, one of hours."""

    def __init__(self, now: int, parts: int = 2) -> None:
        self.parts = parts
        self.clock, self.wire = Clock(now), Wire()
        #: Seconds that have really passed.
        self.elapsed = 0.0
        self.kept: defaultdict[str, dict[int, dict[bytes, bytes]]] = defaultdict(lambda: defaultdict(dict))
        self._unacked: list[Delivered] = []
        self._cells_end: defaultdict[int, int] = defaultdict(int)
        self._read = 0
        self.restart_rollup()
        self.restart_detectors()

    def restart_rollup(self) -> None:
        """Its state comes back from its changelog, and what was not acknowledged is delivered again."""
        self.rollup = RollupAgent(
            Table(self.wire, self.kept["rollup"]), self.clock, interval_s=0, elapsed=lambda: self.elapsed
        )
        for part in range(self.parts):
            self.rollup._load(part, dict(self.kept["rollup"][part]))
        for event in self._unacked:
            self.rollup.take(event)

    def restart_detectors(self) -> None:
        self.spikes = SpikeAgent(Table(self.wire, self.kept["spikes"]), self.clock, SpikePolicy(quiet_hours=1))
        self.regimes = RegimeAgent(Table(self.wire, self.kept["regimes"]), self.clock, RegimePolicy())
        self.unusuals = UnusualAgent(Table(self.wire, self.kept["unusuals"]), self.clock, UnusualPolicy())
        self.detectors = {"spikes": self.spikes, "regimes": self.regimes, "unusuals": self.unusuals}
        for name, agent in self.detectors.items():
            agent._load(0, dict(self.kept[name][0]))

    def flush(self, part: int, cells: list[CellStatement], stream_time: int) -> None:
        """What METER writes of a source partition: cells, then the watermark that covers them."""
        self.clock.at = max(self.clock.at, stream_time)
        mark = Watermark(source=source(part), revision=0, next_offset=0, stream_time=stream_time)
        said = [*(entries.cell_record(cell, "w") for cell in cells), entries.watermark_record(mark, "w")]
        begin = self._cells_end[part]
        records = [RawRecord(begin + n, 0, each.value, key=each.key) for n, each in enumerate(said)]
        self._cells_end[part] = end = begin + len(records)
        event = Delivered(RecordBatch(topics.SPEND_CELLS, part, begin, end, Unread.of(begin, end, records)))
        self._unacked.append(event)
        self.rollup.take(event)

    def round(self, dies: bool = False) -> None:
        """A round of ROLLUP; with ``dies`` it is cut short between saying and keeping, and begun again."""
        self.rollup._table.dies = dies
        try:
            asyncio.run(self.rollup.round())
        except Crash:
            self.restart_rollup()
            asyncio.run(self.rollup.round())
        self._unacked = [event for event in self._unacked if not event.acked]

    def judge(self, at_once: int = 10_000) -> None:
        """The detectors read what was said, so many records at once."""
        log = self.wire.log[topics.SPEND_HOURS]
        while self._read < len(log):
            begin, end = self._read, min(len(log), self._read + at_once)
            unread = Unread.of(begin, end, log[begin:end])
            for agent in self.detectors.values():
                asyncio.run(agent.take([RecordBatch(topics.SPEND_HOURS, 0, begin, end, unread)]))
            self._read = end

    def tick(self, now: int) -> None:
        self.clock.at = max(self.clock.at, now)
        for agent in self.detectors.values():
            asyncio.run(agent.tick_all([0]))

    def alerts(self) -> list[Alert]:
        return [ALERTS.decode(record.value) for record in self.wire.log[topics.ALERTS]]

    def quiet_hours(self, start: int, count: int) -> None:
        """Hours in which nothing comes but the time."""
        for n in range(count):
            for part in range(self.parts):
                self.flush(part, [], start + n * HOUR + 30 * MINUTE)
            self.round()
            self.judge()
            self.tick(start + n * HOUR + 45 * MINUTE)


def source(part: int) -> Source:
    return Source(topics.USAGE_EVENTS, 0, part)


def cell(
    part: int, team: str, feature: str, model: str, hour: int, offset: int, nanos: int, requests: int = 100
) -> CellStatement:
    """A cell's total, with the tokens that its requests usually have."""
    dimensions = Dimensions("acme", "", team, "", feature, model, "openai", "", "interactive", "", "llm")
    totals = Totals(
        requests=requests, successes=requests, input_tokens=requests * 1_000, output_tokens=requests * 100,
        cost_nanos=nanos,
    )  # fmt: skip
    return CellStatement(
        cell_id=cell_id(dimensions, hour), hour=hour, dimensions=dimensions, source=source(part), segment=0,
        revision=0, offset=offset, totals=totals,
    )  # fmt: skip


def final(alert: Alert) -> dict[str, Any]:
    """What an alert says, but for the instant at which it was said."""
    said = msgspec.to_builtins(alert)
    return {name: value for name, value in said.items() if name not in ("stated_at", "occurred_at")}
