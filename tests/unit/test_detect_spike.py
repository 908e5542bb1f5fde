"""Spend spikes: one incident a scope, said while the hour still runs, resolved when it is over."""

import msgspec
import pytest

from detectors.base import Score
from detectors.hourly_spend import HOURS_KEPT, HourlySpendState
from schemas.alerts import Alert
from schemas.instants import DAY, HOUR, MINUTE, format_instant, parse_instant
from schemas.statements import ScopeStatement, Source
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_state import SpikePolicy, SpikeState
from streams.core.detection import standing_alerts

USD = 1_000_000_000
MONDAY = parse_instant("2026-11-16T00:00:00Z")
POLICY = SpikePolicy(runbook="https://runbooks.example/spike")


def say(
    hour: int,
    usd: float,
    *,
    offset: int = 1,
    at: int | None = None,
    scope: str = "team:search",
    partition: int = 0,
    segment: int = 0,
    revision: int = 0,
    by: dict[str, int] | None = None,
) -> ScopeStatement:
    """The statement that hour ``hour`` after Monday has cost ``usd`` so far; ``at`` is minutes after Monday."""
    start = MONDAY + hour * HOUR
    stream_time = start + 59 * MINUTE if at is None else MONDAY + at * MINUTE
    return ScopeStatement(
        scope=scope,
        period_start=start,
        period_end=start + HOUR,
        source=Source("usage.events.v1", 0, partition),
        segment=segment,
        revision=revision,
        offset=offset,
        cost_nanos=round(usd * USD),
        requests=1,
        tokens=1,
        stream_time=stream_time,
        arrived_at=stream_time,
        contributors=by or {},
    )


def minutes(count: int) -> int:
    return MONDAY + count * MINUTE


class Scope:
    """One scope whose clock is the stream's: every statement is taken in at its own stream time."""

    def __init__(self, policy: SpikePolicy = POLICY, behind: int = 0) -> None:
        self.policy, self.behind = policy, behind
        self.state: SpikeState | None = None
        self.alerts: list[Alert] = []

    def hear(self, *statements: ScopeStatement) -> list[Alert]:
        said: list[Alert] = []
        for statement in statements:
            now = statement.stream_time + self.behind
            self.state, new = step_spike(self.state, statement, now, self.policy)
            said += new
        self.alerts += said
        return said

    def tick(self, now: int) -> list[Alert]:
        assert self.state is not None
        self.state, said = tick_spike(self.state, now + self.behind, self.policy)
        self.alerts += said
        return said


def taught(usd: float = 20.0, days: int = 4, scope: str = "team:search", **more) -> Scope:
    """A scope that has spent ``usd`` every hour for ``days`` days, and stands at the end of the last."""
    found = Scope(**more)
    found.hear(*(say(hour, usd, offset=hour, scope=scope) for hour in range(24 * days)))
    assert found.alerts == []
    return found


NOON = 24 * 4 + 12


def brief(alerts: list[Alert]) -> list[str]:
    return [alert.status for alert in alerts]


def test_a_spike_is_said_in_the_running_hour_with_its_cause_in_the_first_line():
    scope = taught(27.10)
    at = NOON * 60 + 20
    assert scope.hear(say(NOON, 40.6, offset=1_000, at=at)) == []
    [alert] = scope.hear(
        say(NOON, 84.2, offset=1_001, at=at + 1, by={"chat": 77_500_000_000, "autocomplete": 6_700_000_000})
    )
    assert alert.summary == ("Team search spends $84.20 this hour, 3.1× the expected $27.10 (feature chat drives 92 %)")
    assert (alert.rule, alert.scope_type, alert.scope_id, alert.team_id) == (
        "spend_spike",
        "team",
        "search",
        "search",
    )
    assert (alert.status, alert.severity, alert.tier, alert.historic) == ("opened", "critical", "page", False)
    assert alert.dedup_key == "v1:spend_spike:team:search:2026-11-20T12:00:00Z"
    assert (alert.observed, alert.expected, alert.threshold, alert.unit) == ("84.2", "27.1", "40.65", "USD")
    assert alert.occurred_at == alert.stated_at == format_instant(minutes(at + 1))
    assert [(c.name, c.cost_usd) for c in alert.top_contributors] == [("chat", "77.5"), ("autocomplete", "6.7")]
    assert alert.runbook == POLICY.runbook


@pytest.mark.parametrize(
    ("usual", "usd", "is_spike"),
    [
        (20.0, 30.0, False),
        (20.0, 30.000000001, True),
        (2.0, 7.0, False),
        (2.0, 7.000000001, True),
        (0.0, 5.0, False),
        (0.0, 5.01, True),
        (1_000.0, 1_499.0, False),
        (20.0, -500.0, False),
        (-20.0, 4.0, False),
    ],
    ids=[
        "exactly half above is no spike",
        "a nanodollar more is",
        "twice is not enough below the floor",
        "a nanodollar above the floor is",
        "the floor holds where nothing is expected",
        "money where nothing was is a spike",
        "a large excess without the ratio is none",
        "credits are no spike",
        "credits before do not lower the bar below zero",
    ],
)
def test_the_bar_is_exact(usual: float, usd: float, is_spike: bool):
    assert bool(taught(usual).hear(say(NOON, usd, offset=10_000))) == is_spike


@pytest.mark.parametrize(("days", "is_ready"), [(0, False), (2, False), (3, True)])
def test_no_page_before_three_days_are_known(days: int, is_ready: bool):
    scope = taught(20.0, days=days)
    assert bool(scope.hear(say(24 * days + 2, 500.0, offset=10_000))) == is_ready


@pytest.mark.parametrize(
    ("scope_id", "severity", "tier", "subject"),
    [
        ("team:search", "critical", "page", "Team search"),
        ("team:__unattributed__", "critical", "page", "Spend without a team"),
        ("feature:chat", "warning", "ticket", "Feature chat"),
    ],
)
def test_a_team_pages_and_a_feature_is_a_ticket(scope_id: str, severity: str, tier: str, subject: str):
    [alert] = taught(scope=scope_id).hear(say(NOON, 90, offset=10_000, scope=scope_id))
    assert (alert.severity, alert.tier) == (severity, tier)
    assert alert.summary.startswith(f"{subject} spends $90.00 this hour, 4.5× the expected $20.00")


def test_an_incident_opens_once_and_is_updated_only_when_its_excess_has_doubled():
    scope = taught(20.0)
    for n, usd in enumerate([31, 32, 41.9, 42, 50, 63.9, 64, 100]):
        scope.hear(say(NOON, usd, offset=10_000 + n, at=NOON * 60 + 10 + n))
    assert [(a.status, a.observed) for a in scope.alerts] == [
        ("opened", "31"),
        ("updated", "42"),
        ("updated", "64"),
    ]
    assert len({a.alert_id for a in scope.alerts}) == 3
    assert len({a.dedup_key for a in scope.alerts}) == 1


def test_it_is_resolved_after_one_closed_hour_below_the_bar_by_the_timer_alone():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    grace = POLICY.grace_us // MINUTE
    assert scope.tick(minutes((NOON + 2) * 60 + grace - 1)) == []
    [alert] = scope.tick(minutes((NOON + 2) * 60 + grace))
    assert (alert.status, alert.tier, alert.severity, alert.episode) == ("resolved", "page", "critical", 1)
    assert alert.dedup_key == scope.alerts[0].dedup_key
    assert "back to what is expected; its peak was $90.00 in the hour from 2026-11-20 12:00 UTC" in alert.summary


def test_hours_that_stay_high_are_one_incident_until_the_first_quiet_one():
    scope = taught(20.0)
    for n in range(5):
        scope.hear(say(NOON + n, 60, offset=10_000 + n))
    scope.hear(say(NOON + 5, 20, offset=10_010))
    assert brief(scope.alerts) == ["opened"]
    scope.tick(minutes((NOON + 6) * 60 + 5))
    assert brief(scope.alerts) == ["opened", "resolved"]
    assert scope.alerts[-1].period_end == format_instant(MONDAY + (NOON + 5) * HOUR)


def test_more_quiet_hours_can_be_asked_for():
    scope = taught(20.0, policy=SpikePolicy(quiet_hours=3))
    scope.hear(say(NOON, 60, offset=10_000))
    assert scope.tick(minutes((NOON + 3) * 60 + 30)) == []
    assert brief(scope.tick(minutes((NOON + 4) * 60 + 30))) == ["resolved"]


def test_an_incident_is_not_learned_so_the_same_spike_is_found_again_on_the_next_days():
    scope = taught(20.0)
    for day in range(5):
        hour = NOON + 24 * day
        scope.hear(say(hour, 90, offset=20_000 + hour))
        for after in range(1, 24):
            scope.hear(say(hour + after, 20, offset=20_000 + hour + after))
    opened = [a for a in scope.alerts if a.status == "opened"]
    assert [a.expected for a in opened] == ["20"] * 5
    assert len({a.dedup_key for a in opened}) == 5


def test_a_new_level_is_one_incident_and_is_accepted_in_the_end():
    scope = taught(20.0, days=7)
    for hour in range(24 * 7, 24 * 14):
        scope.hear(say(hour, 60, offset=hour))
    scope.tick(minutes(24 * 14 * 60 + 30))
    assert brief(scope.alerts) == ["opened", "resolved"]
    assert "that is what is expected from now on" in scope.alerts[-1].summary


def test_a_late_correction_below_the_bar_resolves_at_once_and_says_so():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    [alert] = scope.hear(say(NOON, 21, offset=10_001))
    assert alert.status == "resolved"
    assert "late corrections bring it to $21.00" in alert.summary


def test_crossing_again_in_the_same_hour_is_the_next_episode():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000), say(NOON, 21, offset=10_001), say(NOON, 90, offset=10_002))
    assert [(a.status, a.episode) for a in scope.alerts] == [("opened", 1), ("resolved", 1), ("opened", 2)]
    assert len({a.alert_id for a in scope.alerts}) == 3
    assert len({a.dedup_key for a in scope.alerts}) == 1


def test_a_straggler_in_an_hour_that_was_told_is_no_new_incident():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    scope.tick(minutes((NOON + 2) * 60 + 10))
    assert brief(scope.alerts) == ["opened", "resolved"]
    assert scope.hear(say(NOON, 90.5, offset=10_001, at=(NOON + 2) * 60 + 11)) == []


def test_a_spike_that_late_events_tell_of_after_its_end_is_a_ticket_and_resolved_at_once():
    scope = taught(20.0)
    scope.hear(say(NOON, 20, offset=10_000))
    scope.tick(minutes((NOON + 2) * 60 + 10))
    said = scope.hear(say(NOON, 250, offset=10_002, at=(NOON + 2) * 60 + 12))
    assert [(a.status, a.tier, a.historic) for a in said] == [
        ("opened", "ticket", False),
        ("resolved", "ticket", False),
    ]
    assert said[0].summary.startswith("Team search spent $250.00 in the hour from 2026-11-20 12:00 UTC, 12× the")


def test_slots_of_partitions_and_segments_are_added():
    scope = taught(20.0)
    parts = [
        say(NOON, 11, offset=5, partition=1),
        say(NOON, 10, offset=6, partition=2),
        say(NOON, 9, offset=7, partition=2, segment=7),
    ]
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
    ids=["the same again", "an older offset", "the same offset with another amount"],
)
def test_what_is_not_newer_changes_nothing_and_returns_the_very_state(repeat: ScopeStatement):
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    before = scope.state
    assert scope.hear(repeat) == []
    assert scope.state is before


def test_a_higher_revision_replaces_the_amount_whatever_the_offset():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    assert brief(scope.hear(say(NOON, 15, offset=3, revision=1))) == ["resolved"]


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
    history = scope.state.history
    return history.nanos[(MONDAY + hour * HOUR - history.end) // HOUR]


def test_a_late_statement_that_makes_an_hour_hot_takes_it_out_of_what_was_learned():
    scope = taught(20.0)
    scope.hear(say(NOON, 20, offset=10_000))
    scope.tick(minutes((NOON + 1) * 60 + 6))
    assert learned(scope, NOON) == 20 * USD
    scope.hear(say(NOON, 90, offset=10_001, at=(NOON + 1) * 60 + 7))
    assert learned(scope, NOON) is None


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
        state, _ = step_spike(state, statement, statement.stream_time, POLICY)
    state, _ = tick_spike(state, minutes((NOON + 3) * 60 + 6), POLICY)
    assert state.incident is None


def test_hours_kept_are_bounded_however_far_apart_the_sources_are():
    state = None
    now = minutes(200 * 60)
    for n in range(100):
        state, _ = step_spike(state, say(n, 20, offset=n), now, POLICY)
        state, _ = step_spike(state, say(0, 1, offset=n, partition=1, at=1), now, POLICY)
        assert len(state.hours) <= POLICY.hours_max + POLICY.keep_us // HOUR + 2


def test_a_scope_that_has_spent_nothing_for_a_week_sleeps_and_wakes():
    scope = taught(20.0)
    for hour in range(24 * 4, 24 * 13):
        scope.tick(minutes(hour * 60 + 30))
    before = scope.state
    assert scope.tick(minutes(24 * 40 * 60)) == []
    assert scope.state is before
    [alert] = scope.hear(say(24 * 60, 9, offset=90_000))
    assert alert.summary == "Team search spends $9.00 this hour, where nothing was expected"
    assert len(scope.state.history.nanos) <= HOURS_KEPT


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
        (msgspec.structs.replace(say(0, 1), period_end=MONDAY + DAY), "UTC hours"),
        (msgspec.structs.replace(say(0, 1), period_start=MONDAY + 1, period_end=MONDAY + HOUR + 1), "UTC hours"),
    ],
    ids=["another scope", "a day", "an hour that is none in UTC"],
)
def test_a_statement_that_is_not_its_own_is_refused(statement: ScopeStatement, complaint: str):
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
    step_spike(state, statement, statement.stream_time, POLICY)
    tick_spike(state, minutes((NOON + 9) * 60), POLICY)
    assert msgspec.json.encode([state, statement]) == before


def test_an_empty_state_of_the_first_version_can_be_read():
    state = msgspec.json.decode(b'{"scope":"team:search"}', type=SpikeState)
    assert state == SpikeState(scope="team:search", history=HourlySpendState())
    assert tick_spike(state, MONDAY, POLICY) == (state, [])
    assert Score(1, 1, 0, 100).ratio_percent == 100
