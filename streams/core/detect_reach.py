"""How far event time has come for a detector scope, whose events come through several source partitions."""

from collections.abc import Mapping

import msgspec

from schemas.instants import HOUR

#: A source that has said nothing for this long holds nothing back any more.
SILENT_US = HOUR


class Reach(msgspec.Struct, frozen=True, array_like=True):
    """The stream time that a source has stated, and what ``now`` was at that moment."""

    stream_time: int
    seen_at: int


def advance(reaches: Mapping[str, Reach], source: str, stream_time: int, now: int) -> dict[str, Reach]:
    """The reaches with what a source has just stated; stream time never goes back.

    >>> advance({"a": Reach(50, 100)}, "a", 40, 101)
    {'a': Reach(stream_time=50, seen_at=100)}
    """
    known = reaches.get(source)
    if known is not None and known.stream_time >= stream_time:
        return dict(reaches)
    return {**reaches, source: Reach(stream_time, now)}


def reached(reaches: Mapping[str, Reach], now: int) -> int:
    """The event time up to which every source has spoken; 0 where none has.

    Event time goes on at the pace of ``now`` after a source's last word, at the distance it had then: an idle
    scope closes its hours on time, and a backlog (whose distance is large) is not closed ahead of itself. The
    slowest source counts, since nothing may be found over while a part is missing, until it has been silent
    for an hour. It never overtakes ``now``, which leaps in a replay when a slow source falls silent.

    >>> reached({"live": Reach(100, 100), "behind": Reach(20, 100)}, now=130)
    50
    >>> reached({"ahead": Reach(100, 20)}, now=110)
    110
    """
    found = [min(now, reach.stream_time + max(0, now - reach.seen_at)) for reach in reaches.values()]
    speaking = [at for at, reach in zip(found, reaches.values(), strict=True) if now - reach.seen_at <= SILENT_US]
    return min(speaking) if speaking else max(found, default=0)


def furthest(reaches: Mapping[str, Reach], now: int) -> int:
    """The event time that some source has come to; it goes on at the pace of ``now``, and never overtakes it.

    >>> furthest({"live": Reach(100, 100), "behind": Reach(20, 100)}, now=130)
    130
    """
    return max((min(now, each.stream_time + max(0, now - each.seen_at)) for each in reaches.values()), default=0)
