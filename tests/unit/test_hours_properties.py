"""Cells to alerts: whatever batches and rounds they come in, and wherever a worker dies, the same is found and learned."""

import copy

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.instants import HOUR, MINUTE, parse_instant
from tests.unit.hours_rig import USD, Hours, cell, final

START = parse_instant("2026-11-16T00:00:00Z")
#: Hours of plain spend before what is drawn.
KNOWN = 76
USUAL = {("a", "x", "m"): 12, ("a", "y", "n"): 6, ("b", "x", "m"): 9}
#: Cell by partition: the feature x is spent through both.
PARTS = {("a", "x", "m"): 0, ("a", "y", "n"): 0, ("b", "x", "m"): 1}


def taught() -> Hours:
    world = Hours(START)
    for n in range(KNOWN):
        hour = START + n * HOUR
        for part in (0, 1):
            own = [
                cell(part, *name, hour, n, (usd + (n * 7 + usd) % 3) * USD)
                for name, usd in USUAL.items()
                if PARTS[name] == part
            ]
            world.flush(part, own, hour + 50 * MINUTE)
        world.round()
        world.judge()
        world.tick(hour + 59 * MINUTE)
    assert world.alerts() == []
    return world


TAUGHT = taught()


def fresh() -> Hours:
    world = Hours(TAUGHT.clock.at)
    world.kept = copy.deepcopy(TAUGHT.kept)
    world._cells_end = copy.copy(TAUGHT._cells_end)
    world.restart_rollup()
    world.restart_detectors()
    return world


#: Of each hour and cell, what is added in each of three flushes, dollars.
spent = st.lists(
    st.fixed_dictionaries({name: st.tuples(*[st.sampled_from([0, 3, 4, 30, 80])] * 3) for name in USUAL}),
    min_size=4,
    max_size=5,
)
#: Amid each flush: a round or not, how it goes, what is restarted, how much is read at once.
plans = st.lists(
    st.tuples(
        st.sampled_from(["no round", "round", "dies"]), st.sampled_from(["", "rollup", "detectors"]), st.integers(1, 9)
    ),
    min_size=30,
    max_size=30,
)


def play(spent, plan) -> Hours:
    world, steps = fresh(), iter(plan)
    for n, hour_spent in enumerate(spent, KNOWN):
        hour, so_far = START + n * HOUR, dict.fromkeys(USUAL, 0)
        for step in range(3):
            # The detectors look at the time every few seconds, whether or not anything is said.
            world.tick(hour + (10 + 20 * step) * MINUTE)
            for part in (0, 1):
                names = [name for name, added in hour_spent.items() if PARTS[name] == part and added[step]]
                how, restarted, at_once = next(steps)
                for is_all in (False, True):
                    # What is read in one round was flushed in two; a round is a minute late at most, since a source is
                    # held to be silent by when it was heard.
                    own = []
                    for name in names:
                        so_far[name] += hour_spent[name][step] * USD // 2
                        offset, requests = 1_000 * n + 2 * step + is_all, 100 * (step + 1) - 50 * (not is_all)
                        own.append(cell(part, *name, hour, offset, so_far[name], requests))
                    world.flush(part, own, hour + (10 + 20 * step) * MINUTE)
                    if restarted == "rollup":
                        world.restart_rollup()
                    if is_all or how != "no round":
                        world.round(dies=how == "dies")
                        world.judge(at_once)
                    if restarted == "detectors":
                        world.restart_detectors()
        # A round comes well within the minutes that an hour stays open.
        world.round()
        world.judge()
        world.tick(hour + 58 * MINUTE)
    world.quiet_hours(START + (KNOWN + len(spent)) * HOUR, 7)
    return world


PLAIN = [("round", "", 10_000)] * 30


def named(world: Hours) -> set[tuple[str, str]]:
    return {(alert.alert_id, alert.status) for alert in world.alerts() if alert.status != "updated"}


def learned(world: Hours) -> dict[str, bytes]:
    """All that is kept of what was learned."""
    found = {}
    for scope, state in sorted(world.spikes._states[0].items()):
        found[scope] = msgspec.json.encode([state.history, state.incident, state.next_close, state.frozen_before])
    for scope, state in sorted(world.regimes._states[0].items()):
        found[f"regime {scope}"] = msgspec.json.encode([state.detectors, state.shares, state.next_hour])
    for scope, state in sorted(world.unusuals._states[0].items()):
        found[f"unusual {scope}"] = msgspec.json.encode([state.detector, state.next_hour, state.odd])
    for agent in world.detectors.values():
        for scope, made_of in sorted(agent._made_of[0].items()):
            found[f"{agent.name} {scope}"] = msgspec.json.encode(made_of.usual)
    return found


@settings(max_examples=12, deadline=None)
@given(spent, plans)
def test_any_rounds_and_restarts_find_the_same_incidents_and_learn_the_same(spent, plan):
    one, other = play(spent, PLAIN), play(spent, plan)
    assert named(one) == named(other)
    assert learned(one) == learned(other)
    ends = [{a.alert_id: final(a) for a in world.alerts() if a.status == "resolved"} for world in (one, other)]
    assert ends[0] == ends[1]


def test_a_spike_of_a_team_is_told_of_all_that_it_is_part_of_with_its_exact_drivers():
    surge = [{("a", "x", "m"): (30, 30, 60), ("a", "y", "n"): (2, 2, 2), ("b", "x", "m"): (3, 3, 3)}]
    world = play([*surge, *[dict.fromkeys(USUAL, (2, 3, 3))] * 3], PLAIN)
    opened = {(a.scope_type, a.scope_id): a for a in world.alerts() if a.rule == "spend_spike" and a.status == "opened"}
    assert {scope: a.tier for scope, a in opened.items()} == {
        ("org", "acme"): "page",
        ("team", "a"): "page",
        ("feature", "x"): "ticket",
        ("team_feature", "a/x"): "ticket",
        ("model", "m"): "ticket",
    }
    team = opened["team", "a"]
    assert team.ancestors == ("org:acme",)
    assert opened["team_feature", "a/x"].ancestors == ("team:a", "org:acme")
    assert "all of the excess is team a's" in opened["org", "acme"].summary
    parts = [team.drivers.volume, team.drivers.model_mix, team.drivers.tokens_per_request]
    parts += [team.drivers.cache, team.drivers.price]
    assert sum(map(_nanos, parts)) == _nanos(team.observed) - _nanos(team.expected)
    assert _nanos(team.at_stake_per_hour) == _nanos(team.observed) - _nanos(team.expected)
    assert _nanos(team.expected_low) <= _nanos(team.expected) <= _nanos(team.expected_high)
    assert (team.drivers.by[0].kind, team.drivers.by[0].name) in {("feature", "x"), ("model", "m")}


def _nanos(text: str) -> int:
    whole, _, rest = text.lstrip("-").partition(".")
    nanos = int(whole) * USD + int(rest.ljust(9, "0") or 0)
    return -nanos if text.startswith("-") else nanos


def test_hours_that_are_over_leave_nothing_behind_but_what_was_learned():
    world = play([dict.fromkeys(USUAL, (4, 4, 4))] * 4, PLAIN)
    later = START + (KNOWN + 14) * HOUR
    world.quiet_hours(later, 2)
    assert [key for key in world.kept["rollup"][0] if key.startswith(b"c|")] == []
    for name in ("spikes", "unusuals"):
        assert [key for key in world.kept[name][0] if key.startswith(b"h|")] == []
    newest = {record.key: record.value for record in world.wire.log["spend.hours.v1"]}
    assert set(newest.values()) == {None}
