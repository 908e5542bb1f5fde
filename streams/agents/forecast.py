"""FORECAST's shell: every minute, where the budgets of this worker stand; and what that makes of their futures.

It reads the standings that BUDGET keeps, and so follows its partitions. What it learns is stored in the ledger's
database about once an hour for each budget: a successor begins with that, and takes what was spent since as one amount
over the time since. It is never in the way: where the database is away, it goes on from memory and stores later.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from zlib import crc32

import msgspec

from schemas.instants import DAY, HOUR, MINUTE, hour_of
from streams import metrics
from streams.agents.forecast_rows import rows_of
from streams.agents.shell import fail_stop
from streams.clock import Clock, elapsed_s
from streams.core.forecast import Projection, Standing
from streams.core.forecast_state import FORECAST_STATES, Forecaster, new_forecaster
from streams.history_ports import ForecastRow, Forecasts, Outcome, StoredForecast, StoreError

logger = logging.getLogger("sluice.forecast")

INTERVAL_S = 60.0
#: A projection is good for so long; after that nobody is told of it any more.
FRESH_US = 15 * MINUTE
#: Beyond so many (budget, value) pairs of one worker no further ones are followed.
FOLLOWED_MAX = 20_000
#: Histories that are read from the ledger in one round, and how far back they go.
BACKFILLS_A_ROUND = 20
BACKFILL_US = 28 * DAY
LOADED_AT_ONCE = 500
#: BUDGET shares the event loop: a gate's command must not wait for a forecast for longer than this.
TURN_S = 0.005
_encode = msgspec.json.Encoder().encode

Key = tuple[str, str]
#: What each budget matches; None: it is not defined any more.
MatchOf = Callable[[Key], Sequence[tuple[str, str]] | None]


class _Turns:
    """Lets others have theirs, often enough."""

    def __init__(self) -> None:
        self._since = elapsed_s()

    async def give(self) -> None:
        """Wait a turn, if it is time."""
        if elapsed_s() - self._since > TURN_S:
            await asyncio.sleep(0)
            self._since = elapsed_s()


class ForecastLoop:
    """The forecasts of all budgets whose states live on this worker's partitions."""

    def __init__(
        self,
        standings: Callable[[int], Iterable[Standing]],
        match_of: MatchOf,
        store: Forecasts,
        clock: Clock,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._standings = standings
        self._match_of = match_of
        self._store = store
        self._clock = clock
        self._interval_s = interval_s
        self._known: dict[Key, Forecaster] = {}
        self._projections: dict[Key, Projection] = {}
        self._stored_at: dict[Key, int] = {}
        #: What was last said of each budget, method and point.
        self._said: dict[Key, Mapping[str, ForecastRow]] = {}
        self._to_backfill: dict[Key, None] = {}
        self._outcomes: list[Outcome] = []
        self._swept_at = 0

    def projected(self, budget_id: str, value: str, now: int) -> Projection | None:
        """What was last said of a budget; None where nothing can be said, or nothing was for a quarter of an hour."""
        found = self._projections.get((budget_id, value))
        return found if found is not None and now - found.at <= FRESH_US else None

    def foreseen(self, budget_id: str, value: str, now: int) -> int | None:
        """What forecast thresholds go by, in nanodollars; None until three days of spend are known."""
        found = self.projected(budget_id, value, now)
        return None if found is None else found.foreseen_nanos

    async def run_background(self) -> None:
        """Refresh once a minute."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.refresh()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop("FORECAST", error)

    async def refresh(self) -> None:
        """Learn where every budget stands, say what will be, and store what is new."""
        began, now = elapsed_s(), self._clock.now()
        turns = _Turns()
        standings: dict[Key, Standing] = {}
        for standing in self._standings(now):
            standings[standing.budget_id, standing.value] = standing
            await turns.give()
        for key in self._known.keys() - standings.keys():
            self._forget(key)
        await self._meet([key for key in standings if key not in self._known])
        rows: list[ForecastRow] = []
        states: list[StoredForecast] = []
        for key, standing in standings.items():
            forecaster = self._known.get(key)
            if forecaster is None:
                continue
            forecaster.learn(standing, now)
            projection = self._projections[key] = forecaster.project(standing, now)
            self._outcomes += [Outcome(*key, start, nanos, held) for start, nanos, held in forecaster.take_outcomes()]
            rows += self._fresh(key, standing, projection)
            if now - self._stored_at.get(key, -HOUR) >= HOUR:
                states.append(StoredForecast(*key, forecaster.at, _encode(forecaster.state())))
            await turns.give()
        await self._keep(states, rows, now)
        await self._backfill(now)
        metrics.FORECASTS.set(len(self._projections))
        metrics.FORECAST_SECONDS.set(elapsed_s() - began)

    def _forget(self, key: Key) -> None:
        """Another worker has it now, or it is defined no more."""
        del self._known[key]
        self._projections.pop(key, None)
        self._stored_at.pop(key, None)
        self._said.pop(key, None)
        self._to_backfill.pop(key, None)

    async def _meet(self, unknown: list[Key]) -> None:
        """Load what was learned of budgets that are new here."""
        room = FOLLOWED_MAX - len(self._known)
        if len(unknown) > room:
            logger.warning("%d budgets and values are not forecast: %d are followed", len(unknown) - room, FOLLOWED_MAX)
        unknown = sorted(unknown)[: max(0, room)]
        turns = _Turns()
        for first in range(0, len(unknown), LOADED_AT_ONCE):
            some = unknown[first : first + LOADED_AT_ONCE]
            try:
                found = await self._store.load(some)
            except StoreError as error:
                logger.warning("what was learned cannot be loaded, and will be in a minute: %r", error)
                return
            for key in some:
                stored = found.get(key)
                self._known[key] = Forecaster(FORECAST_STATES.decode(stored)) if stored else new_forecaster(*key)
                if stored is None:
                    self._to_backfill[key] = None
                await turns.give()

    def _fresh(self, key: Key, standing: Standing, projection: Projection) -> list[ForecastRow]:
        """The rows that say something else than the last ones."""
        last = self._said.get(key, {})
        fresh = [row for row in rows_of(standing, projection) if _is_news(last.get(row.method), row)]
        self._said[key] = {**last, **{row.method: row for row in fresh}}
        return fresh

    async def _keep(self, states: list[StoredForecast], rows: list[ForecastRow], now: int) -> None:
        outcomes, self._outcomes = self._outcomes, []
        try:
            await self._store.keep(states, rows, outcomes)
            if now - self._swept_at >= DAY:
                await self._store.forget(now)
                self._swept_at = now
        except StoreError as error:
            logger.warning("forecasts cannot be stored, and will be in a minute: %r", error)
            self._outcomes += outcomes
            self._said.clear()
            return
        for state in states:
            key = (state.budget_id, state.value)
            # Each at a minute of its own, so that no minute has them all.
            self._stored_at[key] = hour_of(now) + crc32("|".join(key).encode()) % 60 * MINUTE
            if self._stored_at[key] > now:
                self._stored_at[key] -= HOUR

    async def _backfill(self, now: int) -> None:
        """Read the hours before a new budget was there from the ledger, a few budgets at a time."""
        for key in list(self._to_backfill)[:BACKFILLS_A_ROUND]:
            match = self._match_of(key)
            try:
                hours = None if match is None else await self._store.hourly_spend(match, now - BACKFILL_US, now)
            except StoreError as error:
                logger.warning("the history of budget %s cannot be read: %r", key[0], error)
                return
            self._to_backfill.pop(key, None)
            if hours and key in self._known:
                self._known[key].know(hours, now)


def _is_news(last: ForecastRow | None, row: ForecastRow) -> bool:
    """Whether a row is at another point of the period, or differs by more than a thousandth from the last one."""
    if last is None or (last.at, last.period_start, last.is_best) != (row.at, row.period_start, row.is_best):
        return True
    if (last.exhausts_at is None) != (row.exhausts_at is None) or last.limit_nanos != row.limit_nanos:
        return True
    if last.exhausts_at is not None and row.exhausts_at is not None and abs(last.exhausts_at - row.exhausts_at) > HOUR:
        return True
    return any(
        abs(getattr(last, name) - getattr(row, name)) * 1_000 > abs(getattr(last, name))
        for name in ("projected_nanos", "spent_nanos")
    )
