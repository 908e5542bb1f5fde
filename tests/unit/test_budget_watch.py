"""What Sluice measures of itself: delays, overshoot, gaps, and the alert that names who does not obey."""

import pytest

from schemas.commands import ThrottleAck
from schemas.instants import MINUTE, SECOND, format_instant
from schemas.money import NANOS
from streams.agents.gateways_heard import GatewaysHeard, Heard
from streams.core import budgets
from streams.core.budget_account import standing
from streams.core.budget_watch import acknowledged, gap_of, last_delay, wakes_at
from streams.core.budgets import Around, Policy
from tests.unit.records import NOON
from tests.unit.test_budget_measures import HARD
from tests.unit.test_budgets import TERMS, said


class Watched:
    """A budget that is blocked at noon, and its gateways."""

    def __init__(self, terms=HARD, usd: float = 110) -> None:
        self.terms, self.live, self.now, self.alerts = terms, {}, NOON, []
        self.state = budgets.take_in(None, terms, said(usd, offset=0))
        self.decide()

    def decide(self, after_s: float = 0) -> "Watched":
        self.now += int(after_s * SECOND)
        around = Around(live=self.live, delay_us=SECOND)
        self.alerts += [
            (alert.rule, alert.status, alert.summary)
            for alert in budgets.decide(self.state, self.terms, self.now, Policy(), (), around).alerts
            if alert.rule == "enforcement_gap"
        ]
        return self

    def answers(self, gateway: str, after_s: float, revision: int | None = None) -> "Watched":
        ack = ThrottleAck(
            command_id="c",
            command_key="k",
            revision=self.state.revision if revision is None else revision,
            gateway=gateway,
            applied_at=format_instant(NOON + int(after_s * SECOND)),
        )
        acknowledged(self.state, ack, self.now)
        return self

    def spends(self, usd: float, at_s: float) -> "Watched":
        self.now = NOON + int(at_s * SECOND)
        budgets.take_in(self.state, self.terms, said(usd, offset=int(at_s), at=self.now))
        return self.decide()

    @property
    def told(self) -> list[str]:
        return [status for _, status, _ in self.alerts]


def test_a_live_gateway_that_does_not_answer_within_ten_seconds_is_named_and_forgiven_when_it_does():
    watched = Watched()
    watched.live = {"gw-1": NOON, "gw-2": NOON}
    watched.answers("gw-1", 0.2).decide(after_s=10)
    assert watched.told == []
    assert wakes_at(watched.state) == NOON + 10 * SECOND + 1
    watched.decide(after_s=1)
    assert watched.told == ["opened"]
    assert "gw-2" in watched.alerts[0][2]
    assert "gw-1" not in watched.alerts[0][2]
    watched.answers("gw-2", 12).decide(after_s=1)
    assert watched.told == ["opened", "resolved"]


def test_a_gateway_that_falls_silent_owes_nothing_any_more():
    watched = Watched()
    watched.live = {"gw-1": NOON}
    watched.decide(after_s=11)
    watched.live = {}
    assert watched.decide(after_s=1).told == ["opened", "resolved"]


@pytest.mark.parametrize("revision", [-1, 0], ids=["the command before", "another answer only"])
def test_an_answer_to_an_earlier_command_is_no_answer(revision):
    watched = Watched()
    watched.live = {"gw-1": NOON}
    watched.answers("gw-1", 0.1, revision=watched.state.revision + revision - 1).decide(after_s=11)
    assert watched.told == ["opened"]


def test_a_dry_run_and_a_budget_that_asks_for_nothing_are_owed_nothing():
    for watched in (Watched(HARD._replace(enforced=False)), Watched(usd=10)):
        watched.live = {"gw-1": NOON}
        assert watched.decide(after_s=60).told == []


def test_the_delay_is_that_of_the_last_live_gateway_and_unknown_until_it_answered():
    watched = Watched()
    live = {"gw-1": NOON, "gw-2": NOON}
    assert last_delay(watched.state, live) is None
    watched.answers("gw-1", 0.2)
    assert last_delay(watched.state, live) is None
    watched.answers("gw-2", 3.5)
    assert last_delay(watched.state, live) == 3.5 * SECOND
    assert last_delay(watched.state, {"gw-1": NOON}) == 0.2 * SECOND


def test_overshoot_is_what_was_spent_beyond_the_rung_that_blocks_at_its_largest():
    watched = Watched(usd=99).spends(101, at_s=60).spends(104.5, at_s=62).spends(95, at_s=64)
    assert watched.state.overshoot_nanos == 4.5 * NANOS


def test_money_after_every_answer_and_one_delay_is_a_gap_and_what_was_under_way_is_none():
    watched = Watched()
    watched.live = {"gw-1": NOON}
    watched.answers("gw-1", 0.5).spends(112, at_s=1).spends(113, at_s=10)
    stands = standing(watched.state, watched.terms, watched.now, Policy().live_within_us)
    assert gap_of(watched.state, stands) == 0
    watched.spends(113.9, at_s=20)
    assert watched.told == []
    watched.spends(114.5, at_s=30)
    assert watched.told == ["opened"]
    assert "$1.50" in watched.alerts[0][2]


def test_a_gap_ends_with_the_measures():
    watched = Watched()
    watched.live = {"gw-1": NOON}
    watched.answers("gw-1", 0.5).spends(112, at_s=10).spends(120, at_s=20)
    watched.terms = HARD._replace(amount_nanos=500 * NANOS)
    assert watched.decide(after_s=1).told == ["opened", "resolved"]


@pytest.mark.parametrize(
    "terms", [TERMS, HARD._replace(exempt_models=("llama-*",))], ids=["production may go on", "a model may go on"]
)
def test_where_calls_may_go_on_their_money_is_no_gap(terms):
    watched = Watched(terms)
    watched.live = {"gw-1": NOON}
    watched.answers("gw-1", 0.5).spends(112, at_s=10).spends(150, at_s=20)
    assert watched.told == []


def test_an_answer_that_cannot_be_read_is_passed_over():
    watched = Watched()
    ack = ThrottleAck(command_id="c", command_key="k", revision=1, gateway="gw", applied_at="yesterday")
    assert not acknowledged(watched.state, ack, NOON)
    assert watched.state.answers == {}


def test_names_that_are_drawn_at_random_fill_no_memory():
    watched = Watched()
    for number in range(1_000):
        watched.answers(f"pod-{number}", 1)
    assert len(watched.state.answers) <= 256


def test_gateways_live_for_five_minutes_and_their_last_delays_make_the_percentile():
    heard = GatewaysHeard()
    assert heard.delay_us(NOON) == SECOND
    for number in range(20):
        heard.hear(f"gw-{number}", Heard(NOON, NOON, (number + 1) * 100_000))
    assert heard.delay_us(NOON) == 1_900_000
    heard.hear("gw-19", Heard(NOON + MINUTE, NOON - MINUTE, 9 * SECOND))
    assert heard.delay_us(NOON) == 1_900_000, "an older answer says nothing new"
    assert set(heard.live(NOON + 5 * MINUTE)) == {"gw-19"}
    assert heard.live(NOON + 6 * MINUTE) == {}
