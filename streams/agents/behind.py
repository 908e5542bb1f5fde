"""How far behind METER is, in seconds, from offsets alone: no clock of a broker or a producer has a say in it."""

import asyncio
from collections.abc import Mapping

from streams.clock import elapsed_s

Where = tuple[str, int]
#: Less is what METER has always under way; where it is more, catching up takes longer than anybody waits.
LITTLE_S, MUCH_S = 0.05, 2.0
CATCH_UP_MAX_S, CATCH_UP_POLL_S = 0.25, 0.005


class Behind:
    """What is left to read, by the pace since it was asked for last."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._done: Mapping[Where, int] = {}
        self._lag_s = 0.0

    def lag_s(self, now_s: float, done: Mapping[Where, int], ends: Mapping[Where, int | None]) -> float:
        """Seconds that reading what is left takes; 0.0 where there is no pace to tell it by.

        ``done`` and ``ends``: of each source partition, the next offset to fold, and one past the last that the broker
        had when it was fetched last (None: not known). Partitions that have just come say nothing about the pace.

        >>> behind, here = Behind(), ("usage.events.v1", 0)
        >>> behind.lag_s(0.0, {here: 0}, {here: 1_000}), behind.lag_s(1.0, {here: 200}, {here: 1_000})
        (0.0, 4.0)
        """
        read = sum(offset - self._done[where] for where, offset in done.items() if where in self._done)
        took_s, self._at_s, self._done = now_s - self._at_s, now_s, dict(done)
        left = sum(max(0, (ends.get(where) or 0) - offset) for where, offset in done.items())
        self._lag_s = left * took_s / read if read > 0 else 0.0
        return self._lag_s

    async def caught_up(self) -> None:
        """Wait until little is left, for a moment at most: what can wait lets METER read on where that is soon done."""
        until = elapsed_s() + CATCH_UP_MAX_S
        while LITTLE_S < self._lag_s < MUCH_S and elapsed_s() < until:
            await asyncio.sleep(CATCH_UP_POLL_S)


__all__ = ["Behind"]
