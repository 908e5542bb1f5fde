"""Runaway requests: said within one event, once an hour, every one counted."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE, SECOND, parse_instant
from schemas.statements import Signal, Source
from streams.core.detect_runaway import OPEN_MAX, RunawayPolicy, RunawayState, step_runaway, tick_runaway
from streams.core.detection import standing_alerts

TEN = parse_instant("2026-11-21T10:00:00Z")
POLICY = RunawayPolicy(runbook="https://runbooks.example/runaway")


def signal(offset: int, tokens: int = 182_000, *, at: int = TEN + 4 * MINUTE, partition: int = 0, **more) -> Signal:
    return Signal(
        kind="runaway_request",
        scope="feature:chat",
        event_id=f"event-{partition}-{offset}",
        event_source="//gateway",
        event_time=at,
        source=Source("usage.events.v1", 0, partition),
        offset=offset,
        team_id="search",
        feature="chat",
        model="gpt-4o",
        tokens=tokens,
        cost_nanos=tokens * 10_000,
        key_id="key-7",
        **more,
    )


def play(*signals: Signal, behind: int = SECOND, state: RunawayState | None = None, restart: bool = False):
    alerts: list[Alert] = []
    for each in signals:
        if restart and state is not None:
            state = msgspec.json.decode(msgspec.json.encode(state), type=RunawayState)
        state, said = step_runaway(state, each, each.event_time + behind, POLICY)
        alerts += said
    return state, alerts


def test_the_first_request_above_the_limit_pages_within_one_event():
    _, [alert] = play(signal(5))
    assert alert.summary == ("Feature chat sent one request of 182,000 tokens (limit 50,000): $1.82 on gpt-4o")
    assert (alert.status, alert.severity, alert.tier, alert.rule) == (
        "opened",
        "critical",
        "page",
        "runaway_request",
    )
    assert alert.dedup_key == "v1:runaway_request:feature:chat:2026-11-21T10:00:00Z"
    assert (alert.observed, alert.threshold, alert.unit) == ("182000", "50000", "tokens")
    assert (alert.team_id, alert.feature, alert.occurred_at) == ("search", "chat", "2026-11-21T10:04:00Z")
    assert alert.top_contributors[0].name == "182,000 tokens on gpt-4o by key key-7: event-0-5"
    assert alert.top_contributors[0].cost_usd == "1.82"


@pytest.mark.parametrize(("tokens", "is_runaway"), [(49_999, False), (50_000, False), (50_001, True)])
def test_the_limit_is_exact(tokens: int, is_runaway: bool):
    assert bool(play(signal(1, tokens))[1]) == is_runaway


def test_a_flood_is_one_alert_an_hour_updated_only_when_its_count_has_doubled():
    state, alerts = play(*(signal(n, at=TEN + n * SECOND) for n in range(415)))
    assert [a.status for a in alerts] == ["opened"] + ["updated"] * 8
    assert len({a.alert_id for a in alerts}) == 9
    assert len({a.dedup_key for a in alerts}) == 1
    assert state.incidents[TEN].count == 415
    assert "256 requests above 50,000 tokens this hour" in alerts[-1].summary
    assert "usually 182,000" not in alerts[0].summary


def test_the_next_hour_has_its_own_alert():
    _, alerts = play(signal(1, at=TEN + 59 * MINUTE), signal(2, at=TEN + 61 * MINUTE))
    assert [a.period_start for a in alerts] == ["2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z"]


def sample(offset: int, tokens: int, *, at: int = TEN, partition: int = 0, times: int = 1001) -> Signal:
    found = signal(offset, tokens, at=at, partition=partition)
    return msgspec.structs.replace(found, kind="request_sample", times=times)


def known(tokens: int, count: int = 3, *, at: int = TEN - 40 * HOUR) -> RunawayState:
    """A feature whose ordinary requests are known to be of this size."""
    return play(*(sample(n, tokens, at=at + n) for n in range(count)))[0]


def test_what_is_usual_is_told_once_it_is_known():
    _, [alert] = play(signal(9), state=known(14_000))
    assert "(limit 50,000; 99.9 % of its requests have at most 14,335)" in alert.summary
    assert alert.expected == "14335"


def long_context(*, at: int = TEN - 30 * HOUR, every: int = 2) -> list[Signal]:
    """A feature of which a few percent are above the limit, up to 120 000 tokens, for a few hours."""
    large = [signal(n, 52_000 + n % 35 * 2_000, at=at + n * every * MINUTE) for n in range(1, 141)]
    return sorted([*large, *(sample(n * 40, 9_000, at=at + n * MINUTE) for n in range(4))], key=lambda s: s.offset)


@pytest.mark.parametrize(
    ("state", "tokens", "tier"),
    [
        pytest.param(None, 60_000, "ticket", id="above the limit, of a feature that nobody knows"),
        pytest.param(None, 151_000, "page", id="three times the limit, of a feature that nobody knows"),
        pytest.param(known(9_000), 50_001, "page", id="just above the limit, where requests are small"),
        pytest.param(known(49_999), 50_001, "page", id="just above the limit, where requests are just below it"),
        pytest.param(play(*long_context())[0], 119_000, "ticket", id="as large as some of this feature"),
        pytest.param(play(*long_context())[0], 260_000, "page", id="twice as large as any of this feature"),
    ],
)
def test_every_request_above_the_limit_is_recorded_and_a_strange_one_pages(state, tokens: int, tier: str):
    [alert] = [a for a in play(signal(9_000, tokens), state=state)[1] if a.status == "opened"]
    assert (alert.tier, alert.severity) == (tier, "critical" if tier == "page" else "warning")


def test_a_strange_request_makes_the_open_ticket_of_the_hour_a_page_within_one_event():
    state, alerts = play(signal(8_000, 90_000), signal(8_001, 300_000), state=play(*long_context())[0])
    said = [(a.status, a.tier, a.observed) for a in alerts if a.period_start == "2026-11-21T10:00:00Z"]
    assert said == [("opened", "ticket", "90000"), ("updated", "page", "300000")]
    assert tick_runaway(state, TEN + 3 * HOUR, POLICY)[1][-1].tier == "page"


def test_more_of_the_same_pages_again_only_when_it_is_larger_by_half_or_after_hours_without():
    state = known(9_000)
    tokens = (60_000, 70_000, 91_000, 91_000)
    state, alerts = play(*(signal(9_000 + n, t, at=TEN + n * HOUR) for n, t in enumerate(tokens)), state=state)
    assert [a.tier for a in alerts if a.status == "opened"] == ["page", "ticket", "page", "ticket"]
    _, alerts = play(signal(9_010, 60_000, at=TEN + 6 * HOUR), state=state)
    assert [a.tier for a in alerts if a.status == "opened"] == ["page"]


def test_a_feature_that_goes_over_to_long_context_pages_once_and_is_usual_after_a_day():
    state, pages, last = known(9_000), 0, []
    for n in range(60):
        state, alerts = play(signal(9_000 + n, 70_000 + n * 10, at=TEN + n * 40 * MINUTE), state=state)
        pages += sum(a.tier == "page" and a.status == "opened" for a in alerts)
        last = alerts
    assert pages == 1
    assert last[-1].tier == "ticket"
    _, alerts = play(signal(9_900, 70_000, at=TEN + 60 * HOUR), state=state)
    assert [a.tier for a in alerts if a.status == "opened"] == ["ticket"]


def test_an_unusual_number_in_an_hour_pages_though_each_has_the_usual_size():
    state = play(*long_context())[0]
    state, alerts = play(*(signal(9_000 + n, 60_000, at=TEN + n * SECOND) for n in range(90)), state=state)
    pages = [a for a in alerts if a.tier == "page"]
    assert len(pages) == 1
    # The most of an hour was 30, and twice of that is usual.
    assert "61 requests above 50,000 tokens this hour" in pages[0].summary


def test_a_sample_is_learned_once_and_says_nothing():
    state, alerts = play(sample(7, 9_000))
    assert alerts == []
    assert play(sample(7, 9_000), state=state)[0] is state
    # What was sampled before a request says nothing about whether the request was counted.
    assert len(play(signal(5), state=state)[1]) == 1


def test_it_is_resolved_by_the_timer_an_hour_after_the_last_request():
    state, _ = play(signal(1), signal(2, at=TEN + 30 * MINUTE))
    last = TEN + 30 * MINUTE + SECOND
    assert tick_runaway(state, last + HOUR - 1, POLICY) == (state, [])
    state, [alert] = tick_runaway(state, last + HOUR, POLICY)
    assert (alert.status, alert.tier, alert.severity) == ("resolved", "page", "critical")
    assert alert.summary == ("Feature chat sends no more runaway requests: above 50,000 tokens 2 times, $3.64 in all")
    assert state.incidents == {}


def test_a_late_request_in_a_resolved_hour_is_the_next_episode():
    state, _ = play(signal(1))
    state, _ = tick_runaway(state, TEN + 2 * HOUR, POLICY)
    state, said = step_runaway(state, signal(2, partition=1), TEN + 2 * HOUR + 1, POLICY)
    assert [(a.status, a.episode) for a in said] == [("opened", 2)]


def test_a_source_that_is_behind_does_not_open_and_close_with_every_request():
    state, _ = play(signal(1, at=TEN + 2 * HOUR))
    now, alerts = TEN + 2 * HOUR + MINUTE, []
    for n in range(8):
        state, said = step_runaway(state, signal(n, partition=1, at=TEN + n * SECOND), now, POLICY)
        alerts += said
    assert [a.status for a in alerts] == ["opened", "updated", "updated", "updated"]


def test_a_signal_that_was_counted_changes_nothing_and_returns_the_very_state():
    state, _ = play(signal(7), signal(9))
    for offset in (7, 8, 9):
        assert play(signal(offset), state=state) == (state, [])
        assert play(signal(offset), state=state)[0] is state


def test_offsets_of_another_partition_are_its_own():
    state, _ = play(signal(7), signal(3, partition=1))
    assert state.incidents[TEN].count == 2


def test_a_backlog_is_recorded_as_history_and_its_alerts_do_not_pile_up():
    signals = [signal(n, at=TEN + n * HOUR) for n in range(100)]
    state, alerts = play(*signals, behind=300 * HOUR)
    assert {(a.tier, a.historic) for a in alerts} == {("note", True)}
    assert len(state.incidents) <= 2
    assert len(state.episodes) <= 50


def test_open_alerts_are_bounded_even_when_sources_are_far_apart():
    now = TEN + 40 * HOUR
    state, _ = step_runaway(None, signal(0, partition=1), now, POLICY)
    said = []
    for n in range(1, 40):
        state, new = step_runaway(state, signal(n, at=TEN + n * HOUR), now, POLICY)
        said += new
        assert len(state.incidents) <= OPEN_MAX
    assert sum(a.status == "resolved" for a in said) == 40 - OPEN_MAX


def test_a_changed_limit_holds_from_the_next_request_on():
    state, _ = play(signal(1))
    _, said = step_runaway(state, signal(2, 190_000, at=TEN + HOUR), TEN + HOUR, RunawayPolicy(limit=200_000))
    assert said == []


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(30_000, 90_000), st.integers(0, 7200)), max_size=25),
    st.data(),
)
def test_repeats_and_restarts_at_any_point_change_no_byte(sent, data):
    signals = [
        (signal if t > 40_000 else sample)(n, t, partition=p, at=TEN + s * SECOND) for n, (p, t, s) in enumerate(sent)
    ]
    straight, alerts = play(*signals)
    assert msgspec.json.encode(play(*signals, restart=True)) == msgspec.json.encode((straight, alerts))
    repeated = [s for n, each in enumerate(signals) for s in (each, *signals[: data.draw(st.integers(0, n))])]
    assert [a.alert_id for a in play(*repeated)[1]] == [a.alert_id for a in alerts]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3599), min_size=1, max_size=6), min_size=1, max_size=3), st.data())
def test_any_interleaving_of_the_sources_opens_the_same_alerts_and_counts_the_same(partitions, data):
    queues = [
        [signal(n, partition=p, at=TEN + s * SECOND) for n, s in enumerate(found)] for p, found in enumerate(partitions)
    ]
    order = data.draw(st.permutations([p for p, found in enumerate(queues) for _ in found]))
    state, alerts = None, []
    for p in order:
        state, said = step_runaway(state, queues[p].pop(0), TEN + HOUR, POLICY)
        alerts += said
    count = sum(map(len, partitions))
    assert state.incidents[TEN].count == count
    assert [a.status for a in alerts] == ["opened"] + ["updated"] * (count.bit_length() - 1)
    assert alerts[0].alert_id == play(signal(1))[1][0].alert_id


def test_what_was_said_last_can_be_said_again_byte_for_byte_after_a_restart():
    state, alerts = play(*(signal(n) for n in range(3)))
    restored = msgspec.json.decode(msgspec.json.encode(state), type=RunawayState)
    assert standing_alerts(restored) == [alerts[-1]]
    state, resolved = tick_runaway(state, TEN + 3 * HOUR, POLICY)
    assert standing_alerts(state) == resolved


def test_the_state_of_a_busy_feature_is_small():
    state, _ = play(*(signal(n, 50_001 + n, at=TEN + n * MINUTE) for n in range(3_000)))
    assert len(msgspec.json.encode(state)) <= 16_384


def test_a_signal_of_another_scope_is_refused():
    state, _ = play(signal(1))
    with pytest.raises(ValueError, match="given to the runaways of"):
        step_runaway(state, msgspec.structs.replace(signal(2), scope="feature:search"), TEN, POLICY)
