"""Says once, after each assignment, when new events are folded again, and what was read again before that."""

import logging

from streams import metrics
from streams.clock import elapsed_s

logger = logging.getLogger("sluice.restart")

Where = tuple[str, int]


class Resuming:
    """From the first restored partition to the first new event, and to the last partition whose window is rebuilt."""

    def __init__(self) -> None:
        self._began = 0.0
        #: Where the partitions that are still below it were when their last owner ended.
        self._watermarks: dict[Where, int] = {}
        self._read_again = 0
        self._is_first = True

    def restored(self, where: Where, watermark: int) -> None:
        """A partition is ours; it is read from its watermark on, or from below it."""
        if not self._watermarks:
            self._read_again, self._is_first = 0, True
        self._began = elapsed_s()
        if watermark:
            self._watermarks[where] = watermark

    def dropped(self, where: Where) -> None:
        """A partition is not ours any more."""
        self._watermarks.pop(where, None)

    def read(self, where: Where, begin: int, end: int) -> None:
        """Offsets ``[begin, end)`` were folded, or rebuilt the window where they are below the watermark."""
        watermark = self._watermarks.get(where)
        if watermark is None:
            return
        self._read_again += max(0, min(end, watermark) - begin)
        if end <= watermark:
            return
        del self._watermarks[where]
        passed_s = elapsed_s() - self._began
        if self._is_first:
            self._is_first = False
            logger.info("the first new event is folded, %.2f s after METER's table: %s", passed_s, self._so_far())
        if not self._watermarks:
            logger.info("all partitions fold new events, %.2f s after METER's table: %s", passed_s, self._so_far())

    def _so_far(self) -> str:
        return f"{self._read_again:,} earlier ones were read again for the de-duplication window"


def say_lost(slot: str, first: int, count: int) -> None:
    """The broker deleted records by retention before they were read. It is loud, and it cannot be undone here."""
    last = first + count - 1
    advice = "re-import that period's bills"
    logger.error("%s: offsets %d to %d were deleted before they were read; %s", slot, first, last, advice)
    metrics.RECORDS_LOST.inc(count)
