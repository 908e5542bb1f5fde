"""Reviews in PostgreSQL: what critical alerts lead to, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import asyncpg
import msgspec

from schemas.instants import to_datetime, to_micros
from schemas.readers import ALERTS
from streams.aftercare import Unreviewed
from streams.sinks.alert_records import unreviewed
from streams.sinks.postgres import storable

REVIEWS_MAX = 1_000
_OPEN = """
insert into reviews (review_id, dedup_key, episode, rule, severity, team_id, summary, owner, opened_at, due_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing
"""
_LIST = f"""
select * from reviews where ($1 or closed_at is null) and ($2 = '' or team_id = $2) and ($3 = '' or review_id = $3)
order by (closed_at is not null), due_at, review_id limit {REVIEWS_MAX}
"""
_COUNT = """
select count(*) filter (where due_at > $1) as due, count(*) filter (where due_at <= $1) as overdue
from reviews where closed_at is null
"""
_CLOSE = """
update reviews set outcome = $2, closed_by = $3, closed_at = $4 where review_id = $1 and closed_at is null
returning review_id
"""
_HAND_OVER = """
update reviews set owner = coalesce(nullif($2, ''), owner), due_at = coalesce($3, due_at)
where review_id = $1 and closed_at is null returning review_id
"""


class Reviewed(Protocol):
    """What is written of a review (``streams.core.alert_life.Review``); times are microseconds."""

    @property
    def review_id(self) -> str: ...
    @property
    def dedup_key(self) -> str: ...
    @property
    def episode(self) -> int: ...
    @property
    def rule(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def team_id(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def opened_at(self) -> int: ...
    @property
    def due_at(self) -> int: ...


async def open_reviews(connection: asyncpg.Connection | asyncpg.Pool, reviews: Sequence[Reviewed]) -> None:
    """Write those that are not there yet; one that is there stays as it is."""
    rows = [
        (
            each.review_id, storable(each.dedup_key), each.episode, each.rule, each.severity, storable(each.team_id),
            storable(each.summary), storable(each.owner), to_datetime(each.opened_at), to_datetime(each.due_at),
        )
        for each in reviews
    ]  # fmt: skip
    await connection.executemany(_OPEN, rows)


async def list_reviews(
    connection: asyncpg.Connection | asyncpg.Pool, *, team: str = "", closed: bool = False, review_id: str = ""
) -> list[Mapping[str, Any]]:
    """Open ones, the first due first; with ``closed`` also those that are done."""
    return list(await connection.fetch(_LIST, closed or bool(review_id), team, review_id))


async def count_reviews(connection: asyncpg.Connection | asyncpg.Pool, now: int) -> dict[str, int]:
    """Open ones by state: ``due`` and ``overdue``."""
    row = await connection.fetchrow(_COUNT, to_datetime(now))
    return {"due": row["due"], "overdue": row["overdue"]}


async def close_review(
    connection: asyncpg.Connection | asyncpg.Pool, review_id: str, outcome: str, by: str, now: int
) -> bool:
    """Say what came of it; False where there is none that is open."""
    found = await connection.fetchval(_CLOSE, review_id, storable(outcome), storable(by), to_datetime(now))
    return found is not None


async def hand_over(
    connection: asyncpg.Connection | asyncpg.Pool, review_id: str, owner: str, due_at: int | None
) -> bool:
    """Another owner (empty: the same), another day (None: the same); False where there is none that is open."""
    due = None if due_at is None else to_datetime(due_at)
    return await connection.fetchval(_HAND_OVER, review_id, storable(owner), due) is not None


class PostgresReviews:
    """Implements ``streams.aftercare.Reviews``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def unreviewed(self, since: int, limit: int) -> Sequence[Unreviewed]:
        """Episodes that were critical at some time after ``since`` and have no review, as they were at their worst."""
        found = []
        for row in await unreviewed(self._pool, since, limit):
            now = ALERTS.decode(row["body_text"].encode())
            then = {name: row[name] for name in ("episode", "severity", "summary")}
            found.append(Unreviewed(msgspec.structs.replace(now, **then), to_micros(row["recorded_at"])))
        return found

    async def open(self, reviews: Sequence[Reviewed]) -> None:
        """Write those that are not there yet."""
        await open_reviews(self._pool, reviews)
