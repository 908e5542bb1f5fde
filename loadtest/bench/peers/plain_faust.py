"""A plain Faust agent as its documentation teaches it: ``async for event``, tables with changelogs, stock everything.

Choices in its favour: raw bytes on topics and in tables (msgspec encodes them quicker than its own JSON), tables in
memory, which are its quickest store, no standbys, no web server, no leader topic. It commits as it does by default:
every 2.8 s.
"""

import faust

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


app = faust.App(
    PLACE.group,
    broker=f"aiokafka://{PLACE.bootstrap}",
    store="memory://",
    datadir=str(PLACE.folder),
    topic_partitions=PLACE.partitions,
    topic_disable_leader=True,
    table_standby_replicas=0,
    web_enabled=False,
    # Changelog writes leave one by one; with the default of 16 KiB they wait for the broker most of the time.
    producer_max_batch_size=1_048_576,
)
usage = app.topic(PLACE.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
totals = app.Table("totals", partitions=PLACE.partitions, key_type=bytes, value_type=bytes)
counters = app.Table("counters", partitions=PLACE.partitions, key_type=bytes, value_type=bytes)
work = Work(PLACE.budgets)


@app.agent(usage)
async def meter(stream):
    """Fold each event into its cell and its counters."""
    async for event in stream.events():
        message = event.message
        record = Record(message.offset, int(message.timestamp * 1000), message.key, message.value, message.headers)
        priced = work.price(record, message.partition)
        if priced is None:
            continue
        key = priced.cell.encode()
        known = totals.get(key)
        cell = decode_totals(known) if known is not None else Totals()
        fold_cell(cell, priced)
        totals[key] = encode(cell)
        for watched in priced.watched:
            # A partition has its own counter of a scope, as it has in Sluice: others add theirs up.
            key = f"{message.partition}|{counter_name(watched)}".encode()
            known = counters.get(key)
            counter = decode_counter(known) if known is not None else Counter()
            fold_counter(counter, priced, watched)
            counters[key] = encode(counter)


if __name__ == "__main__":
    app.main()
