"""Reading a whole batch: what ``reading.read`` accepts and refuses, at a fraction of its cost.

Nearly all records of a busy topic are calls in CloudEvents binary mode with the headers in the order in which our
publisher writes them, and share their attributes with thousands of others. Those take the short way: attributes are
checked once for all calls that share them (``Plan``), numbers each time. Everything else, and everything doubtful,
goes through ``reading.read``, which alone decides what is refused and why. A property test holds the two together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from xxhash import xxh3_128_digest

from schemas.events import USAGE_TYPE, UsageEvent
from schemas.instants import InstantError, parse_instant
from schemas.statements import Dimensions
from streams.core import cells
from streams.core.dedupe import frame, identity
from streams.core.reading import Limits, Reading, Record, Rejected, read

#: The headers that are read, in the order in which ``_by_layout`` returns them.
_WANTED = ("content-type", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject")
#: The order of ``cloudevents.binary_headers``, which most producers have from us.
_OURS = (
    "content-type", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_partitionkey",
)  # fmt: skip
_USAGE = USAGE_TYPE.encode()
_JSON = b"application/json"
_SECOND_TEXT = 20  # 2026-11-21T06:57:44.
_DURATION_MS_MAX = 86_400_000
_MEMO_MAX = 50_000
_LAYOUTS_MAX = 256
_decode = msgspec.json.Decoder(UsageEvent).decode


class Plan:
    """What calls with the same attributes have in common; ``lane`` is the fold's to keep."""

    __slots__ = ("dimensions", "key_id", "lane", "lanes", "user_id")

    def __init__(self, dimensions: Dimensions, key_id: str, user_id: str) -> None:
        self.dimensions = dimensions
        self.key_id = key_id
        self.user_id = user_id
        self.lane: Any = None
        self.lanes: list[Any] = []


class Row(NamedTuple):
    """A record that can be counted. Calls on the short way have a plan; others have their ``Reading`` as event."""

    record: Record
    digest: bytes
    plan: Plan | None
    event: Any
    event_time: int


class BatchReader:
    """Reads batches of one partition. The memos change nothing about the result; they are bounded."""

    def __init__(self, limits: Limits, org_id: str, personal: bool) -> None:
        self._limits = limits
        self._org_id = org_id
        #: Whether anything is watched by key or user: then they are attributes too.
        self._personal = personal
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._seconds: dict[bytes, int] = {}
        self._frames: dict[bytes, bytes] = {}
        #: Names of headers, in order -> where the wanted ones stand; -1 for none.
        self._layouts: dict[tuple[str, ...], tuple[int, ...]] = {}

    def close_lanes(self, horizon: int) -> None:
        """Drop the lanes that end by then, and those whose cell holds the excess of others: there may be room now."""
        for plan in self._plans.values():
            plan.lane = None
            plan.lanes = [lane for lane in plan.lanes if lane.end > horizon and lane.cell.dimensions == plan.dimensions]

    def read(self, records: Sequence[Record]) -> tuple[list[Row], list[tuple[Record, Rejected]]]:
        """The records that can be counted, and those that cannot with the reason, each in offset order."""
        rows: list[Row] = []
        refused: list[tuple[Record, Rejected]] = []
        for record in records:
            row = self._short_way(record)
            if row is None:
                try:
                    row = self._long_way(record)
                except Rejected as reason:
                    refused.append((record, reason))
                    continue
            rows.append(row)
        return rows, refused

    def _short_way(self, record: Record) -> Row | None:
        """One call whose every check passes; None for anything that needs a closer look."""
        limits, headers, value = self._limits, record.headers, record.value
        try:
            if len(headers) == 8:  # type: ignore[arg-type]
                (n0, kind), (n1, _), (n2, id), (n3, source), (n4, type), (n5, time), (n6, subject), (n7, _) = headers
                if (n0, n1, n2, n3, n4, n5, n6, n7) != _OURS:
                    kind, id, source, type, time, subject = self._by_layout(headers)
            else:
                kind, id, source, type, time, subject = self._by_layout(headers)
            if kind != _JSON or type != _USAGE or not id or not source or not id.isascii():
                return None
            if not value or len(value) > limits.value_bytes_max or b"\\u0000" in value:
                return None
            if len(id) + len(source) > limits.id_length_max:
                return None
            framed = self._frames.get(source)
            if framed is None:
                framed = self._frame(source)
            event = _decode(value)
            fraction = time[_SECOND_TEXT:-1]
            if len(fraction) != 6 or not fraction.isdigit() or time[-1:] != b"Z":
                return None
            event_time = self._seconds.get(time[:_SECOND_TEXT], -1) + int(fraction)
            if event_time < 1_000_000:
                event_time = self._second(time[:_SECOND_TEXT]) + int(fraction)
        except (ValueError, TypeError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not _is_believable(event, limits):
            return None
        arrived_at = record.timestamp * 1_000
        if event_time > arrived_at + limits.future_us_max or event_time < arrived_at - limits.lateness_us_max:
            return None
        plan = self._plan(event, subject)
        if plan is None:
            return None
        return _new_row(Row, (record, xxh3_128_digest(framed + id), plan, event, event_time))

    def _long_way(self, record: Record) -> Row:
        reading = read(record, self._limits)
        envelope, event = reading.envelope, reading.event
        digest = identity(envelope.source, envelope.id)
        if not isinstance(event, UsageEvent):
            return Row(record, digest, None, reading, reading.event_time)
        key = _attributes(event, envelope.subject.encode(), self._personal)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, reading)
        return Row(record, digest, plan, event, reading.event_time)

    def _plan(self, event: UsageEvent, subject: bytes) -> Plan | None:
        """The plan of an event; None where it has none yet or a text of its own may be too long."""
        longest = self._limits.text_length_max
        if len(event.key_id) > longest or len(event.user_id) > longest or len(event.session_id) > longest:
            return None
        return self._plans.get(_attributes(event, subject, self._personal))

    def _remember(self, key: tuple[Any, ...], reading: Reading) -> Plan:
        event = reading.event
        assert isinstance(event, UsageEvent)
        if len(self._plans) >= _MEMO_MAX:
            self._plans.clear()
        dimensions = cells.usage_dimensions(event, reading.envelope.subject, self._org_id)
        personal = (event.key_id, event.user_id) if self._personal else ("", "")
        plan = self._plans[key] = Plan(dimensions, *personal)
        return plan

    def _by_layout(self, headers: Any) -> tuple[bytes, ...]:
        """The wanted headers in whatever order a producer writes them; empty where there is none, the last of twins."""
        names = tuple([name for name, _ in headers])
        layout = self._layouts.get(names)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_MAX:
                self._layouts.clear()
            places = {name: place for place, name in enumerate(names)}
            layout = self._layouts[names] = tuple(places.get(name, -1) for name in _WANTED)
        return tuple([headers[place][1] if place >= 0 else b"" for place in layout])

    def _second(self, text: bytes) -> int:
        """The instant at which a second begins that is written as ``2026-11-21T06:57:44.``"""
        if text[-1:] != b".":
            raise InstantError("no fraction")
        instant = parse_instant(text[:-1].decode() + "Z")
        if len(self._seconds) >= _MEMO_MAX:
            self._seconds.clear()
        self._seconds[text] = instant
        return instant

    def _frame(self, source: bytes) -> bytes:
        source.decode()
        if len(self._frames) >= _MEMO_MAX:
            self._frames.clear()
        framed = self._frames[source] = frame(source)
        return framed


_new_row = tuple.__new__


def _attributes(event: UsageEvent, subject: bytes, personal: bool) -> tuple[Any, ...]:
    """All of a call that its cell, its scopes and its price list depend on."""
    shared = (
        event.team_id,
        event.feature,
        event.response_model,
        event.request_model,
        event.provider,
        event.status,
        event.cache_hit,
        event.service_tier,
        event.request_type,
        event.environment,
        event.project_id,
        event.user_tier,
        event.cost_center,
        event.org_id,
        subject,
    )
    return (*shared, event.key_id, event.user_id) if personal else shared


def _is_believable(event: UsageEvent, limits: Limits) -> bool:
    """The numbers of ``reading._check_usage``, all at once."""
    most, paid_in, paid_out = limits.tokens_max, event.input_tokens, event.output_tokens
    if not (0 <= paid_in <= most and 0 <= paid_out <= most):
        return False
    read_from_cache, written = event.cache_read_input_tokens, event.cache_creation_input_tokens
    if (read_from_cache or written) and not (
        read_from_cache >= 0 and written >= 0 and read_from_cache + written <= paid_in
    ):
        return False
    if event.reasoning_output_tokens and not 0 <= event.reasoning_output_tokens <= paid_out:
        return False
    if (event.audio_input_tokens or event.audio_output_tokens) and not (
        0 <= event.audio_input_tokens <= paid_in and 0 <= event.audio_output_tokens <= paid_out
    ):
        return False
    duration = event.duration_ms
    return duration is None or 0 <= duration <= _DURATION_MS_MAX
