"""The gateway's own clock, used wherever a caller passes no ``now``."""

import time


def now_micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def elapsed_s() -> float:
    """Seconds on a clock that never goes back, for measuring intervals only."""
    return time.monotonic()
