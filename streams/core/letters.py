"""Dead letters: what lies on a dead-letter topic, which record it was, and whether it would count if it came again.

A letter is the untouched record with ``__streams.errors.*`` headers beside it. It is named by the record that it was,
not by where it lies: METER writes a letter again when a crash falls between the letter and its watermark, and both are
one. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.cloudevents import Headers
from schemas.topics import INPUTS, dead_letter
from streams.core.reading import Limits, Reason, Rejected, read
from streams.core.rules import Pricing

ERRORS = "__streams.errors."
#: Which letter a record was brought back from, as ``topic[partition]@offset``.
REPLAY_OF = "__streams.replay.of"
#: How many times the record was brought back, this time included.
REPLAY_COUNT = "__streams.replay.count"
UNKNOWN = "unknown"

_SOURCE_OF = {dead_letter(found.name): found for found in INPUTS}
#: What the two replay headers and the record's frame add, at most.
_FRAME_BYTES = 512


class Lying(Protocol):
    """A record as it lies on a dead-letter topic."""

    topic: str
    partition: int
    offset: int
    #: Milliseconds since 1970.
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any


class Letter(NamedTuple):
    """One dead letter."""

    #: Where it lies.
    topic: str
    partition: int
    offset: int
    #: When it was written, microseconds since 1970.
    written_at: int
    key: bytes | None
    value: bytes | None
    #: The record's own headers, without what dead-lettering and earlier replays added.
    headers: tuple[tuple[str, bytes], ...]
    reason: str
    detail: str
    #: The record that it was; the partition is -1 where the letter does not say.
    source_topic: str
    source_partition: int
    source_offset: int
    #: How many times it was brought back before it came to lie here.
    replays: int

    @property
    def place(self) -> str:
        """``topic[partition]@offset``"""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def size(self) -> int:
        """Bytes that it takes as a record of its source topic."""
        own = sum(len(name) + len(value or b"") + 10 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + own + _FRAME_BYTES

    def identity(self) -> str:
        """128 bits over the record that it was: place and content, so that a topic made anew gives other names."""
        hasher = blake2b(digest_size=16)
        where = f"{self.source_topic}[{self.source_partition}]@{self.source_offset}"
        parts = [where.encode(), self.key or b"", self.value or b""]
        for name, value in self.headers:
            parts += [name.encode("utf-8", "surrogatepass"), value or b""]
        if self.replays:
            parts.append(b"%d" % self.replays)
        for part in parts:
            hasher.update(len(part).to_bytes(4, "big"))
            hasher.update(part)
        return hasher.hexdigest()


def read_letter(record: Lying) -> Letter:
    """The letter that a record of a dead-letter topic is; one without a reason was written by somebody else."""
    said = {name: value for name, value in record.headers if name.startswith("__streams.")}
    own = tuple((name, value) for name, value in record.headers if not _is_added(name))
    source_partition = _number(said.get(ERRORS + "partition"), -1)
    return Letter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        written_at=record.timestamp * 1_000,
        # METER has only bytes for a key; a record without one lies here under an empty one.
        key=record.key or None,
        value=record.value,
        headers=own,
        reason=_text(said.get(ERRORS + "exception")) or UNKNOWN,
        detail=_text(said.get(ERRORS + "message")),
        source_topic=_SOURCE_OF[record.topic].name,
        source_partition=source_partition,
        # What does not say where it was is told apart by where it lies.
        source_offset=_number(said.get(ERRORS + "offset"), -1 if source_partition >= 0 else record.offset),
        replays=_number(said.get(REPLAY_COUNT), 0),
    )


def replayed_headers(letter: Letter) -> list[tuple[str, bytes]]:
    """The headers under which a letter goes back: its own, and that it is a replay."""
    return [
        *letter.headers,
        (REPLAY_OF, letter.place.encode()),
        (REPLAY_COUNT, str(letter.replays + 1).encode()),
    ]


def partition_for(letter: Letter, partitions: int, by_key: Callable[[bytes, int], int]) -> int:
    """Where a letter goes back to: the partition that it came from, whoever chose it; else as its key decides.

    The original partition also holds the ids that METER has seen, so a record that came again meanwhile is known there.
    """
    if 0 <= letter.source_partition < partitions:
        return letter.source_partition
    if letter.key is not None:
        return by_key(letter.key, partitions)
    return letter.partition % partitions


@dataclass
class _Arrived:
    """The record as it would arrive."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def refusal(letter: Letter, limits: Limits, pricing: Pricing, now: int) -> Rejected | None:
    """Why a letter would be refused again if it arrived ``now`` (microseconds since 1970); None if it would count.

    A record that comes again arrives anew: what was from the future may have happened by now, and what was in time may
    be too late.
    """
    if not fits(letter):
        return Rejected(Reason.TOO_LARGE, f"{letter.size} bytes with its headers are more than the topic takes")
    record = _Arrived(0, now // 1_000, letter.key, letter.value, list(letter.headers))
    try:
        reading = read(record, limits)
        pricing.charge(reading.event, reading.event_time)
    except Rejected as refused:
        return refused
    return None


def fits(letter: Letter) -> bool:
    """Whether the source topic takes a record of this size."""
    return letter.size <= _SOURCE_OF[letter.topic].max_message_bytes


def _is_added(name: str) -> bool:
    return name.startswith(ERRORS) or name in (REPLAY_OF, REPLAY_COUNT)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _number(raw: bytes | None, otherwise: int) -> int:
    """A whole number of a header that anybody can write."""
    text = raw or b""
    return int(text) if text.isdigit() and len(text) <= 18 else otherwise


# -- for people -----------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    r"""The text with everything that a terminal could obey, or that hides from a reader, written out.

    >>> print(escaped("a" + chr(27) + "[2J" + chr(0x202e) + "é"))
    a\x1b[2J\u202eé
    """
    return "".join(char if char.isprintable() else _code(char) for char in text)


def _code(char: str) -> str:
    point = ord(char)
    if char in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[char]
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def readable(raw: bytes | None, bytes_max: int | None = None) -> list[str]:
    r"""A body as lines that are safe to print: JSON is laid out, what is not UTF-8 is written as ``\xNN``.

    >>> readable(b'{"a":[1.10,2]}')
    ['{', '  "a": [', '    1.10,', '    2', '  ]', '}']
    >>> readable(b"\xff\x1b[31m"), readable(None)
    (['\\xff\\x1b[31m'], ['(no value)'])
    """
    if raw is None:
        return ["(no value)"]
    shown = raw
    if bytes_max is None or len(raw) <= bytes_max:
        try:
            # Laid out as text: numbers stay as they were written.
            shown = msgspec.json.format(raw, indent=2)
        except (msgspec.DecodeError, RecursionError):
            shown = raw
    else:
        shown = raw[:bytes_max]
    lines = [escaped(line) for line in shown.decode("utf-8", "backslashreplace").split("\n")]
    if len(raw) > len(shown):
        lines.append(f"… {len(raw) - len(shown):,} bytes more")
    return lines
