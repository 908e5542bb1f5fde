"""PostgreSQL: migrations and the connection pool."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

MIGRATIONS = Path(__file__).parent / "migrations"
#: One lock for all migrators of a database, so that workers may start together.
_LOCK = 7_165_001
_RETRIES = 6
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

Result = TypeVar("Result")

#: Failures that trying again can mend: the statement had no effect, or its transaction was rolled back.
TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    # Too many connections, a full disk: somebody may mend it while we wait.
    asyncpg.InsufficientResourcesError,
    # A failover leaves connections to what is now the replica.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    asyncpg.InterfaceError,
    ConnectionError,
    TimeoutError,
    OSError,
)


class MigrationError(Exception):
    """The database cannot be brought to this version; the message says what to do."""


def migration_files() -> list[tuple[int, str, str]]:
    """``(number, name, SQL)`` of every migration, in order."""
    found = []
    for path in sorted(MIGRATIONS.glob("[0-9]*.sql")):
        found.append((int(path.name.split("_")[0]), path.stem, path.read_text()))
    return found


async def migrate(url: str) -> list[str]:
    """Bring the database to this version and return the names of the migrations applied.

    Raises:
        MigrationError: an applied migration was changed, or the database is newer than this code.
    """

    async def attempt() -> list[str]:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute("select pg_advisory_lock($1)", _LOCK)
            return await _migrate(connection)
        finally:
            await connection.close()

    return await with_retries(attempt)


async def _migrate(connection: asyncpg.Connection) -> list[str]:
    await connection.execute(
        "create table if not exists schema_migrations"
        " (number integer primary key, name text not null, sha256 text not null,"
        " applied_at timestamptz not null default now())"
    )
    applied = {row["number"]: row for row in await connection.fetch("select * from schema_migrations")}
    known = migration_files()
    newest = max(number for number, _, _ in known)
    if applied and max(applied) > newest:
        raise MigrationError(
            f"the database is at migration {max(applied)} and this version knows {newest}: run the newer version"
        )
    done = []
    for number, name, sql in known:
        checksum = sha256(sql.encode()).hexdigest()
        if number in applied:
            if applied[number]["sha256"] != checksum:
                raise MigrationError(
                    f"migration {name} was applied with other content:"
                    " an applied migration must not be edited;"
                    " restore the file, or recreate the database"
                )
            continue
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute(
                "insert into schema_migrations (number, name, sha256) values ($1, $2, $3)",
                number,
                name,
                checksum,
            )
        done.append(name)
    return done


async def open_pool(url: str, *, size_min: int = 1, size_max: int = 8) -> asyncpg.Pool:
    """A pool whose connections read and write jsonb as Python values."""
    return await asyncpg.create_pool(
        url, min_size=size_min, max_size=size_max, init=_set_codecs, command_timeout=60, timeout=10
    )


async def _set_codecs(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=_to_json, decoder=json.loads, schema="pg_catalog")


def storable(text: str) -> str:
    """PostgreSQL's text holds everything but NUL; the replacement character stands in, visibly.

    >>> storable("a" + chr(0) + "b") == "a" + chr(0xFFFD) + "b", storable("a")
    (True, 'a')
    """
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _to_json(value: Any) -> str:
    text = json.dumps(value)
    # An escaped NUL is one after an even number of backslashes; jsonb holds none either.
    return _ESCAPED_NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


async def with_retries(attempt: Callable[[], Awaitable[Result]], retries: int = _RETRIES) -> Result:
    """Run ``attempt`` again while it fails in a way that passes, for some 15 s; then let the failure through.

    ``attempt`` must be a whole transaction, or a statement whose repetition changes nothing.
    """
    for round_number in range(retries):
        try:
            return await attempt()
        except TRANSIENT:
            await asyncio.sleep(min(0.25 * 2**round_number, 10.0))
    return await attempt()
