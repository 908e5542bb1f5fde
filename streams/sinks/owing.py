"""Owing messages: what a group says, a report or a fallback's copy becomes rows of the outbox, each once.

All of these work in the caller's transaction: what is owed is owed together with what led to it.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from schemas.readers import ALERTS
from schemas.versions import UnknownVersionError
from streams.core.notifying import Notification
from streams.sinks.postgres import storable

#: The layout of ``outbox.body``.
VERSION = 1
_OWE = """
insert into outbox (notification_id, receiver, body, thread_key, group_key, action, reason, copy_of, urgency)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (notification_id) do nothing returning 1
"""
_NAME = """
insert into outbox_alerts (dedup_key, notification_id) select key, $2 from unnest($1::text[]) key
on conflict do nothing
"""
#: What nobody has been sent yet and the next message of the thread says as well, since each says how all stands. A
#: message of another kind in between keeps what came before it: an incident that ended is not the next one.
_SUPERSEDE = """
update outbox set state = 'superseded'
where receiver = $1 and thread_key = $2 and state = 'owed' and attempts = 0 and action = 'trigger'
    and copy_of is null and position > coalesce((
        select max(other.position) from outbox other
        where other.receiver = $1 and other.thread_key = $2 and other.action <> 'trigger'), 0)
returning reason
"""
_IS_OWED = "select exists(select 1 from outbox where notification_id = $1)"
#: In the order in which everybody locks groups.
_WAKE = """
with woken as materialized (
    select group_key from notify_groups
    where group_key in (select group_key from notify_members where {0}) order by group_key for update)
update notify_groups set due_at = least(due_at, now()) from woken where notify_groups.group_key = woken.group_key
"""
_WAKE_SOME, _WAKE_ALL = _WAKE.format("dedup_key = any($1::text[])"), _WAKE.format("true")
_OF_THREAD = """
select dedup_key from outbox_alerts where notification_id = (
    select notification_id from outbox where thread_key = $1 and action <> 'tell' order by position desc limit 1)
order by dedup_key
"""


async def owe(
    connection: asyncpg.Connection,
    notifications: Sequence[Notification],
    group_key: str = "",
    *,
    copy_of: str | None = None,
) -> None:
    """Owe each of them once, whatever happened to it since; what they make needless is not sent."""
    for said in notifications:
        if await connection.fetchval(_IS_OWED, said.notification_id):
            continue
        thread_key = storable(said.thread_key) or said.notification_id
        if said.action == "trigger" and copy_of is None:
            reasons = {row["reason"] for row in await connection.fetch(_SUPERSEDE, said.receiver, thread_key)}
            # The first word of an incident stays the first, though it is said with later figures.
            if first := next((reason for reason in ("opened", "escalated") if reason in reasons), None):
                said = msgspec.structs.replace(said, reason=first)
        body, alerts = stored(said), [storable(alert.dedup_key) for alert in said.alerts]
        await connection.execute(
            _OWE, said.notification_id, said.receiver, body, thread_key, group_key, said.action, said.reason, copy_of,
            _urgency(said),
        )  # fmt: skip
        await connection.execute(_NAME, alerts, said.notification_id)


async def wake(connection: asyncpg.Connection | asyncpg.Pool, dedup_keys: Sequence[str]) -> None:
    """Let the groups of these alerts look again whether they have something to say: somebody has one in hand."""
    await connection.execute(_WAKE_SOME, [storable(key) for key in dedup_keys])


async def wake_all(connection: asyncpg.Connection | asyncpg.Pool) -> None:
    """Let every group look again: a silence began or ended."""
    await connection.execute(_WAKE_ALL)


async def alerts_of_thread(connection: asyncpg.Connection | asyncpg.Pool, thread_key: str) -> tuple[str, ...]:
    """The dedup keys of the alerts in the newest message of a thread; PagerDuty names its incidents by it."""
    return tuple(row["dedup_key"] for row in await connection.fetch(_OF_THREAD, storable(thread_key)))


def stored(said: Notification) -> dict[str, Any]:
    """A notification as ``outbox.body`` keeps it."""
    return {"v": VERSION, **msgspec.to_builtins(said)}


def restored(body: dict[str, Any]) -> Notification:
    """What ``outbox.body`` says.

    Raises:
        UnknownVersionError: a newer release wrote it, or an alert in it.
    """
    version = body.get("v", VERSION)
    if version != VERSION:
        raise UnknownVersionError(
            f"a notification of version {version}, and this release reads {VERSION}: run the release that wrote it"
        )
    alerts = tuple(ALERTS.convert(alert) for alert in body["alerts"])
    return msgspec.structs.replace(msgspec.convert({**body, "alerts": ()}, Notification), alerts=alerts)


def _urgency(said: Notification) -> int:
    """What wakes somebody goes first where not everything can be sent at once."""
    if said.action == "trigger" and any(alert.tier == "page" and alert.status != "resolved" for alert in said.alerts):
        return 1
    return 0
