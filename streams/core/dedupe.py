"""The de-duplication window of one source partition: which (source, id) were seen, and at which offset first.

The window is stream time: ids live in generations, and a generation is dropped whole once the stream has moved on.
After a restart the window is rebuilt by reading the source again from the oldest live generation's first offset, so
a checkpoint is a few integers. What arrives later than the window is counted and flagged, never guessed about.
"""

from hashlib import blake2b

import msgspec

#: The window is kept in this many generations; it is exact to one generation's length.
GENERATIONS = 6


def identity(source: str, event_id: str) -> bytes:
    """128 bits over a CloudEvents identity; the source's length frames it, so no two pairs collide by joining.

    >>> identity("a", "bc") == identity("ab", "c")
    False
    """
    head = source.encode("utf-8", "surrogatepass")
    tail = event_id.encode("utf-8", "surrogatepass")
    return blake2b(b"%d:" % len(head) + head + tail, digest_size=16).digest()


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where a generation begins: its number (stream time / length) and the first offset in it."""

    number: int
    first_offset: int


class DedupeWindow:
    """Ids of one partition with the first offset each was seen at."""

    def __init__(self, window_us: int, ids_max: int, marks: tuple[Mark, ...] = ()) -> None:
        self._length_us = max(1, window_us // GENERATIONS)
        self._window_us = window_us
        self._ids_max = ids_max
        self._marks: list[Mark] = list(marks)
        self._ids: list[dict[bytes, int]] = [{} for _ in marks]
        self._count = 0
        #: Generations dropped before their time because ``ids_max`` was reached.
        self.dropped_early = 0

    def __len__(self) -> int:
        return self._count

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The checkpoint: what a successor needs to rebuild this window from the source."""
        return tuple(self._marks)

    @property
    def rebuild_from(self) -> int | None:
        """The first offset a rebuild has to read; None for an empty window."""
        return self._marks[0].first_offset if self._marks else None

    def is_late(self, event_time: int, stream_time: int) -> bool:
        """Whether an event is older than what the window can vouch for."""
        return event_time < stream_time - self._window_us

    def first_seen(self, digest: bytes, offset: int, stream_time: int) -> bool:
        """Remember the id; True for its first record (also when that very record is read again)."""
        number = stream_time // self._length_us
        marks = self._marks
        if not marks or number > marks[-1].number:
            self._advance(number, offset)
        for ids in self._ids:
            known = ids.get(digest)
            if known is not None:
                return known == offset
        self._ids[-1][digest] = offset
        self._count += 1
        if self._count > self._ids_max and len(self._ids) > 1:
            self._drop_oldest()
            self.dropped_early += 1
        return True

    def recall(self, digest: bytes, offset: int) -> None:
        """Rebuild: put an id back into the generation that its offset belongs to."""
        for mark, ids in zip(reversed(self._marks), reversed(self._ids), strict=True):
            if offset >= mark.first_offset:
                if not any(digest in other for other in self._ids):
                    ids[digest] = offset
                    self._count += 1
                return

    def _advance(self, number: int, offset: int) -> None:
        self._marks.append(Mark(number, offset))
        self._ids.append({})
        while len(self._marks) > 1 and self._marks[0].number < number - GENERATIONS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._count -= len(self._ids[0])
        del self._marks[0], self._ids[0]
