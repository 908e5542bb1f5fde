"""The only clock. The core never reads it; shells pass what it says as ``now``."""

import time
from typing import Protocol


class Clock(Protocol):
    """Says what time it is, in microseconds since 1970."""

    def now(self) -> int:
        """The present instant."""
        ...

    def observe(self, event_time: int) -> None:
        """Learn how far the stream has come."""
        ...


class WallClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def observe(self, event_time: int) -> None:
        """Nothing to learn: the wall does not follow the stream."""


class StreamClock:
    """The newest event time seen is now: a replay pages and throttles as if it were live (``--as-live``)."""

    def __init__(self) -> None:
        self._newest = 0

    def now(self) -> int:
        return self._newest or time.time_ns() // 1_000

    def observe(self, event_time: int) -> None:
        self._newest = max(self._newest, event_time)


def clock_for(kind: str) -> Clock:
    """The clock that the setting ``clock`` names."""
    return StreamClock() if kind == "stream" else WallClock()


def elapsed_s() -> float:
    """Seconds on a clock that never goes back, for measuring intervals only."""
    return time.monotonic()


__all__ = ["Clock", "StreamClock", "WallClock", "clock_for", "elapsed_s"]
