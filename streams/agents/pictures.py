"""What METER reads and writes of a partition as one: the parts of a window's rebuilding, and the picture of a flush."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from streams.core.meter import PartitionState
from streams.transport import Outgoing

#: Chunks that are read as one where they only rebuild the window, which is done in columns: some 2 000 records.
RECALLED_CHUNKS = 64


class Picture(NamedTuple):
    """What one partition has to write, as it was at one instant."""

    where: tuple[str, int]
    state: PartitionState
    consequences: list[Outgoing]
    entries: list[tuple[bytes, bytes | None]]
    deletions: list[Outgoing]
    #: The batches that it covers.
    done: list[Any]
    #: Openings that are durable with it.
    opened: frozenset[str] = frozenset()


def joined(chunks: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """Chunks of records, many made one."""
    while records := list(chain.from_iterable(islice(chunks, RECALLED_CHUNKS))):
        yield records
