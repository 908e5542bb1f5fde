"""From a CloudEvent that somebody sent to the record that goes to Kafka, or to the reasons why not. Pure.

The data is decoded into its contract and encoded anew, so that fields without a name here (prompts, answers)
never reach a topic. METER checks again, since producers that write to Kafka directly do not come by here.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from schemas import topics
from schemas.cloudevents import SPEC_VERSION, Envelope, EnvelopeError, binary_headers, read_structured
from schemas.events import (
    BILLING_TYPE,
    GPU_TYPE,
    UNATTRIBUTED,
    USAGE_TYPE,
    BillingRecord,
    GpuSample,
    UsageEvent,
)
from schemas.instants import InstantError, format_instant, parse_instant
from schemas.money import MoneyError, parse_nanos
from streams.sources.publisher import Record

IDENTITY_LENGTH_MAX = 512
TOKEN_FIELDS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
)
_encode = msgspec.json.Encoder().encode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Problem(NamedTuple):
    """Why one event can't be taken; ``place`` is its index in the batch, 0 for a single event."""

    place: int
    reason: str


class Rules(NamedTuple):
    """What an event is judged by."""

    tokens_max: int
    openmeter_types: frozenset[str]
    #: The caller's team: whatever events say, they belong to it. Empty: events are believed.
    bound_team: str = ""


class OpenMeterData(msgspec.Struct):
    """The data of LiteLLM's OpenMeter logger. Token counts are missing where the response had no usage."""

    model: str
    cost: Decimal | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_array(body: bytes) -> tuple[list[Envelope], list[Problem]]:
    """The events of an HTTP batch, and what is wrong with those that can't be read.

    Raises:
        EnvelopeError: the body is not a JSON array.
    """
    try:
        members = _decode_list(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"not a JSON array of CloudEvents: {error}") from error
    envelopes, problems = [], []
    for index, member in enumerate(members):
        try:
            envelopes.append(read_structured(bytes(member)))
        except EnvelopeError as error:
            problems.append(Problem(index, str(error)))
    return envelopes, problems


def read_binary(headers: Mapping[str, str], body: bytes) -> Envelope:
    """One event whose attributes are ``ce-*`` HTTP headers (percent-encoded) and whose data is the body.

    Raises:
        EnvelopeError: a required attribute is missing, or the version is another one.
    """
    found = {name: unquote(headers.get(f"ce-{name}", "")) for name in ("id", "source", "type", "time", "subject")}
    missing = [f"ce-{name}" for name in ("id", "source", "type") if not found[name]]
    if missing:
        raise EnvelopeError(f"header {', '.join(missing)} is missing or empty: CloudEvents needs it")
    version = headers.get("ce-specversion", "")
    if version != SPEC_VERSION:
        raise EnvelopeError(f"header ce-specversion is {version[:16]!r}, and this reads {SPEC_VERSION}")
    return Envelope(**found, data=body or b"null")


def to_records(
    envelopes: list[Envelope], rules: Rules, now: int, indexes: list[int] | None = None
) -> tuple[list[Record], list[Problem]]:
    """All records, and every problem of every event. An event without a time gets ``now`` (microseconds)."""
    records, problems = [], []
    for index, envelope in zip(indexes or range(len(envelopes)), envelopes, strict=False):
        try:
            records.append(_to_record(envelope, rules, now))
        except _Refused as refused:
            problems += [Problem(index, reason) for reason in refused.reasons]
    return records, problems


def usage_record(event: UsageEvent, *, id: str, source: str, time: str) -> Record:
    """A call as a record of ``usage.events.v1``, keyed by its team."""
    return Record(
        topics.USAGE_EVENTS,
        (event.team_id or UNATTRIBUTED).encode(),
        _encode(event),
        binary_headers(id=id, source=source, type=USAGE_TYPE, time=time, subject=event.team_id),
    )


def gpu_record(sample: GpuSample, *, id: str, source: str) -> Record:
    """A GPU window as a record of ``usage.gpu.v1``, keyed by the GPU; its time is the end of the window."""
    return Record(
        topics.USAGE_GPU,
        sample.gpu_uuid.encode(),
        _encode(sample),
        binary_headers(id=id, source=source, type=GPU_TYPE, time=sample.window_end, subject=sample.gpu_uuid),
    )


def billing_record(bill: BillingRecord, *, id: str, source: str, time: str) -> Record:
    """A bill line as a record of ``usage.billing.v1``, keyed by the billing account."""
    return Record(
        topics.USAGE_BILLING,
        bill.billing_account_id.encode(),
        _encode(bill),
        binary_headers(id=id, source=source, type=BILLING_TYPE, time=time, subject=bill.billing_account_id),
    )


class _Refused(Exception):
    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def _to_record(envelope: Envelope, rules: Rules, now: int) -> Record:
    reasons = []
    if len(envelope.id) + len(envelope.source) > IDENTITY_LENGTH_MAX:
        reasons.append(f"id and source together exceed {IDENTITY_LENGTH_MAX} characters")
    openmeter = envelope.type in rules.openmeter_types
    time = envelope.time
    if openmeter and time and time[-1] not in "Zz" and "+" not in time and time.count("-") == 2:
        time += "Z"  # LiteLLM on older Pythons writes UTC without saying so.
    time = time or format_instant(now)
    reasons += _not_instants(time=time)
    event: Any = None
    if openmeter:
        event = _decoded(_decode_openmeter, envelope, reasons)
    elif envelope.type in _DECODERS:
        event = _decoded(_DECODERS[envelope.type], envelope, reasons)
    else:
        known = ", ".join([*_DECODERS, *sorted(rules.openmeter_types)])
        reasons.append(f"type {envelope.type[:64]!r} is not known; types are {known}")
    if event is not None:
        reasons += problems_of(event, rules.tokens_max)
    if reasons:
        raise _Refused(reasons)
    if rules.bound_team:
        event = msgspec.structs.replace(event, team_id=rules.bound_team)
    match event:
        case GpuSample():
            return gpu_record(event, id=envelope.id, source=envelope.source)
        case BillingRecord():
            return billing_record(event, id=envelope.id, source=envelope.source, time=time)
        case _:
            if not event.team_id and not openmeter:
                # CloudEvents' subject names the team where the data does not.
                event = msgspec.structs.replace(event, team_id=envelope.subject)
            return usage_record(event, id=envelope.id, source=envelope.source, time=time)


def _decoded(decode: Callable[[Envelope], Any], envelope: Envelope, reasons: list[str]) -> Any:
    try:
        return decode(envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reasons.append(f"data of {envelope.type[:64]}: {error}")
        return None


def _decode_openmeter(envelope: Envelope) -> UsageEvent:
    """LiteLLM's event names no team or status; its model may carry a provider, the API key a team."""
    data = msgspec.json.decode(envelope.data, type=OpenMeterData, strict=False)
    provider, slash, model = data.model.partition("/")
    return UsageEvent(
        provider=provider if slash else "",
        response_model=model if slash else data.model,
        input_tokens=data.prompt_tokens or 0,
        output_tokens=data.completion_tokens or 0,
        reported_cost=None if data.cost is None else format(data.cost, "f"),
        end_user_id=envelope.subject,
    )


def _decoder(contract: type) -> Callable[[Envelope], Any]:
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(contract).decode
    return lambda envelope: decode(envelope.data)


_DECODERS: dict[str, Callable[[Envelope], Any]] = {
    USAGE_TYPE: _decoder(UsageEvent),
    GPU_TYPE: _decoder(GpuSample),
    BILLING_TYPE: _decoder(BillingRecord),
}


def problems_of(event: UsageEvent | GpuSample | BillingRecord, tokens_max: int) -> list[str]:
    """What is impossible about an event that has the right shape, one sentence for each problem."""
    match event:
        case UsageEvent():
            return _usage_problems(event, tokens_max)
        case GpuSample():
            return _gpu_problems(event)
    return _billing_problems(event)


def _usage_problems(event: UsageEvent, tokens_max: int) -> list[str]:
    found = []
    for name in TOKEN_FIELDS:
        count = getattr(event, name)
        if not 0 <= count <= tokens_max:
            found.append(f"{name} is {count}; 0 to {tokens_max} is believable, and credits are bill lines")
    if found:
        return found  # Sums of impossible counts would only repeat it.
    if event.cache_read_input_tokens + event.cache_creation_input_tokens > event.input_tokens:
        found.append("input_tokens includes cached tokens, so it cannot be less than their sum")
    if event.reasoning_output_tokens > event.output_tokens:
        found.append("output_tokens includes reasoning tokens, so it cannot be less")
    if event.reported_cost is not None:
        found += _not_money(reported_cost=event.reported_cost)
    return found


def _gpu_problems(sample: GpuSample) -> list[str]:
    found = [] if sample.gpu_uuid else ["gpu_uuid is empty"]
    bad_instants = _not_instants(window_start=sample.window_start, window_end=sample.window_end)
    found += bad_instants
    if not bad_instants:
        length = parse_instant(sample.window_end) - parse_instant(sample.window_start)
        if length <= 0:
            found.append("window_end is not after window_start")
        elif sample.allocated_seconds.is_finite() and sample.allocated_seconds * 1_000_000 > length:
            found.append("allocated_seconds is longer than the window")
    if not sample.allocated_seconds.is_finite() or sample.allocated_seconds < 0:
        found.append(f"allocated_seconds is {sample.allocated_seconds}; seconds are 0 or more")
    if sample.util_ratio is not None and not 0.0 <= sample.util_ratio <= 1.0:
        found.append(f"util_ratio is {sample.util_ratio}; it lies in 0..1")
    if sample.shared_by < 1:
        found.append(f"shared_by is {sample.shared_by}; it counts pods from 1")
    return found


def _billing_problems(bill: BillingRecord) -> list[str]:
    found = [
        f"{name} is empty"
        for name in ("billing_account_id", "billing_currency", "service_provider_name")
        if not getattr(bill, name)
    ]
    found += _not_instants(charge_period_start=bill.charge_period_start, charge_period_end=bill.charge_period_end)
    costs = {name: getattr(bill, name) for name in ("billed_cost", "effective_cost", "list_cost", "contracted_cost")}
    return found + _not_money(**{name: cost for name, cost in costs.items() if cost is not None})


def _not_instants(**texts: str) -> list[str]:
    found = []
    for name, text in texts.items():
        try:
            parse_instant(text)
        except (InstantError, OverflowError) as error:
            found.append(f"{name}: {error}")
    return found


def _not_money(**amounts: str | Decimal) -> list[str]:
    found = []
    for name, amount in amounts.items():
        try:
            parse_nanos(amount)
        except MoneyError as error:
            found.append(f"{name}: {error}")
    return found
