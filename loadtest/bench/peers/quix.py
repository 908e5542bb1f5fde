"""quixstreams as its documentation teaches it: ``update(stateful=True)`` over State in RocksDB with a changelog topic.

Choices in its favour: bytes instead of its JSON in State (``get_bytes``, ``set_bytes``), no parsing of keys and values
by it, and its default commit interval of 5 s, between which it keeps changed state in memory and writes it once.
State is scoped by the message key, here the team; cells and counters are keys within it.
"""

from quixstreams import Application, State, message_context

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


def fold(value: bytes, key: bytes, timestamp: int, headers: list[tuple[str, bytes]], state: State) -> None:
    """Fold one event into its cell and its counters."""
    where = message_context()
    priced = work.price(Record(where.offset, timestamp, key, value, headers), where.partition)
    if priced is None:
        return
    known = state.get_bytes(priced.cell)
    cell = decode_totals(known) if known is not None else Totals()
    fold_cell(cell, priced)
    state.set_bytes(priced.cell, encode(cell))
    for watched in priced.watched:
        name = counter_name(watched)
        known = state.get_bytes(name)
        counter = decode_counter(known) if known is not None else Counter()
        fold_counter(counter, priced, watched)
        state.set_bytes(name, encode(counter))


def main() -> None:
    """Run until the process is ended."""
    app = Application(
        broker_address=PLACE.bootstrap,
        consumer_group=PLACE.group,
        auto_offset_reset="earliest",
        state_dir=PLACE.folder / "state",
        auto_create_topics=True,
        loglevel="INFO",
    )
    topic = app.topic(PLACE.topic, key_deserializer="bytes", value_deserializer="bytes")
    stream = app.dataframe(topic)
    stream.update(fold, stateful=True, metadata=True)
    app.run()


if __name__ == "__main__":
    main()
