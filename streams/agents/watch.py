"""WATCH's shell: one worker looks at all of the deployment, says what is wrong, and beats for the dead man's switch.

Who it is a lease in PostgreSQL says; the next one takes over what it remembered. Alerts are written before the state
that knows of them: a crash in between repeats them under the same ids. It is never in the way of the money: what fails
here is logged, tried again, and missed outside, since the heartbeat fails with it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from schemas.alerts import Alert, Rule
from schemas.instants import SECOND
from streams import metrics
from streams.agents.keyed import alert_record
from streams.clock import Clock, elapsed_s
from streams.core import watch_heartbeat as verdict
from streams.core.diagnosis import is_well
from streams.core.facts import Bounds, Facts, Finding
from streams.core.watch import WATCH_STATES, WatchState, open_episodes, step
from streams.core.watch_look import KafkaStanding, Look, WatchPolicy, marks_of, slots_of
from streams.core.watch_rhythm import LEARNED_DAYS
from streams.history_ports import StoreError
from streams.transport import Outgoing
from streams.watch_ports import Heartbeat, HeartbeatError, WatchStore

logger = logging.getLogger("sluice.watch")

#: A lease outlives so many rounds.
LEASE_ROUNDS = 4
LEASE_S_MIN = 30.0
#: What changes slowly and is dear to ask for is looked at once in so many rounds.
SLOW_ROUNDS = 4
SAY_S = 15.0


class Watched(NamedTuple):
    """What the watcher works with."""

    store: WatchStore
    kafka: Callable[[], Awaitable[KafkaStanding]]
    #: None: nobody outside is told.
    heartbeat: Heartbeat | None
    #: Names this process among all workers, and the deployment to people.
    holder: str
    name: str


class WatchTimes(NamedTuple):
    """How often, in seconds."""

    interval_s: float = 15.0
    heartbeat_s: float = 60.0
    lease_s_min: float = LEASE_S_MIN


class WatchLoop:
    """Runs on every worker of NOTIFY; only the one that has the lease does anything."""

    def __init__(
        self, watched: Watched, say: Callable[[Sequence[Outgoing]], Awaitable[None]], clock: Clock,
        policy: WatchPolicy, bounds: Bounds, *, epoch: int = 0, times: WatchTimes | None = None,
    ) -> None:  # fmt: skip
        self._outside = watched
        self._say = say
        self._clock = clock
        self._policy = policy
        self._bounds = bounds
        self._epoch = epoch
        self._times = times or WatchTimes()
        self._lease_s = max(self._times.lease_s_min, LEASE_ROUNDS * self._times.interval_s)
        self._term = 0
        self._state: WatchState | None = None
        #: Until when the lease is ours by our own watch; the database may be away meanwhile.
        self._ours_until = 0.0
        self._round = 0
        self._was_well: bool | None = None
        self._failing_since: float | None = None
        self._beat_at = 0.0
        self._beating: asyncio.Task[None] | None = None

    async def run_background(self) -> None:
        """Watch until cancelled; then another may."""
        try:
            while True:
                began = elapsed_s()
                try:
                    await self.round()
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    logger.exception("the deployment could not be looked at")
                    if elapsed_s() < self._ours_until:
                        self._beat(verdict.unseen(repr(error)))
                await asyncio.sleep(max(0.0, self._times.interval_s - (elapsed_s() - began)))
        finally:
            if self._state is not None:
                await asyncio.shield(self._release())

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._outside.store.release(self._outside.holder)
        except (StoreError, TimeoutError):
            logger.warning("the watcher's lease could not be given back; it ends by itself")

    async def round(self) -> None:
        """One look, where this worker is the one to take it."""
        try:
            held = await self._outside.store.take(self._outside.holder, self._lease_s)
        except StoreError as error:
            # Whoever had the lease says so while it lasts; after that the silence does.
            if elapsed_s() < self._ours_until:
                self._beat(verdict.without_database(str(error), self._bounds))
            return
        metrics.WATCHING.set(held is not None)
        if held is None:
            self._state, self._ours_until = None, 0.0
            return
        self._ours_until = elapsed_s() + self._lease_s
        if self._state is None or held.term != self._term:
            self._term = held.term
            self._state = WATCH_STATES.convert(held.state) if held.state is not None else WatchState()
            self._round = 0
            logger.info("this worker watches the deployment")
        began = elapsed_s()
        facts, look = await self._look()
        metrics.WATCH_SECONDS.set(elapsed_s() - began)
        if await self._take(look):
            self._measure(look)
            self._beat(verdict.judged(facts, look, open_episodes(self._state), self._bounds, self._policy))

    async def _look(self) -> tuple[Facts, Look]:
        is_slow = self._round % SLOW_ROUNDS == 0
        self._round += 1
        standing = await self._outside.kafka()
        store, facts, now = self._outside.store, standing.facts, self._clock.now()
        facts.database = "PostgreSQL"
        look = Look(lags=standing.lags, letters=standing.letters)
        try:
            offsets, silent_us = await store.ledger()
            look = look._replace(receivers=await store.owed())
        except StoreError as error:
            facts.database_problem = f"does not do as asked: {error}"
            return facts, look
        if is_slow:
            look = await self._look_slowly(look, now)
        facts.slots = slots_of(facts, offsets, self._epoch)
        facts.ledger_silent_s = None if silent_us is None else silent_us / SECOND
        return facts, look._replace(ledger_silent_us=silent_us, marks=marks_of(facts.slots))

    async def _look_slowly(self, look: Look, now: int) -> Look:
        """What takes long in a large ledger is no sign that the database is away."""
        store = self._outside.store
        try:
            look = look._replace(sources=await store.sources(now, LEARNED_DAYS + 1, self._policy.silence_us))
            unpriced, requests = await store.unpriced(now)
            return look._replace(unpriced=unpriced, requests=requests)
        except StoreError as error:
            logger.warning("sources and prices could not be looked at, and will be: %s", error)
            return look

    async def _take(self, look: Look) -> bool:
        """Step the state, say what follows, keep it; False where another watches by now."""
        assert self._state is not None
        store, holder = self._outside.store, self._outside.holder
        after, said = step(self._state, look, self._clock.now(), self._policy)
        # Asked before anything is said: who was stalled for longer than the lease must not speak.
        if said and not await store.keep(holder, self._term, msgspec.to_builtins(self._state), self._lease_s):
            self._state = None
            return False
        if said:
            self._log(said)
            async with asyncio.timeout(SAY_S):
                await self._say([alert_record(alert) for alert in said])
        if not await store.keep(holder, self._term, msgspec.to_builtins(after), self._lease_s):
            self._state = None
            return False
        self._state = after
        return True

    def _log(self, said: Sequence[Alert]) -> None:
        for alert in said:
            log = logger.info if alert.status == "resolved" else logger.warning
            log("%s %s: %s", alert.rule, alert.status, alert.summary)

    def _measure(self, look: Look) -> None:
        assert self._state is not None
        counts: dict[Rule, int] = {episode.rule: 0 for episode in self._state.episodes.values()}
        for alert in open_episodes(self._state):
            counts[alert.rule] += 1
        for rule, count in counts.items():
            metrics.WATCH_ALERTS.labels(rule=rule).set(count)
        if look.lags is not None:
            metrics.WATCH_LAG_SECONDS.set(max((lag.oldest_us for lag in look.lags), default=0) / SECOND)

    # -- the heartbeat ----------------------------------------------------------------------------------------------

    def _beat(self, findings: Sequence[Finding]) -> None:
        """Say how it is, once an interval, and at once where that has changed: beside everything else."""
        if self._outside.heartbeat is None or (self._beating is not None and not self._beating.done()):
            return
        well, now = is_well(findings), elapsed_s()
        if well:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        if self._failing_since is not None and now - self._failing_since < self._policy.hold_us / SECOND:
            # One look may be unlucky, a rebalance for one: not a beat, and no failure yet.
            return
        if well is self._was_well and now - self._beat_at < self._times.heartbeat_s:
            return
        self._was_well, self._beat_at = well, now
        self._beating = asyncio.create_task(self._send(self._outside.heartbeat, well, findings))

    async def _send(self, heartbeat: Heartbeat, well: bool, findings: Sequence[Finding]) -> None:
        try:
            await heartbeat.beat(well, verdict.body(findings, self._outside.name))
        except HeartbeatError as error:
            logger.warning("the heartbeat was not taken: %s", error)
            # Tried again with the next look.
            self._was_well = None
            metrics.HEARTBEATS.labels(outcome="not_taken").inc()
        except Exception:
            logger.exception("the heartbeat could not be sent")
        else:
            metrics.HEARTBEATS.labels(outcome="well" if well else "failing").inc()
