"""Keeps which sources METER hears, minute by minute: what their rhythms are learned from.

It is never in the way of the money: what cannot be stored now is stored with the next, and what a crash takes is a few
seconds of one minute.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from streams.clock import Clock
from streams.core.heard import today
from streams.core.watch_rhythm import LEARNED_DAYS
from streams.history_ports import StoreError
from streams.watch_ports import HeardSources

logger = logging.getLogger("sluice.watch")

INTERVAL_S = 5.0
#: Names that one worker keeps: anybody can invent names.
NAMES_MAX = 2_000

#: A topic, and what was heard in it: masks of minutes by source and day since 1970.
Heard = tuple[str, Mapping[tuple[str, int], int]]
_Key = tuple[str, str, int]


class HeardLoop:
    """What the partitions of this worker hear."""

    def __init__(
        self, take: Callable[[], Sequence[Heard]], store: HeardSources, clock: Clock, interval_s: float = INTERVAL_S
    ) -> None:
        self._take = take
        self._store = store
        self._clock = clock
        self._interval_s = interval_s
        self._known: dict[_Key, int] = {}
        self._news: dict[_Key, int] = {}

    async def run_background(self) -> None:
        """Store what is new, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.keep()
            except StoreError as error:
                logger.warning("which sources are heard cannot be stored, and will be: %r", error)
            except Exception:
                logger.exception("which sources are heard cannot be kept")

    async def keep(self) -> None:
        """Store the minutes that were not stored yet.

        Raises:
            StoreError: the store does not take them now; they are not forgotten.
        """
        day_of_now = today(self._clock.now())
        for topic, masks in self._take():
            for (name, day), mask in masks.items():
                if day_of_now - LEARNED_DAYS <= day <= day_of_now + 1:
                    self._hear((topic, name, day), mask)
        if self._news:
            news = dict(self._news)
            await self._store.hear(news)
            self._news = {}
            for key, mask in news.items():
                self._known[key] = self._known.get(key, 0) | mask
        for key in [key for key in self._known if key[2] < day_of_now - 1]:
            del self._known[key]

    def _hear(self, key: _Key, mask: int) -> None:
        known = self._known.get(key)
        if known is None and len(self._known) + len(self._news) >= 2 * NAMES_MAX:
            return
        if news := mask & ~(known or 0):
            self._news[key] = self._news.get(key, 0) | news
