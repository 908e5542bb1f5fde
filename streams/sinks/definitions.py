"""What people define: published on ``budgets.v1``, each version one above the highest that was ever given to its key.

Two writers take turns by a lock in PostgreSQL, and each reads the topic to its end before it writes: so of two changes
against the same version one gets a conflict. The ledger's record is written by LEDGER, from the topic.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from schemas.budgets import Definition
from schemas.instants import to_micros
from schemas.topics import BUDGETS
from streams.dead_letters.log import LogReader, places_of
from streams.ports import Change, ConflictError, Placed, RetryableError, Standing, Version
from streams.sinks.definition_rows import change_of, headers_of, value_of

_decode = msgspec.json.Decoder(Definition).decode
_LOCK = 7_165_003
_RETRY_AFTER_S = 5.0
_LAST = "select distinct on (key) * from definition_history order by key, version desc"


class Wanted(NamedTuple):
    """A definition to be put under a key, or None to end it; ``file_digest`` None: what a file said last stays."""

    key: str
    definition: Definition | None
    file_digest: str | None = None


class KafkaDefinitions:
    """Implements ``streams.ports.DefinitionStore``.

    Args:
        connection: aiokafka's keyword arguments.
        pool: of the ledger's database.
        now: microseconds since 1970.
        partitions: of the topic.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        pool: asyncpg.Pool,
        now: Callable[[], int],
        partitions: int,
        *,
        idempotence: bool = True,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._now = now
        self._partitions = partitions
        self._idempotence = idempotence

    async def current(self) -> Mapping[str, Definition]:
        """What holds now, read to the topic's present end."""
        found = await self._read()
        return {key: each.definition for key, each in found.items() if each.definition is not None}

    async def standing(self) -> dict[str, Standing]:
        """What is under each key, withdrawals too: as the topic has it, and where that forgot them, the ledger."""
        found = {
            row["key"]: Standing(
                None, row["version"], row["changed_by"], row["file_digest"] if row["withdrawn"] else ""
            )
            for row in await self._pool.fetch(_LAST)
        }
        for key, each in (await self._read()).items():
            known = found.get(key)
            found[key] = each._replace(version=max(each.version, known.version if known else 0))
        return found

    async def _read(self) -> dict[str, Standing]:
        found: dict[str, Standing] = {}
        try:
            async with LogReader(self._connection, committed=False) as log:
                ends = await log.ends(places_of(await log.partitions([BUDGETS])))
                async for record in log.read(ends, {}):
                    change = change_of(record)
                    if change is None:
                        continue
                    with contextlib.suppress(msgspec.DecodeError):  # unreadable: workers keep what was before, too
                        definition = None if record.value is None else _decode(record.value)
                        found[change.key] = Standing(definition, change.version, change.changed_by, change.file_digest)
        except (KafkaError, OSError, TimeoutError) as error:
            raise RetryableError(f"what is defined cannot be read: {error!r}", _RETRY_AFTER_S) from error
        return found

    async def publish(
        self, changes: Sequence[Definition], *, by: str, reason: str, expected: Mapping[str, int] | None = None
    ) -> Sequence[Placed]:
        """Write new versions, all or none."""
        async with self._turn():
            held = await self.standing()
            _check(held, expected or {})
            return await self._write(held, [Wanted(change.key(), change) for change in changes], by, reason)

    async def withdraw(self, key: str, *, by: str, reason: str, expected: int | None = None) -> bool:
        """End a definition; False where there is none."""
        async with self._turn():
            held = await self.standing()
            if key not in held or held[key].definition is None:
                return False
            _check(held, {} if expected is None else {key: expected})
            await self._write(held, [Wanted(key, None)], by, reason)
            return True

    async def put(
        self, decide: Callable[[Mapping[str, Standing]], Sequence[Wanted]], *, by: str, reason: str
    ) -> Sequence[Placed]:
        """Write what ``decide`` makes of what stands; nobody else writes in between."""
        async with self._turn():
            held = await self.standing()
            return await self._write(held, decide(held), by, reason)

    async def history(self, key_prefix: str) -> Sequence[Version]:
        """From the ledger, newest first."""
        rows = await self._pool.fetch(
            "select * from definition_history where starts_with(key, $1) order by changed_at desc, key, version desc",
            key_prefix,
        )
        return [
            Version(
                row["key"],
                row["version"],
                None if row["withdrawn"] else msgspec.convert(row["body"], Definition),
                row["changed_by"],
                row["reason"],
                to_micros(row["changed_at"]),
            )
            for row in rows
        ]

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            yield

    async def _write(
        self, held: Mapping[str, Standing], wanted: Sequence[Wanted], by: str, reason: str
    ) -> list[Placed]:
        now, placed, records = self._now(), [], []
        for each in wanted:
            known = held.get(each.key)
            version = (known.version if known else 0) + 1
            definition = each.definition and _signed(each.definition, version, by, reason, now)
            digest = each.file_digest if each.file_digest is not None else (known.file_digest if known else "")
            change = Change(each.key, version, None, by, reason, now, digest)
            records.append((each.key.encode(), value_of(definition), headers_of(change)))
            placed.append(Placed(each.key, version, definition))
        if records:
            await self._send(records)
        return placed

    async def _send(self, records: Sequence[tuple[bytes, bytes | None, list[tuple[str, bytes]]]]) -> None:
        producer = AIOKafkaProducer(
            **self._connection, acks="all", enable_idempotence=self._idempotence, request_timeout_ms=10_000
        )
        try:
            await producer.start()
            sent = [
                await producer.send(BUDGETS, value, key=key, partition=self._partition(key), headers=headers)
                for key, value, headers in records
            ]
            await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise RetryableError(f"the broker did not take the definitions: {error!r}", _RETRY_AFTER_S) from error
        finally:
            await producer.stop()

    def _partition(self, key: bytes) -> int:
        return int((murmur2(key) & 0x7FFFFFFF) % self._partitions)


def _check(held: Mapping[str, Standing], expected: Mapping[str, int]) -> None:
    for key, wanted in expected.items():
        each = held.get(key)
        found = each.version if each is not None and each.definition is not None else 0
        if found != wanted:
            raise ConflictError(key, wanted, found)


def _signed(definition: Definition, version: int, by: str, reason: str, now: int) -> Definition:
    """With its version, who, why and when, where its kind has room for them."""
    said = {"version": version, "changed_by": by, "reason": reason, "changed_at": now}
    known = {name: value for name, value in said.items() if name in definition.__struct_fields__}
    return msgspec.structs.replace(definition, **known)
