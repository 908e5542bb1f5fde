"""Unusual hours: told once as a ticket, in plain words, and not for the rhythm of a day."""

import random

import msgspec
import pytest

from schemas.alerts import Alert
from schemas.answers import AlertAnswer, PlannedEvent
from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from schemas.money import NANOS
from schemas.statements import HourStatement
from streams.core.answers import NO_LESSONS, Lessons
from streams.core.composition import Composition
from streams.core.detect_multivariate import (
    UNUSUAL_STATES,
    UnusualPolicy,
    UnusualState,
    judge_hour,
    step_unusual,
    tick_unusual,
)
from streams.core.detect_reach import Reach
from streams.core.detect_regime import OPEN_HOURS_MAX
from streams.core.detect_regime_ratios import HourTotals
from streams.core.detection import standing_alerts
from tests.unit.test_detect_regime import heard, parts_of

START = parse_instant("2026-11-02T00:00:00Z")
POLICY = UnusualPolicy()
KNOWN = 96


def hour_of_day(
    n: int, *, requests: float = 1, tokens: float = 1, errors: float = 1, cached: float = 1, price: float = 1
) -> HourTotals:
    """An ordinary hour: requests follow the day, the rest wobbles; times what makes it strange."""
    dice = random.Random(n)
    wobble = lambda: 1 + dice.uniform(-0.08, 0.08)  # noqa: E731
    calls = int((2_000 + 1_500 * (n % 24 in range(8, 18))) * wobble() * requests)
    tokens_in = int(calls * 1_000 * wobble() * tokens)
    tokens_out = int(tokens_in * 0.25 * wobble())
    return HourTotals(
        requests=calls,
        errors=min(calls, int(calls * 0.02 * wobble() * errors)),
        input_tokens=tokens_in,
        cached_tokens=int(tokens_in * 0.4 * wobble() * cached),
        output_tokens=tokens_out,
        cost_nanos=int((tokens_in + tokens_out) * 3_000 * wobble() * price),
    )


class Scope:
    """A scope over whole hours, and what people say of it."""

    def __init__(self, name: str = "team:search", policy: UnusualPolicy = POLICY) -> None:
        self.state, self.hour, self.policy = UnusualState(scope=name), 0, policy
        self.lessons = NO_LESSONS
        self.alerts: list[Alert] = []

    def hours(self, count: int, *, behind: int = HOUR, restart: bool = False, **changes: float) -> list[Alert]:
        said: list[Alert] = []
        for _ in range(count):
            if restart:
                self.state = UNUSUAL_STATES.decode(msgspec.json.encode(self.state))
            at, totals = START + self.hour * HOUR, hour_of_day(self.hour, **changes)
            self.state, new = judge_hour(self.state, at, totals, Composition(), at + behind, self.policy, self.lessons)
            said += new
            self.hour += 1
        self.alerts += said
        return said

    @property
    def now(self) -> int:
        return START + self.hour * HOUR

    def tick(self, now: int) -> list[Alert]:
        self.state = msgspec.structs.replace(self.state, reaches={"s": Reach(now, now)})
        self.state, said = tick_unusual(self.state, now, self.policy, Composition(), self.lessons)
        self.alerts += said
        return said

    def answers(self, alert: Alert, kind: str, usd: float = 0) -> list[Alert]:
        answer = AlertAnswer(
            alert=alert.dedup_key, rule=alert.rule, answer=kind, teaches=alert.teaches, figures=alert.figures,
            starts=self.now - DAY, until=self.now + DAY, nanos=round(usd * NANOS), known_from=0,
        )  # fmt: skip
        self.lessons = Lessons([answer])
        return self.tick(self.now)


def known(**options) -> Scope:
    scope = Scope(**options)
    assert scope.hours(KNOWN) == []
    return scope


RELEASE = {"requests": 0.5, "tokens": 3.0, "cached": 0.1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"requests": 6.0}, "requests ", id="six times the requests"),
        pytest.param(RELEASE, "tokens for a request ", id="fewer and longer requests without a cache"),
        pytest.param({"errors": 25.0, "tokens": 0.3}, "failing requests ", id="short calls, half of which fail"),
        pytest.param({"price": 4.0}, "a million tokens $", id="a dearer model"),
    ],
)
def test_an_hour_unlike_all_others_is_one_ticket_that_names_what_is_farthest_from_usual(changes, words):
    scope = known()
    [alert] = scope.hours(1, **changes)
    assert (alert.rule, alert.status, alert.tier, alert.severity) == ("unusual_hour", "opened", "ticket", "warning")
    assert alert.summary.startswith("Team search is unlike itself in the hour from 2026-11-06 00:00 UTC: ")
    assert words in alert.summary
    assert " and not " in alert.summary
    assert scope.hours(2, **changes) == []


def test_the_words_are_plain():
    [alert] = known().hours(1, **RELEASE)
    _, _, numbers = alert.summary.partition(" UTC: ")
    assert numbers == WORDS
    assert (alert.unit, alert.team_id, alert.teaches) == UNIT


WORDS = (
    "cached input 4.2 % and not 40.0 %, tokens for a request 3,979 and not 1,210 (3.2×), "
    "requests 979 and not 2,257 (0.4×) and cost $12.17 and not $7.99 (1.5×)"
)
UNIT = ("share", "search", "unusual_hour|team:search|cached_input|down")


def test_it_ends_after_quiet_hours_and_what_comes_again_is_known():
    scope = known()
    scope.hours(2, requests=6.0)
    [ended] = scope.hours(6)
    assert (ended.status, ended.tier) == ("resolved", "ticket")
    assert ended.dedup_key == scope.alerts[0].dedup_key
    assert scope.state.incident is None
    assert parse_instant(ended.stated_at) == START + (KNOWN + 2 + POLICY.quiet_hours) * HOUR
    assert scope.hours(1, requests=6.0) == []


def test_it_is_told_again_only_where_it_is_much_stranger():
    scope = known()
    assert [a.status for a in scope.hours(1, tokens=4.0)] == ["opened"]
    assert scope.hours(1, tokens=4.2) == []
    [again] = scope.hours(1, tokens=900.0, requests=300.0, errors=40.0)
    assert (again.status, again.dedup_key) == ("updated", scope.alerts[0].dedup_key)


def test_a_level_that_lasts_is_the_usual_one_after_a_day():
    scope = known()
    scope.hours(40, requests=6.0)
    assert [a.status for a in scope.alerts] == ["opened", "resolved"]
    assert scope.hours(48, requests=6.0) == []


@pytest.mark.parametrize("kind", ["requests", "errors", "price", "tokens"])
@pytest.mark.parametrize("factor", [10.0, 1_000.0, 0.01])
def test_nobody_is_ever_paged(kind, factor):
    scope = known()
    said = [*scope.hours(3, **{kind: factor}), *scope.hours(3, **{kind: factor**2}), *scope.hours(8)]
    assert {alert.tier for alert in said} <= {"ticket", "note"}


def test_history_and_small_change_are_notes():
    assert {(a.tier, a.historic) for a in known().hours(1, behind=9 * HOUR, requests=6.0)} == {("note", True)}
    small = known(policy=UnusualPolicy(floor_nanos=10**15))
    assert {(a.tier, a.historic) for a in small.hours(1, requests=6.0)} == {("note", False)}


def test_an_hour_counts_once_and_only_whole_hours_do():
    scope = known()
    before = scope.state
    assert judge_hour(before, START, HourTotals(requests=9_999), Composition(), scope.now, POLICY)[0] is before
    with pytest.raises(ValueError, match="UTC hour"):
        judge_hour(before, scope.now + 1, HourTotals(requests=0), Composition(), scope.now, POLICY)


@pytest.mark.parametrize(
    "totals",
    [
        pytest.param(HourTotals(requests=0), id="no calls"),
        pytest.param(HourTotals(requests=49, errors=49), id="few calls that all fail"),
    ],
)
def test_hours_of_few_calls_are_holes(totals):
    scope = known()
    after, said = judge_hour(scope.state, scope.now, totals, Composition(), scope.now + HOUR, POLICY)
    assert said == []
    assert after.detector == scope.state.detector


def test_no_makes_it_usual_at_once_and_a_repetition_is_not_told():
    scope = known()
    [opened] = scope.hours(1, **RELEASE)
    [ended] = scope.answers(opened, "no")
    assert ended.status == "resolved"
    assert ended.summary.startswith("Normal here or planned, as was answered: Team search is unlike itself ")
    assert scope.hours(60, **RELEASE) == []


def test_yes_leaves_it_open_and_it_is_told_the_next_time():
    scope = known()
    [opened] = scope.hours(1, requests=6.0)
    assert scope.answers(opened, "yes") == []
    assert [a.status for a in scope.hours(6)] == ["resolved"]
    [again] = scope.hours(1, requests=6.5)
    assert (again.status, again.teaches) == ("opened", opened.teaches)
    assert scope.hours(5)[-1].status == "resolved"
    assert scope.hours(2, requests=2.0) == []


@pytest.mark.parametrize(("usd", "told"), [(1_000_000, False), (1, True)], ids=["within", "far above"])
def test_what_was_planned_is_quiet_up_to_its_amount(usd, told):
    scope = known()
    event = PlannedEvent(
        id="e", scope="team:search", starts=scope.now, until=scope.now + DAY, nanos=usd * NANOS, known_from=0
    )
    scope.lessons = Lessons((), [event])
    assert bool(scope.hours(3, requests=8.0)) is told


def test_a_scope_that_falls_silent_leaves_no_alert_open():
    scope = known()
    scope.hours(1, requests=6.0)
    before = scope.state
    last = before.next_hour + DAY
    assert tick_unusual(before, last - 1, POLICY, Composition()) == (before, [])
    after, [ended] = tick_unusual(before, last, POLICY, Composition())
    assert (ended.status, after.incident) == ("resolved", None)
    assert tick_unusual(after, last, POLICY, Composition())[0] is after


@pytest.mark.parametrize("partitions", [1, 3])
def test_hours_in_parts_say_what_whole_hours_do(partitions):
    whole = known(name="feature:chat")
    whole.hours(2, **RELEASE)
    whole.hours(6)
    state, alerts, made_of = UnusualState(scope="feature:chat"), [], Composition()
    for n in range(KNOWN + 8):
        start, at = START + n * HOUR, START + n * HOUR + HOUR - 1
        totals = hour_of_day(n, **(RELEASE if KNOWN <= n < KNOWN + 2 else {}))
        for name, part in enumerate(parts_of(totals, partitions)):
            said_of: tuple[HourStatement, Composition] = heard(made_of, name, start, part, at)
            state, said = step_unusual(state, *said_of, at, POLICY)
            alerts += said
        state, said = tick_unusual(state, at, POLICY, made_of)
        alerts += said
        made_of.freeze(state.next_hour, frozenset(state.odd))
    state, said = tick_unusual(state, START + (KNOWN + 9) * HOUR, POLICY, made_of)
    alerts += said
    told = [(a.alert_id, a.observed, a.tier, a.summary) for a in alerts]
    assert told == [(a.alert_id, a.observed, a.tier, a.summary) for a in whole.alerts]
    assert state.detector == whole.state.detector


def test_a_partition_far_behind_does_not_hold_hours_open_for_ever():
    state, made_of = UnusualState(scope="feature:chat"), Composition()
    for n in range(30):
        now, totals = START + n * HOUR + MINUTE, hour_of_day(n)
        state, _ = step_unusual(state, *heard(made_of, 0, START, totals, START), now, POLICY)
        state, _ = step_unusual(state, *heard(made_of, 1, START + n * HOUR, totals, now), now, POLICY)
        made_of.freeze(state.next_hour, frozenset())
        assert len(made_of.hours) <= OPEN_HOURS_MAX


def test_a_restart_at_any_hour_changes_nothing():
    def played(restart: bool) -> bytes:
        scope = Scope()
        for count, changes in ((KNOWN, {}), (3, RELEASE), (9, {}), (2, {"errors": 25.0}), (5, {})):
            scope.hours(count, restart=restart, **changes)
        return msgspec.json.encode([scope.state, scope.alerts, standing_alerts(scope.state)])

    assert played(True) == played(False)


def test_what_stands_is_said_again_byte_for_byte():
    scope = known()
    scope.hours(1, requests=6.0)
    assert standing_alerts(scope.state) == scope.alerts
    scope.hours(4)
    assert standing_alerts(scope.state) == scope.alerts[-1:]
