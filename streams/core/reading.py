"""From a raw record to a usage event, a GPU sample or a bill line; or to the reason why not.

Every check is against the record alone (its bytes and the broker's arrival time), never a clock, so that a replay
accepts and refuses exactly what the first run did.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from schemas.cloudevents import Envelope, EnvelopeError, Headers, read_record
from schemas.events import BILLING_TYPE, GPU_TYPE, USAGE_TYPE, BillingRecord, GpuSample, UsageEvent
from schemas.instants import SECOND, InstantError, parse_instant


class Reason(StrEnum):
    """Why a record was dead-lettered; the names are metric labels, header values and test ids alike."""

    EMPTY = "empty_value"
    TOO_LARGE = "too_large"
    NOT_A_CLOUDEVENT = "not_a_cloudevent"
    UNKNOWN_TYPE = "unknown_type"
    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    NEGATIVE_USAGE = "negative_usage"
    ABSURD_NUMBER = "absurd_number"
    TOO_LONG = "too_long"
    IMPOSSIBLE_USAGE = "impossible_usage"
    BAD_TIME = "bad_time"
    IN_THE_FUTURE = "in_the_future"
    TOO_LATE = "too_late"
    UNKNOWN_CURRENCY = "unknown_currency"


class Rejected(Exception):
    """A record that cannot be counted; ``detail`` tells its producer what to mend."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Record(Protocol):
    """What the transport hands over of each record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Limits(NamedTuple):
    """Bounds on what is believable."""

    value_bytes_max: int = 1_000_000
    tokens_max: int = 100_000_000
    id_length_max: int = 512
    text_length_max: int = 256
    tags_max: int = 64
    lateness_us_max: int = 40 * 86_400 * SECOND
    future_us_max: int = 300 * SECOND
    #: Dollars of one bill line; a cell holds nanodollars in 64 bits, so 900 such lines.
    amount_max: Decimal = Decimal(10) ** 7
    gpu_window_us_max: int = 3600 * SECOND


Usage = UsageEvent | GpuSample | BillingRecord


class Reading(NamedTuple):
    """A record that can be counted, and when it happened."""

    envelope: Envelope
    event: Usage
    #: The instant whose hour and budget period the money belongs to.
    event_time: int
    #: The broker's arrival time, microseconds since 1970.
    arrived_at: int


_TOKEN_FIELDS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
)
_RARE_IDS = ("task_id", "run_id", "experiment_id")
_TEXT_FIELDS = (
    "provider",
    "request_model",
    "response_model",
    "org_id",
    "cost_center",
    "team_id",
    "project_id",
    "feature",
    "environment",
    "service_tier",
    "user_tier",
    "key_id",
    "user_id",
    "session_id",
    *_RARE_IDS,
)
_GPU_TEXTS = (
    "gpu_uuid", "model", "org_id", "cost_center", "team_id", "project_id", "feature", "run_id", "experiment_id",
)  # fmt: skip
_decode_usage = msgspec.json.Decoder(UsageEvent).decode
_decode_gpu = msgspec.json.Decoder(GpuSample).decode
_decode_bill = msgspec.json.Decoder(BillingRecord).decode


def read(record: Record, limits: Limits) -> Reading:
    """Decode and check one record.

    Raises:
        Rejected: with the reason and what to mend.
    """
    value = record.value
    if not value:
        raise Rejected(Reason.EMPTY, "the record has no value")
    if len(value) > limits.value_bytes_max:
        raise Rejected(Reason.TOO_LARGE, f"{len(value)} bytes; the limit is {limits.value_bytes_max}")
    try:
        envelope = read_record(record.headers, value)
    except EnvelopeError as error:
        raise Rejected(Reason.NOT_A_CLOUDEVENT, str(error)) from error
    if len(envelope.id) + len(envelope.source) > limits.id_length_max:
        raise Rejected(Reason.NOT_A_CLOUDEVENT, f"source and id together exceed {limits.id_length_max} characters")
    _check_text("subject", envelope.subject, limits)
    arrived_at = record.timestamp * 1_000
    event, event_time = _read_data(envelope, limits)
    if event_time > arrived_at + limits.future_us_max:
        ahead = (event_time - arrived_at) // SECOND
        raise Rejected(Reason.IN_THE_FUTURE, f"{ahead} s ahead of its arrival: check the producer's clock")
    if event_time < arrived_at - limits.lateness_us_max:
        behind = (arrived_at - event_time) // SECOND
        raise Rejected(Reason.TOO_LATE, f"{behind} s before its arrival; see lateness_s_max")
    return Reading(envelope, event, event_time, arrived_at)


def _read_data(envelope: Envelope, limits: Limits) -> tuple[Usage, int]:
    kind = envelope.type
    try:
        if kind == USAGE_TYPE:
            usage = _decode_usage(envelope.data)
            _check_usage(usage, limits)
            return usage, _instant(envelope.time, "time")
        if kind == GPU_TYPE:
            return _check_gpu(_decode_gpu(envelope.data), limits)
        if kind == BILLING_TYPE:
            bill = _decode_bill(envelope.data)
            _check_bill(bill, limits)
            return bill, _instant(bill.charge_period_start, "charge_period_start")
    except msgspec.ValidationError as error:
        raise Rejected(Reason.WRONG_SHAPE, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected(Reason.NOT_JSON, str(error)) from error
    except RecursionError as error:
        raise Rejected(Reason.WRONG_SHAPE, "nested too deeply") from error
    raise Rejected(Reason.UNKNOWN_TYPE, f"type {kind[:64]!r} is not read here; see schemas/asyncapi.yaml")


def _instant(text: str, name: str) -> int:
    try:
        return parse_instant(text)
    except (InstantError, OverflowError) as error:
        raise Rejected(Reason.BAD_TIME, f"{name}: {error}") from error


def _check_usage(event: UsageEvent, limits: Limits) -> None:
    for name in _TOKEN_FIELDS:
        count = getattr(event, name)
        if count:
            if count < 0:
                raise Rejected(Reason.NEGATIVE_USAGE, f"{name} is {count}; credits are bill lines")
            if count > limits.tokens_max:
                raise Rejected(Reason.ABSURD_NUMBER, f"{name} is {count}; the limit is {limits.tokens_max}")
    if event.cache_read_input_tokens + event.cache_creation_input_tokens > event.input_tokens:
        raise Rejected(
            Reason.IMPOSSIBLE_USAGE, "input_tokens includes cached tokens, so it cannot be less than their sum"
        )
    if event.reasoning_output_tokens > event.output_tokens:
        raise Rejected(Reason.IMPOSSIBLE_USAGE, "output_tokens includes reasoning, so it cannot be less")
    if event.audio_input_tokens > event.input_tokens or event.audio_output_tokens > event.output_tokens:
        raise Rejected(Reason.IMPOSSIBLE_USAGE, "audio tokens are a part of input and output tokens")
    if event.duration_ms is not None and not 0 <= event.duration_ms <= 86_400_000:
        raise Rejected(Reason.ABSURD_NUMBER, f"duration_ms is {event.duration_ms}; 0 to one day is believable")
    _check_texts(event, limits, _TEXT_FIELDS)
    if event.tags:
        _check_tags(event.tags, limits)


def are_ids_short(event: UsageEvent, limits: Limits) -> bool:
    """Whether no id of a task, run or experiment is too long."""
    return max(len(getattr(event, name)) for name in _RARE_IDS) <= limits.text_length_max


def are_tags_short(tags: Mapping[str, str], limits: Limits) -> bool:
    """Whether there are not too many tags, and none is too long."""
    return len(tags) <= limits.tags_max and max(map(len, (*tags, *tags.values()))) <= limits.text_length_max


def _check_tags(tags: Mapping[str, str], limits: Limits) -> None:
    if len(tags) > limits.tags_max:
        raise Rejected(Reason.TOO_LONG, f"{len(tags)} tags; the limit is {limits.tags_max}")
    for name, text in tags.items():
        _check_text("a tag's name", name, limits)
        _check_text("a tag", text, limits)


def _check_texts(event: Usage, limits: Limits, names: tuple[str, ...]) -> None:
    for name in names:
        _check_text(name, getattr(event, name), limits)


def _check_text(name: str, text: str, limits: Limits) -> None:
    if len(text) > limits.text_length_max:
        raise Rejected(Reason.TOO_LONG, f"{name} is longer than {limits.text_length_max} characters")
    if "\x00" in text:
        # Neither PostgreSQL nor most receivers can hold it.
        raise Rejected(Reason.WRONG_SHAPE, f"{name} holds a NUL character")


def _check_gpu(sample: GpuSample, limits: Limits) -> tuple[GpuSample, int]:
    start = _instant(sample.window_start, "window_start")
    end = _instant(sample.window_end, "window_end")
    if not 0 < end - start <= limits.gpu_window_us_max:
        raise Rejected(Reason.ABSURD_NUMBER, "a window is longer than 0 and at most an hour")
    if sample.allocated_seconds.is_signed() or not sample.allocated_seconds.is_finite():
        raise Rejected(Reason.NEGATIVE_USAGE, "allocated_seconds is negative or not a number")
    # Compared, not multiplied: a comparison is exact and knows no exponent that is too large.
    if sample.allocated_seconds > Decimal(end - start) / SECOND:
        raise Rejected(Reason.IMPOSSIBLE_USAGE, "allocated_seconds is longer than the window")
    if not 1 <= sample.shared_by <= 1_000:
        raise Rejected(Reason.ABSURD_NUMBER, f"shared_by is {sample.shared_by}; 1 to 1000 is believable")
    if sample.util_ratio is not None and not 0.0 <= sample.util_ratio <= 1.0:
        raise Rejected(Reason.ABSURD_NUMBER, f"util_ratio is {sample.util_ratio}; it lies in 0..1")
    _check_texts(sample, limits, _GPU_TEXTS)
    return sample, start


def _check_bill(bill: BillingRecord, limits: Limits) -> None:
    for name in ("billed_cost", "effective_cost", "list_cost", "contracted_cost"):
        amount = getattr(bill, name)
        if amount is not None and not (amount.is_finite() and amount.copy_abs() <= limits.amount_max):
            raise Rejected(Reason.ABSURD_NUMBER, f"{name} is {amount}; at most {limits.amount_max} is believable")
    if bill.tags:
        _check_tags(bill.tags, limits)
    _check_texts(bill, limits, ("service_provider_name", "service_name", "team_id", "project_id", "feature", "org_id"))
