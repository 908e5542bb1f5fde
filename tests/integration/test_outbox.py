"""The outbox on a real PostgreSQL: every message once, in order, whoever sends and whoever crashes."""

import asyncio

import pytest

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import HOUR, SECOND, format_instant
from schemas.versions import UnknownVersionError
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import migrate, open_pool
from tests.unit.records import NOON

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database_url):
    await migrate(database_url)
    opened = await open_pool(database_url)
    yield opened
    await opened.close()


def alert(status: str, *, key: str = "v1:budget_threshold:b:2026", episode: int = 1, at: int = NOON) -> Alert:
    return Alert(
        alert_id=keys.alert_id(key, episode, status), dedup_key=key, episode=episode, status=status,
        severity="emergency", tier="page", rule="budget_threshold", scope_type="budget", scope_id="b",
        summary=f"{status} «quoted» \"text\"", occurred_at=format_instant(at), stated_at=format_instant(at),
    )  # fmt: skip


async def test_a_repeated_statement_owes_nothing_new(pool):
    outbox = PostgresOutbox(pool)
    for _ in range(3):
        await outbox.record([(alert("opened"), ["pagerduty", "slack"])])
    assert sorted(d.receiver for d in await outbox.lease(10, 30)) == ["pagerduty", "slack"]


async def test_a_resolve_waits_until_its_trigger_was_sent(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("opened"), ["pagerduty"]), (alert("resolved", at=NOON + SECOND), ["pagerduty"])])
    (first,) = await outbox.lease(10, 30)
    assert first.alert.status == "opened"
    assert await outbox.lease(10, 30) == []
    await outbox.sent(first.notification_id, "receipt")
    (second,) = await outbox.lease(10, 30)
    assert second.alert.status == "resolved"


async def test_two_workers_share_the_work_and_never_the_same_message(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("opened", key=f"k{n}"), ["slack"]) for n in range(20)])
    shares = await asyncio.gather(*(outbox.lease(8, 30) for _ in range(4)))
    ids = [delivery.notification_id for share in shares for delivery in share]
    assert len(ids) == len(set(ids)) == 20


async def test_a_lease_that_ran_out_makes_its_message_due_again_under_the_same_id(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("opened"), ["pagerduty"])])
    (first,) = await outbox.lease(10, 0.0)
    async with asyncio.timeout(10):
        while not (again := await outbox.lease(10, 30)):
            await asyncio.sleep(0.01)
    assert (again[0].notification_id, again[0].attempts) == (first.notification_id, 1)


async def test_a_failure_is_tried_later_and_a_permanent_one_given_up(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("opened"), ["slack"])])
    (delivery,) = await outbox.lease(10, 30)
    await outbox.failed(delivery.notification_id, "503", 3600)
    assert await outbox.lease(10, 30) == []
    await outbox.failed(delivery.notification_id, "404", None)
    assert await pool.fetchval("select state from outbox") == "given_up"


async def test_the_alerts_table_shows_the_newest_statement_whatever_the_order(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("resolved", at=NOON + SECOND), []), (alert("opened"), [])])
    row = await pool.fetchrow("select status, episode, resolved_at is not null as is_resolved from alerts")
    assert (row["status"], row["episode"], row["is_resolved"]) == ("resolved", 1, True)
    await outbox.record([(alert("opened", episode=2, at=NOON + 2 * SECOND), [])])
    row = await pool.fetchrow("select status, episode, resolved_at is not null as is_resolved from alerts")
    assert (row["status"], row["episode"], row["is_resolved"]) == ("opened", 2, False)


async def test_a_late_failure_does_not_owe_again_what_another_worker_sent(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("opened"), ["pagerduty"])])
    (delivery,) = await outbox.lease(10, 30)
    await outbox.sent(delivery.notification_id, "receipt")
    await outbox.failed(delivery.notification_id, "no answer within 30 s", 0.0)
    assert await pool.fetchval("select state from outbox") == "sent"
    assert await outbox.lease(10, 30) == []


async def test_text_that_postgresql_cannot_hold_is_stored_all_the_same(pool):
    outbox = PostgresOutbox(pool)
    hostile = alert("opened")
    hostile.summary = "a\x00b \\u0000"
    await outbox.record([(hostile, ["slack"])])
    (delivery,) = await outbox.lease(10, 30)
    await outbox.failed(delivery.notification_id, "bad \x00 answer", 0.0)
    row = await pool.fetchrow("select alerts.summary, last_error from alerts join outbox using (dedup_key)")
    # A real NUL is replaced; a backslash and the text u0000 are only text.
    assert delivery.alert.summary == row["summary"] == "a\ufffdb \\u0000"
    assert row["last_error"] == "bad \ufffd answer"


async def test_several_updates_of_one_episode_are_several_messages(pool):
    outbox = PostgresOutbox(pool)
    for step in (1, 2, 2):
        update = alert("updated", at=NOON + step * SECOND)
        update.alert_id = keys.alert_id(update.dedup_key, 1, "updated", step)
        await outbox.record([(update, ["slack"])])
    assert await pool.fetchval("select count(*) from outbox") == 2


@pytest.mark.parametrize(
    ("late", "after", "owed"),
    [
        ((1, "opened"), [(1, "opened"), (1, "resolved")], []),
        ((1, "updated"), [(1, "opened"), (1, "resolved")], []),
        ((1, "resolved"), [(1, "opened"), (1, "resolved"), (2, "opened")], []),
        ((1, "resolved"), [(2, "opened")], []),
        ((1, "updated"), [(2, "opened")], []),
        ((1, "updated"), [(1, "opened"), (1, "updated")], ["updated"]),
        ((1, "resolved"), [(1, "opened"), (1, "updated")], ["resolved"]),
        ((2, "opened"), [(1, "opened"), (1, "resolved")], ["opened"]),
    ],
)
async def test_what_was_overtaken_reaches_nobody(pool, late, after, owed):
    outbox = PostgresOutbox(pool)
    for place, (episode, status) in enumerate(after):
        await outbox.record([(alert(status, episode=episode, at=NOON + place * SECOND), ["slack"])])
    before = {row["notification_id"] for row in await pool.fetch("select notification_id from outbox")}
    standing = await pool.fetchrow("select episode, status from alerts")
    told = alert(late[1], episode=late[0], at=NOON + HOUR)
    told.alert_id = "said by another owner"
    await outbox.record([(told, ["slack"])])
    new = [row for row in await pool.fetch("select notification_id, body from outbox") if row[0] not in before]
    assert [row["body"]["status"] for row in new] == owed
    stands = await pool.fetchrow("select episode, status from alerts")
    assert stands == (standing if not owed else late)


async def test_an_alert_that_a_newer_release_owes_is_refused_and_stays_owed(pool):
    outbox = PostgresOutbox(pool)
    await outbox.record([(alert("opened"), ["slack"])])
    await pool.execute("update outbox set body = jsonb_set(body, '{v}', '2')")
    with pytest.raises(UnknownVersionError, match="an alert of version 2"):
        await outbox.lease(10, 30)
    assert await pool.fetchval("select state from outbox") == "owed"
