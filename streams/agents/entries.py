"""How METER's state lies in its changelog, and its statements on their topics: keys, values, and whose writing counts.

Every ownership of a partition writes under a writer id of its own, so a stalled owner that wakes up overwrites nothing.
A successor takes the writer whose watermark is furthest: states are prefixes of one deterministic fold, so furthest is
most complete.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from schemas import topics
from schemas.keys import digest
from schemas.readers import CELL_STATEMENTS, SCOPE_STATEMENTS
from schemas.statements import CellStatement, ScopeStatement, Source, SpenderStatement, Watermark
from streams.core.meter import PartitionState
from streams.core.rules import CHECKPOINTS, Checkpoint, DeadLetter, Statement, Total
from streams.core.scopes import meeting_place
from streams.core.spender_log import SPENDER_LOGS, Kept, SpenderLog, blocks, kept
from streams.transport import Outgoing, partition_of

_encode = msgspec.json.Encoder().encode
#: By the kind of a changelog entry.
_DECODE: Mapping[str, Callable[[bytes], Total]] = {
    "c": CELL_STATEMENTS.decode,
    "s": SCOPE_STATEMENTS.decode,
}

_WATERMARK = "w"
_OPENINGS = "o"
#: Who spent, as it is made durable (``streams.core.spender_log``); ``p`` is how it is stated.
_SPENDERS = "d"


class Recovered(NamedTuple):
    """What the changelog holds of one source partition."""

    checkpoint: Checkpoint
    statements: list[Total]
    #: The records of openings (``streams.core.openings``).
    openings: bytes | None = None
    spenders: tuple[Kept, ...] = ()


def entry_key(source: Source, name: str, writer: str) -> bytes:
    """``<slot>|<kind>|…|<writer>``"""
    return f"{source.slot()}|{name}|{writer}".encode()


def entry_id(statement: Statement) -> str:
    """What a statement is about, apart from its source partition and writer; its segment is part of it."""
    if isinstance(statement, CellStatement):
        return f"c|{statement.cell_id}|{statement.segment}"
    if isinstance(statement, SpenderStatement):
        return _block_id(statement.cell_id, statement.segment, statement.block)
    return f"s|{digest(statement.scope, str(statement.period_start))}|{statement.segment}"


def _block_id(cell_id: str, segment: int, block: int) -> str:
    return f"p|{cell_id}|{segment}|{block}"


def checkpoint_entry(checkpoint: Checkpoint, writer: str) -> tuple[bytes, bytes]:
    """The watermark as a changelog entry; written last in each flush."""
    return entry_key(checkpoint.source, _WATERMARK, writer), _encode(checkpoint)


def openings_entry(source: Source, records: bytes, writer: str) -> tuple[bytes, bytes]:
    """The records of openings as a changelog entry; written after the counters that were opened."""
    return entry_key(source, _OPENINGS, writer), records


def spenders_key(source: Source, sequence: int, writer: str) -> bytes:
    """The changelog key of one record of who spent."""
    return entry_key(source, f"{_SPENDERS}|{sequence}", writer)


def spenders_entry(source: Source, record: SpenderLog, writer: str) -> tuple[bytes, bytes]:
    """Who spent as a changelog entry; written after the cells that it belongs to."""
    return spenders_key(source, record.sequence, writer), _encode(record)


def statement_entry(statement: Statement, writer: str) -> tuple[bytes, bytes]:
    """A statement as a changelog entry."""
    return entry_key(statement.source, entry_id(statement), writer), _encode(statement)


def recover(entries: Mapping[bytes, bytes]) -> dict[str, Recovered]:
    """By slot: the state of the writer that came furthest. Entries without a watermark say nothing and are left out."""
    by_writer: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
    best: dict[str, tuple[tuple[int, int], str, Checkpoint]] = {}
    openings: dict[tuple[str, str], bytes] = {}
    spenders: dict[tuple[str, str], list[SpenderLog]] = {}
    for key, value in entries.items():
        parts = key.decode().split("|")
        slot, kind, writer = parts[0], parts[1], parts[-1]
        if kind == _WATERMARK:
            checkpoint = CHECKPOINTS.decode(value)
            rank = (checkpoint.revision, checkpoint.next_offset)
            if slot not in best or (rank, writer) > best[slot][:2]:
                best[slot] = (rank, writer, checkpoint)
        elif kind == _OPENINGS:
            openings[(slot, writer)] = value
        elif kind == _SPENDERS:
            spenders.setdefault((slot, writer), []).append(SPENDER_LOGS.decode(value))
        else:
            by_writer.setdefault((slot, writer), []).append((kind, value))
    recovered = {}
    for slot, (_, writer, checkpoint) in best.items():
        statements = [_DECODE[kind](value) for kind, value in by_writer.get((slot, writer), ())]
        rows = tuple(kept(spenders.get((slot, writer), ())))
        recovered[slot] = Recovered(checkpoint, statements, openings.get((slot, writer)), rows)
    return recovered


class Leftover(NamedTuple):
    """What an earlier writer left behind: its changelog key, if it has one, and the deletion of its statement."""

    key: bytes
    deletion: Outgoing | None


def leftovers(entries: Mapping[bytes, bytes], partitions: int) -> dict[str, list[Leftover]]:
    """By slot: everything in the changelog, to be deleted once it has been stated again under a new writer's name."""
    found: dict[str, list[Leftover]] = {}
    spenders: dict[tuple[str, str], list[SpenderLog]] = {}
    for key, value in entries.items():
        slot, kind, *_, writer = key.decode().split("|")
        gone = deletion(_DECODE[kind](value), writer, partitions) if kind in _DECODE else None
        found.setdefault(slot, []).append(Leftover(key, gone))
        if kind == _SPENDERS:
            spenders.setdefault((slot, writer), []).append(SPENDER_LOGS.decode(value))
    for (slot, writer), log in spenders.items():
        for cell_id, segment, block in blocks(log):
            stated = f"{slot}|{_block_id(cell_id, segment, block)}|{writer}".encode()
            # All slots of a partition lie in the partition of that number.
            gone = Outgoing(topics.SPEND_CELLS, int(slot.rpartition("-")[2]), stated, None)
            found[slot].append(Leftover(b"", gone))
    for left in found.values():
        # Watermarks first: a writer whose statements are partly gone must have lost its watermark before.
        left.sort(key=lambda each: not (each.key and is_watermark(each.key)))
    return found


def deletion(statement: Statement, writer: str, partitions: int) -> Outgoing:
    """The deletion of a statement from its topic."""
    if isinstance(statement, CellStatement | SpenderStatement):
        return cell_record(statement, writer)._replace(value=None)
    return scope_record(statement, writer, partitions)._replace(value=None)


def cell_record(cell: CellStatement | SpenderStatement, writer: str) -> Outgoing:
    """A statement of a cell or its spenders, in the partition that it came from, so that the watermark follows it."""
    return Outgoing(
        topics.SPEND_CELLS, cell.source.partition, entry_key(cell.source, entry_id(cell), writer), _encode(cell)
    )


def scope_record(counter: ScopeStatement, writer: str, partitions: int) -> Outgoing:
    """A counter's statement; partitioned by scope alone, so that all slots of a scope meet."""
    key = entry_key(counter.source, entry_id(counter), writer)
    partition = partition_of(meeting_place(counter.scope).encode(), partitions)
    return Outgoing(topics.SPEND_SCOPES, partition, key, _encode(counter))


def watermark_record(watermark: Watermark, writer: str) -> Outgoing:
    """The ledger's watermark, written after the cells it covers."""
    key = entry_key(watermark.source, _WATERMARK, writer)
    return Outgoing(topics.SPEND_CELLS, watermark.source.partition, key, _encode(watermark))


def is_watermark(key: bytes) -> bool:
    """Whether a record on ``spend.cells`` is a watermark."""
    return key.split(b"|", 2)[1] == b"w"


def is_of_spenders(key: bytes) -> bool:
    """Whether a record on ``spend.cells`` says who spent a cell's money."""
    return key.split(b"|", 2)[1] == b"p"


def signal_records(state: PartitionState) -> Iterable[Outgoing]:
    """The single events that per-event detectors must see."""
    for signal in state.signals:
        yield Outgoing(topics.USAGE_SIGNALS, None, signal.scope.encode(), _encode(signal))


def dead_letter_record(letter: DeadLetter, source: Source) -> Outgoing:
    """The untouched record with the reason in its headers (names as in Kafka Streams, KIP-1034)."""
    record = letter.record
    headers = (
        *record.headers,
        ("__streams.errors.exception", letter.reason.value.encode()),
        ("__streams.errors.message", letter.detail[:1000].encode("utf-8", "replace")),
        ("__streams.errors.topic", source.topic.encode()),
        ("__streams.errors.partition", str(source.partition).encode()),
        ("__streams.errors.offset", str(record.offset).encode()),
    )
    return Outgoing(topics.dead_letter(source.topic), source.partition, record.key or b"", record.value, headers)
