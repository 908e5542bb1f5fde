"""Regime changes: told once, in money, within hours, and not for the rhythm of a day."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Observation
from detectors.regime_change import RegimeChange
from schemas.alerts import Alert
from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from schemas.statements import Figures, HourStatement
from streams.core.composition import Composition
from streams.core.detect_regime import OPEN_HOURS_MAX, RegimePolicy, RegimeState, step_hour, step_regime, tick_regime
from streams.core.detect_regime_ratios import MODELS_KEPT, HourTotals, blended

START = parse_instant("2026-11-02T00:00:00Z")
POLICY = RegimePolicy()
CHANGE = 96


def hour_of_day(n: int, dice: random.Random, **changes) -> HourTotals:
    """An ordinary hour: requests follow the day, ratios wobble by a tenth."""
    requests = 2_000 + 1_500 * (n % 24 in range(8, 18))
    wobble = {
        "error": 0.02, "hits": 0.2, "cached": 0.5, "output": 0.25, "price": 3.0, "cheap": 0.9, "tokens": 1_000,
    } | changes  # fmt: skip
    part = {name: value * (1 + dice.uniform(-0.1, 0.1)) for name, value in wobble.items()}
    tokens = int(requests * part["tokens"])
    output = int(tokens * part["output"])
    cost = int((tokens + output) * part["price"] * 1_000)
    cheap = min(1.0, part["cheap"])
    return HourTotals(
        requests=requests,
        errors=int(requests * part["error"]),
        cache_hits=int(requests * part["hits"]),
        input_tokens=tokens,
        cached_tokens=int(tokens * min(1.0, part["cached"])),
        output_tokens=output,
        cost_nanos=cost,
        models={"small": int(cost * cheap), "large": cost - int(cost * cheap)},
    )


def course(hours: int, seed: int = 1, at: int = CHANGE, until: int = 10_000, **changes) -> list[HourTotals]:
    dice = random.Random(seed)
    return [hour_of_day(n, dice, **(changes if at <= n < until else {})) for n in range(hours)]


def play(
    found: list[HourTotals],
    *,
    state: RegimeState | None = None,
    restart: bool = False,
    behind: int = HOUR,
    first: int = 0,
    scope: str = "feature:chat",
) -> tuple[RegimeState, list[Alert]]:
    state, alerts = state or RegimeState(scope=scope), []
    for n, totals in enumerate(found, first):
        if restart:
            state = msgspec.json.decode(msgspec.json.encode(state), type=RegimeState)
        state, said = step_regime(state, START + n * HOUR, totals, START + n * HOUR + behind, POLICY)
        alerts += said
    return state, alerts


@pytest.mark.parametrize(
    ("changes", "ratio", "rule"),
    [
        pytest.param({"cached": 0.05}, "cached_input", "regime_change", id="the prompt cache collapses"),
        pytest.param({"hits": 0.02}, "cache_hits", "regime_change", id="the response cache collapses"),
        pytest.param({"output": 0.75}, "output_ratio", "regime_change", id="answers become three times as long"),
        pytest.param({"price": 6.0}, "price", "regime_change", id="a token costs twice as much"),
        pytest.param({"cheap": 0.2}, "model_mix", "regime_change", id="spend moves to the large model"),
        pytest.param({"error": 0.2}, "error_rate", "regime_change", id="a fifth of the calls fails"),
        pytest.param({"tokens": 2_500}, "tokens_per_success", "token_cost", id="a success takes 2.5 times the tokens"),
    ],
)
def test_a_change_is_told_once_within_hours_and_is_the_usual_after_a_day(changes, ratio, rule):
    state, alerts = play(course(CHANGE + 80, **changes))
    opened = [a for a in alerts if a.dedup_key.startswith(f"v1:{rule}:feature:chat|{ratio}:") and a.status == "opened"]
    [alert] = opened
    assert alert.tier in ("ticket", "page")
    assert alert.rule == rule
    at = parse_instant(alert.stated_at) - HOUR
    assert START + CHANGE * HOUR <= at <= START + (CHANGE + 5) * HOUR
    assert parse_instant(alert.occurred_at) >= START + (CHANGE - 2) * HOUR
    assert [a.status for a in alerts if a.dedup_key == alert.dedup_key][-1] == "resolved"
    assert ratio not in state.incidents


def test_the_words_say_what_since_when_and_what_it_costs():
    _, alerts = play(course(CHANGE + 6, price=6.0))
    [alert] = [a for a in alerts if "|price:" in a.dedup_key]
    head, _, tail = alert.summary.partition(" and not ")
    assert head.startswith("Feature chat: a million tokens $")
    # When it began can be told to a few hours: the ones before were above the usual by chance.
    assert ", since 2026-11-0" in tail
    assert "which costs about $" in tail
    assert (alert.unit, alert.feature) == ("USD", "chat")


def test_a_model_that_gains_is_named():
    _, alerts = play(course(CHANGE + 8, cheap=0.2))
    [alert] = [a for a in alerts if "|model_mix:" in a.dedup_key]
    assert "(to large)" in alert.summary


def test_a_change_that_goes_back_is_resolved_and_not_taken_for_usual():
    _, alerts = play(course(CHANGE + 40, until=CHANGE + 6, error=0.3))
    statuses = [a.status for a in alerts if "|error_rate:" in a.dedup_key]
    assert statuses == ["opened", "resolved"]
    resolved = next(a for a in alerts if a.status == "resolved")
    assert parse_instant(resolved.stated_at) <= START + (CHANGE + 16) * HOUR


@pytest.mark.parametrize("seed", range(5))
def test_two_weeks_of_ordinary_hours_say_nothing(seed):
    assert play(course(14 * 24, seed))[1] == []


def test_a_change_for_the_better_is_only_noted():
    _, alerts = play(course(CHANGE + 8, price=1.0))
    assert {a.tier for a in alerts if "|price:" in a.dedup_key} == {"note"}


@pytest.mark.parametrize(
    ("totals", "why"),
    [
        pytest.param(HourTotals(requests=0), "an hour without calls", id="an hour without calls"),
        pytest.param(HourTotals(requests=49, errors=49), "too few", id="an hour of few calls that all fail"),
        pytest.param(HourTotals(requests=90, errors=90, cost_nanos=-5, models={"a": -5}), "credits", id="only credits"),
    ],
)
def test_hours_that_say_nothing_about_a_ratio_are_holes(totals, why):
    state, _ = play(course(CHANGE))
    after, alerts = play([totals], state=state, first=CHANGE)
    assert alerts == []
    assert after.detectors["price"].logs[-1] is None


def test_money_decides_who_hears_of_it():
    dear = [msgspec.structs.replace(each, cost_nanos=each.cost_nanos * 10) for each in course(CHANGE + 6, price=6.0)]
    cheap = [
        msgspec.structs.replace(each, cost_nanos=each.cost_nanos // 1_000) for each in course(CHANGE + 6, price=6.0)
    ]
    played = [(dear, "team:search"), (course(CHANGE + 6, price=6.0), "team:search"), (dear, "feature:chat")]
    tiers = [{a.tier for a in play(each, scope=scope)[1] if "|price:" in a.dedup_key} for each, scope in played]
    assert tiers == [{"page"}, {"ticket"}, {"ticket"}]
    assert "page" not in {a.tier for a in play(cheap, scope="team:search")[1]}


def test_an_hour_counts_once_and_history_is_a_note():
    state, _ = play(course(CHANGE))
    assert play(course(5), state=state)[0] is state
    _, alerts = play(course(CHANGE + 8, error=0.4), behind=9 * HOUR)
    assert {(a.tier, a.historic) for a in alerts} == {("note", True)}


def parts_of(totals: HourTotals, parts: int) -> list[HourTotals]:
    """The totals as so many partitions would have them."""
    rest, found = totals, []
    for left in range(parts, 1, -1):
        names = [name for name in HourTotals.__struct_fields__ if name != "models"]
        numbers = {name: getattr(rest, name) // left for name in names}
        found.append(HourTotals(**numbers, models={model: nanos // left for model, nanos in rest.models.items()}))
        rest = HourTotals(
            **{name: getattr(rest, name) - numbers[name] for name in names},
            models={model: nanos - nanos // left for model, nanos in rest.models.items()},
        )
    return [*found, rest]


def heard(made_of: Composition, part: int, hour: int, totals: HourTotals, at: int) -> tuple[HourStatement, Composition]:
    """What a partition says of an hour so far, taken up where it belongs."""
    names = ("requests", "errors", "cache_hits", "input_tokens", "cached_tokens", "output_tokens", "cost_nanos")
    statement = HourStatement(
        scope="feature:chat", hour=hour, part=part, rank=at, reach={f"s{part}": at},
        figures=Figures(**{name: getattr(totals, name) for name in names}),
        models={model: Figures(cost_nanos=nanos) for model, nanos in totals.models.items()},
    )  # fmt: skip
    made_of.take(statement)
    return statement, made_of


@pytest.mark.parametrize("statements", [1, 3], ids=["one statement an hour", "three statements an hour"])
def test_hours_in_parts_and_pieces_say_what_whole_hours_do(statements):
    found = course(CHANGE + 12, price=6.0)
    whole_state, whole = play(found)
    state, alerts, made_of = RegimeState(scope="feature:chat"), [], Composition()
    for n, totals in enumerate(found):
        start = START + n * HOUR
        for number in range(1, statements + 1):
            at = start + HOUR * number // statements - 1
            for name, part in enumerate(parts_of(totals, 3)):
                so_far = part if number == statements else parts_of(part, statements)[0]
                state, said = step_hour(state, *heard(made_of, name, start, so_far, at), at, POLICY)
                alerts += said
            state, said = tick_regime(state, at, POLICY, made_of)
            alerts += said
    state, said = tick_regime(state, START + (CHANGE + 13) * HOUR, POLICY)
    alerts += said
    assert [(a.alert_id, a.observed, a.tier) for a in alerts] == [(a.alert_id, a.observed, a.tier) for a in whole]
    assert state.detectors == whole_state.detectors
    assert state.hours == {}


def test_a_part_that_was_kept_before_a_crash_and_its_state_was_not_is_taken_in_when_it_is_read_again():
    made_of, hour = Composition(), course(1)[0]
    statement, _ = heard(made_of, 0, START, hour, START)
    again = msgspec.json.decode(msgspec.json.encode(statement), type=HourStatement)
    assert not made_of.take(again), "no news to what an hour is made of"
    state, _ = step_hour(RegimeState(scope="feature:chat"), again, made_of, START + HOUR, POLICY)
    assert state.hours[START] == {0: hour}


def test_a_partition_far_behind_does_not_hold_hours_open_for_ever():
    state, made_of = RegimeState(scope="feature:chat"), Composition()
    for n, totals in enumerate(course(30)):
        now = START + n * HOUR + MINUTE
        state, _ = step_hour(state, *heard(made_of, 0, START, totals, START), now, POLICY)
        state, _ = step_hour(state, *heard(made_of, 1, START + n * HOUR, totals, now), now, POLICY)
        assert len(state.hours) <= OPEN_HOURS_MAX


def test_a_scope_that_falls_silent_leaves_no_alert_open():
    state, _ = play(course(CHANGE + 6, error=0.4))
    assert state.incidents
    now = state.next_hour + DAY
    assert tick_regime(state, now - 1, POLICY) == (state, [])
    state, alerts = tick_regime(state, now, POLICY)
    assert {a.status for a in alerts} == {"resolved"}
    assert not state.incidents


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 5), st.sampled_from([{"error": 0.4}, {"price": 6.0, "cheap": 0.2}, {}]))
def test_a_restart_at_any_hour_changes_nothing(seed, changes):
    found = course(CHANGE + 30, seed, **changes)
    assert msgspec.json.encode(play(found, restart=True)) == msgspec.json.encode(play(found))


def test_the_state_is_small_and_few_models_are_kept():
    state, _ = play(course(400, price=6.0))
    assert all(len(msgspec.json.encode(each)) <= 4_096 for each in state.detectors.values())
    shares = blended({}, {f"m{n}": 1 / 40 for n in range(40)}, 0.1)
    assert len(shares) <= MODELS_KEPT + 1
    assert sum(shares.values()) == pytest.approx(1)


def test_a_ratio_of_zero_that_becomes_a_little_is_no_change_and_much_is():
    quiet, loud = RegimeChange(), RegimeChange()
    for n in range(80):
        x = Observation(n * HOUR, n * HOUR + HOUR, 0.0)
        quiet.learn_one(x)
        loud.learn_one(x)
    strangest = []
    for detector, value in ((quiet, 0.001), (loud, 0.2)):
        for n in range(80, 86):
            x = Observation(n * HOUR, n * HOUR + HOUR, value)
            score = detector.score_one(x)
            detector.learn_one(x)
        strangest.append(score.strangeness)
    assert strangest[0] < 1_000 <= strangest[1]
