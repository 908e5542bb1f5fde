"""The demo's day: what a seed decides is reproducible, and nothing but what it injects is above any bar."""

import json
from collections import defaultdict
from functools import cache
from statistics import median
from typing import Any

import pytest

from loadtest.oracle import Oracle, Prices
from schemas.instants import DAY, HOUR, MINUTE, format_instant, hour_of, parse_instant
from schemas.money import NANOS
from streams.core.budget_file import load_budgets
from streams.core.periods import period_bounds
from streams.demo import company, traffic
from streams.demo.budgeting import budgets_of, budgets_yaml
from streams.demo.raw import raw_line
from streams.demo.scenario import Scenario, calendar_before, plan

NOW = parse_instant("2026-11-21T04:48:11Z")
SEEDS = (1, 2, 3, 4, 5)


@cache
def _played(seed: int) -> tuple[Scenario, list[traffic.Moment], list[traffic.Moment]]:
    scenario = plan(seed, NOW)
    return scenario, traffic.history(scenario), traffic.live(scenario)


@cache
def _hourly(seed: int) -> dict[tuple[str, str], dict[int, int]]:
    """Metered nanodollars per team or feature and hour, by the oracle."""
    _, history, live = _played(seed)
    oracle = Oracle(Prices())
    for moment in (*history, *live):
        oracle.add(json.loads(raw_line(moment.record)))
    sums: dict[tuple[str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for (hour, team, feature, _, category), nanos in oracle.nanos.items():
        if category in ("llm", "gpu"):
            sums["team", team][parse_instant(hour)] += nanos
            sums["feature", feature][parse_instant(hour)] += nanos
    return sums


def _hot(seed: int) -> dict[tuple[str, str], list[int]]:
    """The hours of the live day above 150 % of the same hour's median and more than $5 above it."""
    calendar = _played(seed)[0].calendar
    found = defaultdict(list)
    for scope, hours in _hourly(seed).items():
        for hour in range(calendar.day, calendar.end, HOUR):
            expected = median(hours.get(hour - back * DAY, 0) for back in range(1, 8))
            excess = hours.get(hour, 0) - expected
            if excess > 5 * NANOS and hours[hour] * 100 > 150 * expected:
                found[scope].append(hour)
    return found


@pytest.mark.parametrize(
    "now",
    [
        "2026-11-21T04:48:11Z",
        "2026-11-21T02:00:00Z",
        "2026-11-21T01:59:59Z",
        "2026-11-21T23:10:00Z",
        "2026-03-01T15:30:00Z",
    ],
)
def test_the_day_ends_within_an_hour_before_now_and_its_midnights_are_those_of_its_zone(now: str) -> None:
    calendar = calendar_before(parse_instant(now))
    assert 0 <= parse_instant(now) - calendar.end < HOUR
    assert period_bounds("day", calendar.zone, calendar.day + HOUR) == (calendar.day, calendar.midnight)


def test_a_seed_gives_the_same_records_and_another_seed_others() -> None:
    scenario, history, live = _played(1)
    again = plan(1, NOW)
    assert again == scenario
    assert traffic.history(again) == history
    assert traffic.live(again) == live
    assert plan(2, NOW).incidents != scenario.incidents


@pytest.mark.parametrize("seed", SEEDS)
def test_exactly_the_injected_spike_is_above_the_bar(seed: int) -> None:
    spike, hot = _played(seed)[0].spike, _hot(seed)
    assert set(hot) == {("team", spike.team), ("feature", spike.feature)}
    for hours in hot.values():
        assert all(hour_of(spike.begins) <= hour < spike.ends for hour in hours)
        assert len(hours) >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_exactly_one_request_is_above_the_token_limit_and_all_others_far_below(seed: int) -> None:
    scenario, history, live = _played(seed)
    tokens = sorted((moment.tokens, moment.feature) for moment in (*history, *live))
    assert tokens[-1][0] > 170_000
    assert tokens[-1][1] == scenario.runaway.feature
    assert tokens[-2][0] < 40_000


@pytest.mark.parametrize("seed", SEEDS)
def test_the_leak_crosses_the_whole_ladder_before_midnight_and_stays_below_every_hourly_bar(
    seed: int,
) -> None:
    scenario = _played(seed)[0]
    budget = next(b for b in budgets_of(scenario) if b["id"] == scenario.overrun.subject)
    amount = int(budget["amount_usd"]) * NANOS
    calendar, hours = scenario.calendar, _hourly(seed)["team", scenario.overrun.team]
    reached: dict[int, int] = {}
    spent = 0
    for hour in range(calendar.day, calendar.midnight, HOUR):
        spent += hours[hour]
        for percent in (50, 75, 90, 100):
            if spent * 100 >= percent * amount:
                reached.setdefault(percent, (hour - calendar.day) // HOUR)
    assert list(reached) == [50, 75, 90, 100]
    assert len(set(reached.values())) == 4, "each rung is reached in an hour of its own"
    assert 17 <= reached[100] <= 21
    tail = sum(hours[hour] for hour in range(calendar.midnight, calendar.end, HOUR))
    assert 0 < tail * 100 < 50 * amount, "the new day has room"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_other_budget_reaches_the_rung_that_tells_slack(seed: int) -> None:
    scenario = _played(seed)[0]
    calendar, hourly = scenario.calendar, _hourly(seed)
    for budget in budgets_of(scenario):
        first = calendar.history if budget["period"] == "month" else calendar.day
        scope = budget["scope"]
        kind, name = next(iter(scope.items()))
        if kind == "org":
            hours: dict[int, int] = defaultdict(int)
            for (level, _), found in hourly.items():
                for hour, nanos in found.items() if level == "team" else ():
                    hours[hour] += nanos
        else:
            hours = hourly[kind, name]
        share = sum(n for hour, n in hours.items() if first <= hour < calendar.midnight) * 100
        if budget["id"] != scenario.overrun.subject:
            assert share < 88 * int(budget["amount_usd"]) * NANOS, budget["id"]
        if budget["period"] == "day":
            for day in range(calendar.history, calendar.day, DAY):
                before = sum(n for hour, n in hours.items() if day <= hour < day + DAY) * 100
                assert before < 50 * int(budget["amount_usd"]) * NANOS, (budget["id"], format_instant(day))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_idle_gpu_idles_for_long_enough_and_works_again(seed: int) -> None:
    scenario, _, live = _played(seed)
    idle = scenario.idle
    assert idle.ends - idle.begins >= 105 * MINUTE
    low: dict[str, list[int]] = defaultdict(list)
    for moment in live:
        data: dict[str, Any] = json.loads(moment.record.value) if moment.record.topic == "usage.gpu.v1" else {}
        if data and data["util_ratio"] < 0.2:
            low[data["gpu_uuid"]].append(parse_instant(data["window_start"]))
    assert list(low) == [idle.subject]
    assert idle.begins <= min(low[idle.subject]) <= max(low[idle.subject]) < idle.ends
    assert idle.ends < scenario.calendar.midnight - 2 * HOUR


@pytest.mark.parametrize("seed", SEEDS)
def test_records_repeat_come_late_and_break_and_the_load_is_what_a_minute_can_take(seed: int) -> None:
    _, history, live = _played(seed)
    oracle = Oracle()
    for moment in live:
        oracle.add(json.loads(raw_line(moment.record)))
    assert 15_000 < len(history) + len(live) < 60_000
    assert oracle.duplicates > 200
    assert (oracle.refused, oracle.unpriced) == (5, 4)
    assert oracle.reconciled_nanos == 12_340_000_000
    assert [m.at for m in live] == sorted(m.at for m in live)
    assert tuple(dict.fromkeys(company.TEAMS)) == company.TEAMS
    assert {m.team for m in live if m.is_call} == set(company.TEAMS)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_budgets_file_is_one_that_the_worker_reads(seed: int) -> None:
    scenario = _played(seed)[0]
    budgets = {budget.id: budget for budget in load_budgets(budgets_yaml(scenario))}
    overrun = budgets[scenario.overrun.subject]
    assert (overrun.mode, overrun.hard, overrun.on_stale) == ("enforce", True, "keep")
    assert {budget.target.scope_type for budget in budgets.values()} == {"team", "feature", "org"}
