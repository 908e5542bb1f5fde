"""What was delivered long ago is removed; what is owed, open, or needed by a message to come is not, at any age."""

from datetime import timedelta

import msgspec
import pytest

from schemas.instants import DAY
from streams.agents.forgetting import Forgetting
from streams.clock import WallClock
from streams.core.delivery import ReceiverPolicy
from streams.core.routes import Route, Routes
from streams.core.routes_default import default_routes
from streams.sinks import forgetting, notify_groups
from streams.sinks.forgetting import PostgresHistory
from streams.sinks.owing import alerts_of_thread, owe
from tests.integration.notify_parts import RECEIVERS, People, alert
from tests.stores import told

pytestmark = pytest.mark.integration

KEPT_US = 30 * DAY
NOTHING = {"messages": 0, "threads": 0, "groups": 0}


def by_team(receiver: str) -> Routes:
    """One route for everything."""
    return Routes(Route("all", (), (receiver,), ("team",), 0, 0), default_routes(RECEIVERS).receivers)


async def sweep(pool, rows: int = 100) -> dict[str, int]:
    return await Forgetting(PostgresHistory(pool), WallClock(), KEPT_US, rows=rows).sweep()


async def age(pool, days: int = 40) -> None:
    """Everything has lain there for so long."""
    by = timedelta(days=days)
    await pool.execute(
        "update outbox set owed_at = owed_at - $1::interval, sent_at = sent_at - $1::interval, due_at = due_at - $1", by
    )
    await pool.execute("update notify_threads set opened_at = opened_at - $1::interval", by)
    await pool.execute("update notify_groups set opened_at = opened_at - $1::interval", by)


async def count(pool, *tables: str) -> list[int]:
    return [await pool.fetchval(f"select count(*) from {table}") for table in tables]


async def test_what_has_ended_is_removed_with_its_tries_its_threads_and_its_groups(pool):
    people = await People(pool).hear(alert("a"))
    await people.told()
    await people.hear(alert("a", "resolved", second=9))
    await people.told()
    assert await sweep(pool) == NOTHING
    await age(pool, 29)
    assert await sweep(pool) == NOTHING
    await age(pool, 2)
    groups = await pool.fetchval("select count(*) from notify_groups")
    assert await sweep(pool) == {"messages": 4, "threads": 2, "groups": groups}
    assert await count(
        pool, "outbox", "outbox_tries", "outbox_alerts", "notify_threads", "notify_groups", "notify_told"
    ) == [0] * 6  # fmt: skip
    assert await count(pool, "alerts", "alert_history") == [1, 2]


async def test_an_incident_that_is_open_keeps_all_it_has_and_ends_in_its_thread(pool):
    people = await People(pool).hear(alert("a"))
    await people.told()
    await people.hear(alert("a", "updated", second=5))
    await people.told()
    before = await count(pool, "outbox", "outbox_tries", "notify_threads", "notify_groups", "notify_told")
    await age(pool)
    assert await sweep(pool) == NOTHING
    assert await count(pool, "outbox", "outbox_tries", "notify_threads", "notify_groups", "notify_told") == before
    await people.hear(alert("a", "resolved", second=9))
    await people.pass_time()
    await people.flush()
    (delivery,) = await people.outbox.lease("slack", 10, 30.0, ReceiverPolicy("slack"))
    first = next(said for said in people.heard if said.receiver == "slack")
    assert delivery.notification.thread_key == first.thread_key
    assert delivery.thread == f"receipt {first.notification_id}"


@pytest.mark.parametrize("last", ["trigger", "resolve"])
async def test_what_is_owed_is_never_removed_nor_what_came_before_it(pool, last):
    people = await People(pool).hear(alert("a"))
    await people.told()
    if last == "resolve":
        await people.hear(alert("a", "resolved", second=9))
    else:
        await people.hear(alert("a", "updated", second=9))
    await people.pass_time()
    await people.flush()
    await age(pool)
    assert (await sweep(pool))["messages"] == 0
    assert await pool.fetchval("select count(*) from outbox where state = 'owed'") == 2


async def test_of_a_thread_that_is_opened_again_and_again_the_incidents_that_ended_are_removed(pool):
    people = People(pool, by_team("pagerduty"))
    for episode in (1, 2, 3):
        await people.hear(alert("a", episode=episode, second=episode * 10))
        await people.told()
        if episode < 3:
            await people.hear(alert("a", "resolved", episode=episode, second=episode * 10 + 5))
            await people.told()
    await age(pool)
    assert await sweep(pool) == {"messages": 4, "threads": 0, "groups": 0}
    (thread,) = {said.thread_key for said in people.heard}
    assert await alerts_of_thread(pool, thread) == (alert("a").dedup_key,)


async def test_a_group_by_labels_never_says_an_id_again_though_its_messages_are_gone(pool):
    people = People(pool, by_team("slack"))
    for episode in (1, 2):
        await people.hear(alert("a", episode=episode, second=episode * 10))
        await people.told()
        await people.hear(alert("a", "resolved", episode=episode, second=episode * 10 + 5))
        await people.told()
        await age(pool)
        assert await sweep(pool) == {"messages": 2, "threads": 1, "groups": 0}
    ids = [said.notification_id for said in people.heard]
    assert (len(ids), len(set(ids))) == (4, 4)
    assert len({said.thread_key for said in people.heard}) == 2


async def test_a_group_that_was_forgotten_is_made_anew_by_the_next_episode_of_its_alert(pool):
    people = People(pool)
    for episode in (1, 2):
        await people.hear(alert("a", episode=episode, second=episode * 10))
        await people.told()
        await people.hear(alert("a", "resolved", episode=episode, second=episode * 10 + 5))
        await people.told()
        await age(pool)
        await sweep(pool)
        assert await count(pool, "outbox", "notify_groups") == [0, 0]
    ids = [said.notification_id for said in people.heard]
    assert (len(ids), len(set(ids))) == (8, 8)


async def test_what_an_earlier_release_told_of_an_alert_that_fires_is_kept(pool):
    await People(pool).hear(alert("open"), alert("over"), alert("over", "resolved", second=9))
    await pool.execute("delete from notify_groups")
    async with pool.acquire() as connection:
        await owe(connection, [told(alert("open"), "slack"), told(alert("over"), "slack")])
    await pool.execute("update outbox set state = 'sent', sent_at = now()")
    await age(pool)
    assert (await sweep(pool))["messages"] == 1
    assert await pool.fetchval("select thread_key from outbox") == alert("open").dedup_key


async def test_a_thread_that_a_fallback_follows_is_kept(pool):
    async with pool.acquire() as connection:
        await owe(connection, [told(alert("a"), "email"), told(alert("b"), "email")])
    await pool.execute("update outbox set state = 'sent', sent_at = now(), group_key = 'gone'")
    await pool.execute(
        "insert into notify_fallbacks (receiver, thread_key, fallback) values ('pagerduty', $1, 'email')",
        alert("a").dedup_key,
    )
    await age(pool)
    assert (await sweep(pool))["messages"] == 1
    assert await pool.fetchval("select thread_key from outbox") == alert("a").dedup_key


async def test_a_digest_stays_as_long_as_what_it_told(pool):
    async with pool.acquire() as connection:
        digest = msgspec.structs.replace(told(alert("d"), "slack"), action="tell", reason="digest")
        await owe(connection, [digest, told(alert("a"), "slack")])
    await pool.execute("update outbox set state = 'sent', sent_at = now(), group_key = 'gone'")
    await pool.execute(
        "update outbox set state = 'digested', digest_id = $1, sent_at = null where action = 'trigger'",
        digest.notification_id,
    )
    await age(pool)
    assert [(await sweep(pool))["messages"] for _ in range(3)] == [1, 1, 0]


async def test_small_batches_pass_over_what_is_kept(pool):
    people = await People(pool).hear(*(alert(f"open{n}") for n in range(5)), *(alert(f"over{n}") for n in range(5)))
    await people.told()
    await people.hear(*(alert(f"over{n}", "resolved", second=9) for n in range(5)))
    await people.told()
    await age(pool)
    removed = await sweep(pool, rows=3)
    assert (removed["messages"], removed["threads"]) == (20, 10)
    assert await count(pool, "outbox", "notify_threads", "notify_members") == [10, 10, 5]


async def test_one_worker_forgets_at_a_time(pool):
    people = await People(pool).hear(alert("a"))
    await people.told()
    await people.hear(alert("a", "resolved", second=1))
    await people.told()
    await age(pool)
    async with pool.acquire() as other, other.transaction():
        await other.execute("select pg_advisory_xact_lock($1)", forgetting._LOCK)
        assert await sweep(pool) == NOTHING
    assert await sweep(pool) != NOTHING


class Forgetful:
    """A connection on which every group is forgotten once, after it was found to be there."""

    def __init__(self, connection) -> None:
        self._connection, self.times = connection, 0

    async def executemany(self, sql, rows):
        await self._connection.executemany(sql, rows)
        self.times += 1
        if self.times == 1:
            await self._connection.execute("delete from notify_groups")

    async def fetch(self, sql, *values):
        return await self._connection.fetch(sql, *values)


async def test_a_group_that_is_forgotten_while_its_alert_is_placed_is_made_anew(pool):
    async with pool.acquire() as connection, connection.transaction():
        forgetful = Forgetful(connection)
        rows = await notify_groups._locked(forgetful, {"g": {"key": "g"}}, ["g", "h"])
        assert (set(rows), forgetful.times) == ({"g"}, 2)
