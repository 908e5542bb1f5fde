"""The sample of calls: the same in any split into batches, and nothing said of the quiet."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE
from schemas.instants import HOUR, format_instant
from schemas.statements import Signal, Source
from streams.core import sampling
from streams.core.meter import PartitionState
from streams.core.sampling import MIDDLE, SAMPLE, SAMPLES_MIN, STRIDE, WINDOW
from tests.unit.meter_rig import START, records_of, rig_rules
from tests.unit.records import RawRecord

SOURCE = Source("usage.events.v1", 0, 0)


def call(offset: int, body: bytes = b'"session_id":"s-1"', *, at: int = START) -> RawRecord:
    body = b'{"provider":"openai","request_model":"gpt-4o","team_id":"search","feature":"chat",%b}' % body
    headers = binary_headers(
        id=f"e{offset}", source="//gw/1", type=USAGE_TYPE, time=format_instant(at), subject="search"
    )
    return RawRecord(offset, at // 1_000, body, headers)


def folded(*parts) -> PartitionState:
    state = PartitionState(SOURCE, rig_rules(personal=False))
    for part in parts:
        state.take([part])
    return state


def looping(count: int, body: bytes = b'"session_id":"s-1","input_tokens":1000', first: int = 0, **more):
    return [call(offset, body, **more) for offset in range(first, first + count)]


def busy(state: PartitionState) -> list[Signal]:
    return [signal for signal in state.signals if signal.kind == "busy_caller"]


def test_a_caller_is_signalled_when_its_sample_has_doubled_with_the_total_so_far():
    state = folded(looping(STRIDE * 16))
    found = [(signal.offset, signal.caller.requests) for signal in busy(state)]
    assert found == [(3 * STRIDE, 28), (7 * STRIDE, 56), (15 * STRIDE, 112)]
    last = state.signals[-1]
    assert (last.scope, last.team_id, last.caller.kind, last.caller.id) == ("feature:chat", "search", "session", "s-1")
    assert (last.caller.input_tokens, last.caller.cost_nanos) == (112_000, 112 * 2_500_000)
    assert last.caller.start % WINDOW == 0
    assert last.caller.end == last.caller.start + WINDOW


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        pytest.param(1_000, [], id="fourteen calls of a quarter of a cent"),
        pytest.param(40_000, [14], id="fourteen calls of ten cents"),
    ],
)
def test_a_slow_caller_is_signalled_only_where_it_is_dear(tokens, found):
    signals = busy(folded(looping(STRIDE * 2, b'"session_id":"s-1","input_tokens":%d' % tokens)))
    assert [signal.caller.requests for signal in signals] == found


@pytest.mark.parametrize(
    ("body", "who"),
    [
        pytest.param(b'"task_id":"t","session_id":"s","key_id":"k"', ("task", "t"), id="a task goes before all"),
        pytest.param(b'"session_id":"s","key_id":"k"', ("session", "s"), id="a session goes before a key"),
        pytest.param(b'"key_id":"k"', ("key", "k"), id="a key alone"),
        pytest.param(b'"user_id":"u"', None, id="who names none of them is no caller"),
    ],
)
def test_a_caller_is_the_narrowest_name_that_a_call_gives(body, who):
    found = {(s.caller.kind, s.caller.id) for s in folded(looping(60, body)).signals if s.kind == "busy_caller"}
    assert found == ({who} if who else set())


def test_errors_are_counted_and_a_new_window_begins_anew():
    failing = looping(STRIDE * 4, b'"session_id":"s-1","status":"failure"')
    later = looping(STRIDE * 4, first=STRIDE * 4, at=START + 2 * WINDOW)
    signals = busy(folded(failing + later))
    assert [(s.caller.errors, s.caller.start) for s in signals] == [
        (28, START - START % WINDOW),
        (0, START + 2 * WINDOW - START % WINDOW),
    ]


def test_one_of_many_ordinary_requests_is_signalled_and_stands_for_them():
    state = folded(looping(2 * SAMPLE, b'"input_tokens":900,"output_tokens":100'))
    assert [(s.kind, s.offset, s.tokens, s.times) for s in state.signals] == [
        ("request_sample", offset, 1_000, SAMPLE) for offset in (MIDDLE, SAMPLE + MIDDLE)
    ]


def test_a_request_above_the_limit_is_signalled_itself_and_is_no_sample():
    state = folded([call(MIDDLE, b'"input_tokens":50001'), *looping(3, first=MIDDLE + 1)])
    assert [s.kind for s in state.signals] == ["runaway_request"]


def test_many_callers_that_call_once_make_room_for_one_that_loops(monkeypatch):
    monkeypatch.setattr(sampling, "CALLERS_MAX", 20)
    once = [call(n, b'"session_id":"s-%d"' % n) for n in range(40 * STRIDE)]
    both = once + looping(STRIDE * SAMPLES_MIN, first=40 * STRIDE)
    state = folded(both)
    assert [s.caller.id for s in busy(state)] == ["s-1"]
    assert all(len(window.calls) <= 20 for window in state._sampler._windows.values())


def test_an_event_older_than_the_windows_that_are_kept_is_left_out():
    newest = folded(
        looping(14, at=START), looping(14, first=14, at=START + WINDOW), looping(70, first=28, at=START - HOUR)
    )
    assert busy(newest) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 80), st.sampled_from([1, 2, 1, 3]), st.integers(0, 8), st.integers(0, 4), st.integers(0, 3)),
             min_size=1, max_size=120),
    st.lists(st.integers(1, 40), max_size=8),
)  # fmt: skip
def test_any_split_into_batches_signals_the_same_in_the_same_order(plan, sizes):
    records = records_of(plan)
    whole = folded(records)
    parts, at = [], 0
    for size in [*sizes, len(records)]:
        if records[at : at + size]:
            parts.append(records[at : at + size])
        at += size
    split = folded(*parts)
    assert split.signals == whole.signals
    assert [signal.offset for signal in whole.signals] == sorted(signal.offset for signal in whole.signals)
