"""Events on disk until the broker has them: append-only segments, a cursor, and nothing else. No broker, no event loop.

What ``append`` returned survives the end of the process at any instant, ``kill -9`` included: it is with the kernel.
What ``sync`` was called after survives the end of the machine. A record that was torn at the end is dropped when the
folder is opened again; one that is damaged elsewhere costs the rest of its segment, counted in ``lost``.

A segment is named by its first position; each record is its length, its CRC-32 and its bytes. The cursor is the first
position that is not acknowledged. Should it be damaged, all that is there counts as unacknowledged: told twice rather
than never.
"""

import fcntl
import logging
import os
import struct
from pathlib import Path
from typing import Self
from zlib import crc32

log = logging.getLogger(__name__)

MAGIC = b"SLUICEJ1"
_FRAME = struct.Struct("<II")
_CURSOR = struct.Struct("<QI")
SEGMENT, CURSOR, LOCK = ".segment", "acknowledged", "lock"
#: Slots of one folder: as many processes may share it.
SLOTS_MAX = 256


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


class JournalFullError(JournalError):
    """As many bytes wait as may wait."""


class _Segment:
    """One file of records. ``count`` and ``size`` are of what can be read."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.count = 0
        self.size = len(MAGIC)

    @property
    def end(self) -> int:
        return self.first + self.count


class Journal:
    """A folder of unacknowledged records, for one process at a time; ``Journal.claim`` finds a free one."""

    def __init__(self, folder: Path, *, bytes_max: int, segment_bytes: int) -> None:
        self.folder = folder
        self._bytes_max = bytes_max
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._active = self._cursor_file = self._lock = -1
        self._is_synced = True
        #: The first position that is not acknowledged.
        self.acknowledged = 0
        #: Where ``read`` goes on: a segment, an offset in it, and the position of the record there.
        self._reading: tuple[_Segment, int, int] | None = None
        #: Records that were damaged and are gone.
        self.lost = 0
        self.bytes = 0

    @classmethod
    def claim(cls, folder: Path, *, bytes_max: int = 1 << 30, segment_bytes: int = 8 << 20) -> tuple[Self, list[Self]]:
        """A journal of this process alone, and those that ended processes left with something in them.

        Raises:
            JournalError: the folder cannot be written, or is used by too many.
        """
        own: Self | None = None
        left: list[Self] = []
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for slot in range(SLOTS_MAX):
                place = folder / str(slot)
                if own is not None and not place.exists():
                    break
                one = cls(place, bytes_max=bytes_max, segment_bytes=segment_bytes)
                if own is None and one.open():
                    own = one
                elif own is not None and any(place.glob(f"*{SEGMENT}")) and one.open():
                    left.append(one)
        except OSError as error:
            raise JournalError(f"{folder} cannot be used for waiting events: {error}") from error
        if own is None:
            raise JournalError(f"{folder} is used by {SLOTS_MAX} processes: give each gateway a folder of its own")
        return own, left

    @property
    def end(self) -> int:
        """The position that the next record gets."""
        return self._segments[-1].end

    @property
    def unread(self) -> int:
        """Records that ``read`` has not given yet."""
        return 0 if self._reading is None else self.end - self._reading[2]

    def open(self) -> bool:
        """Take the folder and find what is in it; False where another process has it.

        Raises:
            JournalError: something there was not written by this; OSError: the disk refuses.
        """
        self.folder.mkdir(exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            return False
        self._cursor_file = os.open(self.folder / CURSOR, os.O_RDWR | os.O_CREAT, 0o600)
        self.acknowledged = self._read_cursor()
        self._find_segments()
        self._begin_segment()
        self._seek()
        return True

    def append(self, record: bytes) -> int:
        """Keep a record; returns its position.

        Raises:
            JournalFullError: there is no room for it; OSError: the disk refuses. Nothing is kept then.
        """
        size = _FRAME.size + len(record)
        if self.bytes + size > self._bytes_max:
            raise JournalFullError(f"{self.bytes:,} bytes wait in {self.folder}, of {self._bytes_max:,} that may")
        active = self._segments[-1]
        if active.size + size > self._segment_bytes and active.count:
            self._rotate()
            active = self._segments[-1]
        frame = _FRAME.pack(len(record), crc32(record)) + record
        try:
            written = os.write(self._active, frame)
            if written != len(frame):
                raise OSError(28, "the disk is full")
        except OSError:
            os.ftruncate(self._active, active.size)
            raise
        position = active.end
        active.count += 1
        active.size += size
        self.bytes += size
        self._is_synced = False
        if self._reading is None:
            self._reading = (active, active.size - size, position)
        return position

    def skip(self) -> None:
        """Take all that is there as read."""
        self._reading = None

    def read(self, limit: int) -> list[tuple[int, bytes]]:
        """The next records in order, with their positions; each is given once in the life of this object."""
        found: list[tuple[int, bytes]] = []
        while self._reading is not None and len(found) < limit:
            segment, offset, position = self._reading
            with segment.path.open("rb") as file:
                file.seek(offset)
                while len(found) < limit and position < segment.end:
                    length, _ = _FRAME.unpack(file.read(_FRAME.size))
                    found.append((position, file.read(length)))
                    position += 1
                self._reading = (segment, file.tell(), position)
            if position == segment.end:
                following = self._segments.index(segment) + 1
                after = self._segments[following] if following < len(self._segments) else None
                self._reading = (after, len(MAGIC), after.first) if after is not None and after.count else None
        return found

    def acknowledge(self, before: int) -> None:
        """Every record before this position is delivered and need not be kept. Raises OSError."""
        if before <= self.acknowledged:
            return
        self.acknowledged = before
        packed = before.to_bytes(8, "little")
        os.pwrite(self._cursor_file, _CURSOR.pack(before, crc32(packed)), 0)
        while len(self._segments) > 1 and self._segments[0].end <= before:
            self._remove(self._segments.pop(0))

    def unsynced(self) -> int | None:
        """A file to be given to ``os.fdatasync`` (which may take long) and closed; None: all is on the disk itself."""
        if self._is_synced:
            return None
        self._is_synced = True
        return os.dup(self._active)

    def sync(self) -> None:
        """Bring what was appended to the disk itself."""
        if not self._is_synced:
            os.fdatasync(self._active)
            self._is_synced = True

    def close(self) -> None:
        """Let go of the folder; what is not acknowledged stays."""
        if self._active >= 0:
            self.sync()
        if self._segments and self.acknowledged >= self.end:
            for segment in self._segments:
                self._remove(segment)
        for file in (self._active, self._cursor_file, self._lock):
            if file >= 0:
                os.close(file)
        self._active = self._cursor_file = self._lock = -1

    def _read_cursor(self) -> int:
        found = os.pread(self._cursor_file, _CURSOR.size, 0)
        if len(found) == _CURSOR.size:
            position, check = _CURSOR.unpack(found)
            if crc32(found[:8]) == check:
                return int(position)
        if found:
            log.error("the cursor in %s is damaged: everything that waits there is sent again", self.folder)
        return 0

    def _find_segments(self) -> None:
        paths = sorted(path for path in self.folder.glob(f"*{SEGMENT}") if path.stem.isdecimal())
        found = [_Segment(path, int(path.stem)) for path in paths]
        for place, segment in enumerate(found):
            following = found[place + 1].first if place + 1 < len(found) else None
            if following is not None and following <= self.acknowledged:
                segment.path.unlink()
                continue
            _measure(segment)
            rest = segment.path.stat().st_size - segment.size
            if rest > 0:
                os.truncate(segment.path, segment.size)
                log.warning("%d torn or damaged bytes at the end of %s are dropped", rest, segment.path)
            if following is not None and segment.end < following:
                self.lost += following - segment.end
                log.error("%d damaged records in %s are lost", following - segment.end, segment.path)
            self._segments.append(segment)
            self.bytes += segment.size

    def _begin_segment(self) -> None:
        """Go on in the last segment; begin one where there is none, or where it ends before the cursor."""
        if not self._segments or self._segments[-1].end < self.acknowledged:
            self._add_segment(self.acknowledged)
        else:
            last = self._segments[-1]
            self._active = _opened(last.path)
            self.bytes += max(len(MAGIC) - last.size, 0)
            last.size = max(len(MAGIC), last.size)

    def _rotate(self) -> None:
        full = self._active
        self._add_segment(self.end)
        try:
            os.fdatasync(full)
        finally:
            os.close(full)
        while len(self._segments) > 1 and self._segments[0].end <= self.acknowledged:
            self._remove(self._segments.pop(0))

    def _add_segment(self, first: int) -> None:
        segment = _Segment(self.folder / f"{first:020d}{SEGMENT}", first)
        self._active = _opened(segment.path)
        self._segments.append(segment)
        self.bytes += segment.size

    def _seek(self) -> None:
        """Reading begins at the first record that is not acknowledged."""
        for segment in self._segments:
            if segment.end > self.acknowledged and segment.count:
                offset, position = len(MAGIC), segment.first
                with segment.path.open("rb") as file:
                    while position < self.acknowledged:
                        file.seek(offset)
                        offset += _FRAME.size + _FRAME.unpack(file.read(_FRAME.size))[0]
                        position += 1
                self._reading = (segment, offset, position)
                return

    def _remove(self, segment: _Segment) -> None:
        segment.path.unlink(missing_ok=True)
        self.bytes -= segment.size


def _opened(path: Path) -> int:
    """A segment to append to, with its first bytes written; none is left open where that fails."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size < len(MAGIC):
            os.ftruncate(file, 0)
            if os.write(file, MAGIC) != len(MAGIC):
                raise OSError(28, "the disk is full")
    except OSError:
        os.close(file)
        raise
    return file


def _measure(segment: _Segment) -> None:
    """Find how many records of a segment are whole."""
    with segment.path.open("rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):
                segment.size = len(magic)  # Its process ended while it began it.
                return
            raise JournalError(f"{segment.path} was not written by this release: move the folder away, or upgrade")
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            length, check = _FRAME.unpack(frame)
            record = file.read(length)
            if len(record) != length or crc32(record) != check:
                return
            segment.count += 1
            segment.size += _FRAME.size + length
