"""Runaway loops: a caller far above the busy callers of its feature, told while its window runs, once."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE, SECOND, parse_instant
from schemas.statements import CallerWindow, Signal, Source
from streams.core.detect_loop import step_loop, tick_loop
from streams.core.detect_loop_state import CALLERS_KEPT, LoopPolicy, LoopState
from streams.core.detection import standing_alerts

TEN = parse_instant("2026-11-21T10:00:00Z")
WINDOW = 5 * MINUTE
CENT = 10_000_000
POLICY = LoopPolicy(runbook="https://runbooks.example/loop")


def busy(
    offset: int,
    requests: int,
    *,
    id: str = "s-1",
    kind="session",
    window: int = 0,
    errors: int = 0,
    tokens: int = 2_000,
    nanos_a_call: int = CENT,
    partition: int = 0,
) -> Signal:
    start = TEN + window * WINDOW
    return Signal(
        kind="busy_caller",
        scope="feature:agent",
        event_id="",
        event_source="",
        event_time=start + MINUTE,
        source=Source("usage.events.v1", 0, partition),
        offset=offset,
        team_id="search",
        feature="agent",
        model="gpt-4o",
        tokens=tokens,
        cost_nanos=0,
        caller=CallerWindow(
            kind=kind,
            id=id,
            start=start,
            end=start + WINDOW,
            requests=requests,
            errors=errors,
            input_tokens=requests * tokens,
            cost_nanos=requests * nanos_a_call,
        ),
    )


def play(*signals: Signal, state: LoopState | None = None, restart: bool = False, behind: int = SECOND):
    alerts: list[Alert] = []
    for each in signals:
        if restart and state is not None:
            state = msgspec.json.decode(msgspec.json.encode(state), type=LoopState)
        state, said = step_loop(state, each, each.event_time + behind, POLICY)
        alerts += said
    return state, alerts


def known(requests: int = 50, *, kind="session", windows: int = 40, **more) -> LoopState:
    """A feature whose busy callers are known to make so many calls in a window."""
    found = [busy(n, requests, id=f"{kind}-{n}", kind=kind, window=n - windows - 20, **more) for n in range(windows)]
    return play(*found)[0]


#: Up to a thousand calls in a window are usual, and two dollars.
CALM = known(500, nanos_a_call=CENT // 5)


def test_a_session_far_above_the_others_pages_while_its_window_runs():
    state, alerts = play(busy(1_000, 56), busy(1_001, 112), busy(1_002, 224), state=known())
    alert, updated = alerts
    assert alert.summary == (
        "Session s-1 of feature agent runs away: about 112 calls in 5 minutes of 2,000 input tokens each, "
        "$1.12 so far on gpt-4o"
    )
    assert (alert.rule, alert.tier, alert.severity, alert.status) == ("runaway_loop", "page", "critical", "opened")
    assert (alert.scope_type, alert.scope_id, alert.team_id, alert.feature) == ("session", "s-1", "search", "agent")
    assert alert.dedup_key == "v1:runaway_loop:feature:agent|session:s-1:2026-11-21T10:00:00Z"
    assert (updated.status, updated.dedup_key, updated.observed) == ("updated", alert.dedup_key, "224")
    assert state.callers["session:s-1"].incident.last == updated


@pytest.mark.parametrize(
    ("state", "signals", "tiers"),
    [
        pytest.param(known(), [busy(900, 90)], [], id="below twice the usual is nothing"),
        pytest.param(known(), [busy(900, 224)], ["page"], id="far above the usual, 27 dollars an hour"),
        pytest.param(
            known(nanos_a_call=0), [busy(900, 224, nanos_a_call=0)], [], id="far above the usual, for nothing"
        ),
        pytest.param(None, [busy(900, 224)], ["ticket"], id="dear, where nothing is known: a ticket"),
        pytest.param(None, [busy(900, 100)], [], id="busy, where nothing is known"),
        pytest.param(
            None, [busy(900, 9_000, kind="key")], [], id="a key may be a whole service, while nothing is known"
        ),
        pytest.param(
            known(1_000, kind="key"), [busy(900, 9_000, kind="key")], ["page"], id="a key far above other keys"
        ),
        pytest.param(
            CALM,
            [busy(900, 56, tokens=5_000), busy(901, 56, tokens=40_000, window=1, nanos_a_call=3 * CENT)],
            ["page"],
            id="a context that grows eightfold",
        ),
        pytest.param(
            CALM,
            [busy(900, 56, tokens=500), busy(901, 56, tokens=4_000, window=1)],
            [],
            id="a small context that grows eightfold is a talk",
        ),
        pytest.param(
            CALM,
            [busy(900, 56), busy(901, 448, window=1, errors=400, nanos_a_call=CENT // 4)],
            ["page"],
            id="a storm of errors, ever more of them",
        ),
        pytest.param(
            CALM,
            [busy(900, 448, errors=400, nanos_a_call=0)],
            ["ticket"],
            id="a storm of errors that cost nothing",
        ),
        pytest.param(
            CALM,
            [busy(900 + n, 448, errors=100 + 300 * n, window=n, nanos_a_call=CENT // 5) for n in (0, 1)],
            [],
            id="as many calls as before, and most of them fail: no storm, but an outage",
        ),
    ],
)
def test_what_is_a_page_a_ticket_or_nothing(state, signals, tiers):
    assert [alert.tier for alert in play(*signals, state=state)[1]] == tiers


def test_a_storm_has_a_rule_of_its_own():
    _, [alert] = play(busy(900, 448, errors=400), state=CALM)
    assert alert.rule == "retry_storm"
    assert "retries: about 448 calls in 5 minutes, 89 % of them fail" in alert.summary


def test_a_loop_of_hours_is_one_alert_updated_when_its_money_has_doubled_and_resolved_when_it_ends():
    state, alerts = play(*(busy(1_000 + n, 224, window=n) for n in range(24)), state=known())
    assert [a.status for a in alerts] == ["opened", *["updated"] * 4]
    assert len({a.dedup_key for a in alerts}) == 1
    assert len({a.alert_id for a in alerts}) == 5
    end = TEN + 24 * WINDOW
    assert tick_loop(state, end + 29 * MINUTE, POLICY) == (state, [])
    state, [resolved] = tick_loop(state, end + 31 * MINUTE, POLICY)
    assert resolved.summary == "Session s-1 of feature agent is calm again; about $53.76 since it was first busy"
    assert standing_alerts(state) == [resolved]


def test_a_loop_is_not_learned_so_the_next_one_is_found_as_well():
    state, _ = play(*(busy(1_000 + n, 400, window=n) for n in range(40)), state=known())
    _, alerts = play(busy(2_000, 400, id="s-2", window=50), state=state)
    assert [(a.scope_id, a.tier) for a in alerts if a.status == "opened"] == [("s-2", "page")]


def test_calls_through_several_partitions_add_up_and_a_repeat_adds_nothing():
    state, alerts = play(busy(1_000, 56), busy(7, 56, partition=1), busy(1_000, 56), state=known())
    assert [a.status for a in alerts] == ["opened"]
    assert play(busy(7, 5_000, partition=1), state=state)[0] is state


def test_after_a_restart_of_the_source_a_smaller_total_of_the_same_window_takes_nothing_back():
    state, _ = play(busy(1_000, 224), busy(1_001, 28), state=known())
    assert state.callers["session:s-1"].cost_nanos == 224 * CENT


def test_history_is_a_note():
    _, alerts = play(busy(1_000, 500), state=known(), behind=9 * HOUR)
    assert [(a.tier, a.historic) for a in alerts] == [("note", True)]


def test_however_many_callers_loop_the_state_is_bounded_and_every_alert_is_ended():
    state, alerts = play(*(busy(1_000 + n, 224, id=f"s-{n}", window=n // 5) for n in range(60)), state=known())
    assert len(state.callers) <= CALLERS_KEPT
    opened = sum(a.status == "opened" for a in alerts)
    resolved = sum(a.status == "resolved" for a in alerts)
    assert opened - resolved == sum(caller.incident is not None for caller in state.callers.values())
    usual = state.usual["session"]
    assert max(len(msgspec.json.encode(each)) for each in (usual.calls, usual.money)) < 4_096
    assert len(msgspec.json.encode(state)) < 32_768


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([28, 56, 448, 1_792]), st.integers(0, 9)),
        max_size=40,
    )
)
def test_a_restart_at_any_point_and_every_repetition_change_nothing(sent):
    signals = [
        busy(n, requests, id=f"s-{caller}", partition=partition, window=window, errors=requests // 2 * (window % 2))
        for n, (caller, partition, requests, window) in enumerate(sent)
    ]
    straight = play(*signals)
    assert msgspec.json.encode(play(*signals, restart=True)) == msgspec.json.encode(straight)
    twice = play(*(each for each in signals for _ in range(2)))
    assert [a.alert_id for a in twice[1]] == [a.alert_id for a in straight[1]]


def test_a_signal_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="given to the callers of"):
        step_loop(None, msgspec.structs.replace(busy(1, 28), kind="request_sample"), TEN, POLICY)
