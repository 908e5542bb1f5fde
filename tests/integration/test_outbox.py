"""The outbox on a real PostgreSQL: every message once, in order, whoever sends and whoever crashes."""

import asyncio

import msgspec
import pytest

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import MINUTE, SECOND, format_instant
from schemas.versions import UnknownVersionError
from streams.core.delivery import Bucket, ReceiverPolicy, after_failure
from streams.core.notifying import Notification
from streams.core.routes import RateLimit
from streams.delivering import Failure
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.owing import alerts_of_thread, owe
from tests.stores import told
from tests.unit.records import NOON

pytestmark = pytest.mark.integration


def alert(status: str, *, key: str = "v1:budget_threshold:b:2026", episode: int = 1, at: int = NOON) -> Alert:
    return Alert(
        alert_id=keys.alert_id(key, episode, status, at), dedup_key=key, episode=episode, status=status,
        severity="emergency", tier="page", rule="budget_threshold", scope_type="budget", scope_id="b",
        summary=f"{status} «quoted» \"text\"", occurred_at=format_instant(at), stated_at=format_instant(at),
    )  # fmt: skip


class House:
    """An outbox with policies, and the shortest ways to owe, take and answer."""

    def __init__(self, pool, **limits: int) -> None:
        self.pool, self.outbox = pool, PostgresOutbox(pool)
        self.limits = limits

    def policy(self, receiver: str) -> ReceiverPolicy:
        limit = self.limits.get(receiver)
        bucket = Bucket(RateLimit(limit, MINUTE)) if limit else None
        return ReceiverPolicy(receiver, bucket, receiver == "pagerduty", hold_us=0)

    async def owe(self, *alerts: Alert, to: tuple[str, ...] = ("slack",), group: str = "") -> "House":
        for each in alerts:
            async with self.pool.acquire() as connection, connection.transaction():
                await owe(connection, [told(each, receiver) for receiver in to], group)
        return self

    async def take(self, receiver: str = "slack", room: int = 10, lease_s: float = 30.0):
        return await self.outbox.lease(receiver, room, lease_s, self.policy(receiver))

    async def sent(self, delivery, receipt: str = "receipt") -> None:
        await self.outbox.sent(delivery, receipt, 0.1)

    async def failed(self, delivery, again_s: float | None = 3600, failure: Failure | None = None) -> None:
        failure = failure or Failure("503", is_permanent=again_s is None)
        name = delivery.notification.receiver
        await self.outbox.failed(
            delivery, failure, 0.1, again_s, lambda standing, now: after_failure(name, standing, failure, now, now)
        )

    async def fall_back(self, receiver: str = "pagerduty", *to: str) -> int:
        return await self.outbox.fall_back(receiver, to or ("email",), self.policy(receiver))

    async def states(self) -> list[tuple[str, str, str]]:
        rows = await self.pool.fetch("select receiver, action, state from outbox order by position")
        return [tuple(row) for row in rows]


async def test_a_repeated_statement_owes_nothing_new(pool):
    house = House(pool)
    for _ in range(3):
        await house.owe(alert("opened"), to=("pagerduty", "slack"))
    assert [len(await house.take(name)) for name in ("pagerduty", "slack", "email")] == [1, 1, 0]


async def test_a_resolve_waits_until_its_trigger_was_sent_and_answers_in_its_thread(pool):
    house = await House(pool).owe(alert("opened"), alert("resolved", at=NOON + SECOND))
    (first,) = await house.take()
    assert (first.notification.action, first.thread, await house.take()) == ("trigger", None, [])
    await house.sent(first, "1700000000.1234")
    (second,) = await house.take()
    assert (second.notification.action, second.thread) == ("resolve", "1700000000.1234")


async def test_two_workers_share_the_work_and_never_the_same_message(pool):
    house = await House(pool).owe(*(alert("opened", key=f"k{n}") for n in range(20)))
    shares = await asyncio.gather(*(house.take(room=8) for _ in range(4)))
    ids = [delivery.notification.notification_id for share in shares for delivery in share]
    assert len(ids) == len(set(ids)) == 20


async def test_a_lease_that_ran_out_makes_its_message_due_again_under_the_same_id(pool):
    house = await House(pool).owe(alert("opened"))
    (first,) = await house.take(lease_s=0.0)
    async with asyncio.timeout(10):
        while not (again := await house.take()):
            await asyncio.sleep(0.01)
    assert again[0].notification.notification_id == first.notification.notification_id
    assert [first.attempt, again[0].attempt] == [1, 2]


async def test_a_failure_is_tried_later_and_a_permanent_one_given_up(pool):
    house = await House(pool).owe(alert("opened"))
    (delivery,) = await house.take()
    await house.failed(delivery, 3600)
    assert await house.take() == []
    await pool.execute("update outbox set due_at = now()")
    (again,) = await house.take()
    await house.failed(again, None)
    assert await house.states() == [("slack", "trigger", "given_up")]
    tries = await pool.fetch("select try, outcome, error from outbox_tries order by try")
    assert [tuple(row) for row in tries] == [(1, "retried", "503"), (2, "given_up", "503")]


async def test_a_late_failure_does_not_owe_again_what_another_worker_sent(pool):
    house = await House(pool).owe(alert("opened"))
    (delivery,) = await house.take()
    await house.sent(delivery)
    await house.failed(delivery, 0.0)
    assert await house.states() == [("slack", "trigger", "sent")]
    assert await house.take() == []


async def test_who_lost_his_lease_does_not_end_that_of_his_successor(pool):
    house = await House(pool).owe(alert("opened"))
    (late,) = await house.take(lease_s=0.0)
    await asyncio.sleep(0.01)
    (own,) = await house.take()
    await house.failed(late, None)
    assert (await house.states(), await house.take()) == ([("slack", "trigger", "owed")], [])
    await house.sent(own)
    assert await house.states() == [("slack", "trigger", "sent")]


async def test_text_that_postgresql_cannot_hold_is_stored_all_the_same(pool):
    hostile = alert("opened", key="k\x00")
    hostile.summary = "a\x00b \\u0000"
    house = await House(pool).owe(hostile)
    (delivery,) = await house.take()
    await house.failed(delivery, 0.0, Failure("bad \x00 answer"))
    # A real NUL is replaced; a backslash and the text u0000 are only text.
    assert delivery.notification.alerts[0].summary == "a\ufffdb \\u0000"
    assert await pool.fetchval("select last_error from outbox") == "bad \ufffd answer"


async def test_an_update_that_nobody_was_sent_yet_gives_way_to_the_next_and_the_first_word_stays_the_first(pool):
    house = await House(pool).owe(alert("opened"), *(alert("updated", at=NOON + n * SECOND) for n in (1, 2)))
    (delivery,) = await house.take()
    assert (delivery.notification.reason, delivery.notification.alerts[0].status) == ("opened", "updated")
    assert [state for _, _, state in await house.states()] == ["superseded", "superseded", "owed"]


async def test_what_is_on_its_way_and_the_incident_before_give_way_to_nothing(pool):
    house = await House(pool).owe(alert("opened"))
    await house.sent((await house.take())[0])
    await house.owe(alert("updated", at=NOON + 1))
    await house.take()
    await house.owe(alert("updated", at=NOON + 2), alert("resolved", at=NOON + 3), alert("opened", episode=2))
    await house.owe(alert("updated", episode=2, at=NOON + 4))
    states = [state for _, _, state in await house.states()]
    assert states == ["sent", "owed", "superseded", "owed", "superseded", "owed"]


async def test_a_message_that_a_newer_release_owes_is_refused_and_stays_owed(pool):
    house = await House(pool).owe(alert("opened"))
    for path in ("{v}", "{alerts,0,v}"):
        await pool.execute(
            "update outbox set leased_until = null, body = jsonb_set(body, $1::text[], '2')", [*path[1:-1].split(",")]
        )
        with pytest.raises(UnknownVersionError, match="of version 2"):
            await house.take()
    assert [state for _, _, state in await house.states()] == ["owed"]


async def test_an_open_circuit_holds_for_every_worker_and_one_message_tries_it_again(pool):
    house = await House(pool).owe(*(alert("opened", key=f"k{n}") for n in range(20)))
    for delivery in await house.take(room=5):
        await house.failed(delivery)
    other = House(pool)
    assert await other.take() == []
    await pool.execute("update notify_receivers set open_until = now() - interval '1 second'")
    (probe,) = await other.take()
    assert await house.take() == []
    await other.sent(probe)
    assert len(await house.take()) == 10
    row = await pool.fetchrow("select failures, opened_at, last_error from notify_receivers")
    assert tuple(row) == (0, None, "503")


async def test_what_is_above_the_limit_becomes_one_message_and_the_end_of_a_told_thread_is_told_there(pool):
    house = await House(pool, slack=10).owe(alert("opened", key="told"))
    (first,) = await house.take()
    await house.sent(first, "thread")
    await house.owe(alert("resolved", key="told"), *(alert("opened", key=f"k{n}") for n in range(30)))
    told_one_by_one = await house.take()
    assert [each.notification.reason for each in told_one_by_one] == ["digest"]
    digest = await pool.fetchrow("select notification_id, body from outbox where reason = 'digest'")
    gone = await pool.fetch("select thread_key, digest_id from outbox where state = 'digested'")
    assert len(gone) >= 28
    assert {row["digest_id"] for row in gone} == {digest["notification_id"]}
    assert "told" not in {row["thread_key"] for row in gone}


async def test_incidents_above_the_limit_wait_and_are_all_told(pool):
    house = await House(pool, pagerduty=10).owe(*(alert("opened", key=f"k{n}") for n in range(30)), to=("pagerduty",))
    assert len(await house.take("pagerduty")) == 2
    assert await house.take("pagerduty") == []
    assert {state for _, _, state in await house.states()} == {"owed"}


async def test_while_a_receiver_is_down_its_fallback_is_told_and_hears_how_it_ends(pool):
    house = await House(pool).owe(alert("opened"), to=("pagerduty",))
    assert await house.fall_back() == 0
    (delivery,) = await house.take("pagerduty")
    await house.failed(delivery, None)
    assert [await house.fall_back() for _ in range(3)] == [1, 0, 0]
    (copy,) = await house.take("email")
    assert (copy.notification.thread_key, copy.notification.receiver) == (delivery.notification.thread_key, "email")
    await house.sent(copy, "mail")
    await house.owe(alert("resolved", at=NOON + SECOND), to=("pagerduty",))
    assert [await house.fall_back() for _ in range(2)] == [1, 0]
    (end,) = await house.take("email")
    assert (end.notification.action, end.thread) == ("resolve", "mail")
    # The receiver itself is told as well, once it works again.
    assert [each.notification.action for each in await house.take("pagerduty")] == ["resolve"]
    await house.owe(alert("opened", episode=2), alert("resolved", episode=2), to=("pagerduty",))
    assert await house.fall_back() == 0


async def test_a_fallback_that_is_told_anyway_is_not_told_twice(pool):
    house = await House(pool).owe(alert("opened"), to=("pagerduty", "email"), group="g")
    (delivery,) = await house.take("pagerduty")
    await house.failed(delivery, None)
    assert await house.fall_back() == 0
    assert len(await house.take("email")) == 1


async def test_what_is_owed_to_a_receiver_that_is_gone_is_given_up_after_a_while(pool):
    house = await House(pool).owe(alert("opened"), to=("old", "slack"))
    assert await house.outbox.give_up_on_strangers(["slack"], 600.0) == []
    assert await house.outbox.give_up_on_strangers(["slack"], 0.0) == ["old"]
    assert await house.states() == [("old", "trigger", "given_up"), ("slack", "trigger", "owed")]


async def test_the_history_of_an_alert_and_the_alerts_of_a_thread_can_be_read(pool):
    both = msgspec.structs.replace(
        told(alert("opened", key="a"), "slack"), alerts=(alert("opened", key="a"), alert("opened", key="b"))
    )
    async with pool.acquire() as connection:
        await owe(connection, [both, Notification(
            notification_id="w", receiver="email", thread_key="", action="tell", reason="report", alerts=(),
            heading="h", paragraphs=("p",),
        )])  # fmt: skip
    rows = await pool.fetch("select receiver, reason, state from alert_deliveries where dedup_key = 'b'")
    assert [tuple(row) for row in rows] == [("slack", "opened", "owed")]
    assert await alerts_of_thread(pool, "a") == ("a", "b")


async def test_the_end_of_an_incident_makes_its_updates_needless_and_not_its_first_word(pool):
    house = await House(pool).owe(alert("opened", key="told"))
    await house.sent((await house.take())[0])
    await house.owe(alert("updated", key="told", at=NOON + 1), alert("resolved", key="told", at=NOON + 2))
    await house.owe(alert("opened", key="new"), alert("resolved", key="new", at=NOON + 2))
    rows = await pool.fetch("select thread_key, action, state from outbox order by position")
    assert [tuple(row) for row in rows] == [
        ("told", "trigger", "sent"), ("told", "trigger", "superseded"), ("told", "resolve", "owed"),
        ("new", "trigger", "owed"), ("new", "resolve", "owed"),
    ]  # fmt: skip


async def test_incidents_that_nobody_knows_of_go_first_and_keep_their_place_though_their_figures_change(pool):
    house = await House(pool).owe(alert("opened", key="old"))
    await house.sent((await house.take())[0])
    await house.owe(alert("updated", key="old"), alert("opened", key="a"), alert("opened", key="b"))
    await house.owe(alert("updated", key="a", at=NOON + 1))
    order = [(await house.take(room=1))[0].notification.thread_key for _ in range(3)]
    assert order == ["a", "b", "old"]


async def test_a_fallback_hears_what_is_new_or_worse_and_not_every_figure(pool):
    house = await House(pool).owe(alert("opened"), to=("pagerduty",))
    (delivery,) = await house.take("pagerduty")
    await house.failed(delivery, None)
    assert await house.fall_back() == 1
    for number, (reason, copies) in enumerate([("joined", 1), ("left", 0), ("worse", 1)]):
        said = msgspec.structs.replace(told(alert("updated", at=NOON + number), "pagerduty"), reason=reason)
        async with pool.acquire() as connection:
            await owe(connection, [said])
        (delivery,) = await house.take("pagerduty")
        await house.failed(delivery, None)
        assert await house.fall_back() == copies, reason
