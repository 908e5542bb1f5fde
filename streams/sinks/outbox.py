"""The outbox in PostgreSQL: alerts as they stand, and the messages owed to receivers.

A message's id is derived from what it says, so a repeated statement owes nothing new. What is sent is
recorded before (owed, leased) and after (sent), so a crash neither loses a message nor sends it under
another name.
"""

from collections.abc import Callable, Sequence

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
insert into outbox (notification_id, dedup_key, receiver, body, due_at)
values ($1, $2, $3, $4, now() + make_interval(secs => $5)) on conflict (notification_id) do nothing
"""
#: Budgets that page are recorded one after the other, or two that belong together would not see each other.
_ONE_BY_ONE = "select pg_advisory_xact_lock(hashtext('sluice budget pages'))"
_TOLD_AS = "select tier from alerts where dedup_key = $1 and episode = $2"
_IS_ANCESTOR_PAGING = """
select exists(select 1 from alerts where scope_type = 'budget' and scope_id = any($1::text[]) and tier = 'page'
    and status <> 'resolved' and not historic and rule = 'budget_threshold')
"""
#: What a budget above makes needless: pages of the budgets below it that nobody was sent yet.
_NEEDLESS = """
select a.body, o.notification_id from alerts a join outbox o on o.dedup_key = a.dedup_key
where a.scope_type = 'budget' and a.tier = 'page' and a.status <> 'resolved' and a.body->'ancestors' ? $1
    and o.state = 'owed' and o.attempts = 0 and not exists (
        select 1 from outbox sent where sent.dedup_key = a.dedup_key and (sent.state = 'sent' or sent.attempts > 0))
for update of o
"""
#: A page of a budget that has others above it waits for so long, since one overspend crosses them all at once.
GRACE_S = 2.0
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

    async def record(
        self, alerts: Sequence[tuple[Alert, Sequence[str]]], quieter: Callable[[Alert], Sequence[str]] | None = None
    ) -> None:
        """Store each alert and owe a message to each named receiver, in one transaction.

        One overspend is one page: a budget's page is a ticket while one of its ancestors pages, for the whole of its
        episode; and where the ancestor comes second, within the grace, the budget's page is taken back.
        """

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                for alert, receivers in alerts:
                    if quieter is not None and _may_page(alert):
                        alert, receivers = await _inhibited(connection, alert, receivers, quieter)
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


def _may_page(alert: Alert) -> bool:
    return alert.tier == "page" and alert.scope_type == "budget" and not alert.historic


async def _inhibited(
    connection: asyncpg.Connection,
    alert: Alert,
    receivers: Sequence[str],
    quieter: Callable[[Alert], Sequence[str]],
) -> tuple[Alert, Sequence[str]]:
    """The alert as it may be told, after those below it were made quiet."""
    await connection.execute(_ONE_BY_ONE)
    told_as = await connection.fetchval(_TOLD_AS, storable(alert.dedup_key), alert.episode)
    if told_as is None and alert.ancestors:
        above = [storable(name) for name in alert.ancestors]
        told_as = "ticket" if await connection.fetchval(_IS_ANCESTOR_PAGING, above) else None
    if told_as not in (None, "page"):
        ticket = msgspec.structs.replace(alert, tier=told_as)
        return ticket, quieter(ticket)
    if alert.status == "opened":
        await _quieten(connection, alert.scope_id, quieter)
    return alert, receivers


async def _quieten(connection: asyncpg.Connection, scope_id: str, quieter: Callable[[Alert], Sequence[str]]) -> None:
    below: dict[str, Alert] = {}
    for row in await connection.fetch(_NEEDLESS, storable(scope_id)):
        await connection.execute("delete from outbox where notification_id = $1", row["notification_id"])
        found = ALERTS.convert(row["body"])
        below[found.dedup_key] = msgspec.structs.replace(found, tier="ticket")
    for ticket in below.values():
        await _record(connection, ticket, quieter(ticket))


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
        waits = GRACE_S if _may_page(alert) and alert.ancestors and alert.status == "opened" else 0.0
        await connection.execute(_OWE, owed, storable(alert.dedup_key), receiver, body, waits)
