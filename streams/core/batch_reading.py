"""Reading a whole batch: what ``reading.read`` accepts and refuses, at a fraction of its cost.

Nearly all records of a busy topic are calls in CloudEvents binary mode with the headers in the order in which our
publisher writes them, and share their attributes with thousands of others. Those take the short way: attributes are
checked once for all calls that share them (``Plan``), numbers each time. Everything else, and everything doubtful,
goes through ``reading.read``, which alone decides what is refused and why. A property test holds the two together.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from schemas.budgets import TAG
from schemas.events import USAGE_TYPE, UsageEvent
from schemas.instants import parse_instant
from schemas.statements import Dimensions
from streams.core import cells
from streams.core.dedupe import frame, identity
from streams.core.heard import SourcesHeard
from streams.core.matching import Values, values_of_calls
from streams.core.reading import Limits, Reading, Record, Rejected, are_ids_short, are_tags_short, read

#: The headers that are read, in the order in which ``_by_layout`` returns them.
_WANTED = ("content-type", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject")
_USAGE = USAGE_TYPE.encode()
_JSON = b"application/json"
#: Microseconds in the last digit of ``2026-11-21T06:57:44.123456Z``, by the text's length; other texts go the long way.
_FRACTIONS = {20: 0, 22: 100_000, 23: 10_000, 24: 1_000, 25: 100, 26: 10, 27: 1}
_Z, _DOT = ord("Z"), ord(".")
_DURATION_MS_MAX = 86_400_000
_MEMO_MAX = 50_000
_PLANS_MAX = 200_000
_NUL = "\0"
_decode = msgspec.json.Decoder(UsageEvent).decode


class Plan:
    """What calls with the same attributes have in common; ``lane`` is the fold's to keep."""

    __slots__ = ("dimensions", "lane", "lanes", "values")

    def __init__(self, dimensions: Dimensions, values: tuple[str, ...]) -> None:
        self.dimensions = dimensions
        #: Of the attributes that are watched and no cell has.
        self.values = values
        self.lane: Any = None
        self.lanes: list[Any] = []


#: A record that can be counted: the record, its digest, its plan, the event, its time. What has no plan is no call, and
#: has its ``Reading`` in the event's place. A plain tuple, since one is made of every event.
Row = tuple[Record, bytes, Plan | None, Any, int]


class BatchReader:
    """Reads batches of one partition. The memos change nothing about the result; they are bounded."""

    def __init__(
        self, limits: Limits, org_id: str, watched: Sequence[str] = (), heard: SourcesHeard | None = None
    ) -> None:
        #: Who sent what could be counted.
        self.heard = heard if heard is not None else SourcesHeard()
        self._limits = limits
        self._org_id = org_id
        #: Reads what is watched and no cell has, such as a key or a tag: then it is an attribute too.
        self._values = values_of_calls(watched) if watched else None
        #: Calls with tags take the short way only where tags are watched.
        self._takes_tags = any(name.startswith(TAG) for name in watched)
        self._plans: dict[str, Plan] = {}
        self._seconds: dict[bytes, int] = {}
        self._frames: dict[bytes, bytes] = {}
        self._subjects: dict[bytes, str] = {b"": ""}
        #: Names of headers, in order -> where the wanted ones stand; -1 for none.
        self._layouts: dict[tuple[str, ...], tuple[int, ...]] = {}

    def close_lanes(self, horizon: int) -> None:
        """Drop the lanes that end by then, and those whose cell holds the excess of others: there may be room now."""
        over = []
        for key, plan in self._plans.items():
            plan.lane = None
            plan.lanes = [lane for lane in plan.lanes if lane.end > horizon and lane.cell.dimensions == plan.dimensions]
            if plan.values and not plan.lanes:
                over.append(key)
        # Sessions and keys come and go, and their plans with them.
        for key in over:
            del self._plans[key]

    def read(self, records: Sequence[Record]) -> tuple[list[Row], list[tuple[Record, Rejected]]]:
        """The records that can be counted, and those that cannot with the reason, each in offset order."""
        rows: list[Row] = []
        refused: list[tuple[Record, Rejected]] = []
        limits, values_of, takes_tags, digest_of = self._limits, self._values, self._takes_tags, xxh3_128_digest
        bytes_max, tokens_max = limits.value_bytes_max, limits.tokens_max
        id_max, longest = limits.id_length_max, limits.text_length_max
        future_us, lateness_us = limits.future_us_max, limits.lateness_us_max
        seconds, frames, subjects, plans = self._seconds, self._frames, self._subjects, self._plans
        # A part is read within moments of its arrival's minute.
        heard = self.heard.at(records[0].timestamp) if records else {}
        for record in records:
            value = record.value
            try:
                headers = record.headers
                if len(headers) == 8:  # type: ignore[arg-type]
                    (n0, kind), (n1, _), (n2, id), (n3, source), (n4, type), (n5, time), (n6, subject), (n7, _) = (
                        headers
                    )
                if (
                    len(headers) != 8  # type: ignore[arg-type]
                    or n2 != "ce_id"
                    or n3 != "ce_source"
                    or n4 != "ce_type"
                    or n5 != "ce_time"
                    or n6 != "ce_subject"
                    or n0 != "content-type"
                    or n1 != "ce_specversion"
                    or n7 != "ce_partitionkey"
                ):
                    kind, id, source, type, time, subject = self._by_layout(headers)
                event = _decode(value)  # type: ignore[arg-type]
                fraction = time[20:-1]
                event_time = seconds[time[:19]] + (_FRACTIONS[len(time)] * int(fraction) if fraction else 0)
                framed = frames[source]
                plan = plans[_attributes(event, subjects[subject], values_of)]
                arrived_at = record.timestamp * 1_000
                if (
                    kind == _JSON
                    and type == _USAGE
                    and len(value) <= bytes_max  # type: ignore[arg-type]
                    and not (b"\\" in value and b"\\u0000" in value)  # type: ignore[operator]
                    and id
                    and id.isascii()
                    and len(id) + len(source) <= id_max
                    and time[-1] == _Z
                    and ((fraction.isdigit() and time[19] == _DOT) or len(time) == 20)
                    and arrived_at - lateness_us <= event_time <= arrived_at + future_us
                    and 0 <= event.input_tokens <= tokens_max
                    and 0 <= event.output_tokens <= tokens_max
                    and len(event.key_id) <= longest
                    and len(event.user_id) <= longest
                    and len(event.session_id) <= longest
                    and (not (event.task_id or event.run_id or event.experiment_id) or are_ids_short(event, limits))
                    and (not event.tags or (takes_tags and are_tags_short(event.tags, limits)))
                    and _are_parts_of_their_whole(event)
                ):
                    rows.append((record, digest_of(framed + id), plan, event, event_time))
                    heard[source] = None
                    continue
            except (KeyError, ValueError, TypeError, RecursionError, msgspec.DecodeError):
                pass
            try:
                rows.append(self._long_way(record))
            except Rejected as reason:
                refused.append((record, reason))
        return rows, refused

    def _long_way(self, record: Record) -> Row:
        """One record that is new in some respect, or wrong; what is new is remembered."""
        reading = read(record, self._limits)
        envelope, event = reading.envelope, reading.event
        source = envelope.source.encode("utf-8", "surrogatepass")
        digest = identity(envelope.source, envelope.id)
        self.heard.at(record.timestamp)[source] = None
        if not isinstance(event, UsageEvent):
            return record, digest, None, reading, reading.event_time
        key = _attributes(event, envelope.subject, self._values)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, reading)
        _bounded(self._subjects)[envelope.subject.encode()] = envelope.subject
        if source not in self._frames:
            _bounded(self._frames)[source] = frame(source)
        second = envelope.time[:19]
        if envelope.time[-1:] == "Z" and second[13:14] == second[16:17] == ":":
            _bounded(self._seconds)[second.encode()] = parse_instant(second + "Z")
        return record, digest, plan, event, reading.event_time

    def _remember(self, key: str, reading: Reading) -> Plan:
        event = reading.event
        assert isinstance(event, UsageEvent)
        dimensions = cells.usage_dimensions(event, reading.envelope.subject, self._org_id)
        plan = Plan(dimensions, self._values(event) if self._values else ())
        _bounded(self._plans, _PLANS_MAX)[key] = plan
        return plan

    def _by_layout(self, headers: Any) -> tuple[bytes, ...]:
        """The wanted headers in whatever order they come; empty where there is none, the last of twins.

        Raises:
            TypeError, ValueError: they are not even pairs.
        """
        names = tuple([name for name, _ in headers])
        layout = self._layouts.get(names)
        if layout is None:
            places = {name: place for place, name in enumerate(names)}
            layout = _bounded(self._layouts)[names] = tuple(places.get(name, -1) for name in _WANTED)
        return tuple([headers[place][1] if place >= 0 else b"" for place in layout])


def _bounded(memo: dict[Any, Any], most: int = 0) -> dict[Any, Any]:
    """A memo with room for one more. It is emptied when it is full: anybody can invent names."""
    if len(memo) >= (most or _MEMO_MAX):
        memo.clear()
    return memo


def _attributes(event: UsageEvent, subject: str, values_of: Values | None) -> str:
    """All of a call that its cell, its scopes and its price list depend on; no text of a call holds a NUL.

    One text and not a tuple of texts: comparing it with what is remembered is one look at memory, not fifteen.
    """
    shared = (
        event.team_id or subject,
        event.feature,
        event.response_model,
        event.request_model,
        event.provider,
        event.status,
        "hit" if event.cache_hit else "",
        event.service_tier,
        event.request_type,
        event.environment,
        event.project_id,
        event.user_tier,
        event.cost_center,
        event.org_id,
    )
    return _NUL.join((*shared, *values_of(event)) if values_of else shared)


def _are_parts_of_their_whole(event: UsageEvent) -> bool:
    """What ``reading._check_usage`` asks of the rarer numbers."""
    cached, written = event.cache_read_input_tokens, event.cache_creation_input_tokens
    if (cached or written) and (cached < 0 or written < 0 or cached + written > event.input_tokens):
        return False
    if event.reasoning_output_tokens and not 0 <= event.reasoning_output_tokens <= event.output_tokens:
        return False
    if (event.audio_input_tokens or event.audio_output_tokens) and not (
        0 <= event.audio_input_tokens <= event.input_tokens and 0 <= event.audio_output_tokens <= event.output_tokens
    ):
        return False
    duration = event.duration_ms
    return duration is None or 0 <= duration <= _DURATION_MS_MAX
