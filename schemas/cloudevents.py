"""CloudEvents 1.0 over Kafka and HTTP: binary and structured mode in, binary mode out.

Source: cloudevents/spec, kafka-protocol-binding.md. Binary mode puts ``ce_<name>`` headers beside the data; structured
mode puts one JSON envelope into the value under content type ``application/cloudevents+json``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

SPEC_VERSION = "1.0"
STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
JSON_TYPE = "application/json"

Headers = Iterable[tuple[str, bytes]]


class EnvelopeError(ValueError):
    """The envelope is not a CloudEvent; the message says which attribute is wrong and how."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The attributes that Sluice reads, and the data as JSON bytes."""

    id: str
    source: str
    type: str
    time: str
    subject: str
    data: bytes


class _Structured(msgspec.Struct):
    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    time: str = ""
    subject: str = ""
    partitionkey: str = ""


_decode_structured = msgspec.json.Decoder(_Structured).decode
_decode_batch = msgspec.json.Decoder(list[_Structured]).decode
_CONTENT_TYPE = "content-type"


def read_record(headers: Headers, value: bytes | None) -> Envelope:
    """Read a Kafka record in binary or structured mode.

    Raises:
        EnvelopeError: a required attribute is missing or empty, or the structured envelope is not JSON.
    """
    found = dict(headers)
    # A header may be there without a value.
    content_type = found.get(_CONTENT_TYPE) or b""
    if content_type[:23].lower() == b"application/cloudevents":
        return read_structured(value or b"")
    try:
        return Envelope(
            id=_required(found, "ce_id"),
            source=_required(found, "ce_source"),
            type=_required(found, "ce_type"),
            time=(found.get("ce_time") or b"").decode(),
            subject=(found.get("ce_subject") or b"").decode(),
            data=value or b"null",
        )
    except UnicodeDecodeError as error:
        raise EnvelopeError("a ce_ header is not UTF-8") from error


def _required(found: Mapping[str, bytes], name: str) -> str:
    raw = found.get(name)
    if not raw:
        raise EnvelopeError(f"header {name} is missing or empty: CloudEvents needs it")
    return raw.decode()


def read_structured(body: bytes) -> Envelope:
    """Read one structured-mode event.

    Raises:
        EnvelopeError: not JSON, or a required attribute is missing, empty or of the wrong type.
    """
    try:
        return _to_envelope(_decode_structured(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"not a structured CloudEvent: {error}") from error
    except RecursionError as error:
        raise EnvelopeError("not a structured CloudEvent: nested too deeply") from error


def read_batch(body: bytes) -> list[Envelope]:
    """Read an HTTP batch (``application/cloudevents-batch+json``).

    Raises:
        EnvelopeError: not a JSON array of structured events.
    """
    try:
        return [_to_envelope(event) for event in _decode_batch(body)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"not a batch of CloudEvents: {error}") from error
    except RecursionError as error:
        raise EnvelopeError("not a batch of CloudEvents: nested too deeply") from error


def _to_envelope(event: _Structured) -> Envelope:
    for name in ("id", "source", "type"):
        if not getattr(event, name):
            raise EnvelopeError(f"attribute {name} is empty: CloudEvents needs it")
    if event.specversion != SPEC_VERSION:
        raise EnvelopeError(f"specversion is {event.specversion[:16]!r}, and this reads {SPEC_VERSION}")
    return Envelope(
        id=event.id,
        source=event.source,
        type=event.type,
        time=event.time,
        subject=event.subject or event.partitionkey,
        data=bytes(event.data),
    )


def binary_headers(
    *, id: str, source: str, type: str, time: str, subject: str = "", extensions: Mapping[str, Any] | None = None
) -> list[tuple[str, bytes]]:
    """The headers of a record in binary mode, in a fixed order; the value is the data as JSON."""
    headers = [
        ("content-type", JSON_TYPE.encode()),
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type.encode()),
        ("ce_time", time.encode()),
    ]
    if subject:
        headers += [("ce_subject", subject.encode()), ("ce_partitionkey", subject.encode())]
    for name, value in (extensions or {}).items():
        headers.append((f"ce_{name}", str(value).encode()))
    return headers
