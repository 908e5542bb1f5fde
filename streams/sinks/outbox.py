"""The outbox in PostgreSQL: the messages that are owed to receivers.

What is sent is recorded before (owed, leased) and after (sent), so a crash neither loses a message nor sends it under
another name. Who holds a receiver's row decides what is sent to it next, so its limit holds for all workers together.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

import asyncpg
import msgspec

from schemas import keys
from schemas.instants import to_datetime, to_micros
from streams.delivering import Delivery, Failure, Policy, Standing, Waiting
from streams.sinks.owing import Owed, owe, owe_all, restored
from streams.sinks.postgres import storable, with_retries

#: More messages than this that wait for one receiver are as many.
DUE_MAX = 1_000
#: What a fallback hears of a thread besides its end; figures that changed are for those whose thread it is.
TOLD_TO_FALLBACKS = ("opened", "joined", "escalated", "worse", "repeated")
_DUE = """
from outbox o where o.receiver = $1 and o.state = 'owed' and o.due_at <= now()
    and (o.leased_until is null or o.leased_until < now())
    and not exists (
        select 1 from outbox earlier
        where earlier.receiver = o.receiver and earlier.thread_key = o.thread_key
            and earlier.state = 'owed' and earlier.position < o.position)
"""
_COUNT = f"select count(*) from (select 1 {_DUE} limit {DUE_MAX}) found"
_LEASE = f"""
with due as materialized (
    select o.notification_id {_DUE} order by o.urgency desc, o.queued_at, o.position limit $2 for update skip locked)
update outbox set leased_until = now() + make_interval(secs => $3), attempts = attempts + 1
from due where outbox.notification_id = due.notification_id
returning outbox.body, attempts, position, urgency, queued_at, owed_at, (
    select receipt from notify_threads t
    where t.receiver = outbox.receiver and t.thread_key = outbox.thread_key) as thread
"""
_STANDING = "select *, now() as present from notify_receivers where receiver = $1 for update"
_KNOW = "insert into notify_receivers (receiver) values ($1) on conflict do nothing"
_STAND = """
update notify_receivers set failures = $2, open_until = $3, opened_at = $4, tokens = $5, refilled_at = $6,
    held_since = $7 where receiver = $1
"""
_STANDS_BADLY = """
update notify_receivers set failures = $2, open_until = $3, opened_at = $4, last_failed_at = now(), last_error = $5
where receiver = $1
"""
#: Once a second is enough to say that it works.
_STANDS_WELL = """
update notify_receivers set failures = 0, open_until = case when opened_at is null then open_until end,
    opened_at = null, last_sent_at = now()
where receiver = $1 and (failures > 0 or opened_at is not null or last_sent_at is null
    or last_sent_at < now() - interval '1 second')
"""
_SENT = """
update outbox set state = 'sent', sent_at = now(), receipt = $2, leased_until = null, last_error = null
where notification_id = $1 returning thread_key
"""
_OPEN_THREAD = """
insert into notify_threads (receiver, thread_key, receipt) values ($1, $2, $3) on conflict do nothing
"""
#: The lease is over where somebody else has it since: his word counts.
_FAILED = """
update outbox set last_error = $2, leased_until = null,
    state = case when $3::float8 is null then 'given_up' else 'owed' end,
    due_at = now() + make_interval(secs => coalesce($3::float8, 0))
where notification_id = $1 and state = 'owed' and attempts = $4
"""
_TRIED = """
insert into outbox_tries (notification_id, try, took_ms, outcome, error) values ($1, $2, $3, $4, $5)
on conflict do nothing
"""
#: A thread that was told of keeps its end, and one with a message on its way or in trouble keeps its order.
_HELD = f"""
select o.notification_id, o.body from outbox o
where o.receiver = $1 and o.state = 'owed' and o.attempts = 0 and o.due_at <= now() and o.action <> 'tell'
    and not exists (
        select 1 from outbox tried where tried.receiver = o.receiver and tried.thread_key = o.thread_key
            and tried.state = 'owed' and tried.attempts > 0)
    and (o.action = 'trigger' or not exists (
        select 1 from notify_threads t where t.receiver = o.receiver and t.thread_key = o.thread_key))
order by o.position limit {DUE_MAX} for update skip locked
"""
_DIGESTED = "update outbox set state = 'digested', digest_id = $2 where notification_id = any($1::text[])"
_URGENT = "update outbox set urgency = 3 where notification_id = $1"
_IN_TROUBLE = """
select notification_id, attempts, owed_at, state, body, group_key from outbox
where receiver = $1 and not fell_back and action in ('trigger', 'tell') and copy_of is null
    and (state = 'owed' or (state = 'given_up' and owed_at > now() - interval '1 day'))
order by position limit 200 for update skip locked
"""
#: How a thread went on that a fallback was told of.
_FELL_BACK_ON = """
select o.notification_id, o.body, o.group_key, o.thread_key, o.action, f.fallback from outbox o
join notify_fallbacks f on f.receiver = o.receiver and f.thread_key = o.thread_key
where o.receiver = $1 and not o.fell_back and o.action in ('resolve', 'acknowledge') and o.copy_of is null
    and o.owed_at >= f.since and o.state <> 'superseded'
order by o.position limit 200 for update of o skip locked
"""
_IS_TOLD_ANYWAY = """
select exists(
    select 1 from outbox own join outbox other
        on other.group_key = own.group_key and other.owed_at = own.owed_at and other.receiver = $2
    where own.notification_id = $1 and own.group_key <> '')
"""
_FALL = "insert into notify_fallbacks (receiver, thread_key, fallback) values ($1, $2, $3) on conflict do nothing"
_UNFALL = "delete from notify_fallbacks where receiver = $1 and thread_key = $2"
_HAS_FALLEN = "select 1 from notify_fallbacks where receiver = $1 and thread_key = $2 and fallback = $3"
_FELL = "update outbox set fell_back = true where notification_id = $1"
_STRANGERS = """
update outbox set state = 'given_up', last_error = 'this receiver is not configured any more'
where state = 'owed' and receiver <> all($1::text[]) and owed_at < now() - make_interval(secs => $2)
returning receiver
"""


class PostgresOutbox:
    """Implements ``streams.delivering.Outbox``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def lease(self, receiver: str, room: int, lease_s: float, policy: Policy) -> Sequence[Delivery]:
        """Take what is due, as far as the receiver's circuit and rate limit let it be sent."""

        async def attempt() -> list[asyncpg.Record]:
            # Most of the time nothing is due, and then no row is locked.
            if not room or not await self._pool.fetchval(_COUNT, receiver):
                return []
            async with self._pool.acquire() as connection, connection.transaction():
                return await _take(connection, receiver, room, lease_s, policy)

        rows = sorted(await with_retries(attempt), key=lambda row: (-row["urgency"], row["queued_at"], row["position"]))
        return [
            Delivery(
                notification=restored(row["body"]),
                thread=row["thread"],
                attempt=row["attempts"],
                owed_at=to_micros(row["owed_at"]),
            )
            for row in rows
        ]

    async def sent(self, delivery: Delivery, receipt: str, took_s: float) -> None:
        """The receiver took it."""
        said = delivery.notification
        receipt = storable(receipt[:1000])

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                thread_key = await connection.fetchval(_SENT, said.notification_id, receipt)
                if thread_key is None:
                    # Somebody has deleted the row meanwhile: there is nothing left to mark.
                    return
                await connection.execute(_OPEN_THREAD, said.receiver, thread_key, receipt)
                await _tried(connection, delivery, took_s, "sent")
                await connection.execute(_STANDS_WELL, said.receiver)

        await with_retries(attempt)

    async def failed(
        self,
        delivery: Delivery,
        failure: Failure,
        took_s: float,
        retry_in_s: float | None,
        judge: Callable[[Standing, int], Standing],
    ) -> None:
        """The receiver did not take it."""
        said = delivery.notification
        error = storable(failure.error[:2000])

        async def attempt() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_FAILED, said.notification_id, error, retry_in_s, delivery.attempt)
                await _tried(connection, delivery, took_s, "retried" if retry_in_s is not None else "given_up", error)
                standing, now = await _standing(connection, said.receiver)
                after = judge(standing, now)
                times = (_moment(after.open_until), _moment(after.opened_at))
                await connection.execute(_STANDS_BADLY, said.receiver, after.failures, *times, error)

        await with_retries(attempt)

    async def fall_back(self, receiver: str, fallbacks: Sequence[str], policy: Policy) -> int:
        """Owe the fallbacks what the receiver could not be told, and how those threads went on."""

        async def attempt() -> int:
            async with self._pool.acquire() as connection, connection.transaction():
                return await _fall_back(connection, receiver, fallbacks, policy)

        return await with_retries(attempt) if fallbacks else 0

    async def give_up_on_strangers(self, receivers: Sequence[str], after_s: float) -> Sequence[str]:
        """Give up what is owed to none of these for so long: their workers may still be about to start."""

        async def attempt() -> list[asyncpg.Record]:
            return await self._pool.fetch(_STRANGERS, list(receivers), after_s)

        return sorted({row["receiver"] for row in await with_retries(attempt)})


async def _take(
    connection: asyncpg.Connection, receiver: str, room: int, lease_s: float, policy: Policy
) -> list[asyncpg.Record]:
    standing, now = await _standing(connection, receiver)
    due = await connection.fetchval(_COUNT, receiver)
    turn = policy.turn(standing, due, room, now)
    sends = turn.sends
    if turn.digests:
        held = await connection.fetch(_HELD, receiver)
        if len(held) > 1:
            told = policy.digest([restored(row["body"]) for row in held], now)
            await owe(connection, [told])
            await connection.execute(_URGENT, told.notification_id)
            await connection.execute(_DIGESTED, [row["notification_id"] for row in held], told.notification_id)
        # Its token is one more message: the digest, or what cannot go into one.
        sends += 1
    if turn.standing != standing:
        await connection.execute(_STAND, receiver, *_columns(turn.standing))
    return await connection.fetch(_LEASE, receiver, sends, lease_s) if sends else []


async def _standing(connection: asyncpg.Connection, receiver: str) -> tuple[Standing, int]:
    """How the receiver stands, and the database's time; nobody else changes it meanwhile."""
    row = await connection.fetchrow(_STANDING, receiver)
    if row is None:
        await connection.execute(_KNOW, receiver)
        row = await connection.fetchrow(_STANDING, receiver)
    found = Standing(
        failures=row["failures"],
        open_until=_micros(row["open_until"]),
        opened_at=_micros(row["opened_at"]),
        tokens=row["tokens"],
        refilled_at=_micros(row["refilled_at"]),
        held_since=_micros(row["held_since"]),
    )
    return found, to_micros(row["present"])


def _columns(standing: Standing) -> tuple[int, datetime | None, datetime | None, float | None, datetime | None,
                                          datetime | None]:  # fmt: skip
    return (
        standing.failures, _moment(standing.open_until), _moment(standing.opened_at), standing.tokens,
        _moment(standing.refilled_at), _moment(standing.held_since),
    )  # fmt: skip


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)


async def _tried(
    connection: asyncpg.Connection, delivery: Delivery, took_s: float, outcome: str, error: str = ""
) -> None:
    row = (delivery.notification.notification_id, delivery.attempt, round(took_s * 1000), outcome, error)
    await connection.execute(_TRIED, *row)


async def _fall_back(connection: asyncpg.Connection, receiver: str, fallbacks: Sequence[str], policy: Policy) -> int:
    standing, now = await _standing(connection, receiver)
    copies = 0
    for row in await connection.fetch(_IN_TROUBLE, receiver):
        waiting = Waiting(
            row["notification_id"], row["attempts"], to_micros(row["owed_at"]), row["state"] == "given_up"
        )
        if policy.falls_back(waiting, standing, now):
            copies += await _copy(connection, row, receiver, fallbacks)
    for row in await connection.fetch(_FELL_BACK_ON, receiver):
        copies += await _copy(connection, row, receiver, [row["fallback"]])
        if row["action"] == "resolve":
            await connection.execute(_UNFALL, receiver, row["thread_key"])
    return copies


async def _copy(connection: asyncpg.Connection, row: asyncpg.Record, receiver: str, fallbacks: Sequence[str]) -> int:
    said, copies = restored(row["body"]), 0
    for fallback in fallbacks:
        if await connection.fetchval(_IS_TOLD_ANYWAY, said.notification_id, fallback):
            continue
        thread = (receiver, storable(said.thread_key), fallback)
        is_update = said.action == "trigger" and said.reason not in TOLD_TO_FALLBACKS
        if is_update and await connection.fetchval(_HAS_FALLEN, *thread):
            continue
        own = keys.digest("fallback", said.notification_id, fallback)
        copy = msgspec.structs.replace(said, notification_id=own, receiver=fallback)
        await owe_all(connection, [Owed(copy, row["group_key"], copy_of=said.notification_id)])
        if said.action == "trigger":
            await connection.execute(_FALL, *thread)
        copies += 1
    await connection.execute(_FELL, said.notification_id)
    return copies
