"""Sealed generations of the de-duplication window, kept in a table of their own.

They spare a restart the reading of an hour of usage. What a generation holds follows from the records of the source
partition alone, so whoever writes it writes the same: keys need no writer, a stalled owner does no harm, and where a
piece is missing the generation is rebuilt from the source as if none were there.
"""

from collections.abc import Iterable, Mapping

from streams.core.dedupe import Generation, Mark

#: Digests of one entry: half a megabyte, well below what brokers take.
PIECE = 32_768
_SIZE = 16

Entry = tuple[bytes, bytes | None]


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
