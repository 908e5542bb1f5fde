"""When a forecast is told: a rung with ``on: forecast`` opens a ticket once its projection has stood above it for long.

Level-triggered like the rest of BUDGET: the same values give the same answer, however often they are judged.
"""

from typing import Literal, NamedTuple

import msgspec

from schemas.instants import HOUR
from streams.core.forecast import Projection

#: The projection must have stood above the rung for so long.
STANDS_FOR = 6 * HOUR
#: It is taken back below this part of the rung, in percent of it: between the two nothing changes.
BACK_PERCENT = 95


class Watch(msgspec.Struct, frozen=True, array_like=True):
    """One rung: since when the projection has been above it (0: it is not), and whether that was told."""

    above_since: int = 0
    is_open: bool = False


class Watched(NamedTuple):
    """What follows: the rung as it is now, and what to say, if anything."""

    watch: Watch
    says: Literal["opened", "resolved"] | None = None
    #: Why it is taken back.
    why: str = ""


def watch_forecast(watch: Watch, percent: int, projection: Projection | None, spent_nanos: int, now: int) -> Watched:
    """Judge one rung of one period.

    Without a projection nothing changes: FORECAST has just begun, or cannot tell. ``spent_nanos`` is what BUDGET has
    by now: a rung that spend itself has reached is no forecast any more.
    """
    if projection is None:
        return Watched(watch)
    bar = percent * projection.limit_nanos
    projected = projection.projected_nanos
    if spent_nanos * 100 >= bar:
        return _closed(watch, "it came true")
    if projected is None or projected * 100 * 100 < BACK_PERCENT * bar:
        return _closed(watch, "less will be spent than it looked")
    if watch.is_open:
        return Watched(watch)
    if projected * 100 < bar:
        return Watched(Watch())
    since = watch.above_since or now
    told = projection.foreseen_nanos is not None and now - since >= STANDS_FOR
    return Watched(Watch(since, told), "opened" if told else None)


def _closed(watch: Watch, why: str) -> Watched:
    return Watched(Watch(), "resolved", why) if watch.is_open else Watched(Watch())
