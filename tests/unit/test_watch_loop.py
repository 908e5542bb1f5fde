"""The watcher's shell: one of many workers, nothing said twice, and a heartbeat that is missed where it should be."""

import asyncio

import msgspec
import pytest

from schemas.alerts import Alert
from schemas.instants import MINUTE, SECOND
from schemas.topics import USAGE_EVENTS
from streams.agents.heard import HeardLoop
from streams.agents.watch import Watched, WatchLoop, WatchTimes
from streams.core.watch_heartbeat import bounds_of
from streams.core.watch_look import KafkaStanding, TopicLag, WatchPolicy
from streams.history_ports import StoreError
from streams.watch_ports import HeartbeatError, Held
from tests.unit.records import NOON
from tests.unit.test_diagnosis import well

POLICY = WatchPolicy(hold_us=0, settle_us=0)
BOUNDS = bounds_of(POLICY, 4, "k1:9092,k2:9092")


class World:
    """A deployment in memory: the store, Kafka, the address outside, and the time; shared by its workers."""

    def __init__(self):
        self.now_us = NOON
        self.lag_s = 0
        self.holder = ""
        self.term = 0
        self.kept = None
        self.database_is_away = False
        self.takes_over_while_saying = ""
        self.is_slow = False
        self.refuses_beats = False
        self.refuses_alerts = False
        self.alerts: list[Alert] = []
        self.beats: list[tuple[bool, str]] = []

    # the clock
    def now(self):
        return self.now_us

    # the store
    def _answer(self):
        if self.database_is_away:
            raise StoreError("connection refused")

    async def take(self, holder, lease_s):
        self._answer()
        if self.holder not in ("", holder):
            return None
        self.term += self.holder != holder
        self.holder = holder
        return Held(self.term, self.kept)

    async def keep(self, holder, term, state, lease_s):
        self._answer()
        if (holder, term) != (self.holder, self.term):
            return False
        self.kept = msgspec.json.decode(msgspec.json.encode(state))
        return True

    async def release(self, holder):
        self._answer()
        self.holder = "" if self.holder == holder else self.holder

    async def ledger(self):
        self._answer()
        return {}, SECOND

    async def sources(self, now, days, silent_us):
        if self.is_slow:
            raise StoreError("TimeoutError()")
        return []

    async def unpriced(self, now):
        return [], {}

    async def owed(self):
        self._answer()
        return []

    # Kafka
    async def look(self):
        if self.takes_over_while_saying:
            self.holder, self.term = self.takes_over_while_saying, self.term + 1
        return KafkaStanding(well(), [TopicLag("sluice", USAGE_EVENTS, 1, self.lag_s * SECOND)], [])

    async def say(self, records):
        if self.refuses_alerts:
            raise ConnectionError("the broker is away")
        self.alerts += [msgspec.json.decode(record.value, type=Alert) for record in records]

    # outside
    async def beat(self, is_well, body):
        if self.refuses_beats:
            raise HeartbeatError("it answered 500")
        self.beats.append((is_well, body))

    async def close(self):
        pass

    def worker(self, name, *, heartbeat=True, heartbeat_s=0.0):
        watched = Watched(self, self.look, self if heartbeat else None, name, "sluice")
        times = WatchTimes(0.01, heartbeat_s)
        return WatchLoop(watched, self.say, self, POLICY, BOUNDS, times=times)

    async def rounds(self, *workers, times=1):
        for _ in range(times):
            for worker in workers:
                await worker.round()
                # The heartbeat goes out beside the round.
                for _ in range(3):
                    await asyncio.sleep(0)
            self.now_us += 15 * SECOND


async def test_of_three_workers_one_watches_and_says_it_once():
    world = World()
    workers = [world.worker(name) for name in "abc"]
    await world.rounds(*workers)
    world.lag_s = 90
    await world.rounds(*workers, times=5)
    assert [(alert.rule, alert.status) for alert in world.alerts] == [("pipeline_lag", "opened")]
    assert world.holder == "a"
    assert len(world.beats) == 6


async def test_the_next_one_goes_on_from_what_the_last_one_knew():
    world = World()
    first, second = world.worker("a"), world.worker("b")
    world.lag_s = 90
    await world.rounds(first, second, times=2)
    world.holder = ""  # the lease of "a" ran out
    await world.rounds(second, times=2)
    world.lag_s = 0
    await world.rounds(second, first, times=2)
    assert [(alert.status, alert.episode) for alert in world.alerts] == [("opened", 1), ("resolved", 1)]


async def test_whoever_lost_the_lease_while_it_looked_says_nothing():
    world = World()
    worker = world.worker("a")
    await world.rounds(worker)
    world.lag_s, world.takes_over_while_saying = 90, "b"
    await world.rounds(worker, times=3)
    assert world.alerts == []
    assert len(world.beats) == 1


async def test_what_could_not_be_said_is_said_by_the_next_round_under_the_same_id():
    world = World()
    worker = world.worker("a")
    world.lag_s, world.refuses_alerts = 90, True
    with pytest.raises(ConnectionError):
        await worker.round()
    world.refuses_alerts = False
    await world.rounds(worker, times=3)
    assert [alert.status for alert in world.alerts] == ["opened"]


async def test_a_worker_that_stops_lets_another_watch_at_once():
    world = World()
    task = asyncio.create_task(world.worker("a").run_background())
    async with asyncio.timeout(10):
        while not world.beats:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.holder == ""


async def test_the_heartbeat_says_at_once_that_something_fails_and_that_it_is_well_again():
    world = World()
    worker = world.worker("a", heartbeat_s=3_600.0)
    await world.rounds(worker, times=3)
    world.lag_s = 400
    await world.rounds(worker, times=3)
    world.lag_s = 0
    await world.rounds(worker, times=3)
    assert [is_well for is_well, _ in world.beats] == [True, False, True]
    assert "FAIL watch: 1 alerts about Sluice itself are open" in world.beats[1][1]


async def test_while_the_database_is_away_the_one_that_watched_says_so_and_the_others_are_silent():
    world = World()
    first, second = world.worker("a"), world.worker("b")
    await world.rounds(first, second)
    world.database_is_away = True
    await world.rounds(first, second, times=3)
    assert [is_well for is_well, _ in world.beats] == [True, False, False, False]
    assert world.beats[1][1].splitlines()[1].startswith("FAIL database: PostgreSQL does not answer: connection refused")
    assert "FAIL broker" not in world.beats[1][1]


async def test_a_question_that_takes_long_is_asked_again_and_no_failure():
    world = World()
    worker = world.worker("a")
    world.is_slow = True
    await world.rounds(worker, times=5)
    assert {is_well for is_well, _ in world.beats} == {True}


async def test_a_heartbeat_that_is_not_taken_is_tried_with_the_next_look():
    world = World()
    worker = world.worker("a", heartbeat_s=3_600.0)
    world.refuses_beats = True
    await world.rounds(worker)
    world.refuses_beats = False
    await world.rounds(worker, times=3)
    assert [is_well for is_well, _ in world.beats] == [True]


async def test_nobody_outside_is_told_where_no_address_is_set():
    world = World()
    await world.rounds(world.worker("a", heartbeat=False), times=3)
    assert world.beats == []


# -- which sources are heard ------------------------------------------------------------------------------------------


class Hearing:
    """What METER heard, and a store that may be away."""

    def __init__(self):
        self.heard = []
        self.stored = []
        self.is_away = False

    def now(self):
        return NOON

    def take(self):
        taken, self.heard = self.heard, []
        return taken

    async def hear(self, heard):
        if self.is_away:
            raise StoreError("connection refused")
        self.stored.append(dict(heard))


TODAY = NOON // (24 * 60 * MINUTE)


async def test_only_new_minutes_are_stored_and_none_is_lost_while_the_database_is_away():
    hearing = Hearing()
    loop = HeardLoop(hearing.take, hearing, hearing)
    hearing.heard = [("t", {("//a", TODAY): 0b01}), ("t", {("//a", TODAY): 0b10, ("//b", TODAY): 1})]
    hearing.is_away = True
    with pytest.raises(StoreError):
        await loop.keep()
    hearing.is_away = False
    await loop.keep()
    hearing.heard = [("t", {("//a", TODAY): 0b111})]
    await loop.keep()
    await loop.keep()
    assert hearing.stored == [{("t", "//a", TODAY): 0b11, ("t", "//b", TODAY): 1}, {("t", "//a", TODAY): 0b100}]


async def test_what_arrived_longer_ago_than_is_learned_from_is_not_stored():
    hearing = Hearing()
    loop = HeardLoop(hearing.take, hearing, hearing)
    hearing.heard = [("t", {("//a", TODAY - 15): 1, ("//a", TODAY - 14): 1, ("//a", TODAY + 2): 1})]
    await loop.keep()
    assert hearing.stored == [{("t", "//a", TODAY - 14): 1}]
