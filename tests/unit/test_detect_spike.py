"""Spend spikes: one incident a scope, said while the hour still runs, resolved when it is over."""

import pytest

from schemas.instants import HOUR, MINUTE, format_instant
from streams.core.detect_spike_policy import SpikePolicy
from tests.unit.spike_scope import MONDAY, NOON, POLICY, brief, minutes, say, taught


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


def test_an_incident_opens_once_and_is_updated_only_at_three_and_at_ten_times_what_is_expected():
    scope = taught(20.0)
    for n, usd in enumerate([31, 42, 59.9, 60, 90, 199.9, 200, 500]):
        scope.hear(say(NOON, usd, offset=10_000 + n, at=NOON * 60 + 10 + n))
    assert [(a.status, a.observed) for a in scope.alerts] == [("opened", "31"), ("updated", "60"), ("updated", "200")]
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
        scope.hear(say(NOON + n, 59, offset=10_000 + n))
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


def test_an_incident_never_moves_what_is_expected_though_nobody_answers():
    scope = taught(20.0)
    for day in range(5):
        hour = NOON + 24 * day
        scope.hear(say(hour, 90 * 2**day, offset=20_000 + hour))
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


def test_a_spike_that_late_events_tell_of_after_its_end_is_said_and_resolved_at_once():
    scope = taught(20.0)
    scope.hear(say(NOON, 20, offset=10_000))
    scope.tick(minutes((NOON + 2) * 60 + 10))
    said = scope.hear(say(NOON, 250, offset=10_002, at=(NOON + 2) * 60 + 12))
    assert [(a.status, a.tier, a.historic) for a in said] == [
        ("opened", "page", False),
        ("resolved", "page", False),
    ]
    assert said[0].summary.startswith("Team search spent $250.00 in the hour from 2026-11-20 12:00 UTC, 12× the")
