"""What people define: published on ``budgets.v1``, and every version in the ledger.

A version is one more than the highest that the topic or the ledger knows of its key; it, who and why travel in the
record's headers, so that a withdrawal says them too. Two writers take turns by a lock in PostgreSQL.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from schemas.budgets import Definition
from schemas.instants import to_datetime, to_micros
from schemas.topics import BUDGETS
from streams.dead_letters.log import LogReader, places_of
from streams.ports import ConflictError, Placed, RetryableError, Version

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Definition).decode
_LOCK = 7_165_003
_INSERT = """
insert into definition_history (key, version, body, changed_by, reason, changed_at, withdrawn)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (key, version) do nothing
"""


class _Held(NamedTuple):
    version: int
    value: bytes | None


class KafkaDefinitions:
    """Implements ``streams.ports.DefinitionStore``.

    Args:
        connection: aiokafka's keyword arguments.
        pool: of the ledger's database.
        now: microseconds since 1970.
        partitions: of the topic.
    """

    def __init__(
        self, connection: Mapping[str, Any], pool: asyncpg.Pool, now: Callable[[], int], partitions: int
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._now = now
        self._partitions = partitions

    async def current(self) -> Mapping[str, Definition]:
        """What holds now, read to the topic's present end."""
        held = await self._held()
        return {key: _decode(each.value) for key, each in held.items() if each.value is not None}

    async def _held(self) -> dict[str, _Held]:
        found: dict[str, _Held] = {}
        try:
            async with LogReader(self._connection, committed=False) as log:
                ends = await log.ends(places_of(await log.partitions([BUDGETS])))
                async for record in log.read(ends, {}):
                    headers = dict(record.headers)
                    version = int(headers.get("sluice_version") or b"1")
                    found[record.key.decode()] = _Held(version, record.value)
        except (KafkaError, OSError, TimeoutError) as error:
            raise RetryableError(f"what is defined cannot be read: {error!r}", 5.0) from error
        return found

    async def publish(
        self, changes: Sequence[Definition], *, by: str, reason: str, expected: Mapping[str, int] | None = None
    ) -> Sequence[Placed]:
        """Write new versions under the lock, and into the ledger at once."""
        async with self._turn() as connection:
            held = await self._held()
            self._check(held, expected or {})
            placed = []
            for change in changes:
                version = await self._next(connection, held, change.key())
                said = {"version": version, "changed_by": by, "reason": reason, "changed_at": self._now()}
                known = {name: value for name, value in said.items() if name in change.__struct_fields__}
                placed.append(Placed(change.key(), version, msgspec.structs.replace(change, **known)))
            await self._write(connection, placed, by, reason)
            return placed

    async def withdraw(self, key: str, *, by: str, reason: str, expected: int | None = None) -> bool:
        """A tombstone under the key; False where there is nothing."""
        async with self._turn() as connection:
            held = await self._held()
            if key not in held or held[key].value is None:
                return False
            if expected is not None:
                self._check(held, {key: expected})
            await self._write(connection, [Placed(key, await self._next(connection, held, key), None)], by, reason)
            return True

    async def history(self, key_prefix: str) -> Sequence[Version]:
        """From the ledger, newest first."""
        rows = await self._pool.fetch(
            "select *, body::text as text from definition_history where starts_with(key, $1)"
            " order by changed_at desc, key, version desc",
            key_prefix,
        )
        return [
            Version(
                row["key"], row["version"], None if row["withdrawn"] else _decode(row["text"]), row["changed_by"],
                row["reason"], to_micros(row["changed_at"]),
            )
            for row in rows
        ]  # fmt: skip

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            yield connection

    @staticmethod
    def _check(held: Mapping[str, _Held], expected: Mapping[str, int]) -> None:
        for key, wanted in expected.items():
            each = held.get(key)
            standing = each.version if each is not None and each.value is not None else 0
            if standing != wanted:
                raise ConflictError(key, wanted, standing)

    @staticmethod
    async def _next(connection: asyncpg.Connection, held: Mapping[str, _Held], key: str) -> int:
        known = await connection.fetchval("select max(version) from definition_history where key = $1", key)
        return max(known or 0, held[key].version if key in held else 0) + 1

    async def _write(self, connection: asyncpg.Connection, placed: Sequence[Placed], by: str, reason: str) -> None:
        now = self._now()
        producer = AIOKafkaProducer(**self._connection, acks="all", request_timeout_ms=10_000)
        try:
            await producer.start()
            sent = []
            for each in placed:
                headers = [
                    ("sluice_version", str(each.version).encode()), ("sluice_by", by.encode()),
                    ("sluice_why", reason.encode()), ("sluice_at", str(now).encode()),
                ]  # fmt: skip
                key = each.key.encode()
                value = None if each.definition is None else _encode(each.definition)
                place = TopicPartition(BUDGETS, (murmur2(key) & 0x7FFFFFFF) % self._partitions)
                sent.append(await producer.send(BUDGETS, value, key=key, partition=place.partition, headers=headers))
            await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise RetryableError(f"the broker did not take the definitions: {error!r}", 5.0) from error
        finally:
            await producer.stop()
        for each in placed:
            body = None if each.definition is None else msgspec.to_builtins(each.definition)
            await connection.execute(
                _INSERT, each.key, each.version, body, by, reason, to_datetime(now), each.definition is None
            )
