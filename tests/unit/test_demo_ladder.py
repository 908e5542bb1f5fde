"""The demo's throttle: its steps in order, acknowledged and released, and a day that has room for all of them."""

import json
from collections.abc import Callable

import pytest

from gateway.commands import CommandBook
from loadtest.oracle import Oracle, Prices
from schemas.commands import Measure, Target, ThrottleCommand
from schemas.instants import HOUR, MINUTE, format_instant, parse_instant
from schemas.money import NANOS
from streams.core.budget_file import load_budgets
from streams.demo import company, traffic
from streams.demo.budgeting import budgets_yaml
from streams.demo.ladder import RUNGS, Ladder, failures_of_ladder, in_words, ladder_of
from streams.demo.raw import raw_line
from streams.demo.scenario import plan
from streams.demo.tape import as_allowed
from streams.demo.verdict import Finding, Order

NOW = parse_instant("2026-11-21T04:48:11Z")
LIMIT = Measure("rate_limit", request_types=("batch", "background"), rpm=1)
CHEAPER, BLOCK = Measure("downgrade", models={"big": "small"}), Measure("block")
ASKED = {"rate_limit": (LIMIT,), "downgrade": (LIMIT, CHEAPER), "block": (LIMIT, CHEAPER, BLOCK), "allow": ()}
CROSSED = {"rate_limit": 10 * HOUR, "downgrade": 11 * HOUR, "block": 12 * HOUR}


class Course:
    """A throttle that went as it should; tests spoil one thing of it. A played hour takes one real second."""

    def __init__(self) -> None:
        self.orders = [_order(action, at + 15 * MINUTE) for action, at in CROSSED.items()]
        self.orders.append(_order("allow", 20 * HOUR))
        self.findings = [
            Finding(action, "budget_threshold", "b", RUNGS[action], "note", "opened", "", at, None)
            for action, at in CROSSED.items()
        ]
        self.acks = {order.command_id: ["eu-1"] for order in self.orders}
        self.money = (2 * NANOS, 100 * NANOS)

    def ladder(self) -> Ladder:
        return ladder_of("b", self.orders, self.findings, self.acks, lambda at: at / HOUR, self.money)


def _order(action: str, at: int) -> Order:
    return Order("b", action, at, f"command-{action}", ASKED[action], at / HOUR)


def test_a_throttle_as_it_should_be_has_its_steps_with_what_each_adds_and_nothing_fails() -> None:
    ladder = Course().ladder()
    assert failures_of_ladder(ladder) == []
    assert [(step.action, step.measures, step.gateways, step.ack_delay_ms) for step in ladder.steps] == [
        ("rate_limit", (LIMIT,), ("eu-1",), 250),
        ("downgrade", (CHEAPER,), ("eu-1",), 250),
        ("block", (BLOCK,), ("eu-1",), 250),
    ]
    report = ladder.report()
    assert (report["overshoot_usd"], report["overshoot_percent"], report["ack_delay_ms"]) == (2.0, 2.0, 250)
    assert report["measures_seen"] == ["rate_limit", "downgrade", "block"]
    json.dumps(report)


def test_a_command_that_asks_for_the_same_action_again_is_no_step() -> None:
    course = Course()
    course.orders.insert(2, course.orders[1]._replace(command_id="again", measures=(LIMIT, CHEAPER, BLOCK)))
    assert failures_of_ladder(course.ladder()) == []


def _without(action: str) -> Callable[[Course], None]:
    def spoil(course: Course) -> None:
        course.orders = [order for order in course.orders if order.action != action]

    return spoil


def _backwards(course: Course) -> None:
    course.orders[:3] = course.orders[2::-1]


def _flickering(course: Course) -> None:
    course.orders.insert(3, course.orders[1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(_without("rate_limit"), "went downgrade > block, not", id="background work was never limited"),
        pytest.param(_without("downgrade"), "went rate_limit > block, not", id="no cheaper model"),
        pytest.param(_without("block"), "went rate_limit > downgrade, not", id="no block"),
        pytest.param(_without("allow"), "was not released", id="no release"),
        pytest.param(_backwards, "went block > downgrade > rate_limit, not", id="from the top down"),
        pytest.param(_flickering, "block > downgrade, not", id="a step back"),
        pytest.param(lambda course: course.orders.clear(), "went nowhere, not", id="no throttle at all"),
        pytest.param(lambda course: course.acks.pop("command-block"), "was acknowledged by nobody", id="no answer"),
        pytest.param(lambda course: course.findings.pop(), "block of b came without its rung", id="no alert"),
        pytest.param(lambda course: setattr(course, "money", (11, 100)), "overshot by 11.0 %", id="too much is spent"),
    ],
)
def test_what_went_wrong_with_the_throttle_is_said(spoil: Callable[[Course], None], said: str) -> None:
    course = Course()
    spoil(course)
    assert any(said in failure for failure in failures_of_ladder(course.ladder())), failures_of_ladder(course.ladder())


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (LIMIT, "batch, background: 1 a minute"),
        (CHEAPER, "big → small"),
        (BLOCK, "block"),
        (Measure("block", environments=("!prod",)), "!prod: block"),
        (Measure("cap_tokens", max_tokens=500), "at most 500 tokens"),
        (Measure("rate_limit", tpm=2_000), "2,000 tokens a minute"),
    ],
)
def test_a_measure_is_said_in_words(measure: Measure, words: str) -> None:
    assert in_words(measure) == words


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_day_whose_gate_obeys_half_an_hour_late_takes_every_step_apart_and_ends_a_little_over(seed: int) -> None:
    scenario = plan(seed, NOW)
    budget = next(b for b in load_budgets(budgets_yaml(scenario)) if b.id == scenario.overrun.subject)
    book, oracle, due, asked = CommandBook(), Oracle(Prices()), list[tuple[int, tuple[Measure, ...]]](), ()
    rungs = {rung.percent: rung.measures for rung in budget.thresholds if rung.measures}
    reached: dict[int, int] = {}
    met: set[str] = set()
    for moment in traffic.live(scenario):
        if moment.at >= scenario.calendar.midnight:
            break
        if moment.team != scenario.overrun.team:
            continue
        while due and due[0][0] <= moment.at:
            asked = (*asked, *due.pop(0)[1])
            book.apply("k", _command(budget.target, asked, len(asked), moment.at), moment.at)
        decision = book.check(
            moment.team, moment.feature, moment.model, request_type=moment.request_type, now=moment.at,
            environment=company.ENVIRONMENT,
        )  # fmt: skip
        if not decision.allowed or decision.model_fallback:
            met.add(decision.action)
        if decision.allowed:
            oracle.add(json.loads(raw_line(as_allowed(moment.record, decision))))
        for percent in rungs.keys() - reached.keys():
            if oracle.total_nanos * 100 >= percent * budget.amount_nanos:
                reached[percent] = moment.at
                due.append((moment.at + HOUR // 2, rungs[percent]))
    assert list(reached) == [90, 95, 100]
    assert min(reached[95] - reached[90], reached[100] - reached[95]) > 35 * MINUTE
    assert reached[100] < scenario.calendar.midnight - 90 * MINUTE
    assert met == {"rate_limit", "downgrade", "block"}
    assert 0 < oracle.total_nanos - budget.amount_nanos < budget.amount_nanos * 4 // 100


def _command(target: Target, measures: tuple[Measure, ...], revision: int, now: int) -> ThrottleCommand:
    return ThrottleCommand(
        command_id=f"c{revision}", budget_id="b", target=target, action="rate_limit", revision=revision, reason="r",
        issued_at=format_instant(now), effective_at=format_instant(now), expires_at=format_instant(now + 24 * HOUR),
        measures=measures,
    )  # fmt: skip
