"""Alerts as they stand, and the groups that they are told in, in PostgreSQL.

A batch of statements and its offset are one transaction, and so is what a group says with what it has told by then: a
crash between any two steps leaves either all of one or nothing. A group's row is locked while it speaks, and groups are
locked in the order of their keys, so workers wait for each other but never in a circle.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from schemas.alerts import Alert
from schemas.instants import MINUTE, parse_instant, to_datetime, to_micros
from schemas.readers import ALERTS
from streams.core.notifying import Acknowledgement, Notification, Silence, Told
from streams.delivering import Batch, Decided, DueGroup, MemberRow, Placing, Round
from streams.sinks.owing import Owed, owe_all
from streams.sinks.postgres import storable, with_retries

LoadSilences = Callable[[asyncpg.Connection, int], Awaitable[Sequence[Silence]]]
LoadAcknowledgements = Callable[
    [asyncpg.Connection, Sequence[str]], Awaitable[Mapping[tuple[str, int], Acknowledgement]]
]

#: An alert that ended may silence others for a moment longer (``core.inhibition.LINGER_US``); more does no harm.
LINGER_US = MINUTE
#: A group that could not be decided is asked again.
AGAIN_S = 30.0
PLACED_AT_ONCE = 500

_RANK = "case {0} when 'opened' then 0 when 'updated' then 1 else 2 end"
#: What was overtaken changes nothing: (episode, status) orders the statements of an alert, whoever says them and when.
_UPSERT_ALERT = f"""
insert into alerts as old (dedup_key, episode, status, rule, severity, tier, scope_type, scope_id, team_id,
    feature, summary, occurred_at, opened_at, stated_at, resolved_at, historic, body, may_inhibit, ended_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, $16, $17,
    case $3 when 'resolved' then now() end)
on conflict (dedup_key) do update set episode = excluded.episode, status = excluded.status,
    severity = excluded.severity, tier = excluded.tier, summary = excluded.summary,
    occurred_at = excluded.occurred_at, stated_at = excluded.stated_at, resolved_at = excluded.resolved_at,
    opened_at = case when excluded.episode > old.episode then excluded.opened_at else old.opened_at end,
    episode_at = case when excluded.episode > old.episode then now() else old.episode_at end,
    ended_at = case when excluded.ended_at is not null and excluded.episode = old.episode
        then coalesce(old.ended_at, excluded.ended_at) else excluded.ended_at end,
    historic = excluded.historic, body = excluded.body, may_inhibit = excluded.may_inhibit
where (excluded.episode, {_RANK.format("excluded.status")}, excluded.stated_at)
    >= (old.episode, {_RANK.format("old.status")}, old.stated_at)
"""
_KNOW_SOURCE = "insert into notify_offsets (source, next_offset) values ($1, 0) on conflict do nothing"
_OFFSET = "select next_offset from notify_offsets where source = $1 for update"
_ADVANCE = "update notify_offsets set next_offset = greatest(next_offset, $2) where source = $1"
_STANDING = "select body::text as body from alerts where dedup_key = any($1::text[])"
_MEMBERSHIPS = """
select group_key, dedup_key, interval_us, departed from notify_members where dedup_key = any($1::text[])
"""
_NEW_GROUP = "insert into notify_groups (group_key, body) values ($1, $2) on conflict do nothing"
_LOCK_GROUPS = """
select group_key, due_at, flushed_at, now() as present from notify_groups where group_key = any($1::text[])
order by group_key for update
"""
_DUE_AT = "update notify_groups set due_at = $2 where group_key = $1"
_JOIN = """
insert into notify_members as old (group_key, dedup_key, receivers, interval_us) values ($1, $2, $3, $4)
on conflict (group_key, dedup_key) do update set receivers = excluded.receivers, interval_us = excluded.interval_us,
    departed = false
"""
_DEPART = "update notify_members set departed = true where group_key = $1 and dedup_key = $2"
_OPEN_ALERTS = """
select body::text as body from alerts where status <> 'resolved' and not historic and dedup_key > $1
order by dedup_key limit $2
"""
_MAY_INHIBIT = "update alerts set may_inhibit = $2 where dedup_key = $1 and may_inhibit <> $2"
#: What was told before there were groups: its end is told too, in the same thread.
_ADOPT = """
insert into notify_told (group_key, receiver, body, told_at)
select g.group_key, o.receiver, jsonb_build_object('receiver', o.receiver, 'at', o.at, 'incident', 1,
    'firing', jsonb_build_object(m.dedup_key, concat_ws(':', o.alert->>'episode', o.alert->>'severity',
        o.alert->>'alert_id')),
    'since', jsonb_build_object(m.dedup_key, o.at)), now()
from notify_members m join notify_groups g using (group_key)
cross join lateral (
    select distinct on (receiver) receiver, action, state, body->'alerts'->0 as alert,
        (extract(epoch from owed_at) * 1000000)::bigint as at
    from outbox where thread_key = m.dedup_key and group_key = '' and action <> 'tell' and copy_of is null
    order by receiver, position desc) o
where m.dedup_key = any($1::text[]) and g.body->>'thread' = m.dedup_key and o.action = 'trigger'
    and o.state in ('owed', 'sent')
on conflict do nothing
"""
_DUE_GROUPS = """
select group_key, body, now() as present from notify_groups where due_at <= now()
order by due_at limit $1 for update skip locked
"""
_MEMBERS = """
select m.group_key, m.receivers, m.departed, a.episode_at, a.body::text as body
from notify_members m join alerts a using (dedup_key) where m.group_key = any($1::text[])
order by m.group_key, m.dedup_key
"""
_TOLD = "select group_key, body from notify_told where group_key = any($1::text[]) order by receiver"
_SOURCES = """
select body::text as body, ended_at from alerts
where may_inhibit and not historic and (ended_at is null or ended_at > $1)
"""
_TELL = """
insert into notify_told (group_key, receiver, body, told_at) values ($1, $2, $3, $4)
on conflict (group_key, receiver) do update set body = excluded.body, told_at = excluded.told_at
"""
_FLUSHED = """
update notify_groups set due_at = $2, mutes = $3, flushed_at = case when $4 then now() end where group_key = $1
"""
#: Who has ended, or is elsewhere, and whom nobody knows to be firing.
_FORGET = "delete from notify_members where group_key = $1 and dedup_key = $2"
_AGAIN = "update notify_groups set due_at = now() + make_interval(secs => $2) where group_key = $1"


class PostgresGroups:
    """Implements ``streams.delivering.Groups``."""

    def __init__(
        self, pool: asyncpg.Pool, load_silences: LoadSilences, load_acknowledgements: LoadAcknowledgements
    ) -> None:
        self._pool = pool
        self._load_silences = load_silences
        self._load_acknowledgements = load_acknowledgements

    async def record(self, batch: Batch, placing: Placing) -> int:
        """Store the statements that are new, place their alerts, and write the offset."""

        async def attempt() -> int:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_KNOW_SOURCE, batch.source)
                begin = await connection.fetchval(_OFFSET, batch.source)
                new = [alert for offset, alert in batch.alerts if offset >= begin]
                await connection.executemany(_UPSERT_ALERT, [_row(each, placing.may_inhibit(each)) for each in new])
                names = sorted({storable(alert.dedup_key) for alert in new})
                # What an owner that was overtaken said is not what stands.
                standing = [ALERTS.decode(row["body"].encode()) for row in await connection.fetch(_STANDING, names)]
                await _place(connection, standing, placing)
                await connection.execute(_ADVANCE, batch.source, batch.end)
                return len(new)

        return await with_retries(attempt)

    async def place_again(self, placing: Placing) -> int:
        """Place every open alert as the routes have it now, a few hundred at a time."""
        last, count = "", 0
        while True:

            async def attempt(after: str = last) -> list[Alert]:
                async with self._pool.acquire() as connection, connection.transaction():
                    rows = await connection.fetch(_OPEN_ALERTS, after, PLACED_AT_ONCE)
                    found = [ALERTS.decode(row["body"].encode()) for row in rows]
                    marks = [(storable(each.dedup_key), placing.may_inhibit(each)) for each in found]
                    await connection.executemany(_MAY_INHIBIT, marks)
                    await _place(connection, found, placing)
                    await connection.execute(_ADOPT, [storable(each.dedup_key) for each in found])
                    return found

            placed = await with_retries(attempt)
            if not placed:
                return count
            last, count = storable(placed[-1].dedup_key), count + len(placed)

    async def flush(self, limit: int, decide: Callable[[Round], Mapping[str, Decided]]) -> Sequence[Notification]:
        """Let due groups speak."""

        async def attempt() -> list[Notification]:
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(_DUE_GROUPS, limit)
                if not rows:
                    return []
                found = await self._load(connection, rows)
                decided = decide(found)
                later = [(group.key, AGAIN_S) for group in found.groups if group.key not in decided]
                await connection.executemany(_AGAIN, later)
                words = [(group, decided[group.key]) for group in found.groups if group.key in decided]
                await _write(connection, words)
                return [said for _, word in words for said in word.notifications]

        return await with_retries(attempt)

    async def _load(self, connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> Round:
        names, now = [row["group_key"] for row in rows], to_micros(rows[0]["present"])
        members: dict[str, list[MemberRow]] = defaultdict(list)
        for row in await connection.fetch(_MEMBERS, names):
            alert = ALERTS.decode(row["body"].encode())
            since = to_micros(row["episode_at"])
            members[row["group_key"]].append(MemberRow(alert, since, tuple(row["receivers"]), row["departed"]))
        told: dict[str, list[Told]] = defaultdict(list)
        for row in await connection.fetch(_TOLD, names):
            told[row["group_key"]].append(msgspec.convert(row["body"], Told))
        everybody = [member for each in members.values() for member in each]
        keys = sorted({member.alert.dedup_key for member in everybody})
        hands = await self._load_acknowledgements(connection, keys)
        oldest = min([now - LINGER_US, *(member.since for member in everybody)])
        sources = [
            (ALERTS.decode(row["body"].encode()), None if row["ended_at"] is None else to_micros(row["ended_at"]))
            for row in await connection.fetch(_SOURCES, to_datetime(oldest))
        ]
        groups = [
            DueGroup(
                key=row["group_key"],
                body=row["body"],
                members=members[row["group_key"]],
                told=told[row["group_key"]],
                acknowledgements=_of(members[row["group_key"]], hands),
            )
            for row in rows
        ]
        return Round(groups, sources, await self._load_silences(connection, now), now)


def _of(members: Iterable[MemberRow], hands: Mapping[tuple[str, int], Acknowledgement]) -> tuple[Acknowledgement, ...]:
    names = {member.alert.dedup_key for member in members}
    return tuple(each for (key, _), each in hands.items() if key in names)


async def _write(connection: asyncpg.Connection, words: Sequence[tuple[DueGroup, Decided]]) -> None:
    """What the groups say, with what they have told by then."""
    said, told, over, flushed = [], [], [], []
    for group, word in words:
        before = {each.receiver: each.firing for each in group.told}
        after = {each.receiver: each.firing for each in word.told}
        said += [
            Owed(each, group.key, _news(each, before.get(each.receiver, {}), after.get(each.receiver, {})))
            for each in word.notifications
        ]
        told += [(group.key, each.receiver, msgspec.to_builtins(each), to_datetime(each.at)) for each in word.told]
        heard = {key for each in word.told for key in each.firing}
        for member in group.members:
            has_ended = member.departed or member.alert.status == "resolved"
            if has_ended and member.alert.dedup_key not in heard:
                over.append((group.key, storable(member.alert.dedup_key)))
        fires = any(not member.departed and member.alert.status != "resolved" for member in group.members)
        due = None if word.due is None else to_datetime(word.due)
        flushed.append((group.key, due, list(word.mutes), fires))
    await owe_all(connection, said)
    await connection.executemany(_TELL, told)
    await connection.executemany(_FORGET, over)
    await connection.executemany(_FLUSHED, flushed)


def _news(said: Notification, known: Mapping[str, str], after: Mapping[str, str]) -> list[str] | None:
    """The alerts that the receiver hears something new of, by name or as one of many; None where it is all said
    again."""
    changed = [
        alert.dedup_key
        for alert in said.alerts
        if alert.status == "resolved" or not known.get(alert.dedup_key, "").endswith(f":{alert.alert_id}")
    ]
    if said.held_back:
        named = {alert.dedup_key for alert in said.alerts}
        changed += sorted(key for key in known.keys() | after.keys() if known.get(key) != after.get(key)
                          and key not in named)  # fmt: skip
    return changed or None


async def _place(connection: asyncpg.Connection, alerts: Sequence[Alert], placing: Placing) -> None:
    """Bring the alerts, as they stand, into their groups, out of those they left, and make these due."""
    keys = [storable(alert.dedup_key) for alert in alerts]
    held: dict[str, dict[str, asyncpg.Record]] = defaultdict(dict)
    for row in await connection.fetch(_MEMBERSHIPS, keys):
        held[row["dedup_key"]][row["group_key"]] = row
    found = {
        key: {each.group.key: each for each in placing.placements(alert)} if _fires(alert) else {}
        for key, alert in zip(keys, alerts, strict=True)
    }
    groups = {name: each.group for placed in found.values() for name, each in placed.items()}
    names = sorted({*groups, *(name for of_alert in held.values() for name in of_alert)})
    rows = await _locked(connection, groups, names)
    due: dict[str, int] = {}

    def wants(name: str, at: int | None) -> None:
        if at is not None and name in rows:
            due[name] = min(at, due.get(name, at))

    joins, departs = [], []
    for key, alert in zip(keys, alerts, strict=True):
        for name, placement in found[key].items():
            joins.append((name, key, list(placement.receivers), placement.interval_us))
            row = rows[name]
            wants(name, placing.due_at(placement, alert, _micros(row["flushed_at"]), to_micros(row["present"])))
        for name, row in held[key].items():
            if name in found[key] or name not in rows:
                continue
            flushed_at, now = _micros(rows[name]["flushed_at"]), to_micros(rows[name]["present"])
            if alert.status == "resolved":
                wants(name, None if flushed_at is None else max(now, flushed_at + row["interval_us"]))
            elif not row["departed"]:
                departs.append((name, key))
                wants(name, now)
    await connection.executemany(_JOIN, sorted(joins))
    await connection.executemany(_DEPART, sorted(departs))
    sooner = [
        (name, to_datetime(at))
        for name, at in sorted(due.items())
        if rows[name]["due_at"] is None or at < to_micros(rows[name]["due_at"])
    ]
    await connection.executemany(_DUE_AT, sooner)


async def _locked(
    connection: asyncpg.Connection, groups: Mapping[str, Any], names: Sequence[str]
) -> dict[str, asyncpg.Record]:
    """The rows of those names, locked; the groups are made where there are none."""
    rows: dict[str, asyncpg.Record] = {}
    # What ended long ago may be forgotten between the two statements: then it is made anew.
    for _ in range(3):
        new = [(name, msgspec.to_builtins(groups[name])) for name in sorted(groups.keys() - rows.keys())]
        await connection.executemany(_NEW_GROUP, new)
        rows = {row["group_key"]: row for row in await connection.fetch(_LOCK_GROUPS, names)}
        if groups.keys() <= rows.keys():
            break
    return rows


def _fires(alert: Alert) -> bool:
    return alert.status != "resolved" and not alert.historic


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)


def _row(alert: Alert, may_inhibit: bool) -> tuple[Any, ...]:
    stated = to_datetime(parse_instant(alert.stated_at))
    return (
        storable(alert.dedup_key), alert.episode, alert.status, alert.rule, alert.severity, alert.tier,
        alert.scope_type, storable(alert.scope_id), storable(alert.team_id), storable(alert.feature),
        storable(alert.summary), to_datetime(parse_instant(alert.occurred_at)), stated,
        stated if alert.status == "resolved" else None, alert.historic, msgspec.to_builtins(alert), may_inhibit,
    )  # fmt: skip
