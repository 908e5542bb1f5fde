"""Budgets: what each statement sets off, what lets go again, and that repetition changes nothing."""

import itertools

import msgspec
import pytest

from schemas.budgets import Rung
from schemas.commands import Target
from schemas.instants import HOUR, MINUTE, format_instant
from schemas.money import NANOS
from schemas.statements import ScopeStatement, Source
from streams.core import budgets
from streams.core.budget_rungs import BLOCK
from streams.core.budgets import BudgetState, Policy, Terms
from tests.unit.records import NOON

DAY_START = NOON - 10 * HOUR
DAY_END = DAY_START + 24 * HOUR
LADDER = (
    Rung(50, "info"),
    Rung(75, "warning"),
    Rung(90, "critical"),
    Rung(100, "emergency", (BLOCK,)),
)
TERMS = Terms(
    "search-daily", "budget:search-daily", Target("team", "search"), 100 * NANOS, "day", LADDER, enforced=True
)
POLICY = Policy()


def said(usd: float, *, offset: int, partition: int = 0, at: int = NOON, revision: int = 0, segment: int = 0):
    """A statement: this source partition has seen so many dollars by this offset."""
    return ScopeStatement(
        scope="budget:search-daily",
        period_start=DAY_START,
        period_end=DAY_END,
        source=Source("usage.events.v1", 0, partition),
        segment=segment,
        revision=revision,
        offset=offset,
        cost_nanos=int(usd * NANOS),
        requests=1,
        tokens=1,
        stream_time=at,
        arrived_at=at,
        contributors={"chat": int(usd * NANOS)},
    )


class Run:
    """A budget fed statement by statement, keeping what it said."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.terms = terms
        self.state: BudgetState | None = None
        self.alerts: list[tuple[str, str, str]] = []
        self.actions: list[str] = []
        self.revisions: list[int] = []

    def hear(self, statement: ScopeStatement, now: int = NOON) -> "Run":
        self.state = budgets.take_in(self.state, self.terms, statement)
        return self.decide(now)

    def decide(self, now: int) -> "Run":
        decision = budgets.decide(self.state, self.terms, now, POLICY)
        self.alerts += [(alert.threshold, alert.status, alert.tier) for alert in decision.alerts]
        # A renewal says the same again.
        if decision.command and decision.command.revision not in self.revisions:
            self.actions.append(decision.command.action)
            self.revisions.append(decision.command.revision)
        return self

    def restart(self) -> "Run":
        self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=BudgetState)
        return self


def test_each_rung_speaks_once_on_the_way_up_and_the_last_one_blocks():
    run = Run()
    for offset, usd in enumerate([49, 50, 60, 75, 90, 99.99, 100, 120]):
        run.hear(said(usd, offset=offset, at=NOON + offset * HOUR // 4))
    assert run.alerts == [
        ("50 %", "opened", "note"),
        ("75 %", "opened", "ticket"),
        ("90 %", "opened", "ticket"),
        ("100 %", "opened", "page"),
    ]
    assert run.actions == ["block"]


def test_a_leap_over_several_rungs_speaks_only_at_the_highest():
    run = Run().hear(said(130, offset=0))
    assert [(rung, tier) for rung, _, tier in run.alerts] == [
        ("50 %", "note"),
        ("75 %", "note"),
        ("90 %", "note"),
        ("100 %", "page"),
    ]


def test_partitions_are_added_and_a_repeat_or_an_older_statement_changes_nothing():
    run = Run()
    run.hear(said(30, offset=5)).hear(said(30, offset=9, partition=1)).hear(said(30, offset=5)).hear(said(10, offset=2))
    assert run.state.spent_nanos == 60 * NANOS
    assert run.alerts == [("50 %", "opened", "note")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_statements_commute(order):
    statements = [
        said(10, offset=1),
        said(40, offset=7),
        said(20, offset=3, partition=1),
        said(25, offset=4, partition=1),
    ]
    run = Run()
    for place in order:
        run.hear(statements[place])
    assert run.state.spent_nanos == 65 * NANOS


def test_segments_of_one_partition_are_added():
    run = Run().hear(said(30, offset=5)).hear(said(30, offset=9, segment=6))
    assert run.state.spent_nanos == 60 * NANOS


def test_the_end_of_the_period_releases_and_resolves_by_timer_alone():
    run = Run().hear(said(110, offset=0))
    run.alerts.clear()
    run.decide(DAY_END - 1)
    assert run.actions == ["block"]
    run.decide(DAY_END)
    assert run.actions == ["block", "allow"]
    assert run.revisions == sorted(set(run.revisions))
    assert {status for _, status, _ in run.alerts} == {"resolved"}
    assert len(run.alerts) == 4


def test_a_period_that_is_over_says_nothing_more_however_often_time_passes():
    run = Run().hear(said(110, offset=0)).decide(DAY_END)
    run.alerts.clear()
    for minutes in range(5):
        run.decide(DAY_END + minutes * 60_000_000)
    run.hear(said(112, offset=1), now=DAY_END + HOUR)
    assert run.alerts == []
    assert run.actions == ["block", "allow"]
    assert {crossing.episode for crossing in run.state.crossings.values()} == {1}


def test_a_credit_brings_spend_back_below_and_lets_go():
    run = Run().hear(said(110, offset=0)).hear(said(95, offset=1))
    assert run.actions == ["block", "allow"]
    assert ("100 %", "resolved", "page") in run.alerts


@pytest.mark.parametrize(
    ("later", "now"),
    [
        pytest.param(said(30, offset=1, at=NOON + 3 * HOUR), NOON + 3 * HOUR, id="spend is credited"),
        pytest.param(said(120, offset=1, at=NOON + 3 * HOUR), DAY_END, id="the period is over"),
    ],
)
def test_what_ends_says_when_it_was_crossed_and_when_it_ended(later, now):
    state = budgets.take_in(None, TERMS, said(60, offset=0, at=NOON + HOUR))
    (opened,) = budgets.decide(state, TERMS, NOON + HOUR, POLICY).alerts
    state = budgets.take_in(state, TERMS, later)
    (ended,) = [a for a in budgets.decide(state, TERMS, now, POLICY).alerts if a.dedup_key == opened.dedup_key]
    assert (ended.status, ended.stated_at) == ("resolved", format_instant(now))
    assert ended.occurred_at == opened.occurred_at == format_instant(NOON + HOUR)


def test_a_second_crossing_is_a_new_episode_under_the_same_dedup_key():
    run = Run().hear(said(110, offset=0)).hear(said(95, offset=1)).hear(said(101, offset=2))
    assert run.actions == ["block", "allow", "block"]
    assert run.state.crossings[100].episode == 2


def test_nothing_is_lowered_while_a_slot_is_behind_what_it_stated_before():
    run = Run().hear(said(60, offset=50)).hear(said(60, offset=50, partition=1))
    # A rebuild under a new revision starts from little and is still catching up.
    run.hear(said(5, offset=3, partition=1, revision=1))
    assert run.actions == ["block"]
    run.hear(said(20, offset=51, partition=1, revision=1))
    assert run.actions == ["block", "allow"]


def test_a_raised_budget_lets_go():
    run = Run().hear(said(110, offset=0))
    run.terms = TERMS._replace(amount_nanos=200 * NANOS)
    run.decide(NOON)
    assert run.actions == ["block", "allow"]


def test_a_withdrawn_budget_lets_go():
    run = Run().hear(said(110, offset=0))
    run.terms = budgets.withdrawn(run.state)
    run.decide(NOON)
    assert run.actions == ["block", "allow"]


def test_an_observing_budget_commands_dry_runs():
    state = budgets.take_in(None, TERMS._replace(enforced=False), said(110, offset=0))
    decision = budgets.decide(state, TERMS._replace(enforced=False), NOON, POLICY)
    assert decision.command.dry_run
    assert "would have been blocked" in decision.alerts[-1].action


def test_a_crossing_of_a_period_that_is_over_is_recorded_and_never_paged_or_throttled():
    run = Run().hear(said(110, offset=0), now=DAY_END + HOUR)
    assert run.actions == []
    assert {tier for _, _, tier in run.alerts} == {"note"}


def test_a_backlog_within_the_period_is_quiet_until_it_is_live_again_and_then_speaks():
    run = Run().hear(said(110, offset=0, at=NOON), now=NOON + 5 * HOUR)
    assert run.actions == []
    run.hear(said(111, offset=1, at=NOON + 5 * HOUR), now=NOON + 5 * HOUR)
    assert run.actions == ["block"]
    assert run.alerts[-1] == ("100 %", "opened", "page")


def test_a_restart_at_any_point_repeats_nothing_and_forgets_nothing():
    run = Run()
    for offset, usd in enumerate([49, 60, 80, 95, 100, 120]):
        run.hear(said(usd, offset=offset, at=NOON + offset * HOUR // 4)).restart()
    assert [rung for rung, _, _ in run.alerts] == ["50 %", "75 %", "90 %", "100 %"]
    assert run.actions == ["block"]


def test_a_step_said_again_after_a_crash_has_the_same_ids():
    first, second = Run(), Run()
    one = budgets.take_in(first.state, TERMS, said(110, offset=0))
    two = budgets.take_in(second.state, TERMS, said(110, offset=0))
    a = budgets.decide(one, TERMS, NOON, POLICY)
    b = budgets.decide(two, TERMS, NOON + 1_000_000, POLICY)
    assert [x.alert_id for x in a.alerts] == [x.alert_id for x in b.alerts]
    assert (a.command.command_id, a.command.revision) == (b.command.command_id, b.command.revision)


def test_a_block_expires_with_its_period_even_if_nobody_lets_go():
    state = budgets.take_in(None, TERMS, said(110, offset=0))
    command = budgets.decide(state, TERMS, NOON, POLICY).command
    assert command.holds_until == format_instant(DAY_END)
    assert command.expires_at == format_instant(NOON + 15 * MINUTE)
    assert command.alert_id == f"v1:budget_threshold:budget:search-daily:{format_instant(DAY_START)}:100"


def test_a_budget_set_to_observe_lets_go_at_once_and_set_back_blocks_again():
    run = Run().hear(said(110, offset=0))
    for enforced in (False, True):
        run.terms = TERMS._replace(enforced=enforced)
        decision = budgets.decide(run.state, run.terms, NOON, POLICY)
        assert (decision.command.action, decision.command.dry_run) == ("block", not enforced)
        assert decision.command.revision > run.revisions[-1]
        run.revisions.append(decision.command.revision)


def test_a_withdrawn_budget_resolves_what_it_opened():
    run = Run().hear(said(110, offset=0))
    run.alerts.clear()
    run.terms = budgets.withdrawn(run.state)
    run.decide(NOON)
    assert {status for _, status, _ in run.alerts} == {"resolved"}
    assert len(run.alerts) == 4


def test_a_rung_taken_out_of_the_ladder_resolves():
    run = Run().hear(said(110, offset=0))
    run.alerts.clear()
    run.terms = TERMS._replace(thresholds=(*LADDER[:3], Rung(120, "emergency", (BLOCK,))))
    run.decide(NOON)
    assert run.alerts == [("100 %", "resolved", "page")]
    assert run.actions == ["block", "allow"]


def test_a_quiet_rung_above_the_emergency_does_not_swallow_the_page():
    run = Run(TERMS._replace(thresholds=(*LADDER, Rung(120, "info"))))
    run.hear(said(125, offset=0))
    assert ("100 %", "opened", "page") in run.alerts


def test_a_budget_defined_anew_commands_above_everything_it_said_before():
    old = Run().hear(said(110, offset=0))
    month = said(110, offset=0)
    month.period_start = DAY_START - 20 * 24 * HOUR
    state = budgets.take_in(None, TERMS._replace(scope="budget:search-daily@2"), month, above=old.revisions[-1])
    command = budgets.decide(state, TERMS, NOON, POLICY).command
    assert command.revision > old.revisions[-1]
