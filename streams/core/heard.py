"""Which sources were heard, in which minutes: what METER notices of them in passing.

A minute is one of arrival, so that a replay of old events shows who sends now. Noticing costs a look into a dictionary
per call; everything else is done once for each minute and source.
"""

from collections.abc import Mapping

from schemas.instants import DAY
from streams.core.watch_rhythm import DAY_MINUTES, source_name

_MINUTE_MS = 60_000
#: Sources of one partition between two takings: anybody can invent names.
SOURCES_MAX = 5_000


class SourcesHeard:
    """The sources of one partition since they were last taken."""

    __slots__ = ("_minutes",)

    def __init__(self) -> None:
        self._minutes: dict[int, dict[bytes, None]] = {}

    def at(self, timestamp_ms: int) -> dict[bytes, None]:
        """Where to put a source that was heard in this minute: ``heard.at(record.timestamp)[source] = None``."""
        minute = timestamp_ms // _MINUTE_MS
        found = self._minutes.get(minute)
        if found is None:
            found = self._minutes[minute] = {}
        elif len(found) > SOURCES_MAX:
            found.clear()
        return found

    def take(self) -> Mapping[tuple[str, int], int]:
        """What was heard, by source and day since 1970: a mask of its minutes. It begins anew."""
        taken, self._minutes = self._minutes, {}
        masks: dict[tuple[str, int], int] = {}
        for minute, sources in taken.items():
            day, place = divmod(minute, DAY_MINUTES)
            for source in sources:
                key = source_name(source.decode("utf-8", "replace")), day
                masks[key] = masks.get(key, 0) | 1 << place
        return masks


def today(now: int) -> int:
    """The day since 1970 that holds an instant in microseconds."""
    return now // DAY
