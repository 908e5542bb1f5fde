"""What a seed of the crash rig decides: the same things every time, and over 25 seeds every kind of fault."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from loadtest.crash.budgeting import BUDGETS, amounts, budgets_file, noon_offset_h, period_start, planned_nanos
from loadtest.crash.faults import CARRY_OUT
from loadtest.crash.load import BILLS, EVENTS, SAMPLES, bill, encode, load_of
from loadtest.crash.plan import BROKER_FAULTS_MAX, KINDS, make_plan
from loadtest.crash.refusals import Raw, Unacceptable, accept
from loadtest.oracle import Prices
from streams.core.budget_file import load_budgets

ANCHOR = datetime(2026, 11, 21, 23, 59, 30, tzinfo=UTC)
PLAN = make_plan(3, events=3_000, duration_s=30.0)
SENDS = load_of(PLAN)


def test_a_seed_always_makes_the_same_plan_and_load():
    assert make_plan(7) == make_plan(7)
    assert load_of(PLAN) == SENDS
    assert make_plan(7) != make_plan(8)


def test_every_kind_of_fault_is_known_to_the_plan_and_to_those_who_carry_it_out():
    assert KINDS.keys() == CARRY_OUT.keys()


def test_25_seeds_do_everything_several_times_and_kill_two_workers_each():
    plans = [make_plan(seed) for seed in range(1, 26)]
    done = Counter(fault.name for plan in plans for fault in plan.faults)
    assert min(done[name] for name in KINDS) >= 5
    for plan in plans:
        names = [fault.name for fault in plan.faults]
        assert names.count("kill worker") == 2
        broken = [name for name in names if "broker" in name or "disk" in name]
        assert len(broken) <= BROKER_FAULTS_MAX
        assert list(plan.faults) == sorted(plan.faults, key=lambda fault: fault.at_s)


def test_only_the_chosen_faults_are_done():
    plan = make_plan(1, only=["freeze broker"], faults=3)
    assert {fault.name for fault in plan.faults} == {"freeze broker"}
    assert len(plan.faults) == 3


def test_the_load_has_repetitions_late_events_jumps_garbage_windows_and_bills():
    ids = Counter(send.id for send in SENDS)
    assert sum(count > 1 for count in ids.values()) > 50
    assert {send.topic for send in SENDS} == {EVENTS, SAMPLES, BILLS}
    assert len({send.refused for send in SENDS}) > 10
    late = [send for send in SENDS if isinstance(send.time, float) and send.time < send.at_s - 3_600]
    assert len(late) > 10
    assert [send.at_s for send in SENDS] == sorted(send.at_s for send in SENDS)
    assert SENDS[-1].at_s < PLAN.duration_s + 4


@pytest.mark.parametrize("delay_s", [0, 60])
def test_what_the_load_calls_refused_is_what_the_limits_refuse_however_long_it_was_under_way(delay_s):
    for offset, send in enumerate(SENDS):
        value, headers = encode(send, ANCHOR)
        arrived = ANCHOR + timedelta(seconds=send.at_s + delay_s)
        raw = Raw(send.topic, 0, offset, int(arrived.timestamp() * 1000), value, dict(headers))
        try:
            accept(raw)
            reason = ""
        except Unacceptable as refused:
            reason = str(refused)
        assert reason == send.refused, send


def test_an_amount_makes_its_budget_reach_the_planned_share():
    spent = planned_nanos(SENDS, Prices())
    found = amounts(spent)
    for budget in BUDGETS:
        share = spent[budget.id] * 100 / found[budget.id]
        assert budget.share_percent <= share < budget.share_percent + 0.01


@pytest.mark.parametrize("hour", range(24))
def test_the_budget_day_neither_begins_nor_ends_near_the_run(hour):
    anchor = datetime(2026, 11, 21, hour, 59, tzinfo=UTC)
    start = period_start(anchor)
    assert timedelta(hours=11) <= anchor - start <= timedelta(hours=13)
    assert -12 <= noon_offset_h(anchor) <= 12


def test_sluice_reads_the_budgets_file():
    found = load_budgets(budgets_file(ANCHOR, amounts(planned_nanos(SENDS, Prices()))))
    assert [budget.id for budget in found] == [budget.id for budget in BUDGETS]
    assert [budget.mode == "enforce" for budget in found] == [budget.enforced for budget in BUDGETS]


def test_a_negative_bill_is_a_credit():
    assert bill("b", 0.0, "t", "-1.5").value["charge_category"] == "Credit"
