"""Graded measures: what holds from which rung on, what is softened, when it begins early, and what lets it go."""

import msgspec
import pytest

from schemas.budgets import Rung
from schemas.commands import Measure
from schemas.instants import DAY, HOUR, MINUTE, SECOND, format_instant
from schemas.money import NANOS
from streams.core import budgets
from streams.core.budget_measures import closes_all, ordered, softened
from streams.core.budget_rungs import BLOCK
from streams.core.budgets import Around, BudgetState, Policy
from tests.unit.records import NOON
from tests.unit.test_budgets import DAY_END, DAY_START, TERMS, said

BATCH = Measure("rate_limit", request_types=("batch",), rpm=10)
CHEAPER = Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"})
GRADED = TERMS._replace(
    thresholds=(
        Rung(50, "info"),
        Rung(90, "warning", (BATCH,)),
        Rung(95, "critical", (CHEAPER,)),
        Rung(100, "emergency", (BLOCK,)),
    ),
    hard=True,
    defined_nanos=100 * NANOS,
)
HARD = TERMS._replace(hard=True, defined_nanos=100 * NANOS)


class Story:
    """A budget told statement by statement; ``asks`` is what stands at its gates."""

    def __init__(self, terms=HARD, delay_s: float = 1.0, replayed: bool = False) -> None:
        self.terms, self.delay_us, self.replayed = terms, int(delay_s * SECOND), replayed
        self.state: BudgetState | None = None
        self.siblings: list[BudgetState] = []
        self.commands = []
        self.alerts = []
        self.now = NOON

    def spend(self, usd: float, after_s: float = 0, *, offset: int | None = None, **more) -> "Story":
        """The first source has so many dollars in all, so many seconds later."""
        self.now += int(after_s * SECOND)
        changes = {name: more.pop(name) for name in ("estimated_nanos", "duration_ms", "requests") if name in more}
        place = self.now // SECOND if offset is None else offset
        statement = said(usd, offset=place, at=self.now, **more)
        for name, value in changes.items():
            setattr(statement, name, value)
        self.state = budgets.take_in(self.state, self.terms, statement)
        return self.decide()

    def decide(self, at: int | None = None, **terms) -> "Story":
        self.now, self.terms = at or self.now, self.terms._replace(**terms)
        around = Around(delay_us=self.delay_us, is_replayed=self.replayed)
        decision = budgets.decide(self.state, self.terms, self.now, Policy(), self.siblings, around)
        self.alerts += decision.alerts
        if decision.command:
            self.commands.append(decision.command)
        return self

    def restart(self) -> "Story":
        self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=BudgetState)
        return self

    @property
    def asks(self) -> tuple[Measure, ...]:
        return self.commands[-1].measures if self.commands else ()

    @property
    def does(self) -> list[str]:
        return sorted(measure.action for measure in self.asks)


@pytest.mark.parametrize(
    ("usd", "does"),
    [
        (89, []),
        (90, ["rate_limit"]),
        (95, ["downgrade", "rate_limit"]),
        (100, ["block", "downgrade", "rate_limit"]),
        (400, ["block", "downgrade", "rate_limit"]),
    ],
    ids=["below", "at 90 percent", "at 95 percent", "at 100 percent", "far above"],
)
def test_measures_of_rungs_are_added_up(usd, does):
    story = Story(GRADED).spend(1).spend(usd, after_s=3600)
    assert story.does == does
    if does:
        assert story.commands[-1].action == ("block" if "block" in does else does[0])


def test_measures_are_taken_one_after_the_other_and_each_change_has_a_higher_revision():
    story = Story(GRADED).spend(1)
    for usd in (91, 96, 101):
        story.spend(usd, after_s=1800)
    assert [command.action for command in story.commands] == ["rate_limit", "downgrade", "block"]
    revisions = [command.revision for command in story.commands]
    assert revisions == sorted(set(revisions))


@pytest.mark.parametrize(
    ("measure", "hard", "is_sure", "expected"),
    [
        (BLOCK, True, True, [BLOCK]),
        (
            BLOCK,
            False,
            True,
            [
                Measure("block", environments=("!prod", "!production")),
                Measure("rate_limit", environments=("prod", "production"), rpm=60),
            ],
        ),
        (BLOCK, True, False, [Measure("rate_limit", rpm=60)]),
        (Measure("block", environments=("dev",)), False, True, [Measure("block", environments=("dev",))]),
        (
            Measure("block", environments=("dev", "prod")),
            False,
            True,
            [Measure("block", environments=("dev",)), Measure("rate_limit", environments=("prod",), rpm=60)],
        ),
        (
            Measure("block", environments=("prod",)),
            False,
            True,
            [Measure("rate_limit", environments=("prod",), rpm=60)],
        ),
        (
            Measure("block", environments=("!prod",)),
            False,
            True,
            [
                Measure("block", environments=("!prod", "!production")),
                Measure("rate_limit", environments=("production",), rpm=60),
            ],
        ),
        (CHEAPER, False, False, [CHEAPER]),
    ],
    ids=[
        "a hard budget blocks production",
        "any other rate-limits production and blocks the rest",
        "estimates alone rate-limit",
        "where production is not meant nothing changes",
        "production is taken out of a list",
        "a list of production alone is rate-limited",
        "all but one kind of production",
        "a downgrade needs no softening",
    ],
)
def test_a_block_is_softened(measure, hard, is_sure, expected):
    assert softened(measure, hard, is_sure) == expected


@pytest.mark.parametrize(
    ("usd", "estimated", "action"),
    [(110, 0, "block"), (110, 9, "block"), (110, 10, "block"), (110, 11, "rate_limit"), (110, 110, "rate_limit")],
    ids=[
        "priced money",
        "enough priced money beside estimates",
        "just enough",
        "not enough without the estimates",
        "estimates alone",
    ],
)
def test_estimated_money_never_blocks_alone(usd, estimated, action):
    story = Story().spend(1).spend(usd, after_s=3600, estimated_nanos=estimated * NANOS)
    assert story.commands[-1].action == action


def test_what_was_estimated_and_gets_its_price_blocks_then():
    story = Story().spend(1).spend(110, after_s=3600, estimated_nanos=20 * NANOS)
    assert story.does == ["rate_limit"]
    assert story.spend(110, after_s=60, estimated_nanos=0).does == ["block"]


def test_it_closes_before_the_limit_by_what_is_in_flight_and_what_is_spent_until_gates_obey():
    # A dollar every ten seconds; calls take ten seconds; gates obey after five: 1.50 dollars before the end.
    story, spent, step = Story(delay_s=5), 0.0, 0
    while not any(command.action == "block" for command in story.commands):
        spent, step = spent + 0.1, step + 1
        story.spend(spent, after_s=1, requests=step * 10, duration_ms=step * 100_000)
        assert spent < 100
    assert 98.3 <= spent <= 98.7
    told = [alert for alert in story.alerts if alert.threshold == "100 %"]
    assert [alert.tier for alert in told] == ["page"], "nobody is throttled untold"
    assert "passes 100 % with the calls under way" in told[0].summary


def test_burn_that_falls_because_of_the_throttle_lifts_nothing():
    story = _closed_early()
    for _ in range(20):
        story.spend(97.5, after_s=120, offset=story.now // SECOND).restart()
    assert story.commands[-1].action == "block"
    assert {command.revision for command in story.commands if command.action == "block"} == {story.state.revision}


def _closed_early() -> Story:
    """Twenty cents a second, calls of twelve seconds: closed between 97 and 98 dollars."""
    story, spent = Story(), 90.0
    step = 0
    while not any(command.action == "block" for command in story.commands):
        spent, step = spent + 0.2, step + 1
        story.spend(spent, after_s=1, requests=step, duration_ms=step * 12_000)
    assert 97 <= spent <= 98, spent
    return story


@pytest.mark.parametrize(
    ("change", "does"),
    [
        ({}, ["block"]),
        ({"amount_nanos": 101 * NANOS}, []),
        ({"amount_nanos": 200 * NANOS}, []),
        ({"lifted": True}, []),
        ({"thresholds": HARD.thresholds[:3]}, []),
        ({"ends": NOON}, []),
        ({"exempt_models": ("llama-*",)}, ["block"]),
    ],
    ids=[
        "nothing",
        "raised a little",
        "raised",
        "lifted by an override",
        "its rung is gone",
        "ended",
        "spares a model",
    ],
)
def test_what_closed_early_is_let_go_by_a_change_of_terms(change, does):
    story = _closed_early()
    story.spend(97.9, after_s=300).decide(**change)
    assert [name for name in story.does if name == "block"] == does
    assert story.commands[-1].revision == max(command.revision for command in story.commands)


def test_a_correction_lets_go_of_what_closed_early_where_it_is_larger_than_the_reserve():
    story = _closed_early().spend(97.9, after_s=300)
    assert "block" in story.spend(97.8, after_s=1).does
    assert "block" not in story.spend(90, after_s=1).does


def test_a_lift_that_ends_closes_again_without_another_dollar():
    story = Story().spend(1).spend(110, after_s=3600).decide(lifted=True)
    assert story.does == []
    assert story.decide(lifted=False).does == ["block"]


def test_an_extra_amount_that_ends_closes_again():
    story = Story().spend(1).spend(110, after_s=3600).decide(amount_nanos=150 * NANOS)
    assert story.does == []
    assert story.decide(amount_nanos=100 * NANOS).does == ["block"]


def test_one_lump_is_no_burn_and_closes_nothing_early():
    story = Story(delay_s=10).spend(1, requests=1).spend(80, after_s=3, requests=2, duration_ms=2_000)
    story.spend(80.1, after_s=3, requests=3, duration_ms=3_000)
    assert "block" not in story.does


def test_what_a_source_held_when_it_was_first_heard_is_no_burn():
    story = Story(delay_s=10)
    for partition in range(4):
        story.spend(22, after_s=1, partition=partition, duration_ms=60_000)
    assert story.commands == []


def test_concurrency_is_shed_before_anything_is_blocked():
    story, spent = Story(delay_s=2), 85.0
    while not any(command.action == "block" for command in story.commands):
        spent += 0.2
        story.spend(spent, after_s=1)
    shed = story.commands[0]
    assert (shed.action, shed.measures[0].request_types) == ("rate_limit", ("batch", "background"))
    assert story.does == ["block", "rate_limit"]


def _burst() -> Story:
    """Two dollars a second, in calls of ten seconds, for the first third of the budget."""
    story, spent, step = Story(delay_s=5), 0.0, 0
    while spent < 34:
        spent, step = spent + 2, step + 1
        story.spend(spent, after_s=1, requests=step * 10, duration_ms=step * 100_000)
    return story


def test_a_burst_far_from_the_end_is_slowed_for_all_alike_and_let_go_once_it_is_over():
    story = _burst()
    assert [(measure.action, measure.request_types) for measure in story.asks] == [("rate_limit", ())]
    assert story.decide(at=story.now + 30 * SECOND).does == ["rate_limit"], "a pause is no end"
    assert story.decide(at=story.now + 60 * SECOND).does == []
    assert [command.action for command in story.commands[-2:]] == ["rate_limit", "allow"]


def test_a_burst_that_goes_on_as_far_as_it_is_let_stays_slowed():
    story, spent = _burst(), 34.0
    for second in range(300):
        # A third of what the glide lets be under way, as at one gateway of three.
        spent += (100 - spent) / 8 / 3 / 15
        story.spend(spent, after_s=1, requests=170 + second, duration_ms=1_700_000 + second * 10_000)
        assert story.does == ["rate_limit"], second


def test_a_credit_that_lifts_a_block_ends_the_glide_that_led_to_it():
    story = _burst().spend(101, after_s=1, requests=200, duration_ms=2_000_000)
    assert "block" in story.does
    # The credit comes from a source that was never heard: the burst stands in the samples as before.
    story.spend(-61, after_s=15, partition=1)
    assert story.does == []
    assert [command.action for command in story.commands[-2:]] == ["block", "allow"]


@pytest.mark.parametrize(("replayed", "does"), [(False, ["rate_limit"]), (True, [])], ids=["live", "in a replay"])
def test_minutes_that_are_stated_within_seconds_are_no_burst_in_a_replay(replayed, does):
    # Four partitions in turn: what each took in over two minutes comes within a second of the stream.
    story, spent, step = Story(delay_s=15, replayed=replayed), [0.0] * 4, 0
    for _ in range(12):
        for partition in range(4):
            spent[partition], step = spent[partition] + 1, step + 1
            gap = 1 if partition else 117
            story.spend(spent[partition], after_s=gap, partition=partition, requests=step, duration_ms=step * 2_000)
    assert story.does == does


def test_slow_spend_sheds_nothing():
    story = Story(delay_s=2).spend(85)
    for cents in range(1, 140):
        story.spend(85 + cents / 10, after_s=60)
    assert story.commands == []


def test_a_command_is_renewed_under_the_same_id_and_expires_if_nobody_renews_it():
    story = Story().spend(1).spend(110, after_s=3600)
    first = story.commands[-1]
    assert first.expires_at == format_instant(story.now + 15 * MINUTE)
    story.decide(story.now + 5 * MINUTE - 1)
    assert len(story.commands) == 1
    story.decide(story.now + 1)
    renewal = story.commands[-1]
    assert (renewal.command_id, renewal.revision, renewal.issued_at) == (
        first.command_id,
        first.revision,
        first.issued_at,
    )
    assert renewal.expires_at == format_instant(story.now + 15 * MINUTE)
    assert renewal.holds_until == first.holds_until == format_instant(DAY_END)


def test_a_renewal_never_outlives_the_period():
    story = Story().spend(1).spend(110, after_s=3600)
    story.decide(DAY_END - MINUTE)
    assert story.commands[-1].expires_at == format_instant(DAY_END)


def test_nothing_is_renewed_that_another_period_has_said_since():
    story = Story().spend(1).spend(110, after_s=3600)
    later = budgets.opened(HARD, HARD.scope, DAY_END, DAY_END + DAY)
    later.commanded = "block"
    story.siblings = [later]
    story.decide(story.now + HOUR)
    assert len(story.commands) == 1


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"on_stale": "close"}, "on_stale", "close"),
        ({"exempt_models": ("llama-*",)}, "exempt_models", ("llama-*",)),
        ({"match": (("feature", "chat"),)}, "match", (("feature", "chat"),)),
        ({"enforced": False}, "dry_run", True),
    ],
    ids=["what stale gates do", "what is spared", "whom it is about", "that it only observes"],
)
def test_what_a_command_says_besides_changes_it_at_once(change, field, value):
    story = Story().spend(1).spend(110, after_s=3600)
    before = story.commands[-1].revision
    said_now = story.decide(**change).commands[-1]
    assert (getattr(said_now, field), said_now.revision > before) == (value, True)


@pytest.mark.parametrize(
    ("before", "carried", "blocks_at"),
    [
        ([], 0, 100),
        ([(-1, 30)], 70, 170),
        ([(-1, 130)], 0, 100),
        ([(-1, 0)], 100, 200),
        ([(-2, 10)], 100, 200),
        ([(-2, 10), (-1, 60)], 40, 140),
    ],
    ids=[
        "no earlier period is known",
        "what was left",
        "an overspent period leaves nothing",
        "an unspent one leaves one amount",
        "a period in which nothing was heard leaves one amount",
        "only the last one counts",
    ],
)
def test_money_rolls_over_once(before, carried, blocks_at):
    story = Story(HARD._replace(rollover=True))
    for number, usd in before:
        statement = said(usd, offset=number + 10, at=NOON + number * DAY)
        statement.period_start, statement.period_end = DAY_START + number * DAY, DAY_END + number * DAY
        story.siblings.append(budgets.take_in(None, story.terms, statement))
    story.spend(1).spend(blocks_at - 1, after_s=3600)
    assert story.state.carried_nanos == carried * NANOS
    assert "block" not in story.does
    assert "block" in story.spend(blocks_at, after_s=3600).does


def test_a_late_correction_of_the_period_before_moves_what_rolled_over():
    story = Story(HARD._replace(rollover=True))
    statement = said(30, offset=1, at=NOON - DAY)
    statement.period_start, statement.period_end = DAY_START - DAY, DAY_END - DAY
    story.siblings = [budgets.take_in(None, story.terms, statement)]
    story.spend(1).spend(160, after_s=3600)
    assert story.does == []
    later = said(50, offset=2, at=NOON - DAY)
    later.period_start, later.period_end = statement.period_start, statement.period_end
    budgets.take_in(story.siblings[0], story.terms, later)
    assert story.decide().does == ["block"]


def _hour(number: int, usd: float, offset: int):
    statement = said(usd, offset=offset, at=NOON + number * HOUR, segment=offset)
    statement.period_start, statement.period_end = NOON + number * HOUR, NOON + (number + 1) * HOUR
    return statement


def test_a_rolling_budget_adds_the_buckets_that_its_window_touches_and_lets_go_as_they_leave():
    story = Story(HARD._replace(period="rolling", window_us=3 * HOUR))
    for number, usd in enumerate([40, 40, 30]):
        story.now = NOON + number * HOUR + MINUTE
        story.state = budgets.take_in(story.state, story.terms, _hour(number, usd, number))
        story.decide()
    assert story.does == ["block"]
    assert story.commands[-1].holds_until == format_instant(story.now + 3 * HOUR)
    story.decide(NOON + 4 * HOUR - 1)
    assert story.does == ["block"]
    # The first hour's forty dollars have left the window.
    story.decide(NOON + 4 * HOUR)
    assert story.does == []
    assert [alert.status for alert in story.alerts if alert.threshold == "100 %"] == ["opened", "resolved"]


def test_a_rolling_budget_can_be_crossed_again_and_that_is_another_episode():
    story = Story(HARD._replace(period="rolling", window_us=HOUR))
    for number in (0, 5):
        story.now = NOON + number * HOUR + MINUTE
        story.state = budgets.take_in(story.state, story.terms, _hour(number, 110, number))
        story.decide()
        story.decide(NOON + (number + 3) * HOUR)
    assert [command.action for command in story.commands] == ["block", "allow"] * 2
    assert story.state.crossings[100].episode == 2


def test_what_was_spent_before_counts():
    story = Story(HARD._replace(opening_nanos=60 * NANOS)).spend(1).spend(45, after_s=3600)
    assert story.does == ["block"]
    assert story.alerts[-1].observed == "105"


@pytest.mark.parametrize(
    ("starts", "ends", "does"),
    [(0, 0, ["block"]), (NOON - HOUR, NOON + 9 * HOUR, ["block"]), (NOON + 9 * HOUR, 0, []), (0, NOON, [])],
    ids=["always", "within its dates", "before its start", "after its end"],
)
def test_outside_its_dates_a_budget_neither_tells_nor_holds(starts, ends, does):
    story = Story(HARD._replace(starts=starts, ends=ends)).spend(1).spend(110, after_s=3600)
    assert (story.does, bool(story.alerts)) == (does, bool(does))


def test_a_budget_that_does_not_page_opens_a_ticket_at_its_last_rung():
    story = Story(HARD._replace(pages=False)).spend(1).spend(110, after_s=3600)
    assert {alert.tier for alert in story.alerts} == {"note", "ticket"}


def test_an_observing_budget_says_what_it_would_have_done():
    story = Story(GRADED._replace(enforced=False)).spend(1).spend(96, after_s=3600)
    assert (story.commands[-1].dry_run, story.does) == (True, ["downgrade", "rate_limit"])


@pytest.mark.parametrize("usd", [1, 2, 3])
def test_a_limit_on_money_a_minute_becomes_calls_a_minute_while_it_is_passed(usd):
    terms = TERMS._replace(
        budget_id="limit:burst", thresholds=(), period="rolling", window_us=HOUR, nanos_per_minute=60 * NANOS
    )
    story = Story(terms)
    for second in range(60):
        story.spend(second * usd, after_s=1, requests=second * 2)
    # Half of that dollar each: 60 dollars a minute are 60 times two over what a second costs.
    assert story.does == ([] if usd == 1 else ["rate_limit"])
    if usd > 1:
        assert story.asks[0].rpm == pytest.approx(120 // usd, rel=0.3)
        story.spend(60 * usd, after_s=3600, requests=130)
        assert story.does == []


def test_measures_have_one_order_and_no_doubles():
    assert ordered([CHEAPER, BLOCK, CHEAPER, BATCH]) == ordered([BATCH, BLOCK, CHEAPER])
    assert len(ordered([CHEAPER, CHEAPER])) == 1


@pytest.mark.parametrize(
    ("measures", "expected"),
    [([BLOCK], True), ([BATCH, BLOCK], True), ([Measure("block", environments=("!prod",))], False), ([], False)],
    ids=["a block", "a block among others", "a block of some", "nothing"],
)
def test_only_a_block_without_conditions_closes_all(measures, expected):
    assert closes_all(measures) is expected
