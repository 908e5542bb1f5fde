"""Reading by the batch: what it takes, refuses and calls each record is what ``reading.read`` says of the record alone."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.cloudevents import binary_headers
from schemas.events import BILLING_TYPE, GPU_TYPE, USAGE_TYPE, UsageEvent
from schemas.instants import DAY, MINUTE, SECOND, format_instant
from streams.core import batch_reading, cells
from streams.core.batch_reading import BatchReader
from streams.core.cells import reported_nanos
from streams.core.dedupe import identity
from streams.core.reading import Limits, Rejected, read
from tests.unit.records import NOON, RawRecord, usage_record

PERSONAL = ("key", "user")
WATCHED: tuple[tuple[str, ...], ...] = ((), PERSONAL, ("session",), ("task", "tag:plan"))
#: Tight, so that every bound is near.
LIMITS = Limits(value_bytes_max=1_500, tokens_max=10_000, id_length_max=40, text_length_max=24, future_us_max=SECOND)
AT = format_instant(NOON)


class Draft:
    """A record in the making: what a tweak can spoil."""

    def __init__(self) -> None:
        self.attributes: dict[str, str] = {
            "id": "e1",
            "source": "//gw/1",
            "type": USAGE_TYPE,
            "time": AT,
            "subject": "a",
        }
        self.data: dict[str, Any] = {
            "provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "chat",
            "input_tokens": 100, "output_tokens": 5, "key_id": "k1", "user_id": "u1",
        }  # fmt: skip
        self.arrived_ms = NOON // 1_000
        self.on_value: list[Callable[[bytes], bytes | None]] = []
        self.on_headers: list[Callable[[list[Any]], list[Any]]] = []
        self.structured = False

    def record(self, offset: int) -> RawRecord:
        """The record, with everything that was asked for."""
        value: bytes | None = msgspec.json.encode(self.data)
        headers: list[Any] = binary_headers(**self.attributes)
        if self.structured:
            value = msgspec.json.encode({"specversion": "1.0", **self.attributes, "data": self.data})
            headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
        for change in self.on_value:
            value = change(value or b"")
        for turn in self.on_headers:
            headers = turn(headers)
        return RawRecord(offset, self.arrived_ms, value, headers)


Tweak = Callable[[Draft], None]


def _attribute(name: str, value: str) -> Tweak:
    return lambda draft: draft.attributes.update({name: value})


def _field(name: str, value: Any) -> Tweak:
    return lambda draft: draft.data.update({name: value})


def _value(change: Callable[[bytes], bytes | None]) -> Tweak:
    return lambda draft: draft.on_value.append(change)


def _headers(change: Callable[[list[Any]], list[Any]]) -> Tweak:
    return lambda draft: draft.on_headers.append(change)


def _header(name: str, value: bytes | None) -> Tweak:
    return _headers(lambda headers: [(n, value if n == name else v) for n, v in headers])


def _arrived(micros: int) -> Tweak:
    return lambda draft: setattr(draft, "arrived_ms", micros // 1_000)


def _bill(**changes: Any) -> Tweak:
    def change(draft: Draft) -> None:
        draft.attributes["type"] = BILLING_TYPE
        draft.data = {
            "billing_account_id": "a", "charge_period_start": AT, "charge_period_end": "", "billed_cost": "5",
            "billing_currency": "USD", "service_provider_name": "aws",
        } | changes  # fmt: skip

    return change


def _gpu(**changes: Any) -> Tweak:
    def change(draft: Draft) -> None:
        draft.attributes["type"] = GPU_TYPE
        draft.data = {
            "gpu_uuid": "g", "window_start": AT, "window_end": format_instant(NOON + 60 * SECOND),
            "allocated_seconds": "60",
        } | changes  # fmt: skip

    return change


def _structured(draft: Draft) -> None:
    draft.structured = True


_COUNTS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "reasoning_output_tokens", "audio_input_tokens", "audio_output_tokens", "duration_ms",
)  # fmt: skip
_TEXTS = (
    "provider", "request_model", "response_model", "org_id", "cost_center", "team_id", "project_id", "feature",
    "environment", "service_tier", "user_tier", "key_id", "user_id", "session_id", "end_user_id",
    "task_id", "run_id", "experiment_id",
)  # fmt: skip
_TIMES = (
    *(f"2026-11-21T10:00:00.{'123456789'[:digits]}Z" for digits in range(1, 10)),
    "2026-11-21T10:00:00,5Z", "2026-11-21T10:00:00.Z", "2026-11-21T10:00:00. 1Z", "2026-11-21T10:00:00.+1Z",
    "2026-11-21T10:00:00.1_2Z", "2026-11-21T10:00:00.\u0661Z", "2026-11-21T11:00:00+01:00",
    "2026-11-21T11:00:00.5+01:00", "2026-11-21T10:00:00z", "2026-11-21t10:00:00Z", "2026-11-21 10:00:00Z",
    "2026-11-21\u00e910:00:00Z", "2026-W47-6T10:00:00Z", "2026-W47-6T10:00:00.25Z", "20261121T100000Z",
    "2026-11-21T10:00Z", "2026-11-21T10Z", "2026-11-21", "2026-11-21T10:00:00", "2026-11-21T10:00:00ZZ",
    "2026-11-21T10:00:00+01:00Z", "2026-11-21T24:00:00Z", "2026-11-21T10:00:60Z", "2026-02-30T10:00:00Z",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-21T10:00:00X", "2026-11-21T10:00:00.5X",
    "2026-11-21T10:00:00.123456X", "2026-11-21T10:00:00:123Z", "", "noon", "2026-11-21T09:59:59.999999Z",
    "2026-11-21T10:00:01Z", "2026-11-21T10:00:01.000001Z", "2026-10-12T10:00:00Z", "2026-10-12T09:59:59.999999Z",
)  # fmt: skip

TWEAKS: dict[str, Tweak] = {
    **{f"time {text!r}": _attribute("time", text) for text in _TIMES},
    **{f"id {text[:20]!r}": _attribute("id", text) for text in ("e2", "", "\u00e9", "e\x00", "i" * 34, "i" * 35, "0")},
    **{f"source {text[:9]!r}": _attribute("source", text) for text in ("//gw/2", "", "\u00e9", "\u00e9" * 38, "s" * 39)},
    **{f"subject {text[:9]!r}": _attribute("subject", text) for text in ("", "b", "\u00e9", "b\x00", "s" * 25)},
    **{f"type {text!r}": _attribute("type", text) for text in ("", "other", USAGE_TYPE + " ", GPU_TYPE, BILLING_TYPE)},
    **{
        f"{name} {count}": _field(name, count)
        for name in _COUNTS
        for count in (-1, 0, 1, 5, 6, 99, 100, 101, 10_000, 10_001, 86_400_000, 86_400_001, 1 << 63, 10**30, 1.0, None)
    },
    **{
        f"{name} {str(text)[:6]!r}": _field(name, text)
        for name in _TEXTS
        for text in ("", "x", "t" * 24, "t" * 25, "\u00e9" * 24, "a\x00b", None, 7)
    },
    **{
        f"tags {str(tags)[:30]}": _field("tags", tags)
        for tags in (
            {}, {"plan": "a"}, {"plan": "b", "x": ""}, {"plan": "t" * 24}, {"plan": "t" * 25}, {"t" * 25: "a"},
            {"plan": "a\x00b"}, {"a\x00b": "c"}, {str(n): "" for n in range(64)}, {str(n): "" for n in range(65)}, {"plan": 7},
            {"plan": None}, None, [],
        )
    },
    **{f"status {text}": _field("status", text) for text in ("success", "failure", "maybe")},
    **{f"cache_hit {said}": _field("cache_hit", said) for said in (True, False, 1, "true")},
    **{f"reported_cost {said!r}": _field("reported_cost", said) for said in ("0.5", "1e9999999", "", 1, None)},
    "a field nobody knows": _field("zz", {"deep": [1, {"er": 2}]}),
    "a field nested without end": _field("zz", "@"),
    "a value of another size": _field("zz", "z" * 1_400),
    "an escaped NUL": _value(lambda value: value.replace(b'"chat"', rb'"ch\u0000at"')),
    "an escaped NUL in what is not read": _value(lambda value: value.replace(b'"chat"', rb'"chat","zz":"\u0000"')),
    "a NUL escaped in the name of a field": _value(lambda value: value.replace(b'"chat"', rb'"chat","z\u0000":1')),
    "a NUL behind a key": _value(lambda value: value.replace(b'"k1"', rb'"k1\u0000"')),
    "an escaped backslash before u0000": _value(lambda value: value.replace(b'"chat"', rb'"ch\\u0000at"')),
    "an escape in capitals": _value(lambda value: value.replace(b'"chat"', rb'"ch\U0000at"')),
    "an escaped letter": _value(lambda value: value.replace(b'"chat"', rb'"c\u0068at"')),
    "half a surrogate pair": _value(lambda value: value.replace(b'"chat"', rb'"\ud800"')),
    "a whole surrogate pair": _value(lambda value: value.replace(b'"chat"', rb'"\ud83d\ude00"')),
    "bytes that are not UTF-8": _value(lambda value: value.replace(b"chat", b"ch\xffat")),
    "a raw NUL": _value(lambda value: value.replace(b"chat", b"ch\x00at")),
    "garbage behind the value": _value(lambda value: value + b"}"),
    "white space around the value": _value(lambda value: b" \n" + value + b"\t "),
    "half a value": _value(lambda value: value[: len(value) // 2]),
    "an empty value": _value(lambda _: b""),
    "no value": _value(lambda _: None),
    "a list": _value(lambda value: b"[" + value + b"]"),
    "a field twice": _value(lambda value: value[:-1] + b',"input_tokens":7}'),
    "headers the other way round": _headers(lambda headers: headers[::-1]),
    "headers in a tuple": _headers(tuple),  # type: ignore[arg-type]
    "a header more": _headers(lambda headers: [("traceparent", b"00-1"), *headers]),
    "a header more, without a value": _headers(lambda headers: [*headers, ("x", None)]),
    "all headers twice": _headers(lambda headers: [*headers, *headers]),
    "no headers": _headers(lambda _: []),
    "the id twice": _headers(lambda headers: [*headers, ("ce_id", b"twin")]),
    "the id twice, one of them empty": _headers(lambda headers: [*headers, ("ce_id", b"")]),
    "the type twice": _headers(lambda headers: [("ce_type", b"other"), *headers]),
    "eight headers by other names": _headers(lambda headers: [(name.upper(), value) for name, value in headers]),
    **{
        f"{name} without a value": _header(name, None)
        for name in ("content-type", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject")
    },
    **{f"{name} not UTF-8": _header(name, b"\xff") for name in ("ce_id", "ce_source", "ce_type", "ce_time", "ce_subject")},
    **{
        f"without {name}": _headers(lambda headers, name=name: [pair for pair in headers if pair[0] != name])  # type: ignore[misc]
        for name in ("content-type", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_partitionkey")
    },
    **{
        f"content type {text!r}": _header("content-type", text)
        for text in (b"", b"text/plain", b"Application/JSON", b"application/cloudevents+json", b"APPLICATION/CLOUDEVENTS")
    },
    "structured": _structured,
    "a bill": _bill(),
    **{f"a bill over {cost[:12]}": _bill(billed_cost=cost) for cost in ("1e8", "-5", "NaN", "1e9999999", "-1e-9999999")},
    "a bill of fifty days ago": _bill(charge_period_start=format_instant(NOON - 50 * DAY)),
    "a GPU": _gpu(),
    **{f"a GPU for {count}": _gpu(allocated_seconds=count) for count in ("61", "-0", "NaN", "1e9999999", "59.9999999")},
    "a GPU shared by nobody": _gpu(shared_by=0),
    **{
        f"arrived {micros} later": _arrived(NOON + micros)
        for micros in (-SECOND, -SECOND - 1_000, 40 * DAY, 40 * DAY + 1_000, -NOON, 1 << 61)
    },
}  # fmt: skip
NESTED = b'"zz":' + b"[" * 3_000 + b"]" * 3_000


def _tweaked(names: list[str], offset: int) -> RawRecord:
    draft = Draft()
    for name in names:
        TWEAKS[name](draft)
    record = draft.record(offset)
    if record.value is not None:
        record.value = record.value.replace(b'"zz":"@"', NESTED)
    return record


records = st.lists(
    # Most are plain but for one thing: those meet the memos that others filled.
    st.one_of(st.just([]), st.lists(st.sampled_from(sorted(TWEAKS)), min_size=1, max_size=3)),
    min_size=1,
    max_size=12,
)


def _alone(record: RawRecord, limits: Limits, watched: Sequence[str]) -> tuple[Any, ...]:
    try:
        reading = read(record, limits)
    except Rejected as reason:
        return record.offset, reason.reason, reason.detail
    digest = identity(reading.envelope.source, reading.envelope.id)
    if not isinstance(reading.event, UsageEvent):
        return record.offset, reading.event, reading.event_time, digest
    event = reading.event
    actual = {"key": event.key_id, "user": event.user_id, "session": event.session_id, "task": event.task_id}
    actual |= {"tag:plan": event.tags.get("plan", "")}
    dimensions = cells.usage_dimensions(reading.event, reading.envelope.subject, "org")
    return record.offset, event, reading.event_time, digest, dimensions, tuple(actual[name] for name in watched)


def _together(reader: BatchReader, batch: list[RawRecord]) -> list[tuple[Any, ...]]:
    rows, refused = reader.read(batch)
    assert [row[0].offset for row in rows] == sorted(row[0].offset for row in rows)
    assert [record.offset for record, _ in refused] == sorted(record.offset for record, _ in refused)
    found: list[tuple[Any, ...]] = [(record.offset, reason.reason, reason.detail) for record, reason in refused]
    for record, digest, plan, event, event_time in rows:
        if plan is None:
            found.append((record.offset, event.event, event_time, digest))
        else:
            found.append((record.offset, event, event_time, digest, plan.dimensions, plan.values))
    return sorted(found, key=lambda each: each[0])


def _agree(drafts: list[list[str]], splits: list[int], limits: Limits, watched: Sequence[str]) -> None:
    batch = [_tweaked(names, offset) for offset, names in enumerate(drafts)]
    expected = [_alone(record, limits, watched) for record in batch]
    reader = BatchReader(limits, "org", watched)
    for _ in range(3):
        found: list[tuple[Any, ...]] = []
        bounds = [0, *sorted({min(split, len(batch)) for split in splits}), len(batch)]
        for start, end in pairwise(bounds):
            found += _together(reader, batch[start:end])
        assert found == expected


@settings(max_examples=400, deadline=None)
@given(drafts=records, splits=st.lists(st.integers(1, 11), max_size=3), watched=st.sampled_from(WATCHED))
@example(drafts=[["source '//gw/2'", "structured"], ["ce_source not UTF-8"], []], splits=[], watched=PERSONAL)
def test_a_batch_is_read_as_each_record_alone_cold_and_warm_and_however_it_is_split(drafts, splits, watched):
    _agree(drafts, splits, LIMITS, watched)


@pytest.mark.parametrize("name", sorted(TWEAKS))
def test_one_thing_out_of_the_ordinary_is_judged_as_it_is_alone(name):
    # Before, after and between plain calls, and twice: whatever the first one left in the memos meets the second.
    for watched in WATCHED:
        _agree([[], [name], [], [name], ["id 'e2'", name]], [2], LIMITS, watched)
    _agree([[name], [], [name]], [], Limits(), ())


def test_memos_that_are_full_change_nothing(monkeypatch):
    monkeypatch.setattr(batch_reading, "_MEMO_MAX", 2)
    monkeypatch.setattr(batch_reading, "_PLANS_MAX", 2)
    names = [n for n in sorted(TWEAKS) if n.startswith(("time", "feature", "source", "a header", "headers"))]
    _agree([[name] for name in names], [7, 30], LIMITS, PERSONAL)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([], id="our own order"),
        pytest.param(["headers the other way round"], id="another order"),
        pytest.param(["a header more"], id="a header more"),
        pytest.param(["time '2026-11-21T10:00:00.1234Z'"], id="four decimals"),
        pytest.param(["audio_input_tokens 5", "reasoning_output_tokens 5", "duration_ms 99"], id="rarer numbers"),
        pytest.param(["status failure"], id="a failure"),
    ],
)
def test_plain_calls_are_read_the_long_way_once_and_then_never_again(names, monkeypatch):
    reader = BatchReader(LIMITS, "org")
    reader.read([_tweaked(names, 0)])
    long_ways = []
    monkeypatch.setattr(batch_reading, "read", lambda record, limits: long_ways.append(record) or read(record, limits))
    rows, refused = reader.read([_tweaked(names, offset) for offset in range(1, 4)])
    assert (len(rows), refused, long_ways) == (3, [], [])


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a field nested without end"], "wrong_shape"),
        (["a field nested without end", "structured"], "not_a_cloudevent"),
        (["a bill over 1e9999999"], "absurd_number"),
        (["a GPU for 1e9999999"], "impossible_usage"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_a_poisoned_record_is_refused_and_stops_nobody(names, reason):
    rows, refused = BatchReader(Limits(), "").read([_tweaked(names, 0), _tweaked([], 1)])
    assert [said.reason.value for _, said in refused] == [reason]
    assert len(rows) == 1


def test_a_reported_cost_with_a_crafted_exponent_is_no_figure():
    assert reported_nanos(UsageEvent(provider="openai", reported_cost="1e9999999")) == 0


def test_who_called_matters_to_the_plan_only_where_somebody_watches_it():
    calls = [usage_record(0, key_id="a", tags={"x": "1"}), usage_record(1, key_id="b", tags={"x": "2"})]
    for watched, plans in (((), 1), (("key",), 2), (("user",), 1), (("tag:x",), 2), (("tag:y", "session"), 1)):
        rows, _ = BatchReader(Limits(), "", watched).read(calls)
        assert len({id(row[2]) for row in rows}) == plans


@pytest.mark.parametrize(("watched", "long_ways"), [(("key",), 3), (("tag:x",), 0)], ids=["not watched", "watched"])
def test_calls_with_tags_take_the_short_way_only_where_tags_are_watched(watched, long_ways, monkeypatch):
    reader = BatchReader(Limits(), "", watched)
    reader.read([usage_record(0, tags={"x": "1"})])
    slow = []
    monkeypatch.setattr(batch_reading, "read", lambda record, limits: slow.append(record) or read(record, limits))
    rows, _ = reader.read([usage_record(offset, tags={"x": "1"}) for offset in range(1, 4)])
    assert (len(rows), len(slow)) == (3, long_ways)


def test_sources_are_heard_on_either_way_and_only_of_what_can_be_counted() -> None:
    reader = BatchReader(LIMITS, "")
    drafts = [Draft() for _ in range(5)]
    for draft, (source, id) in zip(
        drafts, [("//a", "1"), ("//a", "2"), ("//b", "3"), ("//bad", "4"), ("//a", "5")], strict=True
    ):
        draft.attributes |= {"source": source, "id": id}
    drafts[3].data["input_tokens"] = -1
    drafts[4].structured = True
    rows, refused = reader.read([draft.record(number) for number, draft in enumerate(drafts)])
    assert (len(rows), len(refused)) == (4, 1)
    minute = NOON // MINUTE
    assert reader.heard.take() == {(name, minute // 1_440): 1 << minute % 1_440 for name in ("//a", "//b")}
    rows, _ = reader.read([drafts[1].record(9)])
    assert (len(rows), [name for name, _ in reader.heard.take()]) == (1, ["//a"])
