"""Any order, repetition and split of statements and answers leads to the same end; a crash anywhere repeats the same."""

from itertools import accumulate

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.commands import ThrottleAck
from schemas.instants import MINUTE, SECOND, format_instant
from schemas.money import NANOS
from streams.core import budgets
from streams.core.budget_measures import RESERVE_PERCENT_MAX
from streams.core.budget_watch import acknowledged, delay_of, last_delay
from streams.core.budgets import Around, BudgetState, Policy
from tests.unit.records import NOON
from tests.unit.test_budget_measures import GRADED
from tests.unit.test_budgets import said

RUNGS = {90: "rate_limit", 95: "downgrade", 100: "block"}
#: Of each source its increments; totals may fall, as credits make them.
SOURCES = st.lists(st.lists(st.integers(-20, 60), min_size=1, max_size=6), min_size=1, max_size=4)


def statements_of(sources):
    return [
        said(total, offset=place, partition=partition, at=NOON + place * MINUTE)
        for partition, increments in enumerate(sources)
        for place, total in enumerate(accumulate(increments))
    ]


def told(order, batches, delay_us):
    """The budget after these statements, in this order, decided after each batch of them."""
    state, commands, now = None, [], NOON + 10 * MINUTE
    for place, statement in enumerate(order):
        state = budgets.take_in(state, GRADED, statement)
        if place in batches or place == len(order) - 1:
            decision = budgets.decide(state, GRADED, now, Policy(), (), Around(delay_us=delay_us))
            commands += [decision.command] if decision.command else []
    return state, commands


@given(SOURCES, st.randoms(use_true_random=False), st.sets(st.integers(0, 40)))
def test_what_is_asked_at_the_end_follows_from_the_totals_alone(sources, random, batches):
    statements = statements_of(sources)
    order = [statement for statement in statements for _ in range(random.randint(1, 2))]
    random.shuffle(order)
    state, commands = told(order, batches, delay_us=0)
    spent = sum(sum(increments) for increments in sources)
    assert state.spent_nanos == spent * NANOS
    assert {measure.action for measure in state.asked} == {does for percent, does in RUNGS.items() if spent >= percent}
    open_rungs = {percent for percent, crossing in state.crossings.items() if crossing.is_open}
    assert open_rungs == {percent for percent in (50, 90, 95, 100) if spent >= percent}
    if commands:
        assert commands[-1].measures == state.asked
    revisions = [command.revision for command in commands]
    assert revisions == sorted(set(revisions))


@given(SOURCES, st.randoms(use_true_random=False), st.integers(0, 20 * SECOND))
def test_however_fast_it_burns_nothing_is_forgotten_and_nothing_closes_earlier_than_a_quarter(sources, random, delay):
    order = statements_of(sources)
    random.shuffle(order)
    state, _ = told(order, set(range(40)), delay)
    spent = sum(sum(increments) for increments in sources)
    asked = {measure.action for measure in state.asked}
    assert asked >= {does for percent, does in RUNGS.items() if spent >= percent}
    for percent, does in RUNGS.items():
        if does != "rate_limit" and spent + RESERVE_PERCENT_MAX < percent:
            assert does not in asked


@given(SOURCES, st.integers(0, 23), st.integers(0, 30))
def test_a_crash_between_crossing_and_command_repeats_the_same_under_the_same_id(sources, at, later_s):
    """The state is written after what it says: a successor steps again from the state before, a little later."""
    state = None
    for place, statement in enumerate(statements_of(sources)):
        kept = msgspec.json.encode(state)
        state = budgets.take_in(state, GRADED, statement)
        decision = budgets.decide(state, GRADED, NOON + 10 * MINUTE, Policy())
        if place == at:
            again = budgets.take_in(msgspec.json.decode(kept, type=BudgetState | None), GRADED, statement)
            repeated = budgets.decide(again, GRADED, NOON + 10 * MINUTE + later_s * SECOND, Policy())
            assert [alert.alert_id for alert in repeated.alerts] == [alert.alert_id for alert in decision.alerts]
            one, two = decision.command, repeated.command
            assert (one is None) == (two is None)
            if one is not None:
                assert (one.command_id, one.revision, one.measures) == (two.command_id, two.revision, two.measures)
            state = again


ANSWERS = st.lists(
    st.tuples(st.sampled_from(["gw-1", "gw-2", "gw-3"]), st.integers(0, 3), st.integers(0, 20), st.integers(0, 9)),
    min_size=1,
    max_size=12,
)


@given(ANSWERS, st.randoms(use_true_random=False))
def test_answers_in_any_order_and_number_are_the_same(answers, random):
    def heard(order):
        state = budgets.take_in(None, GRADED, said(110, offset=0))
        budgets.decide(state, GRADED, NOON, Policy())
        for gateway, above, seconds, rejected in order:
            ack = ThrottleAck(
                command_id="c",
                command_key="team:search|search-daily",
                revision=state.revision - 1 + above,
                gateway=gateway,
                applied_at=format_instant(NOON + seconds * SECOND),
                rejected_count=rejected,
            )
            acknowledged(state, ack, NOON + 30 * SECOND)
        return state

    shuffled = [answer for answer in answers for _ in range(random.randint(1, 2))]
    random.shuffle(shuffled)
    one, two = heard(answers), heard(shuffled)
    assert one.answers == two.answers
    live = {gateway: NOON for gateway, *_ in answers}
    assert last_delay(one, live) == last_delay(two, live)
    for gateway, said_last in one.answers.items():
        expected = [seconds for name, above, seconds, _ in answers if name == gateway and above == 1]
        if said_last.revision == one.revision:
            assert delay_of(one, said_last) == min(min(expected), 10) * SECOND
