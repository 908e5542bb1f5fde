"""What is on the topics and in the ledger, read as anybody could: with a plain consumer and plain SQL."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from loadtest.crash.compare import Found, Letter
from loadtest.crash.expected import DIMENSIONS, HISTOGRAMS, TOTALS, Cell
from loadtest.crash.load import BILLS, EVENTS, SAMPLES
from loadtest.crash.plan import WORKERS
from loadtest.crash.refusals import Raw

INPUTS = (EVENTS, SAMPLES, BILLS)
#: All that workers read; each must be read to its end before anything is judged.
CONSUMED = (
    *INPUTS, "spend.cells.v1", "spend.scopes.v1", "usage.signals.v1", "alerts.v1", "gateway.commands.v1",
    "gateway.acks.v1",
)  # fmt: skip
FETCH_BYTES = 8_388_608
REQUEST_MS = 20_000
_CELLS = f"select hour, {', '.join((*DIMENSIONS, *TOTALS, *HISTOGRAMS))} from ledger_cells"
_SPENDERS = """
select team_id, key_id, user_id, sum(spenders.cost_nanos) as cost_nanos, sum(spenders.requests) as requests
from ledger_cells join ledger_spenders as spenders using (cell_id, slot, segment) group by 1, 2, 3
"""
_UNSENT = "select count(*) from outbox where state in ('owed', 'given_up')"

Place = tuple[str, int]


class Topics:
    """Reads topics from where it stopped the last time, to their present ends."""

    def __init__(self, bootstrap: str, partitions: int, group: str) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._group = group
        self._next: dict[TopicPartition, int] = {}

    async def read(self, names: Iterable[str]) -> list[Any]:
        """The records that are new, partition by partition in their order."""
        places = [TopicPartition(name, number) for name in names for number in range(self._partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, max_partition_fetch_bytes=FETCH_BYTES, request_timeout_ms=REQUEST_MS
        )
        await consumer.start()
        try:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, self._next.get(place, 0))
            found: list[Any] = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                for place, records in (await consumer.getmany(timeout_ms=200)).items():
                    found += [record for record in records if record.offset < ends[place]]
            self._next |= ends
            return sorted(found, key=lambda record: (record.topic, record.partition, record.offset))
        finally:
            await consumer.stop()

    async def lag(self) -> dict[str, int]:
        """``{"topic[partition]": records}`` that the workers have not acknowledged yet, and how many workers are out.

        A worker that is alive and in no group does nothing, and nobody would miss it while another has its partitions.
        """
        places = [TopicPartition(name, number) for name in CONSUMED for number in range(self._partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, request_timeout_ms=REQUEST_MS)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=REQUEST_MS)
        try:
            await consumer.start()
            await admin.start()
            ends = await consumer.end_offsets(places)
            committed = await admin.list_consumer_group_offsets(self._group)
            (group,) = (await admin.describe_consumer_groups([self._group]))[0].to_object()["groups"]
        finally:
            await admin.close()
            await consumer.stop()
        done = {place: max(0, committed[place].offset) if place in committed else 0 for place in places}
        behind = [place for place in places if ends[place] > done[place]]
        found = {f"{place.topic}[{place.partition}]": ends[place] - done[place] for place in behind}
        out = WORKERS - len(group["members"])
        return found | ({f"workers that are not in the group ({group['state']})": out} if out else {})


def raw_of(record: Any) -> Raw:
    """A usage record as the oracle takes it."""
    return Raw(
        record.topic, record.partition, record.offset, record.timestamp, record.value or b"", dict(record.headers)
    )


async def read_found(topics: Topics, database_url: str, told: dict[str, list[Any]], incidents: list[str]) -> Found:
    """Everything that is compared; ``told`` gathers statements over calls, since topics are read once."""
    for record in await topics.read(("alerts.v1", "gateway.commands.v1", *(f"{name}.dlt" for name in INPUTS))):
        told.setdefault(record.topic, []).append(record)
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        rows = await connection.fetch(_CELLS)
        spenders = await connection.fetch(_SPENDERS)
        sources = await connection.fetch("select slot, dead_letters, duplicates from ledger_sources")
        unsent = await connection.fetchval(_UNSENT)
    finally:
        await connection.close()
    return Found(
        cells=_cells(rows),
        spenders={
            tuple(row[:3]): Counter(cost_nanos=int(row["cost_nanos"]), requests=int(row["requests"]))
            for row in spenders
        },
        sources={_place(row["slot"]): (row["dead_letters"], row["duplicates"]) for row in sources},
        letters=[_letter(record) for name in INPUTS for record in told.get(f"{name}.dlt", ())],
        alerts=[json.loads(record.value) for record in told.get("alerts.v1", ()) if record.value],
        commands=[
            (record.key.decode(), json.loads(record.value))
            for record in told.get("gateway.commands.v1", ())
            if record.value
        ],
        incidents=incidents,
        unsent=unsent,
    )


def _cells(rows: Iterable[Mapping[str, Any]]) -> dict[Cell, Counter[str]]:
    cells: dict[Cell, Counter[str]] = {}
    for row in rows:
        found = cells.setdefault((row["hour"], *(row[name] for name in DIMENSIONS)), Counter())
        # Sums of money are numeric in PostgreSQL, and whole.
        found.update({name: int(row[name]) for name in TOTALS})
        for name in HISTOGRAMS:
            found.update({f"{name} {bucket}": count for bucket, count in enumerate(row[name])})
    return cells


def _place(slot: str) -> Place:
    """``usage.events.v1@0-3``: topic, epoch, partition."""
    topic, _, rest = slot.partition("@")
    return topic, int(rest.partition("-")[2])


def _letter(record: Any) -> Letter:
    headers = {name: value.decode() for name, value in record.headers if name.startswith("__streams.errors.")}
    place = (
        headers["__streams.errors.topic"], int(headers["__streams.errors.partition"]),
        int(headers["__streams.errors.offset"]),
    )  # fmt: skip
    return Letter(place, headers["__streams.errors.exception"])
