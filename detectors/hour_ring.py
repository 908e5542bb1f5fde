"""Hourly totals of three weeks in three kilobytes: two days to the nanodollar, what is older to eight digits.

An hour that nobody observed between two known ones spent nothing; None is a hole. Each hour has a mark: whether it was
anomalous, and so says little about what is usual.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from schemas.instants import HOUR

#: Three weeks, and a day, so that an hour corrected late still finds its same hours.
HOURS_KEPT = 22 * 24
#: Hours kept to the nanodollar: what fixed rules compare with.
EXACT = 48
#: What a hole is kept as; no amount is so small.
HOLE = -(2**63)
_OLD_HOLE = -(2**31)
_DIGITS = 8
_POWERS = np.array([10**n for n in range(19)], dtype=np.int64)

Ints = npt.NDArray[np.int64]


class HourRing:
    """Consecutive hours that end before ``end``; grows at its end, and forgets at its beginning."""

    __slots__ = ("_marks", "_nanos", "end")

    def __init__(self) -> None:
        self.end = 0
        self._nanos: Ints = np.empty(0, np.int64)
        self._marks: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    def at(self, hour: int) -> int | None:
        """The total of an hour; None where it is not known."""
        place = self._place(hour)
        if not 0 <= place < len(self._nanos):
            return None
        nanos = int(self._nanos[place])
        return None if nanos == HOLE else nanos

    def known_before(self, hour: int) -> int:
        """How many hours before this one are known."""
        place = self._place(hour)
        known = self._nanos[: max(0, place)]
        quiet = max(0, place - len(self._nanos)) if len(self._nanos) else 0
        return int(np.count_nonzero(known != HOLE)) + quiet

    def recent(self, hour: int) -> tuple[int | None, ...]:
        """The 24 hours before this one, the newest last."""
        place = self._place(hour)
        if len(self._nanos) >= place >= 24:
            return tuple(None if nanos == HOLE else nanos for nanos in self._nanos[place - 24 : place].tolist())
        return tuple(self._at_or_quiet(hour - n * HOUR) for n in range(24, 0, -1))

    def before(self, hour: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The hours before this one, NaN for a hole, and which were anomalous; quiet ones after the last."""
        place = self._place(hour)
        nanos, marks = self._nanos[: max(0, place)], self._marks[: max(0, place)]
        values = np.where(nanos == HOLE, np.nan, nanos.astype(np.float64))
        quiet = min(max(0, place - len(self._nanos)), HOURS_KEPT) if len(self._nanos) else 0
        if quiet:
            values = np.append(values, np.zeros(quiet))[-HOURS_KEPT:]
            marks = np.append(marks, np.zeros(quiet, np.bool_))[-HOURS_KEPT:]
        return values, marks

    def set(self, hour: int, nanos: int | None, is_marked: bool) -> None:
        """Set an hour; one before memory is ignored."""
        value = HOLE if nanos is None else nanos
        if not len(self._nanos):
            self._nanos, self._marks = np.array([value], np.int64), np.array([is_marked])
            self.end = hour + HOUR
            return
        place = self._place(hour)
        if place >= len(self._nanos):
            self._append(hour, place - len(self._nanos), value, is_marked)
        elif place >= 0:
            self._write(place, value, is_marked)
        elif len(self._nanos) - place <= HOURS_KEPT:
            self._nanos = np.concatenate([np.zeros(-place, np.int64), self._nanos])
            self._marks = np.concatenate([np.zeros(-place, np.bool_), self._marks])
            self._write(0, value, is_marked)

    def mark(self, start: int, end: int, is_marked: bool) -> None:
        """Call the hours of ``[start, end)`` anomalous, or not."""
        first, last = max(0, self._place(start)), max(0, self._place(end))
        marks = self._marks.copy()
        marks[first:last] = is_marked
        self._marks = marks

    def lift(self, hour: int, factor: float, instead: int) -> None:
        """Multiply what was before an hour; where the factor is 0, put ``instead`` in its place."""
        place = max(0, self._place(hour))
        old = self._nanos[:place]
        new = np.rint(old * factor) if factor > 0 else np.full(place, float(instead))
        lifted = np.where(old == HOLE, HOLE, np.clip(new, -1e18, 1e18).astype(np.int64))
        self._nanos = np.concatenate([_rounded(lifted), self._nanos[place:]])

    def pack(self) -> tuple[bytes, bytes, bytes]:
        """The older hours in four bytes each, the newest in eight, little-endian, and a bit for each mark."""
        older, recent = self._nanos[:-EXACT], self._nanos[-EXACT:]
        return _codes(older).astype("<i4").tobytes(), recent.astype("<i8").tobytes(), np.packbits(self._marks).tobytes()

    @classmethod
    def unpack(cls, end: int, older: bytes, recent: bytes, marks: bytes) -> Self:
        """The ring that was packed."""
        ring = cls()
        codes = np.frombuffer(older, "<i4").astype(np.int64)
        old = np.where(codes == _OLD_HOLE, HOLE, (codes >> 4) * _POWERS[codes & 15])
        ring._nanos = np.concatenate([old, np.frombuffer(recent, "<i8").astype(np.int64)])
        ring._marks = np.unpackbits(np.frombuffer(marks, np.uint8), count=len(ring._nanos)).astype(np.bool_)
        ring.end = end
        return ring

    def _place(self, hour: int) -> int:
        return len(self._nanos) - (self.end - hour) // HOUR

    def _at_or_quiet(self, hour: int) -> int | None:
        return self.at(hour) if hour < self.end or not len(self._nanos) else 0

    def _append(self, hour: int, gap: int, value: int, is_marked: bool) -> None:
        gap = min(gap, HOURS_KEPT - 1)
        nanos = np.concatenate([self._nanos, np.zeros(gap, np.int64), np.array([value], np.int64)])
        marks = np.concatenate([self._marks, np.zeros(gap, np.bool_), np.array([is_marked])])
        self._nanos, self._marks = nanos[-HOURS_KEPT:], marks[-HOURS_KEPT:]
        # What leaves the exact hours is rounded at once: a restart changes nothing.
        old = slice(max(0, len(self._nanos) - EXACT - gap - 1), max(0, len(self._nanos) - EXACT))
        self._nanos[old] = _rounded(self._nanos[old])
        self.end = hour + HOUR

    def _write(self, place: int, value: int, is_marked: bool) -> None:
        self._nanos, self._marks = self._nanos.copy(), self._marks.copy()
        self._nanos[place], self._marks[place] = value, is_marked
        if place < len(self._nanos) - EXACT:
            self._nanos[place : place + 1] = _rounded(self._nanos[place : place + 1])


def _units(nanos: Ints) -> Ints:
    """The power of ten that leaves eight digits."""
    digits = np.searchsorted(_POWERS, np.abs(nanos), side="right")
    return np.maximum(digits - _DIGITS, 0)


def _rounded(nanos: Ints) -> Ints:
    codes = _codes(nanos)
    return np.where(codes == _OLD_HOLE, HOLE, (codes >> 4) * _POWERS[codes & 15])


def _codes(nanos: Ints) -> Ints:
    """Eight digits and a power of ten in 32 bits."""
    held = np.where(nanos == HOLE, 0, nanos)
    power = _units(held)
    unit = _POWERS[power]
    digits = np.sign(held) * ((np.abs(held) + unit // 2) // unit)
    return np.where(nanos == HOLE, _OLD_HOLE, digits * 16 + power)
