"""Groups on a real PostgreSQL: a batch and its offset are one, what is said and what was told are one."""

import asyncio

import msgspec
import pytest

from schemas.instants import SECOND
from streams.core.notifying import Matcher, Silence
from streams.core.routes import Route
from streams.core.routes_default import default_routes
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.owing import alerts_of_thread, wake, wake_all
from streams.sinks.postgres import migration_files, open_pool
from streams.sinks.silences import load_silences
from tests.integration.notify_parts import RECEIVERS, People, alert

pytestmark = pytest.mark.integration


def grouped(*, wait_s: int = 0, interval_s: int = 0, by: tuple[str, ...] = ("team",)):
    """One route for everything, to PagerDuty."""
    routes = default_routes(RECEIVERS)
    root = Route("all", (), ("pagerduty",), by, wait_us=wait_s * SECOND, interval_us=interval_s * SECOND)
    return type(routes)(root, routes.receivers)


async def owed(pool) -> list[tuple[str, str, str]]:
    rows = await pool.fetch("select receiver, action, reason from outbox order by position")
    return [tuple(row) for row in rows]


async def test_a_batch_that_is_read_again_changes_nothing(pool):
    people = People(pool)
    for _ in range(3):
        await people.hear(alert("a"), alert("b"), source="alerts.v1@0-0", begin=40)
        await people.flush()
    assert await pool.fetchval("select next_offset from notify_offsets") == 42
    assert len(await owed(pool)) == 4


async def test_of_a_batch_that_overlaps_only_what_is_new_is_recorded(pool):
    people = await People(pool).hear(alert("a"), source="s", begin=0)
    await people.hear(alert("a", "resolved", second=9), alert("b"), source="s", begin=0)
    rows = await pool.fetch("select scope_id, status from alerts order by 1")
    assert [tuple(row) for row in rows] == [("a", "opened"), ("b", "opened")]


async def test_nothing_of_a_batch_is_kept_where_its_end_is_not_reached(pool):
    people = People(pool)
    people.placing.due_at = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await people.hear(alert("a"), source="s")
    for table in ("alerts", "notify_groups", "notify_members", "notify_offsets"):
        assert await pool.fetchval(f"select count(*) from {table}") == 0, table


async def test_two_workers_never_flush_one_group_at_once_and_it_speaks_once(pool):
    people = People(pool)
    await people.hear(*(alert(f"b{n}") for n in range(30)))
    said = await asyncio.gather(*(people.flush() for _ in range(4)))
    names = [each.notification_id for share in said for each in share]
    assert len(names) == len(set(names)) == 60


async def test_two_workers_that_record_the_same_groups_at_once_wait_for_each_other(pool):
    people = People(pool, grouped())
    batches = [[alert(f"{worker}-{n}", team_id=f"t{(n * 7 + worker) % 20}") for n in range(40)] for worker in range(4)]
    await asyncio.gather(*(people.hear(*batch) for batch in batches))
    assert await pool.fetchval("select count(*) from notify_members") == 160
    assert await pool.fetchval("select count(*) from notify_groups") == 20


@pytest.mark.parametrize(
    ("late", "after", "stands"),
    [
        pytest.param((1, "opened"), [(1, "opened"), (1, "resolved")], (1, "resolved"), id="opened again late"),
        pytest.param((1, "updated"), [(1, "opened"), (1, "resolved")], (1, "resolved"), id="updated too late"),
        pytest.param((1, "resolved"), [(1, "opened"), (1, "resolved"), (2, "opened")], (2, "opened"), id="ended late"),
        pytest.param((1, "resolved"), [(2, "opened")], (2, "opened"), id="the end of an episode that nobody saw"),
        pytest.param((1, "resolved"), [(1, "opened"), (1, "updated")], (1, "resolved"), id="an end in time"),
        pytest.param((2, "opened"), [(1, "opened"), (1, "resolved")], (2, "opened"), id="the next episode"),
    ],
)
async def test_what_was_overtaken_changes_nothing_whoever_says_it_and_when(pool, late, after, stands):
    people = People(pool)
    for place, (episode, status) in enumerate(after):
        await people.hear(alert("a", status, episode=episode, second=place))
        await people.told()
    before = len(people.heard)
    await people.hear(alert("a", late[1], episode=late[0], second=3600))
    await people.told()
    row = await pool.fetchrow("select episode, status, ended_at is not null from alerts")
    assert tuple(row) == (*stands, stands[1] == "resolved")
    assert (len(people.heard) > before) is (late == stands)


async def test_an_episode_that_begins_anew_begins_then_and_has_not_ended(pool):
    people = await People(pool).hear(alert("a"), alert("a", "resolved", second=1))
    first = await pool.fetchrow("select episode_at, ended_at from alerts")
    await people.hear(alert("a", "resolved", second=2))
    again = await pool.fetchrow("select episode_at, ended_at from alerts")
    await people.hear(alert("a", episode=2, second=3))
    second = await pool.fetchrow("select episode_at, ended_at from alerts")
    assert first == again
    assert second["episode_at"] > first["episode_at"]
    assert second["ended_at"] is None


async def test_alerts_of_a_group_are_told_together_after_its_wait_and_end_with_the_last(pool):
    people = await People(pool, grouped(wait_s=3600)).hear(alert("a", team_id="t"))
    await people.hear(alert("b", team_id="t"), alert("c", team_id="other"))
    assert await people.flush() == []
    await people.pass_time()
    said = await people.flush()
    assert sorted(len(each.alerts) for each in said) == [1, 2]
    await people.take()
    await people.hear(alert("a", "resolved", second=1, team_id="t"))
    await people.told()
    await people.hear(alert("b", "resolved", second=2, team_id="t"))
    await people.told()
    assert [(each.action, each.reason) for each in people.heard if each.group["team"] == "t"] == [
        ("trigger", "opened"), ("trigger", "left"), ("resolve", "resolved"),
    ]  # fmt: skip
    assert await pool.fetchval("select count(*) from notify_members") == 1


async def test_an_alert_whose_routes_lead_elsewhere_ends_where_it_was_told(pool):
    people = await People(pool, grouped()).hear(alert("a", team_id="t"))
    await people.told()
    await people.hear(alert("a", "updated", second=1, team_id="moved"))
    assert [each.action for each in await people.flush()].count("resolve") == 1
    rows = await pool.fetch(
        "select body->'labels'->>'team' as team from notify_groups join notify_members using (group_key)"
    )
    assert [row["team"] for row in rows] == ["moved"]


async def test_after_a_change_of_routes_what_is_open_is_told_as_they_say_now(pool):
    await (await People(pool).hear(alert("a", team_id="t"), alert("b", team_id="t"))).told()
    later = People(pool, grouped())
    assert await later.groups.place_again(later.placing) == 2
    await later.told()
    assert await pool.fetchval("select count(*) from notify_members where not departed") == 2
    assert [len(each.alerts) for each in later.heard if each.action == "trigger"] == [2]


async def test_a_silence_and_an_acknowledgement_are_heeded_once_the_groups_are_woken(pool):
    people = await People(pool).hear(alert("a"))
    silence = Silence(id="s", matchers=(Matcher("scope", "=", "a"),), starts=0, ends=2**60, author="ann", reason="r")
    people.groups = PostgresGroups(pool, _gives((silence,)), load_acknowledgements)
    assert await people.flush() == []
    mutes = await pool.fetchval("select mutes from notify_groups")
    assert [(mute["by"], mute["what"]) for mute in mutes] == [("silence", "s")]
    people.groups = PostgresGroups(pool, load_silences, load_acknowledgements)
    await wake_all(pool)
    assert len(await people.flush()) == 2
    await pool.execute(
        "insert into acknowledgements (word_id, dedup_key, episode, said_at, said_by, via)"
        " values ('w', $1, 1, now(), 'ann', 'cli')", alert("a").dedup_key,
    )  # fmt: skip
    assert await people.flush() == []
    await wake(pool, [alert("a").dedup_key])
    assert {(each.receiver, each.action) for each in await people.flush()} == {
        ("pagerduty", "acknowledge"), ("slack", "acknowledge"),
    }  # fmt: skip


def _gives(found):
    async def load(*_):
        return found

    return load


async def test_a_group_that_cannot_be_decided_is_left_for_later_and_holds_up_nobody(pool, monkeypatch):
    people = await People(pool).hear(alert("a"), alert("b"))
    bad = await pool.fetchval("select min(group_key) from notify_groups")
    await pool.execute("update notify_groups set body = '{}' where group_key = $1", bad)
    assert len(await people.flush()) == 2
    row = await pool.fetchrow("select due_at > now() as later from notify_groups where group_key = $1", bad)
    assert row["later"]


async def test_history_is_kept_and_nobody_is_told(pool):
    people = await People(pool).hear(alert("a", historic=True))
    assert await people.told() == []
    assert await pool.fetchval("select count(*) from alerts") == 1


OLD_ALERT = """
insert into alerts (dedup_key, episode, status, rule, severity, tier, scope_type, scope_id, team_id, feature, summary,
    occurred_at, opened_at, stated_at, historic, body)
values ($1, 1, 'opened', 'budget_threshold', 'emergency', 'page', 'budget', 'a', '', '', 's', now(), now(), now(), false,
    $2)
"""
OLD_ROW = """
insert into outbox (notification_id, dedup_key, receiver, body, state, attempts) values ($1, $2, $3, $4, $5, $6)
"""


async def test_what_was_told_before_there_were_groups_is_ended_in_its_thread_and_what_was_owed_is_sent(database_url):
    """A database of the release before: the page was sent, its Slack message was still owed."""
    pool = await open_pool(database_url)
    for number, _, sql in migration_files():
        if number < 20:
            await pool.execute(sql)
    before = alert("a")
    body = msgspec.to_builtins(before)
    await pool.execute(OLD_ALERT, before.dedup_key, body)
    await pool.execute(OLD_ROW, "one", before.dedup_key, "pagerduty", body, "sent", 1)
    await pool.execute(OLD_ROW, "two", before.dedup_key, "slack", body, "owed", 0)
    await pool.execute(next(sql for number, _, sql in migration_files() if number == 20))
    await pool.execute(next(sql for number, _, sql in migration_files() if number == 21))
    people = People(pool)
    await people.groups.place_again(people.placing)
    assert await people.told() == []
    assert [(each.receiver, each.notification_id, each.thread_key) for each in people.heard] == [
        ("slack", "two", before.dedup_key)
    ]
    rows = await pool.fetch(
        "select notification_id, state from alert_deliveries where dedup_key = $1", before.dedup_key
    )
    assert sorted(tuple(row) for row in rows) == [("one", "sent"), ("two", "sent")]
    await people.hear(alert("a", "resolved", second=9))
    assert await people.told() == [("a", "resolve")]
    assert people.heard[-1].thread_key == before.dedup_key
    await pool.close()


async def test_a_crowd_is_told_in_a_small_message_and_each_of_it_has_its_history(pool):
    people = People(pool, grouped(by=()))
    await people.hear(*(alert(f"b{n:03d}") for n in range(300)))
    await people.told()
    size, held_back = await pool.fetchrow("select length(body::text), body->'held_back' from outbox")
    assert held_back == {"emergency": 200}
    assert size < 80_000
    (thread,) = {said.thread_key for said in people.heard}
    assert len(await alerts_of_thread(pool, thread)) == 300
    await people.hear(*(alert(f"b{n:03d}", "resolved", second=9) for n in range(300)))
    await people.told()
    history = """
    select count(*) from alert_deliveries where dedup_key in (select dedup_key from alerts) group by dedup_key
    """
    assert [row["count"] for row in await pool.fetch(history)] == [2] * 300
    assert (people.heard[-1].action, people.heard[-1].held_back) == ("resolve", {"ended": 200})
    assert await pool.fetchval("select count(*) from notify_members") == 0
