"""Owing messages: what a group says, a report or a fallback's copy becomes rows of the outbox, each once.

All of these work in the caller's transaction: what is owed is owed together with what led to it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import msgspec

from schemas.readers import ALERTS
from schemas.versions import UnknownVersionError
from streams.core.notifying import Notification, Reason
from streams.sinks.postgres import storable

#: The layout of ``outbox.body``.
VERSION = 1
_OWE = """
insert into outbox (notification_id, receiver, body, thread_key, group_key, action, reason, copy_of, urgency, queued_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, now())) on conflict (notification_id) do nothing
"""
_NAME = """
insert into outbox_alerts (dedup_key, notification_id) select * from unnest($1::text[], $2::text[])
on conflict do nothing
"""
#: What nobody has been sent yet and the next message of the thread says as well, since each says how all stands; the
#: end of an incident makes its updates needless, not its first word. A message of another kind in between keeps what
#: came before it: an incident that ended is not the next one.
_SUPERSEDE = """
update outbox set state = 'superseded' from unnest($1::text[], $2::text[], $3::bool[]) next (receiver, thread_key, ends)
where outbox.receiver = next.receiver and outbox.thread_key = next.thread_key
    and state = 'owed' and attempts = 0 and action = 'trigger' and copy_of is null
    and not (next.ends and reason = any($4::text[])) and position > coalesce((
        select max(other.position) from outbox other
        where other.receiver = next.receiver and other.thread_key = next.thread_key and other.action <> 'trigger'), 0)
returning outbox.receiver, outbox.thread_key, reason, queued_at
"""
#: The first word of an incident stays the first, though with later figures, and keeps its place in the queue.
FIRST_WORDS = ("opened", "escalated")
_OWED = "select notification_id from outbox where notification_id = any($1::text[])"
#: In the order in which everybody locks groups.
_WAKE = """
with woken as materialized (
    select group_key from notify_groups
    where group_key in (select group_key from notify_members where {0}) order by group_key for update)
update notify_groups set due_at = least(due_at, now()) from woken where notify_groups.group_key = woken.group_key
"""
_WAKE_SOME, _WAKE_ALL = _WAKE.format("dedup_key = any($1::text[])"), _WAKE.format("true")
_OF_THREAD = """
select body, group_key, receiver from outbox where thread_key = $1 and action <> 'tell' order by position desc limit 1
"""
_KNOWN = "select body->'firing' from notify_told where group_key = $1 and receiver = $2"


class Owed(NamedTuple):
    """A message to be owed, and what leads to it."""

    said: Notification
    group_key: str = ""
    #: Of which alerts it says something new; None: of all of its alerts.
    alerts: Sequence[str] | None = None
    #: The message that this one is the fallback's copy of.
    copy_of: str | None = None


async def owe(connection: asyncpg.Connection, notifications: Sequence[Notification], group_key: str = "") -> None:
    """Owe each of them once, whatever happened to it since; what they make needless is not sent."""
    await owe_all(connection, [Owed(said, group_key) for said in notifications])


async def owe_all(connection: asyncpg.Connection, wanted: Sequence[Owed]) -> None:
    """The same for messages of many groups, in a few statements for all of them."""
    ids = [one.said.notification_id for one in wanted]
    known = {row["notification_id"] for row in await connection.fetch(_OWED, ids)} if ids else set()
    new = {one.said.notification_id: one for one in wanted if one.said.notification_id not in known}
    if not new:
        return
    firsts: dict[tuple[str, str], Owed] = {}
    for one in new.values():
        firsts.setdefault((one.said.receiver, _thread_of(one.said)), one)
    queued = await _supersede(connection, [one for one in firsts.values() if one.copy_of is None])
    rows, names = [], []
    for ident, one in new.items():
        said, since = one.said, None
        if ident in queued:
            reason, since = queued[ident]
            said = msgspec.structs.replace(said, reason=reason or said.reason)
        rows.append(
            (
                ident, said.receiver, stored(said), _thread_of(said), one.group_key, said.action, said.reason,
                one.copy_of, _urgency(said), since,
            )
        )  # fmt: skip
        alerts = one.alerts if one.alerts is not None else [alert.dedup_key for alert in said.alerts]
        names += [(storable(key), ident) for key in dict.fromkeys(alerts)]
    await connection.executemany(_OWE, rows)
    await connection.execute(_NAME, [key for key, _ in names], [ident for _, ident in names])


async def _supersede(
    connection: asyncpg.Connection, nexts: Sequence[Owed]
) -> dict[str, tuple[Reason | None, datetime]]:
    """Take back what these make needless; of each that takes the place of others: as what, and since when."""
    says = {
        (one.said.receiver, _thread_of(one.said)): one.said
        for one in nexts
        if one.said.action in ("trigger", "resolve")
    }
    columns = ([name for name, _ in says], [thread for _, thread in says])
    ends = [said.action == "resolve" for said in says.values()]
    found: dict[str, tuple[Reason | None, datetime]] = {}
    for row in await connection.fetch(_SUPERSEDE, *columns, ends, FIRST_WORDS) if says else ():
        said = says[row["receiver"], row["thread_key"]]
        if said.action == "trigger":
            first, since = found.get(said.notification_id, (None, row["queued_at"]))
            is_first = row["reason"] in FIRST_WORDS
            found[said.notification_id] = (row["reason"] if is_first else first, min(since, row["queued_at"]))
    return found


def _thread_of(said: Notification) -> str:
    return storable(said.thread_key) or said.notification_id


async def wake(connection: asyncpg.Connection | asyncpg.Pool, dedup_keys: Sequence[str]) -> None:
    """Let the groups of these alerts look again whether they have something to say: somebody has one in hand."""
    await connection.execute(_WAKE_SOME, [storable(key) for key in dedup_keys])


async def wake_all(connection: asyncpg.Connection | asyncpg.Pool) -> None:
    """Let every group look again: a silence began or ended."""
    await connection.execute(_WAKE_ALL)


async def alerts_of_thread(connection: asyncpg.Connection | asyncpg.Pool, thread_key: str) -> tuple[str, ...]:
    """The dedup keys of the alerts in the newest message of a thread, named or held back; PagerDuty names its
    incidents by it."""
    row = await connection.fetchrow(_OF_THREAD, storable(thread_key))
    if row is None:
        return ()
    found = {alert["dedup_key"] for alert in row["body"]["alerts"]}
    if row["body"].get("held_back"):
        found.update(await connection.fetchval(_KNOWN, row["group_key"], row["receiver"]) or ())
    return tuple(sorted(found))


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
    """What goes first where not everything can be sent at once: incidents that nobody knows of, then those over."""
    if said.action == "resolve":
        return 1
    return 2 if said.reason in FIRST_WORDS else 0
