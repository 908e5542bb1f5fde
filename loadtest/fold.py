"""``make bench-fold``: METER's own work, step by step, without a broker: where a microsecond goes.

One partition with 10 000 live cells is folded warm; then the same events are taken through more and more of the steps,
and what a step adds is its cost. The smallest of several rounds is told, which is the least disturbed one.

    python -m loadtest.fold --events 60000
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from rich.console import Console
from rich.table import Table

from loadtest.bench.events import Made, Shape, Stream, budgets_yaml
from loadtest.bench.machine import describe, load_average, store
from loadtest.bench.stage import history_start
from loadtest.bench.work import METERED
from schemas.statements import Source
from streams.clock import elapsed_s
from streams.core.budget_file import load_budgets
from streams.core.charging import Charging
from streams.core.dedupe import DedupeWindow
from streams.core.lanes import calls_of
from streams.core.meter import PartitionState
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard
from streams.core.reading import Limits
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, watched_of
from streams.transport.fetching import CHUNK

PER_BATCH = 240  # 128 KiB, as our publisher fills them
PER_FOLD = 512
ROUNDS = 7
BUDGETS = 20


def encoded(events: list[Made], first: int, arrived_ms: int) -> bytes:
    """One record batch as the broker sends it."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=10_000_000,
    )  # fmt: skip
    for offset, made in enumerate(events):
        builder.append(offset, arrived_ms, made.key, made.value, list(made.headers))
    whole = bytearray(builder.build())
    whole[:8] = first.to_bytes(8, "big")
    return bytes(whole)


def batches(shape: Shape, count: int) -> list[bytes]:
    """So many events of one partition, without repeats, in record batches."""
    start = history_start()
    stream = iter(Stream(shape, 1, start))
    arrived = start // 1_000 + 3_600_000
    return [encoded(list(islice(stream, PER_BATCH)), first, arrived) for first in range(0, count, PER_BATCH)]


def rules(shape: Shape) -> Rules:
    """What the fold is told: the public catalogue's prices, and monthly budgets of the largest teams."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "budgets.yaml"
        path.write_text(budgets_yaml(BUDGETS, shape.teams))
        budgets = load_budgets(path.read_text())
    charging = Charging(PriceBook(RateCard(), frozenset()), METERED)
    return Rules(Limits(), charging, ScopeWatchlist([watched_of(budget) for budget in budgets]))


class Steps:
    """One warm partition, and its events through a part of the steps."""

    def __init__(self, shape: Shape, count: int) -> None:
        self.raw = batches(shape, count)
        self.state = PartitionState(Source("usage.events.v1", 0, 0), rules(shape))
        for whole in self.raw:
            self.state.take(_chunks(whole))
        self.state.settle()
        self.count = self.state.next_offset

    def rewind(self) -> None:
        """The same events again, as if none had been seen."""
        self.state.next_offset = 0
        self.state.window = DedupeWindow(3_600_000_000, 20_000_000)
        self.state.window.first_seen(bytes(16), 0, self.state.stream_time)

    def parse(self) -> None:
        """Only the records."""
        for whole in self.raw:
            for _ in _chunks(whole):
                pass

    def read(self) -> None:
        """And decoded, checked, with their attributes' plan."""
        for whole in self.raw:
            for chunk in _chunks(whole):
                self.state._reader.read(chunk)

    def call(self) -> None:
        """And reduced to their numbers."""
        for whole in self.raw:
            for chunk in _chunks(whole):
                calls_of(self.state._reader.read(chunk)[0], 0, 50_000, self.state.spenders.rows)

    def take(self, whole: bytes) -> None:
        """One record batch, as METER takes it."""
        chunks = _chunks(whole)
        while self.state.take(islice(chunks, PER_FOLD // CHUNK)):
            pass
        self.state.signals.clear()  # as the next statement would: they are sorted with those that come

    def fold(self) -> None:
        """And de-duplicated, priced and added to their lanes."""
        self.rewind()
        for whole in self.raw:
            self.take(whole)

    def settle(self) -> None:
        """And carried to cells and counters, once in 40 batches."""
        self.rewind()
        for number, whole in enumerate(self.raw):
            self.take(whole)
            if number % 40 == 39:
                self.state.settle()
        self.state.settle()


def _chunks(whole: bytes) -> Iterator[list[Any]]:
    memory = MemoryRecords(whole)
    while memory.has_next():
        records = chain(memory.next_batch())
        while chunk := list(islice(records, CHUNK)):
            yield chunk


def least(step: Callable[[], None], events: int) -> float:
    """Microseconds an event in the quickest of several rounds."""
    found = []
    for _ in range(ROUNDS):
        began = elapsed_s()
        step()
        found.append(elapsed_s() - began)
    return min(found) / events * 1e6


def main(arguments: list[str]) -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(prog="make bench-fold", description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    options, out = parser.parse_args(arguments), Console(highlight=False)
    steps = Steps(Shape(cells=options.cells), options.events)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    names = ("parse", "read", "call", "fold", "settle")
    figures = {name: least(getattr(steps, name), steps.count) for name in names}
    table = Table("step", "us an event", "so far")
    before = 0.0
    for name in names:
        table.add_row(name, f"{max(0.0, figures[name] - before):.2f}", f"{figures[name]:.2f}")
        before = figures[name]
    out.print(table)
    out.print(
        f"{1e6 / figures['settle']:,.0f} events/s if nothing else were to do; {len(steps.state.cells):,} live cells"
    )
    if not options.no_store:
        found = {"microseconds_so_far": {name: round(value, 3) for name, value in figures.items()}}
        parameters = {"events": steps.count, "cells": len(steps.state.cells), "rounds": ROUNDS}
        whole = {"machine": describe(""), "parameters": parameters, "load_average": load_average(), **found}
        out.print(f"stored as {store('fold', whole)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
