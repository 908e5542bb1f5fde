"""Alerts as NOTIFY would have stored them, and messages about them, for tests of what people do with alerts."""

from typing import Any

import asyncpg
import msgspec

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import format_instant, parse_instant, to_datetime
from streams.core.notifying import Notification
from streams.sinks.owing import owe
from tests.integration.api_parts import NOW

KEY = "v1:budget_threshold:budget:search-daily:2026-11-21T00:00:00Z:100"
_UPSERT = """
insert into alerts as old (dedup_key, episode, status, rule, severity, tier, scope_type, scope_id, team_id, feature,
    summary, occurred_at, opened_at, stated_at, resolved_at, historic, body)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $12, $13, $14, $15)
on conflict (dedup_key) do update set episode = excluded.episode, status = excluded.status,
    severity = excluded.severity, tier = excluded.tier, summary = excluded.summary, stated_at = excluded.stated_at,
    resolved_at = excluded.resolved_at, body = excluded.body,
    opened_at = case when excluded.episode > old.episode then excluded.opened_at else old.opened_at end
"""


def alert(
    status: str = "opened", *, key: str = KEY, episode: int = 1, at: int = NOW, step: int = 0, **said: Any
) -> Alert:
    """One statement about an alert."""
    usual: dict[str, Any] = {
        "severity": "emergency", "tier": "page", "rule": "budget_threshold", "scope_type": "budget",
        "scope_id": "search-daily", "team_id": "search", "summary": "Budget search-daily is used up: $50.20 of $50.00",
    }  # fmt: skip
    return Alert(
        alert_id=keys.alert_id(key, episode, status, step), dedup_key=key, episode=episode, status=status,
        occurred_at=format_instant(at), stated_at=format_instant(at), **(usual | said),
    )  # fmt: skip


async def put(pool: asyncpg.Pool, said: Alert) -> None:
    """Store a statement, as it is stored where it comes from the topic."""
    at = to_datetime(parse_instant(said.stated_at))
    await pool.execute(
        _UPSERT, said.dedup_key, said.episode, said.status, said.rule, said.severity, said.tier, said.scope_type,
        said.scope_id, said.team_id, said.feature, said.summary, at, at if said.status == "resolved" else None,
        said.historic, msgspec.to_builtins(said),
    )  # fmt: skip
    # History is by the database's clock, and the tests' clock stands still.
    await pool.execute("update alert_history set recorded_at = stated_at where dedup_key = $1", said.dedup_key)


async def tell(pool: asyncpg.Pool, said: Alert, receiver: str, thread_key: str = "", *others: Alert) -> str:
    """Owe a message about an alert, and others of its group; its id."""
    name = keys.digest(said.alert_id, receiver, thread_key)
    message = Notification(
        notification_id=name, receiver=receiver, thread_key=thread_key or said.dedup_key, action="trigger",
        reason="opened", alerts=(said, *others),
    )  # fmt: skip
    async with pool.acquire() as connection, connection.transaction():
        await owe(connection, [message])
    return name
