"""A past that is read within seconds is learned as if it had come hour by hour, whichever rounds it came in."""

from itertools import zip_longest

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.instants import HOUR, MINUTE, parse_instant
from streams.agents.rollup import MOVING_S
from tests.unit.hours_rig import USD, Hours, cell

START = parse_instant("2026-11-16T00:00:00Z")
HOURS = 4 * 24
USUAL = {("a", "x", "m"): 12, ("a", "y", "n"): 6, ("b", "x", "m"): 9}
PARTS = {("a", "x", "m"): 0, ("a", "y", "n"): 0, ("b", "x", "m"): 1}
#: When the past is read.
END = START + (HOURS + 8) * HOUR


def cells(part: int, first: int, last: int, usual=USUAL, parts=PARTS) -> list:
    """A partition's hours: usual spend, with a spike of three hours on the fourth day, and a night without any."""
    found = []
    for n in range(first, last):
        for name, usd in usual.items():
            if parts[name] == part and n % 24 not in (3, 4):
                nanos = (usd + (n * 7 + usd) % 3) * (6 if 80 <= n < 83 else 1) * USD
                found.append(cell(part, *name, START + n * HOUR, n, nanos))
    return found


def settled(world: Hours) -> Hours:
    """The past is over; then all are live, for a while."""
    world.elapsed += MOVING_S + 1
    world.round()
    world.judge()
    for n in range(HOURS + 8, HOURS + 12):
        for part in (0, 1):
            world.flush(part, cells(part, n, n + 1), START + n * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(START + (n + 1) * HOUR - MINUTE)
    return world


def paced() -> Hours:
    world = Hours(START)
    for n in range(HOURS):
        for part in (0, 1):
            world.flush(part, cells(part, n, n + 1), START + n * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(START + (n + 1) * HOUR - MINUTE)
    world.clock.at = END
    return settled(world)


def learned(world: Hours, scopes=None) -> dict[str, object]:
    """What was learned, by scope."""
    found = {}
    for scope, state in world.spikes._states[0].items():
        ring = state.history
        found[f"spend {scope}"] = [ring.older, ring.recent, ring.left_out, ring.end, state.incident]
    for scope, state in world.regimes._states[0].items():
        found[f"habits {scope}"] = [state.detectors, state.shares, state.next_hour, sorted(state.incidents)]
    for agent in (world.spikes, world.regimes):
        for scope, made_of in agent._made_of[0].items():
            found[f"{agent.name} {scope}"] = msgspec.json.encode(made_of.usual)
    return {name: what for name, what in found.items() if scopes is None or name.partition(" ")[2] in scopes}


def opened(world: Hours, scopes=None) -> set:
    return {
        (alert.dedup_key, alert.status)
        for alert in world.alerts()
        if alert.status != "updated" and (scopes is None or f"{alert.scope_type}:{alert.scope_id}" in scopes)
    }


PACED = paced()
#: A step: which partition comes further, by how many hours, whether a round follows and how it goes, what is restarted,
#: and how much the detectors read at once.
steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([1, 5, 24, 60, 96]),
        st.sampled_from(["no round", "round", "dies"]),
        st.sampled_from(["", "", "rollup", "detectors"]),
        st.sampled_from([1, 7, 10_000]),
    ),
    max_size=6,
)


def imported(plan) -> Hours:
    """The same within seconds, when all of it is long past."""
    world, come = Hours(END), [0, 0]
    for part, hours, how, restarted, at_once in [*plan, (0, HOURS, "no round", "", 1), (1, HOURS, "round", "", 1)]:
        last = min(HOURS, come[part] + hours)
        if last > come[part]:
            world.flush(part, cells(part, come[part], last), START + (last - 1) * HOUR + 50 * MINUTE)
        come[part] = last
        if restarted == "rollup":
            world.restart_rollup()
        world.elapsed += 0.7
        if how != "no round":
            world.round(dies=how == "dies")
            world.judge(at_once)
            # Time passes while it is read.
            world.tick(world.clock.at + MINUTE)
        if restarted == "detectors":
            world.restart_detectors()
    return settled(world)


def test_what_is_read_within_one_round_is_learned_as_if_it_had_come_hour_by_hour():
    world = imported([])
    assert learned(world) == learned(PACED)
    assert opened(world) == opened(PACED) != set()
    assert {alert.tier for alert in world.alerts()} == {"note"}


@settings(max_examples=15, deadline=None)
@given(steps)
def test_in_any_rounds_and_with_any_restarts_the_past_is_learned_the_same(plan):
    world = imported(plan)
    assert learned(world) == learned(PACED)
    assert opened(world) == opened(PACED)


TEAM = {("c", "z", "m2"): 15}
OF_TEAM = {"team:c", "feature:z", "team_feature:c/z", "model:m2"}


def alone() -> Hours:
    """The team's past, hour by hour, with nobody else."""
    world = Hours(START, parts=1)
    for n in range(HOURS):
        world.flush(0, team_cells(n, n + 1), START + n * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(START + (n + 1) * HOUR - MINUTE)
    world.clock.at = END
    return with_team(settled(world))


def team_cells(first: int, last: int) -> list:
    return cells(0, first, last, TEAM, dict.fromkeys(TEAM, 0))


def with_team(world: Hours) -> Hours:
    for n in range(HOURS + 12, HOURS + 16):
        world.flush(0, team_cells(n, n + 1), START + n * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(START + (n + 1) * HOUR - MINUTE)
    return world


@pytest.mark.parametrize("at_a_time", [96, 40, 7])
@pytest.mark.parametrize("restarts", [False, True], ids=["", "with restarts"])
def test_a_new_teams_past_is_learned_where_others_are_live_and_changes_nothing_of_theirs(at_a_time, restarts):
    world, expected = settled(imported([])), alone()
    before = learned(world)
    for first in range(0, HOURS, at_a_time):
        own = team_cells(first, min(HOURS, first + at_a_time))
        # Of the last hour of each round the rest comes with the next.
        world.flush(0, own, world.clock.at)
        world.round()
        world.judge()
        world.tick(world.clock.at + 5)
        if restarts:
            world.restart_rollup()
            world.restart_detectors()
    world.elapsed += MOVING_S + 1
    world.round()
    world.judge()
    assert {name: what for name, what in learned(world).items() if name in before} == before
    with_team(world)
    assert learned(world, OF_TEAM) == learned(expected, OF_TEAM)
    assert opened(world, OF_TEAM) == opened(expected, OF_TEAM) != set()


def test_what_is_late_for_an_hour_long_judged_is_said_and_changes_nothing_that_was_learned():
    late = [cell(0, "a", "x", "m", START + 50 * HOUR, 9_000, 5_000 * USD)]
    worlds = [imported([]), imported([])]
    for world, own in zip(worlds, ([], late), strict=True):
        world.flush(0, own, world.clock.at)
        world.round()
        world.judge()
        world.tick(world.clock.at + MINUTE)
    assert learned(worlds[0]) == learned(worlds[1])
    assert opened(worlds[0]) == opened(worlds[1])


def test_one_partition_is_live_while_another_has_the_past_of_scopes_that_both_know():
    world = Hours(END)
    for n in range(HOURS + 8, HOURS + 9):
        world.flush(1, cells(1, n, n + 1), START + n * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
    for first, last in ((0, 30), (30, 31), (31, HOURS)):
        world.flush(0, cells(0, first, last), START + (last - 1) * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(world.clock.at + MINUTE)
    found = learned(settled(world))
    only = Hours(START)
    for n in range(HOURS):
        only.flush(0, cells(0, n, n + 1), START + n * HOUR + 50 * MINUTE)
        only.round()
        only.judge()
        only.tick(START + (n + 1) * HOUR - MINUTE)
    only.clock.at = END
    assert found == learned(settled(only))


def test_a_day_in_which_all_were_down_is_learned_though_one_partition_is_read_before_the_other():
    world = Hours(START)
    for n in range(HOURS):
        if n == 48:
            # Nobody was there for two days.
            world.clock.at = END
            world.restart_rollup()
            world.restart_detectors()
            for part in (0, 1):
                world.flush(part, cells(part, 48, HOURS), START + (HOURS - 1) * HOUR + 50 * MINUTE)
                world.elapsed += 1
                world.round()
                world.judge()
            break
        for part in (0, 1):
            world.flush(part, cells(part, n, n + 1), START + n * HOUR + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(START + (n + 1) * HOUR - MINUTE)
    assert learned(settled(world)) == learned(PACED)


def test_however_long_the_past_few_hours_of_a_scope_are_open_and_few_of_its_cells_are_held():
    world, month = Hours(START + 31 * 24 * HOUR), 30 * 24
    usual = dict(zip_longest(USUAL, [2, 3, 4]))
    for first in range(0, month, 24):
        for part in (0, 1):
            own = [
                cell(part, *name, START + n * HOUR, n, usd * USD)
                for n in range(first, first + 24)
                for name, usd in usual.items()
                if PARTS[name] == part
            ]
            world.flush(part, own, START + (first + 23) * HOUR + 50 * MINUTE)
        world.elapsed += 1
        world.round()
        world.judge()
        assert all(len(state.hours) <= 17 for state in world.spikes._states[0].values())
        assert all(len(made_of.hours) <= 17 for made_of in world.spikes._made_of[0].values())
    world.elapsed += MOVING_S + 1
    world.round()
    world.judge()
    ring = world.spikes._states[0]["org:acme"].history
    assert len(ring.older) // 4 + len(ring.recent) // 8 >= 22 * 24
    world.round()
    assert all(len(world.rollup._found[part].rolling.rollup.cells) <= 2 * 10 for part in (0, 1))
    assert len([key for key in world.wire.log[topics.SPEND_HOURS] if key.value]) > month
