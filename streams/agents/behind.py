"""How far behind METER is, in seconds, from offsets alone: no clock of a broker or a producer has a say in it."""

from collections.abc import Mapping

Where = tuple[str, int]


class Behind:
    """What is left to read, by the pace since it was asked for last."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._done: Mapping[Where, int] = {}

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
        return left * took_s / read if read > 0 else 0.0


__all__ = ["Behind"]
