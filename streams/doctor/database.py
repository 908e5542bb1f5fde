"""Facts about the ledger's database: whether it answers, which migrations it has, how far it is. Reads only."""

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg

from streams.core.facts import SchemaFact
from streams.sinks.postgres import migration_files

CONNECT_TIMEOUT_S = 5.0


class LedgerFact(NamedTuple):
    """How far the ledger is: ``{slot: next offset}``, and how long ago it heard of METER."""

    offsets: Mapping[str, int]
    silent_s: float | None


def place_of(url: str) -> str:
    """The database's address without its password.

    >>> place_of("postgresql://sluice:secret@db:5432/ledger")
    'PostgreSQL at db:5432/ledger'
    """
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"PostgreSQL at {parts.hostname or 'a socket'}{port}{parts.path}"


async def connect(url: str) -> asyncpg.Connection:
    """A connection of its own, soon or not at all."""
    return await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, command_timeout=10)


def problem_of(error: BaseException) -> str:
    """Why a connection failed, in words."""
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return f"refuses the login: {error}"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"has no such database: {error}"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections: nothing listens there"
    if isinstance(error, TimeoutError):
        return f"does not answer within {CONNECT_TIMEOUT_S:g} s"
    return f"does not do as asked: {str(error) or repr(error)}"


async def schema(connection: asyncpg.Connection) -> SchemaFact:
    """The migrations against those of this version."""
    known = {number: (name, sha256(sql.encode()).hexdigest()) for number, name, sql in migration_files()}
    has_any = await connection.fetchval("select to_regclass('schema_migrations') is not null")
    rows = await connection.fetch("select number, sha256 from schema_migrations") if has_any else []
    applied = {row["number"]: row["sha256"] for row in rows}
    newest = max(applied, default=0)
    return SchemaFact(
        tuple(name for number, (name, _) in known.items() if number not in applied),
        tuple(name for number, (name, sum_) in known.items() if applied.get(number, sum_) != sum_),
        newest if newest > max(known) else None,
    )


async def ledger(connection: asyncpg.Connection) -> LedgerFact:
    """The watermarks. The schema must be there."""
    rows = await connection.fetch("select slot, next_offset from ledger_sources")
    silent = await connection.fetchval(
        "select extract(epoch from clock_timestamp() - max(updated_at))::float8 from ledger_sources"
    )
    return LedgerFact({row["slot"]: row["next_offset"] for row in rows}, silent)
