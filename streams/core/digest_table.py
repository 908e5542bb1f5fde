"""A set of 128-bit digests in some 40 bytes each, asked and filled a whole batch at a time.

Open addressing with linear probing over two columns of 64 bits, behind a filter of one 64-bit word a digest: an absent
digest, which nearly all are, costs one look at the filter. Digests are given as two ``uint64`` arrays (their halves);
the lower half is never zero, which marks an empty slot.
"""

import numpy as np
from numpy.typing import NDArray

Halves = NDArray[np.uint64]

#: Fuller tables probe longer; emptier ones waste memory.
_LOAD_MAX = 0.62
_SLOTS_MIN = 256
_ONE = np.uint64(1)
_LOW_SIX = np.uint64(63)


def halves(digests: bytes) -> tuple[Halves, Halves]:
    """The lower and upper halves of digests that lie one behind the other, 16 bytes each."""
    both = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    return np.maximum(both[:, 0], _ONE), both[:, 1]


def filter_bits(lower: Halves) -> Halves:
    """The three bits of each digest in its word of a filter; the same for every table."""
    bits = _ONE << (lower & _LOW_SIX)
    bits |= _ONE << ((lower >> np.uint64(6)) & _LOW_SIX)
    bits |= _ONE << ((lower >> np.uint64(12)) & _LOW_SIX)
    return bits


class DigestTable:
    """A growing set of digests."""

    def __init__(self, expected: int = 0) -> None:
        self._count = 0
        self._allocate(max(_SLOTS_MIN, int(expected / _LOAD_MAX) + 1))

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        """What the table occupies."""
        return self._lower.nbytes + self._upper.nbytes + self._filter.nbytes

    def suspects(self, upper: Halves, bits: Halves) -> NDArray[np.bool_]:
        """Which digests may be in the set: every one that is, and less than one in a hundred that are not."""
        words: Halves = self._filter[upper & self._filter_mask]
        found: NDArray[np.bool_] = (words & bits) == bits
        return found

    def __contains__(self, digest: bytes) -> bool:
        lower, upper = _split(digest)
        table, slots = self._lower, self._slots
        slot = ((lower >> 32) * slots) >> 32
        while True:
            found = int(table[slot])
            if not found:
                return False
            if found == lower and int(self._upper[slot]) == upper:
                return True
            slot = slot + 1 if slot + 1 < slots else 0

    def add(self, digest: bytes) -> None:
        """Add one digest that is not in the set."""
        lower, upper = _split(digest)
        if self._count + 1 > self._slots * _LOAD_MAX:
            self.add_many(*halves(digest))
            return
        slots = self._slots
        slot = ((lower >> 32) * slots) >> 32
        while int(self._lower[slot]):
            slot = slot + 1 if slot + 1 < slots else 0
        self._lower[slot], self._upper[slot] = lower, upper
        word = upper & int(self._filter_mask)
        bits = (1 << (lower & 63)) | (1 << (lower >> 6 & 63)) | (1 << (lower >> 12 & 63))
        self._filter[word] = int(self._filter[word]) | bits
        self._count += 1

    def add_many(self, lower: Halves, upper: Halves) -> None:
        """Add digests that are not in the set and differ from each other."""
        count = self._count + len(lower)
        if count > self._slots * _LOAD_MAX:
            old_lower, old_upper = self.digests()
            self._allocate(int(max(count * 1.1, self._count * 1.7) / _LOAD_MAX) + 1)
            self._place(old_lower, old_upper)
        self._place(lower, upper)
        self._count = count

    def digests(self) -> tuple[Halves, Halves]:
        """All digests, as halves, in no particular order."""
        used = self._lower != 0
        return self._lower[used], self._upper[used]

    def to_bytes(self) -> bytes:
        """All digests one behind the other, 16 bytes each; ``halves`` reads them back. Equal sets give equal bytes."""
        lower, upper = self.digests()
        order = np.lexsort((upper, lower))
        return np.column_stack((lower[order], upper[order])).astype("<u8").tobytes()

    def _allocate(self, slots: int) -> None:
        self._slots = slots
        self._lower = np.zeros(slots, np.uint64)
        self._upper = np.zeros(slots, np.uint64)
        words = 1 << max(0, (slots // 4 - 1).bit_length())
        self._filter = np.zeros(words, np.uint64)
        self._filter_mask = np.uint64(words - 1)

    def _place(self, lower: Halves, upper: Halves) -> None:
        np.bitwise_or.at(self._filter, upper & self._filter_mask, filter_bits(lower))
        table = self._lower
        slots = (((lower >> np.uint64(32)) * np.uint64(self._slots)) >> np.uint64(32)).astype(np.int64)
        while len(lower):
            free = table[slots] == 0
            wanted = slots[free]
            # Two digests may want one slot: both write, the last stays, and the other finds out by reading back.
            table[wanted] = lower[free]
            self._upper[wanted] = upper[free]
            won = (table[wanted] == lower[free]) & (self._upper[wanted] == upper[free])
            lost = np.ones(len(lower), np.bool_)
            lost[np.flatnonzero(free)[won]] = False
            lower, upper, slots = lower[lost], upper[lost], slots[lost] + 1
            slots[slots == self._slots] = 0


def _split(digest: bytes) -> tuple[int, int]:
    return int.from_bytes(digest[:8], "little") or 1, int.from_bytes(digest[8:], "little")
