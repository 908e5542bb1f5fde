"""The outbox in PostgreSQL: alerts as they stand, and the messages owed to receivers.

A message's id is derived from what it says, so a repeated statement owes nothing new. What is sent is
recorded before (owed, leased) and after (sent), so a crash neither loses a message nor sends it under
another name.
"""

from collections.abc import Sequence

import asyncpg
import msgspec

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import parse_instant, to_datetime
from schemas.readers import ALERTS
from streams.ports import Delivery
from streams.sinks.postgres import storable, with_retries

_RANK = "case {0} when 'opened' then 0 when 'updated' then 1 else 2 end"
_UPSERT_ALERT = f"""
insert into alerts as old (dedup_key, episode, status, rule, severity, tier, scope_type, scope_id, team_id,
    feature, summary, occurred_at, opened_at, stated_at, resolved_at, historic, body)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, $16)
on conflict (dedup_key) do update set episode = excluded.episode, status = excluded.status,
    severity = excluded.severity, tier = excluded.tier, summary = excluded.summary,
    occurred_at = excluded.occurred_at, stated_at = excluded.stated_at, resolved_at = excluded.resolved_at,
    opened_at = case when excluded.episode > old.episode then excluded.opened_at else old.opened_at end,
    historic = excluded.historic, body = excluded.body
where (excluded.episode, {_RANK.format("excluded.status")}, excluded.stated_at)
    >= (old.episode, {_RANK.format("old.status")}, old.stated_at)
"""
#: Two updates of one episode both count: clocks of workers differ, and their ids tell them apart.
_IS_OVERTAKEN = f"""
select (episode, {_RANK.format("status")}) > ($2, {_RANK.format("$3::text")}) from alerts where dedup_key = $1
"""
_OWE = """
insert into outbox (notification_id, dedup_key, receiver, body) values ($1, $2, $3, $4)
on conflict (notification_id) do nothing
"""
#: Of one alert only the oldest owed message to a receiver is due: a resolve never overtakes its trigger.
_LEASE = """
with due as materialized (
    select o.notification_id from outbox o
    where o.state = 'owed' and o.due_at <= now() and (o.leased_until is null or o.leased_until < now())
        and not exists (
            select 1 from outbox earlier
            where earlier.dedup_key = o.dedup_key and earlier.receiver = o.receiver
                and earlier.state = 'owed' and earlier.position < o.position)
    order by o.position limit $1 for update skip locked)
update outbox set leased_until = now() + make_interval(secs => $2), attempts = attempts + 1
from due where outbox.notification_id = due.notification_id
returning outbox.notification_id, receiver, body, attempts, position
"""
_SENT = """
update outbox set state = 'sent', sent_at = now(), receipt = $2, leased_until = null, last_error = null
where notification_id = $1
"""
_FAILED = """
update outbox set last_error = $2, leased_until = null,
    state = case when $3::float8 is null then 'given_up' else 'owed' end,
    due_at = now() + make_interval(secs => coalesce($3::float8, 0))
where notification_id = $1 and state = 'owed'
"""


class PostgresOutbox:
    """Implements ``streams.ports.Outbox``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def record(self, alerts: Sequence[tuple[Alert, Sequence[str]]]) -> None:
        """Store each alert and owe a message to each named receiver, in one transaction."""

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                for alert, receivers in alerts:
                    await _record(connection, alert, receivers)

        if alerts:
            await with_retries(attempt)

    async def lease(self, limit: int, lease_s: float) -> Sequence[Delivery]:
        """Take up to ``limit`` due messages; a lease that runs out makes its message due again."""

        async def attempt() -> list[asyncpg.Record]:
            return await self._pool.fetch(_LEASE, limit, lease_s)

        rows = sorted(await with_retries(attempt), key=lambda row: row["position"])
        return [
            Delivery(
                notification_id=row["notification_id"],
                receiver=row["receiver"],
                alert=ALERTS.convert(row["body"]),
                attempts=row["attempts"] - 1,
            )
            for row in rows
        ]

    async def sent(self, notification_id: str, receipt: str) -> None:
        """The receiver took it."""
        await with_retries(lambda: self._pool.execute(_SENT, notification_id, storable(receipt[:1000])))

    async def failed(self, notification_id: str, error: str, retry_in_s: float | None) -> None:
        """The receiver did not take it; None gives up. What another worker has sent meanwhile stays sent."""
        await with_retries(lambda: self._pool.execute(_FAILED, notification_id, storable(error[:2000]), retry_in_s))


async def _record(connection: asyncpg.Connection, alert: Alert, receivers: Sequence[str]) -> None:
    body = msgspec.to_builtins(alert)
    stated = to_datetime(parse_instant(alert.stated_at))
    await connection.execute(
        _UPSERT_ALERT,
        storable(alert.dedup_key),
        alert.episode,
        alert.status,
        alert.rule,
        alert.severity,
        alert.tier,
        alert.scope_type,
        storable(alert.scope_id),
        storable(alert.team_id),
        storable(alert.feature),
        storable(alert.summary),
        to_datetime(parse_instant(alert.occurred_at)),
        stated,
        stated if alert.status == "resolved" else None,
        alert.historic,
        body,
    )
    if await connection.fetchval(_IS_OVERTAKEN, storable(alert.dedup_key), alert.episode, alert.status):
        # Somebody who was overtaken said it late. What is resolved must not be opened again at a receiver.
        return
    for receiver in receivers:
        # The alert's own id tells several updates of one episode apart.
        owed = keys.digest("notification", alert.alert_id, receiver)
        await connection.execute(_OWE, owed, storable(alert.dedup_key), receiver, body)
