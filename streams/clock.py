"""The only clock. The core never reads it; shells pass what it says as ``now``."""

import time
from collections.abc import Callable
from typing import Protocol

#: A source that has not come further for this long (real seconds) holds a stream clock back no more.
SILENT_S = 3.0
#: So long a stream clock waits for the other sources, once it has heard the first.
GATHERING_S = 2.0
#: Longer pauses between two looks at it are this process's own: they say nothing of anybody's silence.
PAUSE_S = 0.5


class Clock(Protocol):
    """Says what time it is, in microseconds since 1970."""

    def now(self) -> int:
        """The present instant."""
        ...

    def observe(self, event_time: int, source: str = "") -> None:
        """Learn how far a source of the stream has come."""
        ...


class WallClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def observe(self, event_time: int, source: str = "") -> None:
        """Nothing to learn: the wall does not follow the stream."""


class StreamClock:
    """Event time is now: a replay pages and throttles as if it were live (``--as-live``).

    Now is how far the slowest source has come, of those that still come further. Partitions of a replay drift apart
    by hours of event time, and the fastest one must not end the others' hours and periods before they are read. Silence
    is counted while this process runs: after a pause all sources seem silent but the one that is heard first.
    """

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._looked_at = elapsed()
        #: Seconds that this process was awake.
        self._awake_s = 0.0
        #: When the first source was heard, and the least that was heard since, while others are waited for.
        self._began_s: float | None = None
        self._gathered = 0
        #: ``{source: (how far it has come, when it came there)}``.
        self._heard: dict[str, tuple[int, float]] = {}
        self._now = 0

    def now(self) -> int:
        """Never goes back; the machine's time until anything was observed."""
        awake_s = self._awake()
        if self._began_s is not None and awake_s - self._began_s < GATHERING_S:
            self._now = max(self._now, self._gathered)
        elif self._heard:
            since = awake_s - SILENT_S
            moving = [at for at, heard in self._heard.values() if heard >= since]
            found = min(moving) if moving else max(at for at, _ in self._heard.values())
            self._now = max(self._now, found)
        return self._now or time.time_ns() // 1_000

    def observe(self, event_time: int, source: str = "") -> None:
        """Only what comes further counts: late events and repetitions say nothing of the present."""
        known = self._heard.get(source)
        if event_time <= (known[0] if known else 0):
            return
        awake_s = self._awake()
        if known is None:
            self._gathered = min(self._gathered, event_time) if self._heard else event_time
            self._began_s = awake_s if self._began_s is None else self._began_s
        self._heard[source] = event_time, awake_s

    def _awake(self) -> float:
        looked_at, self._looked_at = self._looked_at, self._elapsed()
        self._awake_s += min(self._looked_at - looked_at, PAUSE_S)
        return self._awake_s


def clock_for(kind: str) -> Clock:
    """The clock that the setting ``clock`` names."""
    return StreamClock() if kind == "stream" else WallClock()


def elapsed_s() -> float:
    """Seconds on a clock that never goes back, for measuring intervals only."""
    return time.monotonic()


def worked_s() -> float:
    """Processor seconds that this thread has used: other than time that passes, they do not grow while it waits for a
    core."""
    return time.thread_time()


__all__ = ["Clock", "StreamClock", "WallClock", "clock_for", "elapsed_s", "worked_s"]
