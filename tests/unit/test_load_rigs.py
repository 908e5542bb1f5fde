"""The pure parts of the latency, scale and soak rigs."""

from itertools import islice

import pytest

from loadtest.bench.events import Made, Shape, Stream
from loadtest.bench.load import TICK_S, LoadOrder, _at, _event_time, prepared
from loadtest.bench.load import schedule as due_times
from loadtest.latency.run import PROBE_BUDGET_USD, PROBE_MODEL, PROBE_TOKENS, budgets_of_probes, probe_name, schedule
from loadtest.scale.run import FACTORS, WARM_UP, Point, points, shape_of
from loadtest.soak.flatness import judge
from loadtest.soak.run import budgets
from schemas.events import UsageEvent
from schemas.instants import SECOND
from schemas.money import parse_nanos
from streams.core.budget_file import load_budgets
from streams.core.budget_rungs import BLOCK
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard

START = 1_790_000_000_000_000


# -- latency ------------------------------------------------------------------------------------------------------


def test_a_probe_alone_exhausts_its_budget_and_is_no_runaway_request():
    call = UsageEvent(provider="anthropic", request_model=PROBE_MODEL, output_tokens=PROBE_TOKENS)
    assert PriceBook(RateCard(), frozenset()).price_usage(call, START).nanos > parse_nanos(PROBE_BUDGET_USD)
    assert PROBE_TOKENS < 50_000


def test_every_probe_has_a_budget_of_its_own_that_blocks_at_once_and_the_background_has_others():
    found = load_budgets(budgets_of_probes([1_000, 5_000], 3, 2, 10))
    probes = [budget for budget in found if budget.mode == "enforce"]
    assert {budget.target.scope_id for budget in probes} == {probe_name(r, n) for r in (1_000, 5_000) for n in range(3)}
    assert all([(rung.percent, rung.measures) for rung in budget.thresholds] == [(100, (BLOCK,))] for budget in probes)
    assert len(found) - len(probes) == 2


def test_probes_are_spread_evenly_but_not_in_step_with_any_timer():
    times = schedule(100, 50.0, START, seed=1)
    assert times == sorted(times)
    assert all(START + n * SECOND // 2 <= at < START + (n + 1) * SECOND // 2 for n, at in enumerate(times))
    assert len({(at - START) % 250_000 // 10_000 for at in times}) > 15
    assert schedule(100, 50.0, START, seed=1) == times


# -- load ---------------------------------------------------------------------------------------------------------


def test_event_time_can_run_faster_than_the_clock():
    order = LoadOrder(
        bootstrap="", partitions=1, start=START, seconds=1, shape=Shape(), speed=60.0, event_start=START - 10**12
    )
    made = Made(0, b"k", b"v", [("ce_id", b"1"), ("ce_time", b"-")], START + 2 * SECOND)
    time = _event_time(made, order)
    assert time == START - 10**12 + 120 * SECOND
    assert dict(_at(made, time))["ce_time"].startswith(b"2026-")
    assert dict(_at(made, time))["ce_id"] == b"1"


def test_a_repeat_is_due_with_its_neighbours_and_not_at_its_originals_time():
    times = [START, START + 5, START + 1, START + 9]
    due = [at for at, _ in due_times([Made(0, b"k", b"v", [], time) for time in times], START + 2)]
    assert due == [START + 2, START + 5, START + 5, START + 9]


# -- scale --------------------------------------------------------------------------------------------------------


def test_one_factor_is_varied_at_a_time_and_the_base_is_measured_once_on_a_warm_machine():
    warm_up, *found = points(list(FACTORS))
    assert warm_up == (WARM_UP, Point())
    assert found[0] == ("base", Point())
    assert len(found) == 1 + sum(len(values) - 1 for values in FACTORS.values())
    for factor, point in found[1:]:
        assert [name for name in Point._fields if getattr(point, name) != getattr(Point(), name)] == [factor]


@pytest.mark.parametrize("point", [point for _, point in points(list(FACTORS))], ids=str)
def test_every_team_has_a_cell_and_at_most_one_budget_where_there_are_more_budgets_than_usual(point):
    shape = shape_of(point, seed=1)
    assert 1 <= shape.teams <= shape.cells
    if point.budgets > 200:
        assert shape.teams == point.budgets


# -- soak ---------------------------------------------------------------------------------------------------------


def _line(mib_per_minute: float, minutes: int = 60, noise: float = 0.0) -> list[tuple[float, float]]:
    return [(60.0 * m, 300.0 + mib_per_minute * m + noise * (-1) ** m) for m in range(minutes)]


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        (_line(0.0), "flat"),
        (_line(0.0, noise=4.0), "flat"),
        (_line(-1.0), "flat"),
        (_line(1.0), "growing"),
        (_line(0.1), "flat"),
        (_line(5.0, minutes=10), "too short to say"),
        ([(60.0 * m, 100.0 + min(m, 15) * 20) for m in range(60)], "flat"),
        ([], "too short to say"),
        ([(0.0, 300.0)], "too short to say"),
    ],
    ids=["level", "noisy", "falling", "rising", "hardly rising", "short", "only the warm-up rises", "empty", "one"],
)
def test_memory_is_judged_by_its_slope_after_the_warm_up(samples, verdict):
    assert judge(samples).verdict == verdict


def test_the_slope_is_told_by_the_hour_and_as_a_share():
    found = judge(_line(1.0))
    assert found.mib_per_hour == pytest.approx(60.0)
    assert found.growth_percent == pytest.approx(100 * 39 / found.median_mib, rel=0.03)


def test_the_soak_has_budgets_whose_periods_end_while_it_runs():
    assert [(budget.period.kind, budget.mode) for budget in load_budgets(budgets(2))] == [
        ("hour", "observe"),
        ("day", "observe"),
    ]


def test_a_prepared_load_is_the_same_events_in_batches_of_the_tick_in_which_they_are_due():
    start, seconds = START, 2.0
    order = LoadOrder(
        bootstrap="", partitions=4, start=start, seconds=seconds, shape=Shape(rate=500.0, cells=50), is_prepared=True
    )
    filled = {}

    class Batch(list):
        def append(self, **record):
            if len(self) == 3:
                return None
            super().append(record)
            return record

    ticks = list(prepared(order, Batch))
    wanted = [
        (at, made)
        for at, made in due_times(islice(Stream(order.shape, 4, start), 2_000), 0)
        if at < start + int(seconds * SECOND)
    ]
    assert sum(tick.count for tick in ticks) == len(wanted)
    for tick in ticks:
        assert tick.at - int(TICK_S * SECOND) <= tick.first < tick.at
        for partition, batch in tick.batches:
            filled.setdefault(partition, []).extend(batch)
    for partition, records in filled.items():
        theirs = [made for _, made in wanted if made.partition == partition]
        assert [(each["key"], each["value"], each["headers"]) for each in records] == [
            (made.key, made.value, made.headers) for made in theirs
        ]
