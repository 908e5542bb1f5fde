"""The de-duplication window of the peers: dicts, the fastest there is for one id at a time.

METER keeps its ids in compact tables that are asked a batch at a time (``streams.core.dedupe``); whoever handles events
one by one would only lose by that. This takes some 150 bytes an id, which counts as each peer's memory.
"""

from streams.core.dedupe import Mark

#: Few, since each is asked in turn for every id.
GENERATIONS = 6


class DictWindow:
    """Ids of one partition with the first offset each was seen at."""

    def __init__(self, window_us: int, ids_max: int) -> None:
        self._length_us = max(1, window_us // GENERATIONS)
        self._window_us = window_us
        self._ids_max = ids_max
        self._marks: list[Mark] = []
        self._ids: list[dict[bytes, int]] = []
        self._count = 0
        #: Generations dropped before their time because ``ids_max`` was reached.
        self.dropped_early = 0

    def __len__(self) -> int:
        return self._count

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

    def _advance(self, number: int, offset: int) -> None:
        self._marks.append(Mark(number, offset))
        self._ids.append({})
        while len(self._marks) > 1 and self._marks[0].number < number - GENERATIONS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._count -= len(self._ids[0])
        del self._marks[0], self._ids[0]
