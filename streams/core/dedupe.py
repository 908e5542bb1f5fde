"""The de-duplication window of one source partition: which (source, id) were seen.

The window is stream time: ids live in generations, each holds every id that came in its time, and a generation is
dropped whole once the stream has moved on. So what the window holds is a function of the partition's records since the
oldest generation's first offset, and a restart rebuilds it by reading them again. What arrives later than the window
is counted and flagged, never guessed about.

No offset is kept beside an id: a record below the watermark is never judged again, it only rebuilds the window.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from streams.core.digest_table import DigestTable, filter_bits, halves

#: The window is kept in this many generations; it is exact to one generation's length. The present one is read again
#: after a restart, so more of them mean less to read, and a look at one more filter for every event.
GENERATIONS = 16
_LENGTH_US_FORMERLY = 600_000_000
#: A table is filled this many at a time: each filling has a cost of its own.
_NOTED_MAX = 16_384


def frame(source: bytes) -> bytes:
    """The source as it stands before the id in what is digested: its length frames it.

    >>> frame(b"a") + b"bc" == frame(b"ab") + b"c"
    False
    """
    return b"%d:%b" % (len(source), source)


def identity(source: str, event_id: str) -> bytes:
    """128 bits over a CloudEvents identity (XXH3). Whoever can forge a collision could as well not send the event."""
    head, tail = (text.encode("utf-8", "surrogatepass") for text in (source, event_id))
    return xxh3_128_digest(frame(head) + tail)


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where a generation begins: its number (stream time / length) and the first offset in it.

    Its length, in microseconds, goes with it: a setting may change it, and the number alone would name another time.
    0: of a release that kept six generations of ten minutes.
    """

    number: int
    first_offset: int
    length_us: int = 0

    @property
    def begins(self) -> int:
        """Stream time at which it begins, microseconds since 1970."""
        return self.number * (self.length_us or _LENGTH_US_FORMERLY)

    @property
    def ends(self) -> int:
        """Stream time at which the next begins."""
        return (self.number + 1) * (self.length_us or _LENGTH_US_FORMERLY)

    def name(self) -> str:
        """``<number>/<length>|<first offset>``, as it stands in keys."""
        return f"{self.number}/{self.length_us}|{self.first_offset}"

    @classmethod
    def named(cls, number: str, first_offset: str) -> "Mark":
        """The mark of a name's two parts.

        >>> Mark.named("7/225000000", "41"), Mark.named("7", "41")
        (Mark(number=7, first_offset=41, length_us=225000000), Mark(number=7, first_offset=41, length_us=0))
        """
        count, _, length = number.partition("/")
        return cls(int(count), int(first_offset), int(length or 0))


class Generation:
    """The ids of one stretch of the partition, and whether they are kept elsewhere than in memory."""

    __slots__ = ("is_kept", "mark", "table")

    def __init__(self, mark: Mark, expected: int = 0) -> None:
        self.mark = mark
        self.table = DigestTable(expected)
        #: A kept generation need not be rebuilt from the source.
        self.is_kept = False


class DedupeWindow:
    """Ids of one partition.

    A batch asks for its ``suspects`` first. What is no suspect is new, and ``note`` remembers it; a suspect is decided
    by ``first_seen``.
    """

    def __init__(self, window_us: int, ids_max: int, marks: Sequence[Mark] = ()) -> None:
        self._length_us = max(1, window_us // GENERATIONS)
        self._window_us = window_us
        self._ids_max = ids_max
        #: A generation that is full is followed by another of the same number, so that dropping one always helps.
        self._generation_max = max(1, ids_max // GENERATIONS)
        self._generations = [Generation(mark) for mark in marks]
        #: Of the present generation, and not yet in its table.
        self._noted: set[bytes] = set()
        self._count = 0
        #: Stream time at which the present generation ends; a record at or after it begins the next.
        self.turns_at = self._end_of_last()
        #: Generations dropped before their time because ``ids_max`` was reached.
        self.dropped_early = 0

    def __len__(self) -> int:
        return self._count + len(self._noted)

    @property
    def memory_bytes(self) -> int:
        """What the tables occupy."""
        return sum(generation.table.memory_bytes for generation in self._generations)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The checkpoint: what a successor needs to rebuild this window from the source."""
        return tuple(generation.mark for generation in self._generations)

    @property
    def sealed(self) -> Sequence[Generation]:
        """The generations that nothing is added to any more."""
        return self._generations[:-1]

    @property
    def rebuild_from(self) -> int | None:
        """The first offset a rebuild has to read; None for an empty window."""
        return next((each.mark.first_offset for each in self._generations if not each.is_kept), None)

    def is_late(self, event_time: int, stream_time: int) -> bool:
        """Whether an event is older than what the window can vouch for."""
        return event_time < stream_time - self._window_us

    # -- a batch at a time ------------------------------------------------------------------------------------------

    def suspects(self, digests: Sequence[bytes]) -> list[bool]:
        """Which of a batch's digests may have been seen, before or within the batch; the others are new for certain.

        With little room left every digest is a suspect: ``first_seen`` makes room at the very record that needs it.
        """
        noted = self._noted
        last = len(noted) + (len(self._generations[-1].table) if self._generations else 0)
        if len(digests) > min(self._ids_max - len(self), self._generation_max - last):
            return [True] * len(digests)
        lower, upper = halves(b"".join(digests))
        bits = filter_bits(lower)
        found = np.zeros(len(lower), np.bool_)
        for generation in self._generations:
            found |= generation.table.suspects(upper, bits)
        suspects: list[bool] = found.tolist()
        if len(set(digests)) < len(digests):
            often = {digest for digest, count in Counter(digests).items() if count > 1}
            suspects = [is_one or digest in often for is_one, digest in zip(suspects, digests, strict=True)]
        if not noted.isdisjoint(digests):
            suspects = [is_one or digest in noted for is_one, digest in zip(suspects, digests, strict=True)]
        return suspects

    def note(self, digests: Iterable[bytes]) -> None:
        """Remember ids that were no suspects, in the present generation. Tables take them in by the thousand."""
        self._noted.update(digests)
        if len(self._noted) >= _NOTED_MAX:
            self._settle()

    def _settle(self) -> None:
        if self._noted:
            self._generations[-1].table.add_many(*halves(b"".join(self._noted)))
            self._count += len(self._noted)
            self._noted = set()

    # -- one at a time ----------------------------------------------------------------------------------------------

    def first_seen(self, digest: bytes, offset: int, stream_time: int) -> bool:
        """Remember an id; True where it is new."""
        if stream_time >= self.turns_at:
            self.advance(stream_time, offset)
        elif len(self._generations[-1].table) + len(self._noted) >= self._generation_max:
            self._begin(self._generations[-1].mark.begins // self._length_us, offset)
        present = self._generations[-1].table
        is_noted = digest in self._noted
        seen = is_noted or any(digest in generation.table for generation in self._generations)
        # A repeat is remembered in its own generation too, or a rebuild that starts after the first would differ.
        if not is_noted and digest not in present:
            present.add(digest)
            self._count += 1
            if len(self) > self._ids_max and len(self._generations) > 1:
                self._drop_oldest()
                self.dropped_early += 1
        return not seen

    def advance(self, stream_time: int, offset: int) -> None:
        """Begin the generation of a stream time, at the record that moved it there; drop what is over."""
        number = stream_time // self._length_us
        self._begin(number, offset)
        horizon = number * self._length_us - self._window_us
        while len(self._generations) > 1 and self._generations[0].mark.begins < horizon:
            self._drop_oldest()

    def _begin(self, number: int, offset: int) -> None:
        self._settle()
        expected = len(self._generations[-1].table) if self._generations else 0
        self._generations.append(Generation(Mark(number, offset, self._length_us), expected))
        self.turns_at = self._end_of_last()

    def _end_of_last(self) -> int:
        return self._generations[-1].mark.ends if self._generations else -1

    def _drop_oldest(self) -> None:
        self._count -= len(self._generations[0].table)
        del self._generations[0]

    # -- rebuilding -------------------------------------------------------------------------------------------------

    def recall(self, digests: Sequence[bytes], offsets: Sequence[int]) -> None:
        """Rebuild: put ids back into the generations that their (ascending) offsets belong to.

        What comes again while the window lives is known already.
        """
        self._settle()
        bounds = [mark.first_offset for mark in self.marks]
        first = 0
        while first < len(offsets):
            place = bisect_right(bounds, offsets[first]) - 1
            end = len(offsets)
            if place + 1 < len(bounds):
                end = bisect_right(offsets, bounds[place + 1] - 1)
            if place >= 0:
                self._recall_into(self._generations[place].table, digests[first:end])
            first = end

    def adopt(self, mark: Mark, digests: Iterable[bytes]) -> bool:
        """Take back the ids of a sealed generation, 16 bytes each in any number of pieces; False if it is not ours."""
        for generation in self.sealed:
            if generation.mark == mark and not generation.is_kept and not len(generation.table):
                # At once: a piece of an ordered whole would crowd into a few slots of a table that has yet to grow.
                generation.table.add_many(*halves(b"".join(digests)))
                generation.is_kept = True
                self._count += len(generation.table)
                return True
        return False

    def _recall_into(self, table: DigestTable, digests: Sequence[bytes]) -> None:
        lower, upper = halves(b"".join(digests))
        doubtful = _repeated(lower) | table.suspects(upper, filter_bits(lower))
        before = len(table)
        table.add_many(lower[~doubtful], upper[~doubtful])
        for index in np.flatnonzero(doubtful).tolist():
            if digests[index] not in table:
                table.add(digests[index])
        self._count += len(table) - before


def _repeated(lower: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values occur more than once."""
    ordered = np.sort(lower)
    twins = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twins):
        return np.zeros(len(lower), np.bool_)
    return np.isin(lower, twins)
