"""Spend spikes under at-least-once delivery: whatever is split, repeated, reordered or restarted."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE, parse_instant
from schemas.statements import Figures, HourStatement
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy
from streams.core.detect_spike_state import SpikeState

USD = 1_000_000_000
START = parse_instant("2026-11-16T00:00:00Z")
POLICY = SpikePolicy(quiet_hours=1)
#: The hours that the properties play in, after four and a half days at 20 dollars.
FIRST = 24 * 4 + 12


def statement(hour: int, partition: int, offset: int, nanos: int) -> HourStatement:
    at = START + hour * HOUR + 30 * MINUTE
    return HourStatement(
        scope="team:search",
        hour=START + hour * HOUR,
        part=partition,
        rank=offset,
        reach={f"usage.events.v1@0-{partition}": at},
        figures=Figures(requests=1, cost_nanos=nanos),
    )


def taught() -> SpikeState:
    state = None
    for hour in range(FIRST):
        state, said = step_spike(state, statement(hour, 0, hour, 20 * USD), START + hour * HOUR, POLICY)
        assert not said
    assert state is not None
    return state


TAUGHT = taught()

#: What three source partitions spend in two neighbouring hours, in steps of cumulative dollars that only grow.
growth = st.lists(st.integers(0, 30), min_size=1, max_size=4)
world = st.dictionaries(st.tuples(st.integers(FIRST, FIRST + 1), st.integers(0, 2)), growth, min_size=1)


def cumulative(spent: dict[tuple[int, int], list[int]]) -> list[HourStatement]:
    found = []
    for (hour, partition), steps in sorted(spent.items()):
        so_far = 0
        for n, dollars in enumerate(steps):
            so_far += dollars * USD
            found.append(statement(hour, partition, 1_000 + n, so_far))
    return found


def play(statements: list[HourStatement], restart: bool = False) -> tuple[SpikeState, list[Alert]]:
    """All statements at one instant, so that only their order differs; then two quiet hours."""
    state, alerts = TAUGHT, []
    now = START + (FIRST + 1) * HOUR + 30 * MINUTE
    for each in statements:
        if restart:
            state = msgspec.json.decode(msgspec.json.encode(state), type=SpikeState)
        state, said = step_spike(state, each, now, POLICY)
        alerts += said
    for hours in range(4):
        state, said = tick_spike(state, now + hours * HOUR, POLICY)
        alerts += said
    return state, alerts


def what_is_known(state: SpikeState) -> bytes:
    """The state without what names the moment of a crossing, which is the order's own."""
    return msgspec.json.encode(
        [state.history, state.next_close, state.frozen_before, state.incident], order="deterministic"
    )


@settings(max_examples=150, deadline=None)
@given(world, st.data())
def test_any_order_and_repetition_of_an_hour_ends_in_the_same_state(spent, data):
    statements = cumulative(spent)
    shuffled = data.draw(st.permutations(statements + data.draw(st.lists(st.sampled_from(statements)))))
    straight, other = play(statements)[0], play(shuffled)[0]
    assert what_is_known(straight) == what_is_known(other)
    assert straight.hours == other.hours


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.tuples(st.just(FIRST + 1), st.integers(0, 2)), growth, min_size=1), st.data())
def test_any_order_and_repetition_opens_and_resolves_the_same_alerts(spent, data):
    statements = cumulative(spent)
    shuffled = data.draw(st.permutations(statements + data.draw(st.lists(st.sampled_from(statements)))))

    def opened_and_resolved(alerts: list[Alert]) -> set[str]:
        return {a.alert_id for a in alerts if a.status != "updated"}

    straight, other = play(statements)[1], play(shuffled)[1]
    assert opened_and_resolved(straight) == opened_and_resolved(other)
    total = sum(sum(steps) for steps in spent.values())
    assert bool(straight) == (total > 30)


@settings(max_examples=100, deadline=None)
@given(world)
def test_leaving_out_what_a_later_statement_includes_changes_nothing_but_updates(spent):
    statements = cumulative(spent)
    newest = {(s.hour, s.part): s for s in statements}
    whole, part = play(statements), play(list(newest.values()))
    assert what_is_known(whole[0]) == what_is_known(part[0])


@settings(max_examples=60, deadline=None)
@given(world)
def test_a_restart_before_every_statement_changes_no_byte(spent):
    statements = cumulative(spent)
    assert msgspec.json.encode(play(statements)) == msgspec.json.encode(play(statements, restart=True))


@settings(max_examples=60, deadline=None)
@given(world)
def test_a_replay_of_everything_says_nothing_new(spent):
    statements = cumulative(spent)
    once, twice = play(statements), play(statements * 2)
    assert [a.alert_id for a in twice[1]] == [a.alert_id for a in once[1]]
    assert what_is_known(once[0]) == what_is_known(twice[0])


#: Five days of a scope that bursts: the learned bar has something to say, and an hour is judged by those before it.
LATER = 24 * 5 + 6


def bursty() -> SpikeState:
    state = None
    for hour in range(LATER):
        nanos = (70 if hour % 30 == 7 else 18 + hour % 5) * USD
        state, _ = step_spike(state, statement(hour, 0, hour, nanos), START + hour * HOUR + 30 * MINUTE, POLICY)
    assert state is not None
    return state


BURSTY = bursty()
#: What two source partitions spend in each of eight hours, in steps that only grow.
day = st.lists(
    st.tuples(*[st.lists(st.sampled_from([0, 1, 4, 9, 25, 60]), min_size=1, max_size=3)] * 2), min_size=8, max_size=8
)


def live(spent) -> list[list[HourStatement]]:
    """The statements of each hour, hour by hour, as a live stream brings them."""
    found = []
    for n, partitions in enumerate(spent):
        hour = []
        for partition, steps in enumerate(partitions):
            so_far = 0
            for step, dollars in enumerate(steps):
                so_far += dollars * USD
                hour.append(statement(LATER + n, partition, 10_000 + 100 * n + step, so_far))
        found.append(hour)
    return found


def play_live(hours: list[list[HourStatement]], cuts=None, restart: bool = False) -> tuple[SpikeState, list[Alert]]:
    """Hour by hour, each with a tick behind it. ``cuts`` splits an hour into batches: of each only the newest of a
    slot counts, as the shell reads them. ``restart`` goes through JSON before every step.
    """
    state, alerts = BURSTY, []
    for n, hour in enumerate(hours):
        now = START + (LATER + n) * HOUR + 30 * MINUTE
        batches = [hour] if cuts is None else [hour[: cuts[n]], hour[cuts[n] :]]
        for batch in batches:
            for each in {each.part: each for each in batch}.values():
                if restart:
                    state = msgspec.json.decode(msgspec.json.encode(state), type=SpikeState)
                state, said = step_spike(state, each, now, POLICY)
                alerts += said
        state, said = tick_spike(state, now + 40 * MINUTE, POLICY)
        alerts += said
    for hours_later in range(1, 6):
        state, said = tick_spike(state, now + hours_later * HOUR, POLICY)
        alerts += said
    return state, alerts


@settings(max_examples=60, deadline=None)
@given(day, st.lists(st.integers(0, 6), min_size=8, max_size=8))
def test_any_split_into_batches_opens_and_ends_the_same_incidents_and_learns_the_same(spent, cuts):
    def named(alerts: list[Alert]) -> list[tuple[str, str]]:
        return [(a.alert_id, a.status) for a in alerts if a.status != "updated"]

    whole, split = play_live(live(spent)), play_live(live(spent), cuts)
    assert named(whole[1]) == named(split[1])
    assert whole[0].history == split[0].history
    assert whole[0].incident is None


@settings(max_examples=40, deadline=None)
@given(day)
def test_a_restart_at_any_statement_of_a_live_day_changes_no_byte(spent):
    hours = live(spent)
    assert msgspec.json.encode(play_live(hours)) == msgspec.json.encode(play_live(hours, restart=True))
