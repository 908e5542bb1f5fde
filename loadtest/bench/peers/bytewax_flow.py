"""bytewax as its documentation teaches it for throughput: whole batches, ``stateful_batch``, a recovery store.

Choices in its favour: state is keyed by source partition and not by cell, so that Rust and Python meet once a batch
and not once an event; ``flat_map_batch`` hands a poll's messages on as one item; totals live as objects and are
encoded once a snapshot. The runner takes snapshots every 5 s (the default is 10 s, in which a run would see few).
"""

from itertools import groupby
from operator import attrgetter

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from loadtest.bench.peers.place import here
from loadtest.bench.work import (
    Counter,
    Record,
    Work,
    counter_name,
    decode_counter,
    decode_totals,
    encode,
    fold_cell,
    fold_counter,
)
from schemas.statements import Totals

PLACE = here()
work = Work(PLACE.budgets)

_partition = attrgetter("partition")
Snapshot = tuple[dict[str, bytes], dict[str, bytes]]


class Partition(StatefulBatchLogic):
    """Cells and counters of one source partition."""

    def __init__(self, resumed: Snapshot | None) -> None:
        cells, counters = resumed or ({}, {})
        self._cells = {name: decode_totals(value) for name, value in cells.items()}
        self._counters = {name: decode_counter(value) for name, value in counters.items()}

    def on_batch(self, values: list[list[KafkaSourceMessage]]) -> tuple[list[int], bool]:
        """Fold polls of this partition; says downstream how many events they held."""
        folded = 0
        cells, counters = self._cells, self._counters
        for messages in values:
            for message in messages:
                record = Record(message.offset, message.timestamp[1], message.key, message.value, message.headers)
                priced = work.price(record, message.partition)
                if priced is None:
                    continue
                cell = cells.get(priced.cell)
                if cell is None:
                    cell = cells[priced.cell] = Totals()
                fold_cell(cell, priced)
                for watched in priced.watched:
                    name = counter_name(watched)
                    counter = counters.get(name)
                    if counter is None:
                        counter = counters[name] = Counter()
                    fold_counter(counter, priced, watched)
            folded += len(messages)
        return [folded], StatefulBatchLogic.RETAIN

    def snapshot(self) -> Snapshot:
        """What the recovery store keeps."""
        cells = {name: encode(cell) for name, cell in self._cells.items()}
        return cells, {name: encode(counter) for name, counter in self._counters.items()}


class _Nowhere(StatelessSinkPartition):
    def write_batch(self, items: list[object]) -> None:
        """Drop: a dataflow needs an output, and the state is what counts here."""


class Nowhere(DynamicSink):
    """An output that keeps nothing."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nowhere:
        """See the base class."""
        return _Nowhere()


flow = Dataflow("usage")
polls = op.input("kafka", flow, KafkaSource([PLACE.bootstrap], [PLACE.topic]))
# A poll is of one partition, but the engine may hand several polls on together.
batches = op.flat_map_batch(
    "batches",
    polls,
    lambda polled: [(str(partition), list(found)) for partition, found in groupby(polled, _partition)],
)
folded = op.stateful_batch("meter", batches, Partition)
op.output("nowhere", folded, Nowhere())
