"""What a budget will have spent: three estimates, and their records."""

import random

import msgspec
import pytest

from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from streams.core.forecast import Counter, Projection, Standing, words
from streams.core.forecast_state import FORECAST_STATES, Forecaster, new_forecaster
from streams.core.periods import period_bounds

USD = 1_000_000_000


def at(text: str) -> int:
    return parse_instant(text + ("Z" if "T" in text else "T00:00:00Z"))


def standing(start: int, end: int, nanos: int, limit: int = 100 * USD, **more) -> Standing:
    counters = more.pop("counters", (Counter(start, end, nanos),))
    return Standing("b", "", start, end, more.pop("spent", nanos), limit, counters, **more)


def told(spend_of_hour, period: str, timezone: str, first: int, until: int, step: int = HOUR) -> tuple:
    """A forecast that was told every step what a monthly (…) budget has spent, from ``first`` to ``until``."""
    forecaster, projections = new_forecaster("b", ""), []
    totals: dict[int, list[int]] = {}
    now = first
    while now <= until:
        start, end = period_bounds(period, timezone, now)
        totals.setdefault(start, [end, 0])
        counters = tuple(Counter(s, e, n) for s, (e, n) in sorted(totals.items()) if e + 2 * DAY > now)
        here = standing(start, end, totals[start][1], counters=counters, timezone=timezone, counted_since=first)
        forecaster.learn(here, now)
        projections.append(forecaster.project(here, now))
        _, ends = period_bounds(period, timezone, now)
        until_next = min(now + step, ends)
        totals[start][1] += spend_of_hour(now) * (until_next - now) // HOUR
        now = until_next
    return forecaster, projections


def by_method(projection: Projection) -> dict:
    return {each.method: each for each in projection.estimates}


PERIODS = [
    ("a day", "day", "UTC", "2026-03-10"),
    ("a day of 23 hours in New York", "day", "America/New_York", "2026-03-08T05:00:00"),
    ("a day of 25 hours in New York", "day", "America/New_York", "2026-11-01T04:00:00"),
    ("a week", "week", "Europe/Berlin", "2026-03-22T23:00:00"),
    ("a week whose Sunday has 23 hours", "week", "Europe/Berlin", "2026-03-29T23:00:00"),
    ("February of 28 days", "month", "UTC", "2026-02-01"),
    ("February of 29 days", "month", "UTC", "2028-02-01"),
    ("March with its change of clocks", "month", "America/New_York", "2026-03-01T05:00:00"),
]


@pytest.mark.parametrize(("period", "zone", "start"), [p[1:] for p in PERIODS], ids=[p[0] for p in PERIODS])
def test_a_constant_spend_is_projected_exactly_by_every_method(period, zone, start):
    start, end = period_bounds(period, zone, at(start))
    now = start + (end - start) // 2 // HOUR * HOUR
    _, projections = told(lambda _: 2 * USD, period, zone, start - 8 * DAY, now)
    whole = 2 * USD * (end - start) // HOUR
    found = by_method(projections[-1])
    assert set(found) == {"run_rate", "plain", "seasonal"}
    for each in found.values():
        assert abs(each.projected_nanos - whole) <= 5, each.method


def test_the_run_rate_is_what_the_formula_says():
    forecaster = new_forecaster("b", "")
    forecaster.know(
        {at("2026-03-01") + n * HOUR: USD * (1 if n < 168 else 3) for n in range(10 * 24)}, at("2026-03-11")
    )
    start, end = at("2026-03-01"), at("2026-04-01")
    here = standing(start, end, (168 + 3 * 72) * USD, growth_permille=1_200)
    forecaster.learn(here, at("2026-03-11"))
    found = by_method(forecaster.project(here, at("2026-03-11")))
    rate = (96 * 1 + 72 * 3) * USD  # a week's spend
    assert found["run_rate"].projected_nanos == here.spent_nanos + rate * 21 * 1_200 // 1_000 // 7
    assert found["plain"].projected_nanos == here.spent_nanos * 31 // 10


def test_a_budget_that_starts_in_the_middle_of_a_month_is_not_projected_from_its_first():
    start, end, begun = at("2026-03-01"), at("2026-04-01"), at("2026-03-21")
    _, projections = told(lambda _: USD, "month", "UTC", begun, at("2026-03-26"))
    found = by_method(projections[-1])
    assert found["plain"].projected_nanos == 11 * 24 * USD == found["run_rate"].projected_nanos
    assert (projections[-1].period_start, projections[-1].until) == (start, end)


def test_an_opening_balance_counts_and_is_not_learned_as_spend_of_now():
    start, end = at("2026-03-01"), at("2026-03-11")
    early = start + 6 * DAY
    forecaster = new_forecaster("b", "")
    for hour in range(25):
        here = standing(start, end, hour * USD, spent=(hour + 120) * USD, counters=(Counter(start, end, hour * USD),))
        forecaster.learn(here, start + 5 * DAY + hour * HOUR)
    found = by_method(forecaster.project(here, early))
    assert found["plain"].projected_nanos == found["run_rate"].projected_nanos == 240 * USD


@pytest.mark.parametrize(
    ("hours", "methods"),
    [(0, {"plain"}), (2, {"plain", "run_rate"}), (71, {"plain", "run_rate"}), (73, {"plain", "run_rate", "seasonal"})],
    ids=["nothing known", "two hours known", "not yet three days", "three days"],
)
def test_a_method_that_knows_too_little_says_nothing(hours, methods):
    start = at("2026-03-01")
    _, projections = told(lambda _: USD, "month", "UTC", start + 30 * MINUTE, start + 30 * MINUTE + hours * HOUR)
    if not hours:
        return
    assert set(by_method(projections[-1])) == methods


def test_at_the_first_instant_of_a_period_nothing_is_divided_by_zero():
    start, end = at("2026-03-01"), at("2026-04-01")
    forecaster = new_forecaster("b", "")
    here = standing(start, end, 0)
    forecaster.learn(here, start)
    projection = forecaster.project(here, start)
    assert projection.estimates == ()
    assert projection.best is None
    assert projection.projected_nanos is None


def test_what_is_used_up_has_no_time_left_to_tell():
    _, projections = told(lambda _: 10 * USD, "day", "UTC", at("2026-03-01"), at("2026-03-09T20:00:00"))
    assert projections[-1].spent_nanos == 200 * USD > projections[-1].limit_nanos
    assert projections[-1].exhausts_at is None


def test_time_to_exhaustion_is_when_the_limit_is_reached():
    _, projections = told(lambda _: 5 * USD, "day", "UTC", at("2026-03-01"), at("2026-03-09T10:00:00"))
    for each in projections[-1].estimates:
        assert abs(each.exhausts_at - at("2026-03-09T20:00:00")) <= 2_000_000, each.method


def test_the_seasonal_estimate_knows_the_night_from_the_day():
    def office(now: int) -> int:
        return 10 * USD if 8 <= now // HOUR % 24 < 18 else 0

    _, projections = told(office, "day", "UTC", at("2026-03-01"), at("2026-03-09T12:00:00"))
    found = by_method(projections[-1])
    assert abs(found["seasonal"].projected_nanos - 100 * USD) < USD // 100
    assert abs(found["plain"].projected_nanos - 100 * USD) == 20 * USD
    # 40 USD are spent by noon, and the last of 100 is spent when the office closes.
    assert found["seasonal"].exhausts_at in (None, at("2026-03-09T18:00:00"))


def test_the_weekend_is_known_after_three_weeks():
    def weekdays(now: int) -> int:
        return 10 * USD if (now // DAY + 3) % 7 < 5 else 0  # 1970 began on a Thursday

    monday = at("2026-03-02")
    _, projections = told(weekdays, "week", "UTC", monday, monday + 25 * DAY)
    whole = 5 * 240 * USD
    assert abs(by_method(projections[-1])["seasonal"].projected_nanos - whole) < whole // 50
    assert by_method(projections[-1])["plain"].projected_nanos > whole * 5 // 4


def test_estimates_are_monotone_in_spend():
    start, end = at("2026-03-01"), at("2026-04-01")
    now = start + 12 * DAY
    before = None
    for extra in (0, 1, 50, 5_000):
        forecaster = new_forecaster("b", "")
        forecaster.know({start + n * HOUR: USD * (1 + n % 5) for n in range(12 * 24)}, now)
        here = standing(start, end, 864 * USD + extra * USD)
        forecaster.learn(here, now)
        found = {each.method: each.projected_nanos for each in forecaster.project(here, now).estimates}
        assert before is None or all(found[method] > before[method] for method in found)
        before = found


@pytest.mark.parametrize("seed", range(5))
def test_however_often_and_whenever_it_is_told_the_sum_is_what_was_spent(seed):
    dice = random.Random(seed)
    start, end = at("2026-03-01"), at("2026-04-01")
    forecaster, now, nanos, first = new_forecaster("b", ""), start + HOUR, 0, 0
    for _ in range(60):
        if dice.random() < 0.2:  # a restart
            forecaster = Forecaster(FORECAST_STATES.decode(msgspec.json.encode(forecaster.state())))
        forecaster.learn(standing(start, end, nanos), now)
        now += dice.choice([0, MINUTE, 50 * MINUTE, 7 * HOUR])
        nanos += dice.randrange(-10, 10**12)
    forecaster.learn(standing(start, end, nanos), now)
    spend = forecaster._spend
    assert spend.spent(start, now + HOUR)[0] + first == nanos


def test_a_restart_changes_nothing_that_is_said():
    forecaster, projections = told(
        lambda t: USD * (1 + t // HOUR % 7), "day", "UTC", at("2026-03-01"), at("2026-03-20")
    )
    reborn = Forecaster(FORECAST_STATES.decode(msgspec.json.encode(forecaster.state())))
    here = standing(at("2026-03-20"), at("2026-03-21"), 0, counted_since=at("2026-03-01"))
    assert reborn.project(here, at("2026-03-20T03:00:00")) == forecaster.project(here, at("2026-03-20T03:00:00"))
    assert projections


def test_the_state_of_ten_years_is_as_small_as_that_of_a_month():
    forecaster, _ = told(lambda t: 12_345_678_901 + t % 99_991, "day", "UTC", at("2026-01-01"), at("2026-04-20"))
    assert len(msgspec.json.encode(forecaster.state())) < 20_000
    assert len(forecaster.state().said) <= 3
    assert len(forecaster.state().counted) <= 4


def test_rolling_money_leaves_the_window_as_it_came():
    # A burst of 50 USD six hours ago, and 1 USD an hour ever since: the burst leaves the window of a day in 18 hours.
    now = at("2026-03-10")
    forecaster = new_forecaster("b", "")
    hours = {now - n * HOUR: USD for n in range(1, 9 * 24)} | {now - 6 * HOUR: 50 * USD}
    forecaster.know(hours, now)
    here = standing(now - DAY, 0, 73 * USD, limit=90 * USD, rolling_hours=24, counters=(Counter(now - HOUR, now, USD),))
    forecaster.learn(here, now)
    found = by_method(forecaster.project(here, now))
    rate = (167 + 50) * USD / 168
    assert found["run_rate"].projected_nanos == pytest.approx(73 * USD + 18 * (rate - USD), rel=1e-6)
    assert found["run_rate"].exhausts_at is None


def test_an_open_budget_is_looked_at_for_thirty_days():
    start = at("2026-01-01")
    now = start + 60 * DAY
    here = standing(start, 0, 60 * 24 * USD, limit=65 * 24 * USD)
    forecaster = new_forecaster("b", "")
    forecaster.learn(here, now)
    projection = forecaster.project(here, now)
    assert projection.until == now + 30 * DAY
    assert by_method(projection)["plain"].projected_nanos == 90 * 24 * USD
    assert by_method(projection)["plain"].exhausts_at == now + 5 * DAY


def test_without_a_history_an_estimate_says_so_and_has_no_upper_bound():
    _, projections = told(lambda _: USD, "month", "UTC", at("2026-03-01"), at("2026-03-20"))
    for each in projections[-1].estimates:
        assert each.record.judged == 0
        assert each.high_nanos is None
        assert each.low_nanos == projections[-1].spent_nanos


def test_each_method_is_judged_by_what_came():
    # Twice as much in the second half of each day: at noon the plain projection says too little by a third.
    def rising(now: int) -> int:
        return USD if now // HOUR % 24 < 12 else 2 * USD

    forecaster, projections = told(rising, "day", "UTC", at("2026-03-01"), at("2026-03-09T12:00:00"))
    plain = by_method(projections[-1])["plain"]
    assert plain.record.judged >= 6
    assert (plain.record.error_permille, plain.record.bias_permille) in {(334, -334), (333, -333), (333, -334)}
    assert by_method(projections[-1])["seasonal"].record.error_permille <= 20
    assert projections[-1].best.method == "seasonal"
    assert plain.low_nanos < plain.projected_nanos < plain.high_nanos
    assert {each.point for each in forecaster.wrong} == set(range(1, 8))


def test_a_period_in_which_gateways_were_throttled_judges_nobody():
    start = at("2026-03-01")
    forecaster = new_forecaster("b", "")
    for hour in range(50):
        now = start + hour * HOUR
        day = now // DAY * DAY
        counters = tuple(Counter(d, d + DAY, min(now - d, DAY) // HOUR * USD) for d in range(start, day + 1, DAY))
        here = standing(day, day + DAY, counters[-1].nanos, counters=counters, is_held=hour == 12)
        forecaster.learn(here, now)
        forecaster.project(here, now)
    assert {each.period_start for each in forecaster.wrong} == {start + DAY}


@pytest.mark.parametrize(
    ("when", "zone", "said"),
    [
        ("2026-11-19T13:10:00", "Europe/Berlin", "on the 19th at about 14:00"),
        ("2026-11-01T12:00:00", "UTC", "today at about 12:00"),
        ("2026-11-01T12:04:00", "UTC", "today at about 12:00"),
        ("2026-11-02T12:04:00", "UTC", "on the 2nd at about 12:00"),
        ("2026-11-22T23:40:00", "UTC", "on the 23rd at about 00:00"),
        ("2026-12-03T01:00:00", "Asia/Tokyo", "on 3 December at about 10:00"),
    ],
)
def test_exhaustion_is_told_as_people_say_it(when, zone, said):
    assert words(at(when), zone, at("2026-11-01T01:00:00")) == said


def test_what_thresholds_go_by_is_not_said_before_three_days_are_known():
    _, projections = told(lambda _: USD, "month", "UTC", at("2026-03-01"), at("2026-03-05"))
    said = [each.foreseen_nanos for each in projections]
    assert said[:72] == [None] * 72
    assert all(each is not None for each in said[72:])


def test_an_open_budget_of_which_nobody_knows_since_when_it_counts_has_no_mean():
    forecaster = new_forecaster("b", "")
    here = standing(0, 0, 60 * 24 * USD)
    forecaster.learn(here, at("2026-03-01"))
    assert forecaster.project(here, at("2026-03-01")).estimates == ()
