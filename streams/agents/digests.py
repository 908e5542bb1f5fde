"""Sealed generations of the de-duplication window, kept in a table of their own.

They spare a restart the reading of an hour of usage. What a generation holds follows from the records of the source
partition alone, so whoever writes it writes the same: keys need no writer, a stalled owner does no harm, and where a
piece is missing the generation is rebuilt from the source as if none were there.
"""

import asyncio
from collections.abc import Iterable, Mapping

from streams.core.dedupe import Generation, Mark
from streams.core.meter import PartitionState
from streams.transport import StateTable

#: Digests of one entry: half a megabyte, well below what brokers take.
PIECE = 32_768
_SIZE = 16

Entry = tuple[bytes, bytes | None]
#: METER's states by topic and partition.
States = Mapping[tuple[str, int], PartitionState]


class KeptGenerations:
    """The table of digests beside METER's own, restored after it."""

    def __init__(self, table: StateTable, states: States) -> None:
        self._table, self._states = table, states
        #: What the table holds, by partition.
        self._keys: dict[int, set[bytes]] = {}
        table.on_load = self.load

    def load(self, partition: int, found: dict[bytes, bytes]) -> None:
        """Give the windows their generations that were kept; called once the states are here."""
        self._keys[partition] = set(found)
        windows = {state.source.slot(): state.window for where, state in self._states.items() if where[1] == partition}
        for (slot, mark), generation in found_generations(found).items():
            if slot in windows:
                windows[slot].adopt(mark, [generation])

    async def keep(self, where: tuple[str, int], state: PartitionState) -> None:
        """Keep what was sealed, a generation at a time: one is up to some megabytes."""
        if not state.is_rebuilt:
            return
        keys = self._keys.setdefault(where[1], set())
        for generation in state.window.sealed:
            if not generation.is_kept:
                # In a thread: putting some millions in order takes longer than folding may wait.
                kept = await asyncio.to_thread(kept_entries, state.source.slot(), generation)
                gone = outdated(keys, {state.source.slot(): state.window.marks})
                await self._table.write(where[1], [*kept, *((key, None) for key in gone)])
                keys.update(key for key, _ in kept)
                keys.difference_update(gone)
                generation.is_kept = True
                return


def kept_entries(slot: str, generation: Generation) -> list[Entry]:
    """A generation as entries: ``<slot>|<number>/<length>|<first offset>|<piece>|<pieces>``."""
    digests = generation.table.to_bytes()
    length = PIECE * _SIZE
    pieces = [digests[first : first + length] for first in range(0, len(digests), length)]
    name = generation.mark.name()
    return [(f"{slot}|{name}|{number}|{len(pieces)}".encode(), piece) for number, piece in enumerate(pieces)]


def found_generations(entries: Mapping[bytes, bytes]) -> dict[tuple[str, Mark], bytes]:
    """The whole generations among entries, by slot and mark; those that miss a piece are left out.

    A generation is one piece again: each piece is a narrow range of the digests, which are kept in order, so a table
    that took them in one after the other would crowd each into a few of its slots. 375 000 took 30 s that way, and take
    0.1 s at once.
    """
    pieces: dict[tuple[str, Mark, int], list[bytes]] = {}
    for key, value in entries.items():
        slot, number, first_offset, _, count = key.decode().split("|")
        pieces.setdefault((slot, Mark.named(number, first_offset), int(count)), []).append(value)
    return {(slot, mark): b"".join(found) for (slot, mark, count), found in pieces.items() if len(found) == count}


def outdated(keys: Iterable[bytes], live: Mapping[str, Iterable[Mark]]) -> list[bytes]:
    """The keys of generations that are in no window any more; of slots that are not ``live`` nothing is known."""
    gone = []
    for key in keys:
        slot, number, first_offset, *_ = key.decode().split("|")
        if slot in live and Mark.named(number, first_offset) not in live[slot]:
            gone.append(key)
    return gone
