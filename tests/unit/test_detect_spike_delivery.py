"""Spend spikes as statements arrive: in slots, late, again, out of order, in a backlog, after a restart."""

import msgspec
import pytest

from detectors.hour_ring import HOURS_KEPT
from detectors.spend_spike import SpendScore, SpendSpike, SpendSpikeState
from schemas.instants import HOUR, MINUTE
from schemas.statements import HourStatement
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy
from streams.core.detect_spike_state import SpikeState
from streams.core.detection import standing_alerts
from tests.unit.spike_scope import MONDAY, NOON, POLICY, USD, Scope, brief, minutes, say, stream_time, taught


def test_the_parts_of_an_hour_are_added():
    scope = taught(20.0)
    parts = [say(NOON, 11, offset=5, partition=1), say(NOON, 19, offset=6, partition=2)]
    assert scope.hear(*parts) == []
    [alert] = scope.hear(say(NOON, 1, offset=9, partition=3))
    assert alert.observed == "31"


@pytest.mark.parametrize(
    "repeat",
    [
        say(NOON, 90, offset=10_000),
        say(NOON, 10, offset=9_999),
        say(NOON, 10, offset=10_000),
    ],
    ids=["the same again", "a lower rank", "the same rank with another amount"],
)
def test_what_is_not_newer_changes_nothing_and_returns_the_very_state(repeat: HourStatement):
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    before = scope.state
    assert scope.hear(repeat) == []
    assert scope.state is before


def test_an_hour_is_corrected_for_three_hours_and_then_frozen():
    scope = taught(20.0)
    late = say(NOON, 22, offset=20_000, at=(NOON + 3) * 60 + 59)
    scope.hear(say(NOON, 20, offset=10_000), late)
    assert learned(scope, NOON) == 22 * USD
    scope.hear(say(NOON + 4, 20, offset=20_001, at=(NOON + 4) * 60 + 10))
    before = scope.state
    scope.hear(say(NOON, 29, offset=20_002, at=(NOON + 4) * 60 + 11))
    assert scope.state is before
    assert learned(scope, NOON) == 22 * USD


def learned(scope: Scope, hour: int) -> int | None:
    return SpendSpike.from_state(scope.state.history).ring.at(MONDAY + hour * HOUR)


def is_anomalous(scope: Scope, hour: int) -> bool:
    _, marks = SpendSpike.from_state(scope.state.history).ring.before(MONDAY + (hour + 1) * HOUR)
    return bool(marks[-1])


def test_a_late_statement_that_makes_an_hour_hot_takes_it_out_of_what_was_learned():
    scope = taught(20.0)
    scope.hear(say(NOON, 20, offset=10_000))
    scope.tick(minutes((NOON + 1) * 60 + 6))
    assert learned(scope, NOON) == 20 * USD
    assert not is_anomalous(scope, NOON)
    scope.hear(say(NOON, 90, offset=10_001, at=(NOON + 1) * 60 + 7))
    assert is_anomalous(scope, NOON)


def test_a_backlog_is_recorded_as_history_and_never_pages():
    behind = 30 * HOUR
    scope = taught(20.0, behind=behind)
    scope.hear(say(NOON, 90, offset=10_000), say(NOON + 1, 20, offset=10_001))
    scope.tick(minutes((NOON + 2) * 60 + 6))
    assert [(a.status, a.tier, a.historic) for a in scope.alerts] == [
        ("opened", "note", True),
        ("resolved", "note", True),
    ]
    assert "spent $90.00 in the hour from 2026-11-20 12:00 UTC" in scope.alerts[0].summary


def test_the_timer_does_not_run_ahead_of_a_backlog():
    scope = taught(20.0, behind=30 * HOUR)
    scope.hear(say(NOON, 15, offset=10_000, at=NOON * 60 + 30))
    assert scope.tick(minutes(NOON * 60 + 31)) == []
    assert scope.state.next_close <= MONDAY + NOON * HOUR


def test_nothing_is_found_over_while_a_source_is_still_behind():
    scope = taught(20.0)
    now = minutes((NOON + 2) * 60 + 30)
    behind = say(NOON, 5, offset=2, partition=1, at=NOON * 60 + 50)
    scope.hear(say(NOON, 90, offset=10_000))
    state, said = step_spike(scope.state, behind, now, POLICY)
    state, more = step_spike(state, say(NOON + 2, 20, offset=10_001, at=(NOON + 2) * 60 + 30), now, POLICY)
    assert said + more == []
    assert state.incident is not None
    caught_up = say(NOON + 1, 4, offset=9, partition=1, at=(NOON + 2) * 60 + 30)
    assert brief(step_spike(state, caught_up, now + MINUTE, POLICY)[1]) == ["resolved"]


def test_a_source_that_is_silent_for_an_hour_holds_nothing_back():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    now = minutes(NOON * 60 + 60)
    state, _ = step_spike(scope.state, say(NOON - 9, 5, offset=2, partition=1), now, POLICY)
    for hour in (1, 2):
        statement = say(NOON + hour, 20, offset=10_000 + hour)
        state, _ = step_spike(state, statement, stream_time(statement), POLICY)
    state, _ = tick_spike(state, minutes((NOON + 3) * 60 + 6), POLICY)
    assert state.incident is None


def test_hours_kept_are_bounded_however_far_apart_the_sources_are():
    state = None
    now = minutes(200 * 60)
    for n in range(100):
        state, _ = step_spike(state, say(n, 20, offset=n), now, POLICY)
        state, _ = step_spike(state, say(0, 1, offset=n, partition=1, at=1), now, POLICY)
        assert len(state.hours) <= POLICY.hours_max + POLICY.keep_us // HOUR + 2


def test_a_scope_that_has_spent_nothing_for_three_weeks_sleeps_and_wakes():
    scope = taught(20.0)
    for hour in range(24 * 4, 24 * 27):
        scope.tick(minutes(hour * 60 + 30))
    before = scope.state
    assert scope.tick(minutes(24 * 40 * 60)) == []
    assert scope.state is before
    [alert] = scope.hear(say(24 * 60, 9, offset=90_000))
    assert alert.summary == "Team search spends $9.00 this hour, where nothing was expected"
    assert len(SpendSpike.from_state(scope.state.history).ring.before(MONDAY + 24 * 60 * HOUR)[0]) <= HOURS_KEPT


def test_what_was_said_last_can_be_said_again_byte_for_byte_after_a_restart():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    restored = msgspec.json.decode(msgspec.json.encode(scope.state), type=SpikeState)
    assert msgspec.json.encode(standing_alerts(restored)) == msgspec.json.encode(scope.alerts)


def test_the_state_stays_small_with_several_partitions_and_long_names():
    scope = taught(20.0)
    by = {f"feature-{n}-{'x' * 20}": n * USD for n in range(40)}
    for hour in range(NOON, NOON + 6):
        scope.hear(*(say(hour, 90_000, offset=hour * 10 + p, partition=p, by=by) for p in range(4)))
    assert len(msgspec.json.encode(scope.state.history)) <= 4_096
    assert len(msgspec.json.encode(scope.state)) <= 16_384


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        (say(0, 1, scope="team:ads"), "given to the state of"),
        (msgspec.structs.replace(say(0, 1), hour=MONDAY + 1), "UTC hours"),
    ],
    ids=["another scope", "an hour that is none in UTC"],
)
def test_a_statement_that_is_not_its_own_is_refused(statement: HourStatement, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        step_spike(SpikeState(scope="team:search"), statement, MONDAY, POLICY)


@pytest.mark.parametrize(
    "wrong",
    [{"ratio_percent": 100}, {"floor_nanos": -1}, {"quiet_hours": 0}, {"hours_max": 1}, {"keep_us": MINUTE}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError):
        SpikePolicy(**wrong)


def test_inputs_are_left_as_they_were():
    scope = taught(20.0)
    state, statement = scope.state, say(NOON, 90, offset=10_000, by={"chat": 1})
    before = msgspec.json.encode([state, statement])
    step_spike(state, statement, stream_time(statement), POLICY)
    tick_spike(state, minutes((NOON + 9) * 60), POLICY)
    assert msgspec.json.encode([state, statement]) == before


def test_an_empty_state_of_the_first_version_can_be_read():
    state = msgspec.json.decode(b'{"scope":"team:search"}', type=SpikeState)
    assert state == SpikeState(scope="team:search", history=SpendSpikeState())
    assert tick_spike(state, MONDAY, POLICY) == (state, [])
    assert SpendScore(1, 1, 0, 100, None, None, 0).ratio_percent == 100
