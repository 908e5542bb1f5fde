"""Which budgets an event counts in, under which scope, and that a plain look at every budget says the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.budgets import ATTRIBUTES, CALL_ATTRIBUTES, CELL_ATTRIBUTES, Budget, Period
from schemas.commands import Target
from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.instants import DAY, HOUR, MINUTE
from schemas.statements import Dimensions
from streams.core import scopes
from streams.core.batch_reading import BatchReader
from streams.core.budget_rungs import DEFAULT_LADDER
from streams.core.matching import is_attribute, values_of, values_of_calls
from streams.core.meter import PartitionState
from streams.core.reading import Limits
from streams.core.scopes import ScopeWatchlist, budget_scope, definition_of, meeting_place, read_scope, watched_of
from tests.unit.records import NOON, SOURCE, rules, usage_record

BASE = {
    "org": "acme", "cost_center": "cc", "team": "search", "project": "p", "feature": "chat", "model": "gpt-4o",
    "provider": "openai", "environment": "prod", "request_type": "batch", "user_tier": "gold", "category": "llm",
    "experiment": "x1", "run": "r1", "key": "k1", "user": "u1", "task": "t1", "session": "s1", "tag:customer": "globex",
}  # fmt: skip


def _budget(match, *, name="b", target=("team", "search"), period="day", zone="UTC", **changes):
    pairs = tuple(sorted(match.items())) if isinstance(match, dict) else tuple(match)
    period = period if isinstance(period, Period) else Period(period, zone)
    return Budget(
        id=name,
        match=pairs,
        target=Target(*target),
        amount_nanos=1,
        period=period,
        thresholds=DEFAULT_LADDER,
        **changes,
    )


def _event(**changes):
    """A call as the watchlist is asked for it: dimensions, and what no cell has."""
    actual = BASE | {name.replace("tag_", "tag:"): value for name, value in changes.items()}
    return Dimensions(*(actual[name] for name in CELL_ATTRIBUTES)), actual


def _counted(budgets, event, at=NOON):
    dimensions, actual = event
    watchlist = ScopeWatchlist([watched_of(budget) for budget in budgets])
    values = tuple(actual.get(name, "") for name in watchlist.attributes)
    return [each for each in watchlist.watched(dimensions, dimensions, values, at) if each.scope.startswith("budget:")]


@pytest.mark.parametrize("attribute", [*ATTRIBUTES, "tag:customer"])
def test_every_attribute_can_be_matched(attribute):
    budget = _budget({attribute: BASE[attribute]})
    assert len(_counted([budget], _event())) == 1
    assert _counted([budget], _event(**{attribute.replace(":", "_"): "other"})) == []
    assert is_attribute(attribute)


@pytest.mark.parametrize(
    ("match", "event", "counts"),
    [
        pytest.param({}, {}, True, id="no condition holds for all"),
        pytest.param([("model", "gpt-4o"), ("model", "o3")], {"model": "o3"}, True, id="one of two values"),
        pytest.param([("model", "gpt-4o"), ("model", "o3")], {"model": "o4"}, False, id="neither of two values"),
        pytest.param([("model", "o3"), ("team", "ads"), ("team", "search")], {"model": "o3"}, True, id="one of two and another"),
        pytest.param([("model", "o3"), ("team", "ads"), ("team", "search")], {}, False, id="one of two, but not the other"),
        pytest.param({"session": ""}, {"session": ""}, True, id="what is missing is empty"),
        pytest.param({"session": "s1", "tag:customer": "globex"}, {}, True, id="a session and a tag"),
        pytest.param({"session": "s1", "tag:customer": "globex"}, {"tag_customer": ""}, False, id="a session without the tag"),
    ],
)  # fmt: skip
def test_all_attributes_must_hold_each_with_one_of_its_values(match, event, counts):
    assert bool(_counted([_budget(match)], _event(**event))) is counts


@pytest.mark.parametrize(
    ("per", "event", "value"),
    [
        pytest.param("session", {"session": "s@1#2|x"}, "s@1#2|x", id="a session, whatever it is called"),
        pytest.param("key", {}, "k1", id="a key"),
        pytest.param("team", {}, "search", id="a team"),
        pytest.param("run", {"run": ""}, None, id="no run"),
        pytest.param("team", {"team": "__unattributed__"}, None, id="nobody's money"),
    ],
)
def test_an_amount_for_each_value_is_counted_under_that_value_and_not_where_there_is_none(per, event, value):
    budget = _budget({}, per=per, target=(per, "*"))
    found = [read_scope(each.scope) for each in _counted([budget], _event(**event))]
    assert found == ([] if value is None else [("b", definition_of(budget), value)])


@pytest.mark.parametrize(
    ("exempt", "event", "counts"),
    [
        pytest.param(("llama-*",), {"model": "llama-3"}, False, id="a pattern"),
        pytest.param(("own", "gpt-4o"), {}, False, id="a name"),
        pytest.param(("gpt-4",), {}, True, id="the beginning of a name is another"),
        pytest.param(("*",), {"category": "gpu", "model": "H100"}, True, id="GPUs are no models"),
    ],
)
def test_models_that_are_never_refused_are_not_counted(exempt, event, counts):
    assert bool(_counted([_budget({}, exempt_models=exempt)], _event(**event))) is counts


@pytest.mark.parametrize(
    ("at", "counts"),
    [(NOON - 1, False), (NOON, True), (NOON + 90 * MINUTE - 1, True), (NOON + 90 * MINUTE, False)],
    ids=["before the start", "at the start", "the last microsecond", "at the end"],
)
def test_a_budget_counts_within_its_dates_alone(at, counts):
    budget = _budget({}, starts=NOON, ends=NOON + 90 * MINUTE)
    found = _counted([budget], _event(), at)
    assert [(each.period_start, each.period_end) for each in found] == [(NOON, NOON + 90 * MINUTE)] * counts


@pytest.mark.parametrize(
    ("at", "steady"),
    [
        (NOON, (NOON - HOUR, NOON + HOUR)),
        (NOON - HOUR, (NOON - HOUR, NOON + HOUR)),
        (NOON + HOUR, (NOON + HOUR, NOON + 2 * HOUR)),
    ],
    ids=["between", "on the first", "on the second"],
)
def test_nothing_begins_or_ends_while_it_is_steady(at, steady):
    dates = [(NOON - HOUR, 0), (0, NOON + HOUR), (NOON + 2 * HOUR, NOON + 3 * HOUR)]
    budgets = [_budget({}, name=f"b{n}", starts=s, ends=e) for n, (s, e) in enumerate(dates)]
    watchlist = ScopeWatchlist([watched_of(budget) for budget in budgets])
    assert watchlist.steady(_event()[0], (), at) == steady


@pytest.mark.parametrize(
    ("event", "values"),
    [
        (UsageEvent(provider="p", session_id="s", run_id="r", tags={"a": "1"}), ("s", "r", "1", "")),
        (UsageEvent(provider="p"), ("", "", "", "")),
        (GpuSample(gpu_uuid="g", window_start="", window_end="", allocated_seconds=0, run_id="r"), ("", "r", "", "")),
        (
            BillingRecord(
                billing_account_id="a", charge_period_start="", charge_period_end="", billed_cost=0,
                billing_currency="USD", service_provider_name="aws", tags={"a": "1", "session": "no"},
            ),
            ("", "", "1", ""),
        ),
    ],
    ids=["a call", "a plain call", "a GPU", "a bill"],
)  # fmt: skip
def test_calls_gpus_and_bills_are_matched_by_what_they_carry(event, values):
    names = ("session", "run", "tag:a", "tag:b")
    assert values_of(names)(event) == values
    if isinstance(event, UsageEvent):
        for chosen in (names, names[:1], names[:2], names[2:], ()):
            assert values_of_calls(chosen)(event) == tuple(values[names.index(name)] for name in chosen)


@pytest.mark.parametrize(
    ("match", "per", "counts"),
    [
        ({"team": "search"}, "", True),
        ({"team": "search"}, "model", True),
        ({"team": "ads"}, "", False),
        ({"session": ""}, "", False),
        ({"tag:a": ""}, "", False),
        ({}, "session", False),
    ],
    ids=["a team", "each model", "another team", "no session", "no tag", "each session"],
)
def test_a_cell_is_counted_by_budgets_that_ask_for_no_more_than_it_has(match, per, counts):
    watchlist = ScopeWatchlist([watched_of(_budget(match, per=per))])
    assert bool(watchlist.of_cell(_event()[0], NOON)) is counts


def test_only_what_some_budget_asks_for_is_looked_at():
    watchlist = ScopeWatchlist(
        [watched_of(b) for b in (_budget({"team": "a", "key": "k"}), _budget({}, per="session"))]
    )
    assert watchlist.attributes == ("key", "session")
    assert ScopeWatchlist([watched_of(_budget({"team": "a", "user_tier": "b"}))]).attributes == ()


@pytest.mark.parametrize(
    ("dates", "minutes", "counted"),
    [
        pytest.param((NOON + 20 * MINUTE, 0), (0, 1, 19, 20, 21), 2, id="from the middle of an hour"),
        pytest.param((0, NOON + 20 * MINUTE), (0, 1, 19, 20, 21), 3, id="to the middle of an hour"),
        pytest.param((NOON + 20 * MINUTE, 0), (21, 1, 22, 2, 19), 2, id="late calls of before it began"),
    ],
)
def test_calls_on_a_known_lane_are_counted_from_the_start_to_the_end_and_no_others(dates, minutes, counted):
    budget = _budget({"team": "search"}, starts=dates[0], ends=dates[1])
    partition = PartitionState(SOURCE, rules(watchlist=ScopeWatchlist([watched_of(budget)])))
    for offset, minute in enumerate(minutes):
        record = usage_record(offset, at=NOON + minute * MINUTE, arrived=NOON + HOUR, input_tokens=1)
        partition.fold([record], offset + 1)
    found = [counter for (scope, _), counter in partition.counters.items() if scope.startswith("budget:")]
    assert [counter.requests for counter in found] == [counted]


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (_budget({"team": "search"}), "73a0244c"),
        (_budget({"feature": "chat", "environment": "prod"}, target=("feature", "chat"), period="month", zone="Europe/Berlin"), "8c829e06"),
        (_budget({"key": "k1"}, target=("key", "k1"), period="hour"), "257b4e97"),
        (_budget({"org": "acme"}, target=("org", "acme"), period="week", zone="Asia/Tokyo"), "7dc5a6fb"),
    ],
    ids=["a team's day", "a feature's month in Berlin", "a key's hour", "an organisation's week in Tokyo"],
)  # fmt: skip
def test_budgets_of_earlier_releases_go_on_counting_under_their_names(budget, name):
    assert definition_of(budget) == name


OTHERS = [
    _budget({"team": "search"}),
    _budget({"team": "ads"}, target=("team", "ads")),
    _budget({"team": "search"}, target=("org", "acme")),
    _budget({"team": "search"}, target=("org", "other")),
    _budget({"team": "search"}, period="month"),
    _budget({"team": "search"}, zone="Asia/Tokyo"),
    _budget({"team": "search"}, period="week"),
    _budget({"team": "search"}, period=Period("week", "UTC", 6)),
    _budget({"team": "search"}, period=Period("rolling", hours=24)),
    _budget({"team": "search"}, period=Period("rolling", hours=48)),
    _budget({"team": "search"}, per="session", target=("session", "*")),
    _budget({"team": "search"}, per="key", target=("key", "*")),
    _budget({"team": "search"}, starts=NOON),
    _budget({"team": "search"}, ends=NOON),
    _budget({"team": "search"}, exempt_models=("a",)),
    _budget({"team": "search"}, exempt_models=("a", "b")),
    _budget({"team": "search", "tag:ends": str(NOON)}),
    _budget([("team", "search"), ("team", "ads")]),
]


def test_whatever_changes_what_is_counted_changes_the_name():
    assert len({definition_of(budget) for budget in OTHERS}) == len(OTHERS)


def test_what_only_changes_what_is_done_keeps_the_name():
    one = _budget({"team": "search"}, exempt_models=("a", "b"))
    other = _budget(
        {"team": "search"}, name="other", exempt_models=("b", "a"), mode="enforce", hard=True, version=7, owner="x",
        parent="p", rollover=True, model="pooled", pages=False, on_stale="keep", growth_permille=2,
    )  # fmt: skip
    assert definition_of(one) == definition_of(other)


def test_all_definitions_of_a_budget_meet_and_its_sessions_are_spread():
    sessions = [_budget({}, per="session", target=("session", "*"), period=kind) for kind in ("day", "total")]
    found = {meeting_place(budget_scope(watched_of(budget), value)) for budget in sessions for value in ("s@1#2", "s2")}
    assert found == {"budget:b#s@1#2", "budget:b#s2"}
    assert {meeting_place(budget_scope(watched_of(budget))) for budget in OTHERS if not budget.per} == {"budget:b"}


# -- against a plain oracle ---------------------------------------------------------------------------------------

_names = st.sampled_from(["team", "feature", "model", "key", "session", "tag:a"])
_values = st.sampled_from(["", "a", "b", "c"])
_specs = st.lists(
    st.tuples(st.lists(st.tuples(_names, _values), max_size=5), st.sampled_from(["", "", "team", "session", "user"])),
    max_size=30,
)
_actual = st.fixed_dictionaries(dict.fromkeys(("team", "feature", "model", "key", "session", "tag:a", "user"), _values))


@settings(max_examples=300, deadline=None)
@given(specs=_specs, events=st.lists(_actual, min_size=1, max_size=6), memo=st.sampled_from([1, 50_000]))
def test_matching_says_what_a_look_at_every_budget_says(specs, events, memo):
    budgets = [_budget(match, name=f"b{n}", per=per) for n, (match, per) in enumerate(specs)]
    watchlist = ScopeWatchlist([watched_of(budget) for budget in budgets])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scopes, "_MEMO_MAX", memo)
        for actual in [*events, *events]:
            dimensions = _event(**{name: actual[name] for name in ("team", "feature", "model")})[0]
            expected = []
            for number, (match, per) in enumerate(specs):
                wanted = {}
                for name, value in match:
                    wanted.setdefault(name, []).append(value)
                if all(actual[name] in allowed for name, allowed in wanted.items()) and (not per or actual[per]):
                    expected.append((f"b{number}", actual[per] if per else ""))
            values = tuple(actual[name] for name in watchlist.attributes)
            found = [read_scope(each.scope) for each in watchlist.watched(dimensions, dimensions, values, NOON)]
            assert [(each.budget_id, each.value) for each in found if each] == expected


def test_of_ten_thousand_budgets_only_those_that_can_match_are_asked(monkeypatch):
    budgets = [
        _budget({"org": "acme", "team": f"t{n}", "environment": "prod"} | ({"session": f"s{n}"} if n % 3 else {}), name=f"b{n}")
        for n in range(10_000)
    ]  # fmt: skip
    watchlist = ScopeWatchlist([watched_of(budget) for budget in budgets])
    asked = []
    holds = scopes._Watched.holds
    monkeypatch.setattr(scopes._Watched, "holds", lambda self, value_of: asked.append(1) or holds(self, value_of))
    for n in range(100):
        dimensions = _event(team=f"t{n}")[0]
        assert len(watchlist.watched(dimensions, dimensions, (f"s{n}",), NOON)) == 1
    assert len(asked) <= 200


# -- what METER keeps of single values ------------------------------------------------------------------------------


def _agents(**changes):
    budget = _budget({}, name="agents", per="session", target=("session", "*"), period="total")
    whole = _budget({"team": "search"}, name="search", period="total")
    watchlist = ScopeWatchlist([watched_of(budget), watched_of(whole)])
    return PartitionState(SOURCE, rules(watchlist=watchlist, **changes))


def _sessions(partition):
    return sorted(scope.partition("#")[2] for scope, _ in partition.counters if "#" in scope)


@pytest.mark.parametrize(
    ("hours", "ledger", "left"),
    [
        pytest.param(23, 10, ["s1", "s2"], id="not a day of silence yet"),
        pytest.param(25, 10, ["s2"], id="a day of silence"),
        pytest.param(25, 0, ["s1", "s2"], id="the ledger does not have it yet"),
    ],
)
def test_the_counter_of_a_silent_session_leaves_memory(hours, ledger, left):
    partition = _agents()
    partition.fold([usage_record(0, session_id="s1", input_tokens=5)], 1)
    partition.fold([usage_record(1, at=NOON + hours * HOUR, session_id="s2", input_tokens=7)], 2)
    partition.changed_counters, partition.changed_cells, partition.unstated = {}, {}, {}
    partition.evict(ledger)
    assert _sessions(partition) == left
    # The one budget of a team is never one of many: it stays.
    assert any(scope.startswith("budget:search@") for scope, _ in partition.counters)


def test_what_comes_to_a_session_after_that_is_a_new_segment_also_over_a_lane_that_was_open():
    partition = _agents(cells_idle_us=40 * DAY, counters_idle_us=HOUR // 2)
    at = NOON + HOUR - MINUTE
    partition.fold([usage_record(n, at=at, session_id="s1", input_tokens=5) for n in range(3)], 3)
    partition.fold([usage_record(3, at=at + 40 * MINUTE, session_id="s2", input_tokens=7)], 4)
    partition.changed_counters, partition.changed_cells, partition.unstated = {}, {}, {}
    assert [gone.cost_nanos for gone in partition.evict(10)] == [150]
    late = usage_record(4, at=at, arrived=at + 41 * MINUTE, session_id="s1", input_tokens=2)
    partition.fold([late], 5)
    (again,) = [counter for (scope, _), counter in partition.counters.items() if scope.endswith("#s1")]
    assert (again.segment, again.cost_nanos, again.requests) == (4, 20, 1)


def test_plans_of_sessions_are_forgotten_with_their_lanes():
    reader = BatchReader(Limits(), "", ("session",))
    reader.read([usage_record(n, session_id=f"s{n}") for n in range(50)])
    reader.close_lanes(0)
    assert reader._plans == {}


def test_no_attribute_of_a_call_is_forgotten():
    assert all(f"{name}_id" in UsageEvent.__struct_fields__ for name in CALL_ATTRIBUTES)
