"""API keys: ``slk_<id>_<secret>``, of which only a SHA-256 digest is kept.

The secret has 192 random bits, so a plain digest can't be reversed and needs no slow hash. What the database
said is remembered for ``REMEMBERED_S``: a request costs no query, and a revocation is seen within that time.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime

import asyncpg
import msgspec

from streams.clock import elapsed_s
from streams.ports import RetryableError

#: ``budgets:write`` defines budgets, limits and the like; ``approve`` is a team lead's, with the key bound to the team;
#: ``alerts:write`` acknowledges and silences alerts and closes reviews.
SCOPES = ("ingest", "read", "admin", "gateway", "budgets:write", "approve", "alerts:write")
REMEMBERED_S = 4.0
REMEMBERED_KEYS_MAX = 10_000

_SHAPE = re.compile(r"slk_([0-9a-f]{12})_[0-9a-f]{48}")


class KeyRequestError(ValueError):
    """A key that was asked for cannot be made; the message says why."""


class KeyInfo(msgspec.Struct, frozen=True):
    """Whose key it is and what it may do. ``team_id`` is empty unless the key is bound to a team."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    team_id: str = ""


class KeyRow(msgspec.Struct, frozen=True):
    """A key as ``sluice keys list`` shows it."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    team_id: str
    created_at: datetime
    revoked_at: datetime | None


class _Remembered(msgspec.Struct):
    """What the database said of one key id; ``info`` is None where it has no such live key."""

    info: KeyInfo | None
    key_hash: bytes
    until: float


class ApiKeys:
    """Creates, lists, revokes and verifies keys in the table ``api_keys``."""

    def __init__(self, pool: asyncpg.Pool, *, elapsed: Callable[[], float] = elapsed_s) -> None:
        self._pool = pool
        self._elapsed = elapsed
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._asking = asyncio.Lock()

    async def create(self, name: str, scopes: Iterable[str], team_id: str = "") -> str:
        """Make a key and return it: this is the only time that anybody can see it.

        Raises:
            KeyRequestError: no name, no scope, or a scope that does not exist.
        """
        wanted = sorted(set(scopes))
        unknown = [scope for scope in wanted if scope not in SCOPES]
        if unknown or not wanted:
            raise KeyRequestError(f"scopes are {', '.join(SCOPES)}; given: {', '.join(unknown) or 'none'}")
        if not name.strip():
            raise KeyRequestError("a key needs a name that says who uses it")
        key_id = secrets.token_hex(6)
        key = f"slk_{key_id}_{secrets.token_hex(24)}"
        await self._pool.execute(
            "insert into api_keys (key_id, name, key_hash, scopes, team_id) values ($1, $2, $3, $4, $5)",
            key_id,
            name.strip(),
            _digest(key),
            wanted,
            team_id,
        )
        self._remembered.pop(key_id, None)
        return key

    async def list(self) -> list[KeyRow]:
        """All keys, revoked ones too, oldest first; never their secrets."""
        rows = await self._pool.fetch(
            "select key_id, name, scopes, team_id, created_at, revoked_at from api_keys order by created_at, key_id"
        )
        return [
            KeyRow(
                key_id=row["key_id"],
                name=row["name"],
                scopes=tuple(row["scopes"]),
                team_id=row["team_id"],
                created_at=row["created_at"],
                revoked_at=row["revoked_at"],
            )
            for row in rows
        ]

    async def revoke(self, key_id: str) -> bool:
        """End a key; every process sees it within ``REMEMBERED_S``. False where no live key has this id."""
        done: str = await self._pool.execute(
            "update api_keys set revoked_at = now() where key_id = $1 and revoked_at is null", key_id
        )
        self._remembered.pop(key_id, None)
        return done == "UPDATE 1"

    async def find(self, presented: str) -> KeyInfo | None:
        """Whose key this is, or None where it is malformed, unknown, wrong or revoked.

        Raises:
            RetryableError: the database cannot be asked.
        """
        shape = _SHAPE.fullmatch(presented)
        if shape is None:
            return None
        key_id = shape.group(1)
        known = self._remembered.get(key_id)
        if known is None or known.until <= self._elapsed():
            known = await self._ask(key_id)
        # Compared even where the key is unknown, so that the time taken says nothing.
        matches = hmac.compare_digest(known.key_hash, _digest(presented))
        return known.info if matches else None

    async def verify(self, presented: str, scope: str) -> KeyInfo | None:
        """Whose key this is if it may do ``scope``; else None.

        Raises:
            RetryableError: the database cannot be asked.
        """
        info = await self.find(presented)
        return info if info is not None and scope in info.scopes else None

    async def _ask(self, key_id: str) -> _Remembered:
        async with self._asking:
            known = self._remembered.get(key_id)
            if known is not None and known.until > self._elapsed():
                return known
            asked_at = self._elapsed()
            try:
                row = await self._pool.fetchrow(
                    "select name, key_hash, scopes, team_id from api_keys where key_id = $1 and revoked_at is null",
                    key_id,
                )
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                raise RetryableError(f"the database with the API keys does not answer: {error!r}", 5.0) from error
            info = row and KeyInfo(key_id, row["name"], tuple(row["scopes"]), row["team_id"])
            known = _Remembered(info, row["key_hash"] if row else bytes(32), asked_at + REMEMBERED_S)
            self._remembered[key_id] = known
            while len(self._remembered) > REMEMBERED_KEYS_MAX:
                self._remembered.popitem(last=False)
            return known


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
