"""Which records of the load must be refused, and why: the documented limits, written down a second time. Pure."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from loadtest.oracle import BILL, GPU, USAGE, instant

VALUE_BYTES_MAX = 1_000_000
TOKENS_MAX = 100_000_000
TEXT_LENGTH_MAX = 256
FUTURE = timedelta(seconds=300)
LATENESS = timedelta(days=40)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


class Raw(NamedTuple):
    """One record as the broker kept it."""

    topic: str
    partition: int
    offset: int
    #: The broker's arrival time, milliseconds since 1970.
    arrived_ms: int
    value: bytes
    headers: dict[str, bytes]


class Accepted(NamedTuple):
    """A record that counts, unless it was seen before."""

    source: str
    id: str
    type: str
    data: dict[str, Any]
    #: The instant whose hour the money belongs to.
    happened: datetime
    arrived: datetime


class Unacceptable(ValueError):
    """A record that must be refused; the text is the reason's name."""


def accept(raw: Raw) -> Accepted:
    """Read one record.

    Raises:
        Unacceptable: it must be refused.
    """
    if not raw.value:
        raise Unacceptable("empty_value")
    if len(raw.value) > VALUE_BYTES_MAX:
        raise Unacceptable("too_large")
    if not raw.headers.get("ce_id"):
        raise Unacceptable("not_a_cloudevent")
    kind = raw.headers["ce_type"].decode()
    if kind not in (USAGE, GPU, BILL):
        raise Unacceptable("unknown_type")
    try:
        data = json.loads(raw.value)
    except ValueError as error:
        raise Unacceptable("not_json") from error
    if kind == USAGE:
        _check_call(data)
    if kind == BILL and data["billing_currency"] != "USD":
        raise Unacceptable("unknown_currency")
    happened = _instant({USAGE: raw.headers["ce_time"].decode(), GPU: data.get("window_start")}, kind, data)
    arrived = _EPOCH + timedelta(milliseconds=raw.arrived_ms)
    if happened > arrived + FUTURE:
        raise Unacceptable("in_the_future")
    if happened < arrived - LATENESS:
        raise Unacceptable("too_late")
    return Accepted(raw.headers["ce_source"].decode(), raw.headers["ce_id"].decode(), kind, data, happened, arrived)


def _instant(by_kind: dict[str, Any], kind: str, data: dict[str, Any]) -> datetime:
    text = by_kind[kind] if kind in by_kind else data["charge_period_start"]
    try:
        return instant(text)
    except ValueError as error:
        raise Unacceptable("bad_time") from error


def _check_call(data: dict[str, Any]) -> None:
    for name in _COUNTS:
        found = data.get(name, 0)
        if not isinstance(found, int):
            raise Unacceptable("wrong_shape")
        if found < 0:
            raise Unacceptable("negative_usage")
        if found > TOKENS_MAX:
            raise Unacceptable("absurd_number")
    if data.get("cache_read_input_tokens", 0) + data.get("cache_creation_input_tokens", 0) > data.get(
        "input_tokens", 0
    ):
        raise Unacceptable("impossible_usage")
    if any(len(text) > TEXT_LENGTH_MAX for text in data.values() if isinstance(text, str)):
        raise Unacceptable("too_long")
