"""ROLLUP's shell: what it acknowledges, what it says again, and what it lets others wait for."""

import asyncio

import msgspec
import pytest

from schemas import topics
from schemas.instants import HOUR, MINUTE, parse_instant
from schemas.readers import HOUR_STATEMENTS
from streams.agents import rollup as shell
from tests.unit.hours_rig import USD, Crash, Hours, cell, source

NOON = parse_instant("2026-11-21T12:00:00Z")


def said(world: Hours) -> list:
    return [HOUR_STATEMENTS.decode(record.value) for record in world.wire.log[topics.SPEND_HOURS] if record.value]


def test_of_a_busy_cell_only_the_last_total_of_a_round_is_said_and_nothing_without_news():
    world = Hours(NOON, parts=1)
    for n in range(5):
        world.flush(0, [cell(0, "a", "x", "m", NOON, n, n * USD)], NOON + n * MINUTE)
    world.round()
    assert {(each.scope, each.figures.cost_nanos) for each in said(world)} == {
        (scope, 4 * USD) for scope in ("org:acme", "team:a", "feature:x", "team_feature:a/x", "model:m")
    }
    assert {each.reach[source(0).slot()] for each in said(world)} == {NOON + 4 * MINUTE}
    world.round()
    assert len(said(world)) == 5


def test_a_batch_is_acknowledged_once_its_cells_are_kept_and_not_before():
    world = Hours(NOON, parts=1)
    world.flush(0, [cell(0, "a", "x", "m", NOON, 1, USD)], NOON)
    [event] = world._unacked
    world.rollup._table.dies = True
    with pytest.raises(Crash):
        asyncio.run(world.rollup.round())
    assert not event.acked
    world.restart_rollup()
    world.round()
    assert event.acked
    assert [each.rank for each in said(world)[:5]] == [each.rank for each in said(world)[5:]]


def test_within_a_round_only_the_running_hour_claims_more_than_its_own_end():
    world = Hours(NOON, parts=1)
    late = NOON + 3 * HOUR + 30 * MINUTE
    world.flush(0, [cell(0, "a", "x", "m", NOON + n * HOUR, n, USD) for n in range(4)], late)
    world.round()
    claims = [(each.hour, each.reach[source(0).slot()]) for each in said(world) if each.scope == "team:a"]
    assert claims == [(NOON + n * HOUR, min(NOON + (n + 1) * HOUR, late)) for n in range(4)]


def hours_said(world: Hours) -> list[tuple[int, int]]:
    return [(each.part, (each.hour - NOON) // HOUR) for each in said(world) if each.scope == "org:acme"]


def test_old_hours_of_a_partition_wait_for_one_that_is_on_its_way_to_them_and_present_ones_do_not():
    world = Hours(NOON, parts=2)
    world.elapsed = shell.MOVING_S
    world.flush(0, [cell(0, "a", "x", "m", NOON - n * HOUR, n, USD) for n in (30, 20, 10, 0)], NOON)
    world.flush(1, [cell(1, "b", "x", "m", NOON - 25 * HOUR, 1, USD)], NOON - 24 * HOUR)
    world.round()
    assert hours_said(world) == [(0, -30), (1, -25), (0, 0)]
    world.flush(1, [cell(1, "b", "x", "m", NOON - n * HOUR, n, USD) for n in (20, 15)], NOON - 15 * HOUR)
    world.restart_rollup()
    world.elapsed += shell.MOVING_S
    world.round()
    # What may not have been said is said again, and what is over by now.
    assert hours_said(world)[3:] == [(1, -25), (0, -20), (1, -20), (1, -15), (0, 0)]
    # It comes no further.
    world.elapsed += shell.MOVING_S
    world.round()
    assert hours_said(world)[8:] == [(0, -10)]
    world.round()
    assert len(hours_said(world)) == 9


def test_nothing_waits_where_partitions_are_given_away():
    world = Hours(NOON, parts=1)
    world.flush(0, [cell(0, "a", "x", "m", NOON - 30 * HOUR, 1, USD)], NOON)
    world.round()
    assert hours_said(world) == []
    world.rollup._is_leaving = lambda: True
    world.round()
    assert hours_said(world) == [(0, -30)]


def test_an_hour_is_said_once_more_when_all_sources_are_five_minutes_past_it():
    world = Hours(NOON, parts=1)
    world.flush(0, [cell(0, "a", "x", "m", NOON, 1, USD)], NOON + 50 * MINUTE)
    world.round()
    world.flush(0, [], NOON + 64 * MINUTE)
    world.round()
    assert [each.is_over for each in said(world) if each.scope == "team:a"] == [False]
    world.restart_rollup()
    world.flush(0, [], NOON + 65 * MINUTE)
    world.round()
    world.restart_rollup()
    world.round()
    assert [each.is_over for each in said(world) if each.scope == "team:a"] == [False, True]


def test_what_cannot_change_any_more_is_deleted_from_its_topic_and_its_table():
    world = Hours(NOON, parts=1)
    world.flush(0, [cell(0, "a", "x", "m", NOON, 1, USD)], NOON + 50 * MINUTE)
    world.round()
    world.flush(0, [], NOON + 7 * HOUR)
    world.elapsed += shell.MOVING_S
    # It is said to be over first.
    world.round()
    world.round()
    newest = {record.key: record.value for record in world.wire.log[topics.SPEND_HOURS]}
    assert set(newest.values()) == {None}
    assert set(world.kept["rollup"][0]) == {b"p"}


def test_partitions_that_are_given_away_have_their_round_at_once(monkeypatch):
    monkeypatch.setattr(shell, "POLL_S", 0.001)
    world = Hours(NOON, parts=1)
    world.rollup._due_at = float("inf")
    world.flush(0, [cell(0, "a", "x", "m", NOON, 1, USD)], NOON)
    [event] = world._unacked
    leaving = False
    world.rollup._is_leaving = lambda: leaving

    async def until_acked() -> None:
        nonlocal leaving
        task = asyncio.create_task(world.rollup.run_background())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not event.acked
        leaving = True
        async with asyncio.timeout(10):
            while not event.acked:
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(until_acked())


def test_a_gap_in_delivery_stops_the_worker(monkeypatch):
    stopped = []
    monkeypatch.setattr(shell, "fail_stop", lambda where, error: stopped.append(str(error)))
    world = Hours(NOON, parts=1)
    world.flush(0, [], NOON)
    world._cells_end[0] += 3
    world.flush(0, [], NOON)
    assert stopped == ["spend.cells.v1[0]: a gap of 3 offsets"]


def test_what_an_overtaken_owner_says_late_changes_nothing():
    world = Hours(NOON, parts=1)
    world.flush(0, [cell(0, "a", "x", "m", NOON, 1, USD)], NOON + MINUTE)
    world.round()
    stale = list(world.wire.log[topics.SPEND_HOURS])
    world.flush(0, [cell(0, "a", "x", "m", NOON, 2, 9 * USD)], NOON + 2 * MINUTE)
    world.round()
    world.judge()
    before = msgspec.json.encode(dict(world.spikes._states[0]))
    log = world.wire.log[topics.SPEND_HOURS]
    log += [type(each)(len(log) + n, 0, each.value, key=each.key) for n, each in enumerate(stale)]
    world.judge()
    assert msgspec.json.encode(dict(world.spikes._states[0])) == before
    assert world.spikes._made_of[0]["team:a"].models(NOON)["m"].cost_nanos == 9 * USD
