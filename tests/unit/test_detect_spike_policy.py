"""What a spend spike asks of people: money, severity, age, answers and plans decide it."""

import msgspec
import pytest

from detectors.spend_spike import Siblings
from schemas.budgets import Budget, Period
from schemas.commands import Target
from schemas.instants import HOUR
from streams.core.detect_spike import step_spike
from streams.core.detect_spike_feedback import Feedback, answer_spike
from streams.core.detect_spike_money import monthly_budgets
from streams.core.detect_spike_policy import SpikePolicy
from streams.core.detect_spike_siblings import siblings_of
from streams.core.detect_spike_state import SpikeState
from tests.unit.spike_scope import MONDAY, NOON, POLICY, USD, Scope, brief, minutes, say, stream_time, taught


def with_budget(usd: int, **more) -> SpikePolicy:
    return SpikePolicy(monthly_nanos={"team:search": usd * USD}, quiet_hours=1, **more)


@pytest.mark.parametrize(
    ("policy", "usd", "tier"),
    [
        (POLICY, 31, "page"),
        # Eleven dollars now and twenty hours to nine o'clock: 231.
        (with_budget(23_000), 31, "page"),
        (with_budget(23_200), 31, "ticket"),
        (with_budget(23_200, timezone="Asia/Tokyo"), 31, "ticket"),
        (with_budget(13_100, timezone="Asia/Tokyo"), 31, "page"),
        (with_budget(13_300, timezone="Asia/Tokyo"), 31, "ticket"),
    ],
    ids=[
        "no budget is known", "231 dollars are above a hundredth", "and below one", "nine o'clock is sooner in Tokyo",
        "132 dollars until then are above a hundredth", "and below one",
    ],
)  # fmt: skip
def test_it_pages_where_the_excess_by_the_owners_morning_is_a_hundredth_of_the_months_budget(policy, usd, tier):
    [alert] = taught(20.0, policy=policy).hear(say(NOON, usd, offset=10_000))
    assert (alert.status, alert.tier) == ("opened", tier)


def test_a_ticket_becomes_a_page_under_its_own_name_once_the_money_is_there_and_ends_as_one():
    scope = taught(20.0, policy=with_budget(50_000))
    for n, usd in enumerate([31, 40, 50, 55]):
        scope.hear(say(NOON, usd, offset=10_000 + n))
    scope.tick(minutes((NOON + 3) * 60))
    assert [(a.status, a.tier, a.severity) for a in scope.alerts] == [
        ("opened", "ticket", "warning"),
        ("updated", "page", "critical"),
        ("resolved", "page", "critical"),
    ]
    assert len({a.dedup_key for a in scope.alerts}) == 1


def test_the_fixed_rules_are_told_with_the_alert_and_kept_where_nothing_is_said():
    scope = taught(20.0)
    [alert] = scope.hear(say(NOON, 90, offset=10_000))
    assert alert.rules == ("previous_hour", "yesterday", "expected")
    small = taught(2.0)
    assert small.hear(say(NOON, 6.9, offset=10_000)) == []
    assert small.state.broken == {MONDAY + NOON * HOUR: ("previous_hour", "yesterday", "expected")}


def bursty(policy: SpikePolicy = POLICY) -> Scope:
    """A scope that has six times its usual hour every other day."""
    scope = Scope(policy)
    for hour in range(24 * 10):
        scope.hear(say(hour, 120 if hour % 48 == 31 else 20 + hour % 5, offset=hour))
    scope.alerts.clear()
    return scope


def test_what_a_scope_does_all_the_time_is_recorded_and_not_said():
    scope = bursty()
    assert scope.hear(say(240, 100, offset=10_000)) == []
    assert "expected" in scope.state.broken[MONDAY + 240 * HOUR]
    assert brief(scope.hear(say(240, 400, offset=10_001))) == ["opened"]


def ask(scope: Scope, kind: str, first: int, last: int, usd: int = 0) -> list[str]:
    feedback = Feedback(kind, MONDAY + first * HOUR, MONDAY + (last + 1) * HOUR, usd * USD)
    scope.state, said = answer_spike(scope.state, feedback, minutes(last * 60 + 59), scope.policy)
    again, more = answer_spike(scope.state, feedback, minutes(last * 60 + 59), scope.policy)
    assert (msgspec.json.encode(again), more) == (msgspec.json.encode(scope.state), [])
    scope.alerts += said
    return brief(said)


def replay(scope: Scope, day: int, usd: float = 90) -> list[str]:
    """Three hours of an incident at noon, and a quiet day around them."""
    first = 24 * day
    before = len(scope.alerts)
    for hour in range(first, first + 24):
        scope.hear(say(hour, usd if 12 <= hour % 24 < 15 else 20 + hour % 3, offset=hour))
    scope.tick(minutes((first + 24) * 60 + 6))
    return brief(scope.alerts[before:])


def wavy(days: int = 6) -> Scope:
    scope = Scope(POLICY)
    scope.hear(*(say(hour, 20 + hour % 3, offset=hour) for hour in range(24 * days)))
    assert scope.alerts == []
    return scope


def test_no_keeps_a_replay_of_the_same_quiet_and_yes_lets_it_page_again():
    scope = wavy()
    assert "opened" in replay(scope, 6)
    assert ask(scope, "no", 24 * 6 + 12, 24 * 6 + 14) == []
    assert replay(scope, 7) == []
    assert "opened" in replay(scope, 8, usd=180)
    ask(scope, "yes", 24 * 8 + 12, 24 * 8 + 14)
    assert replay(scope, 9) == []
    ask(scope, "yes", 24 * 9 + 12, 24 * 9 + 14)
    assert "opened" in replay(scope, 10)


def test_yes_lets_every_replay_page():
    scope = wavy()
    for day in range(6, 12):
        assert "opened" in replay(scope, day)
        ask(scope, "yes", 24 * day + 12, 24 * day + 14)


def test_no_to_an_open_incident_ends_it():
    scope = taught(20.0)
    scope.hear(say(NOON, 90, offset=10_000))
    assert ask(scope, "no", NOON, NOON) == ["resolved"]
    assert "is normal here, as was answered" in scope.alerts[-1].summary
    assert scope.hear(say(NOON, 91, offset=10_001)) == []


def test_a_plan_is_quiet_until_half_as_much_again_is_spent():
    scope = taught(20.0)
    assert ask(scope, "planned", NOON, NOON + 9, usd=100) == []
    assert scope.hear(say(NOON, 100, offset=10_000), say(NOON + 1, 89, offset=10_001)) == []
    [alert] = scope.hear(say(NOON + 1, 92, offset=10_002))
    assert (alert.status, alert.tier) == ("opened", "page")


def test_a_plan_declared_for_an_open_incident_ends_it_where_it_explains_it():
    for usd, ends in ((40, []), (60, ["resolved"])):
        scope = taught(20.0)
        scope.hear(say(NOON, 100, offset=10_000))
        assert ask(scope, "planned", NOON, NOON + 3, usd=usd) == ends


@pytest.mark.parametrize(
    ("feedback", "complaint"),
    [
        (Feedback("no", MONDAY, MONDAY), "end must be later than start"),
        (Feedback("planned", MONDAY, MONDAY + HOUR), "the amount that is declared"),
    ],
)
def test_an_answer_about_nothing_is_refused(feedback, complaint):
    with pytest.raises(ValueError, match=complaint):
        answer_spike(SpikeState(scope="team:search"), feedback, MONDAY, POLICY)


def test_a_new_level_is_accepted_after_a_day_and_said_once():
    scope = taught(20.0, days=7)
    for hour in range(24 * 7, 24 * 14):
        scope.hear(say(hour, 59, offset=hour))
        scope.tick(minutes(hour * 60 + 66))
    assert brief(scope.alerts) == ["opened", "resolved"]
    assert "has stayed high for 25 hours, and that is what is expected from now on" in scope.alerts[-1].summary
    assert brief(scope.hear(say(24 * 14, 90, offset=90_000))) == ["opened"]


def siblings(count: int) -> list[SpikeState]:
    found = []
    for n in range(count):
        name = f"team:{n}"
        scope = Scope(POLICY)
        scope.hear(*(say(hour, 18 + n + hour % 3, offset=hour, scope=name) for hour in range(24 * 6)))
        found.append(scope.state)
    return found


@pytest.mark.parametrize(
    ("known", "usd", "tier"), [(5, 100, "ticket"), (5, 25, None), (2, 100, None), (0, 100, None)],
    ids=["five times theirs", "as they do", "too few", "none"],
)  # fmt: skip
def test_a_scope_in_its_first_hours_is_measured_by_its_siblings_and_wakes_nobody(known, usd, tier):
    states = siblings(known)

    def around(instant: int) -> Siblings | None:
        return siblings_of(states, "team", instant)

    statement = say(24 * 6 + 1, usd, scope="team:new")
    _, said = step_spike(None, statement, stream_time(statement), POLICY, around)
    assert [(a.status, a.tier) for a in said] == ([("opened", tier)] if tier else [])


def test_what_siblings_are_like_does_not_depend_on_what_they_do_today():
    states = siblings(4)
    before = siblings_of(states, "team", MONDAY + 24 * 6 * HOUR)
    later = []
    for n, state in enumerate(states):
        statement = say(24 * 6, 500, scope=f"team:{n}", offset=9_000)
        later.append(step_spike(state, statement, stream_time(statement), POLICY)[0])
    assert before is not None
    assert siblings_of(reversed(later), "team", MONDAY + 24 * 6 * HOUR + 5 * HOUR) == before
    assert siblings_of(states, "feature", MONDAY + 24 * 6 * HOUR) is None


def budget(usd: int, kind: str, match=(("team", "search"),), per: str = "") -> Budget:
    return Budget(
        id="b", match=match, target=Target("team", "search"), amount_nanos=usd * USD, period=Period(kind), per=per,
        thresholds=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("budgets", "usd"),
    [
        ([budget(300, "month")], 300),
        ([budget(12, "day")], 365),
        ([budget(84, "week")], 365),
        ([budget(900, "quarter")], 300),
        ([budget(300, "month"), budget(2, "day")], pytest.approx(60.83, abs=0.01)),
        ([budget(300, "total")], None),
        ([budget(300, "month", per="user")], None),
        ([budget(300, "month", match=(("team", "search"), ("environment", "prod")))], None),
    ],
    ids=["a month", "a day", "a week", "a quarter", "the smallest", "no period", "for each user", "a part of it"],
)
def test_a_months_budget_is_read_off_any_budget_of_the_scope(budgets, usd):
    found = monthly_budgets(budgets).get("team:search")
    assert (found if found is None else found / USD) == usd
