"""Each thing that the watcher looks for is broken for real, on Kafka and PostgreSQL: it says so once, and when it ends."""

from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from schemas import topics
from schemas.alerts import Alert
from schemas.instants import DAY, HOUR, MINUTE, SECOND
from schemas.statements import Source, Watermark
from streams.agents.watch import Watched, WatchLoop, WatchTimes
from streams.clock import WallClock, elapsed_s
from streams.core.reading import Reason
from streams.core.watch_heartbeat import bounds_of
from streams.core.watch_look import WatchPolicy
from streams.doctor.probe import wanted_topics
from streams.doctor.standing import KafkaLooks
from streams.history_ports import StoreError
from streams.sinks.heartbeat import HttpHeartbeat
from streams.sinks.ledger import PostgresLedger
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.watch import PostgresWatch
from streams.topic_admin import ensure_topics
from tests.integration.api_parts import cell
from tests.integration.dead_mans_switch import dead_mans_switch
from tests.integration.letters import bury, forget_records, raw
from tests.integration.reading import connection
from tests.integration.test_doctor import member_of

POLICY = WatchPolicy(hold_us=0, settle_us=0, letters_min=5)
PARTITIONS = 4


class LaterClock:
    """The machine's clock, ahead by as much as a test says: time passes without waiting."""

    def __init__(self):
        self.ahead_us = 0

    def now(self):
        return WallClock().now() + self.ahead_us


class Deployment:
    """A group with one member that reads when it is told to, a ledger, and watchers that look when they are told to."""

    def __init__(self, url, app_id, pool, member, switch):
        self.url, self.app_id, self.pool, self.member, self.switch = url, app_id, pool, member, switch
        self.clock = LaterClock()
        self.store = PostgresWatch(pool, app_id)
        self.alerts: list[Alert] = []
        self.looks: list[KafkaLooks] = []
        self.beats: list[HttpHeartbeat] = []

    def watcher(self, name="a", *, fail_path="/fail"):
        how = connection(self.url) | {"security_protocol": "PLAINTEXT"}
        looks = KafkaLooks(how, self.app_id, self.clock)
        beat = HttpHeartbeat(self.switch.url, fail_path, "POST" if fail_path else "GET")
        self.looks.append(looks)
        self.beats.append(beat)
        policy = POLICY._replace(app_id=self.app_id)
        return WatchLoop(
            Watched(self.store, looks.look, beat, name, self.app_id), self._say, self.clock, policy,
            bounds_of(policy, PARTITIONS, self.url), times=WatchTimes(0.1, 0.0),
        )  # fmt: skip

    async def _say(self, records):
        self.alerts += [msgspec.json.decode(record.value, type=Alert) for record in records]

    async def rounds(self, *watchers, times=2):
        """What these watchers had to say in so many looks; slow things are looked at in every one."""
        before = len(self.alerts)
        for _ in range(times):
            for watcher in watchers:
                watcher._round = 0
                await watcher.round()
                if watcher._beating is not None:
                    await watcher._beating
        return [(alert.rule, alert.status, alert.tier) for alert in self.alerts[before:]]

    async def read_all(self, *, tell_ledger=True):
        """The group has read everything, and the ledger knows."""
        places = [TopicPartition(topic.name, number) for topic in topics.INPUTS for number in range(PARTITIONS)]
        ends = await self.member.end_offsets(places)
        await self.member.commit(ends)
        if tell_ledger:
            await self.tell_ledger(ends)

    async def tell_ledger(self, ends):
        now = WallClock().now()
        marks = [
            Watermark(source=Source(place.topic, 0, place.partition), revision=0, next_offset=end, stream_time=now)
            for place, end in ends.items()
        ]
        await PostgresLedger(self.pool).write_cells([], marks)

    async def close(self):
        for part in (*self.looks, *self.beats):
            await part.close()


@pytest.fixture
async def deployed(fresh_kafka, app_id, database_url):
    url = fresh_kafka.bootstrap
    await ensure_topics(connection(url), PARTITIONS, 1, topics=wanted_topics(app_id))
    await forget_records(url)
    await migrate(database_url)
    pool = await open_pool(database_url)
    async with member_of(url, app_id) as member, dead_mans_switch() as switch:
        found = Deployment(url, app_id, pool, member, switch)
        await found.read_all()
        yield found
        await found.close()
    await pool.close()


async def produce(url, count=1):
    async with AIOKafkaProducer(bootstrap_servers=url) as producer:
        for number in range(count):
            record = raw(number)
            await producer.send_and_wait(topics.USAGE_EVENTS, record.value, key=record.key, headers=record.headers)


async def owe(pool, receiver, *, state="owed", minutes=6, tier="ticket"):
    """A message that a receiver has not taken for some minutes."""
    alert = {"tier": tier, "alerts": [{"tier": tier}]}
    row = {"notification_id": uuid4().hex, "receiver": receiver, "body": alert, "state": state}
    columns = "select column_name from information_schema.columns where table_name = 'outbox'"
    if "dedup_key" in {found["column_name"] for found in await pool.fetch(columns)}:
        row["dedup_key"] = "k"
    names, places = ", ".join(row), ", ".join(f"${number + 1}" for number in range(len(row)))
    await pool.execute(
        f"insert into outbox ({names}, attempts, last_error, owed_at) values"
        f" ({places}, 3, 'Slack answered 500', now() - make_interval(mins => {minutes}))",
        *row.values(),
    )


# -- the heartbeat ----------------------------------------------------------------------------------------------------


async def test_a_deployment_that_is_well_beats_and_has_nothing_to_say(deployed):
    assert await deployed.rounds(deployed.watcher(), times=3) == []
    assert deployed.switch.verdicts() == ["well"]
    ping = deployed.switch.pings[-1]
    assert (ping.method, ping.body.splitlines()[0]) == ("POST", f"Sluice {deployed.app_id}")
    for item in ("broker", "topics", "replicas", "database", "workers", "tables", "lag", "ledger", "outbox", "watch"):
        assert f"OK   {item}: " in ping.body, ping.body


async def test_of_two_watchers_one_looks_and_beats_and_the_other_takes_over(deployed):
    first, second = deployed.watcher("first"), deployed.watcher("second")
    await deployed.rounds(first, second, times=3)
    assert len(deployed.switch.pings) == 3
    await deployed.pool.execute("update watchers set leased_until = now() - interval '1 second'")
    await deployed.rounds(second, first, times=3)
    assert len(deployed.switch.pings) == 6
    row = await deployed.pool.fetchrow("select holder, term from watchers")
    assert tuple(row) == ("second", 2)


async def test_an_alert_stays_one_alert_whoever_watches(deployed):
    first, second = deployed.watcher("first"), deployed.watcher("second")
    await owe(deployed.pool, "slack")
    said = await deployed.rounds(first, second)
    await deployed.pool.execute("update watchers set leased_until = now() - interval '1 second'")
    said += await deployed.rounds(second, first)
    await deployed.pool.execute("update outbox set state = 'sent'")
    said += await deployed.rounds(second, first)
    assert said == [("delivery_failing", "opened", "ticket"), ("delivery_failing", "resolved", "ticket")]


async def test_a_broker_that_hangs_fails_the_heartbeat_until_it_answers_again(deployed, fresh_kafka):
    watcher = deployed.watcher()
    await deployed.rounds(watcher)
    fresh_kafka.pause()
    try:
        await deployed.rounds(watcher, times=1)
    finally:
        fresh_kafka.resume()
    assert "FAIL broker: no Kafka broker answers" in deployed.switch.pings[-1].body
    assert deployed.switch.pings[-1].what == "fail"
    # A worker that was evicted meanwhile comes back.
    await deployed.member.stop()
    async with member_of(deployed.url, deployed.app_id):
        until = elapsed_s() + 90
        while deployed.switch.pings[-1].what:
            assert elapsed_s() < until, deployed.switch.pings[-1].body
            await deployed.rounds(watcher, times=1)


async def test_without_a_path_for_failures_it_falls_silent(deployed):
    watcher = deployed.watcher(fail_path="")
    await deployed.rounds(watcher)
    await owe(deployed.pool, "slack")
    pings = len(deployed.switch.pings)
    await deployed.rounds(watcher)
    assert len(deployed.switch.pings) == pings
    assert {(ping.what, ping.method) for ping in deployed.switch.pings} == {("", "GET")}


async def test_no_worker_fails_the_heartbeat(deployed):
    watcher = deployed.watcher()
    await deployed.rounds(watcher)
    await deployed.member.stop()
    await deployed.rounds(watcher)
    assert deployed.switch.verdicts() == ["well", "fail"]
    assert "FAIL workers: no worker is active" in deployed.switch.pings[-1].body


# -- what it says -----------------------------------------------------------------------------------------------------


async def test_what_is_not_read_for_a_minute_is_a_lag_that_becomes_a_page_and_ends_when_it_is_read(deployed):
    watcher = deployed.watcher()
    await produce(deployed.url, 3)
    assert await deployed.rounds(watcher) == []
    deployed.clock.ahead_us = 70 * SECOND
    assert await deployed.rounds(watcher) == [("pipeline_lag", "opened", "ticket")]
    assert "usage.events.v1 for" in deployed.alerts[-1].summary
    assert "(3 unread)" in deployed.alerts[-1].summary
    deployed.clock.ahead_us = 310 * SECOND
    assert await deployed.rounds(watcher) == [("pipeline_lag", "updated", "page")]
    assert "FAIL lag: 3 records are unread" in deployed.switch.pings[-1].body
    await deployed.read_all()
    assert await deployed.rounds(watcher) == [("pipeline_lag", "resolved", "page")]


async def test_what_METER_has_counted_and_the_ledger_lacks_is_told_until_it_has_it(deployed):
    watcher = deployed.watcher()
    await produce(deployed.url, 3)
    await deployed.read_all(tell_ledger=False)
    assert await deployed.rounds(watcher) == []
    deployed.clock.ahead_us = 125 * SECOND
    assert await deployed.rounds(watcher) == [("ledger_behind", "opened", "ticket")]
    await deployed.read_all()
    assert await deployed.rounds(watcher) == [("ledger_behind", "resolved", "ticket")]


async def test_a_ledger_that_hears_nothing_is_told_too(deployed):
    watcher = deployed.watcher()
    await deployed.pool.execute("update ledger_sources set updated_at = now() - interval '3 minutes'")
    assert await deployed.rounds(watcher) == [("ledger_behind", "opened", "ticket")]
    await deployed.read_all()
    assert await deployed.rounds(watcher) == [("ledger_behind", "resolved", "ticket")]


async def test_dead_letters_that_grow_are_told_until_ten_minutes_pass_without_more(deployed):
    watcher = deployed.watcher()
    await deployed.rounds(watcher)
    await bury(deployed.url, [(number % 4, raw(number), Reason.NOT_JSON) for number in range(6)])
    assert await deployed.rounds(watcher) == [("dead_letters", "opened", "ticket")]
    assert deployed.alerts[-1].scope_id == topics.USAGE_EVENTS
    deployed.clock.ahead_us = 11 * MINUTE
    assert await deployed.rounds(watcher) == [("dead_letters", "resolved", "ticket")]


async def test_a_source_that_falls_silent_is_told_until_it_speaks_again(deployed):
    watcher = deployed.watcher()
    now = deployed.clock.now()
    day, minute = now // DAY, now % DAY // MINUTE
    whole = (1 << 1_440) - 1
    until = {day: (1 << max(0, minute - 20)) - 1, **{day - back: whole for back in range(1, 9)}}
    if minute < 20:
        until[day - 1] >>= 20
    await deployed.store.hear({(topics.USAGE_EVENTS, "//gateway/edge", at): mask for at, mask in until.items()})
    await deployed.store.hear({(topics.USAGE_EVENTS, "//gateway/b", day - back): whole for back in range(9)})
    assert await deployed.rounds(watcher) == [("source_silent", "opened", "ticket")]
    alert = deployed.alerts[-1]
    assert (alert.scope_type, alert.scope_id, alert.severity) == ("source", "//gateway/edge", "critical")
    await deployed.store.hear({(topics.USAGE_EVENTS, "//gateway/edge", day): 1 << minute})
    assert await deployed.rounds(watcher) == [("source_silent", "resolved", "ticket")]


async def test_calls_without_a_price_are_told_until_two_hours_have_none(deployed):
    watcher = deployed.watcher()
    hour = deployed.clock.now() // HOUR * HOUR
    await PostgresLedger(deployed.pool).write_cells(
        [
            cell("search", "chat", "new-model", hour, 0, unpriced_requests=30),
            cell("search", "chat", "gpt-4o", hour, 5),
        ],
        [],
    )
    assert await deployed.rounds(watcher) == [("unpriced_usage", "opened", "ticket")]
    assert deployed.alerts[-1].scope_id == "openai/new-model"
    deployed.clock.ahead_us = 3 * HOUR
    said = await deployed.rounds(watcher)
    assert ("unpriced_usage", "resolved", "ticket") in said


async def test_a_receiver_that_takes_nothing_is_told_and_fails_the_heartbeat_which_is_the_other_way(deployed):
    watcher = deployed.watcher()
    await owe(deployed.pool, "pagerduty", tier="page")
    assert await deployed.rounds(watcher) == [("delivery_failing", "opened", "page")]
    alert = deployed.alerts[-1]
    assert (alert.scope_id, alert.labels) == ("pagerduty", {"receiver": "pagerduty"})
    assert "Slack answered 500" in alert.summary
    assert "FAIL outbox: messages have waited for 6 min" in deployed.switch.pings[-1].body
    await deployed.pool.execute("update outbox set state = 'sent'")
    assert await deployed.rounds(watcher) == [("delivery_failing", "resolved", "page")]
    assert deployed.switch.verdicts() == ["fail", "well"]


async def test_a_receiver_that_works_and_has_more_to_say_than_its_limit_does_not_fail(deployed):
    await owe(deployed.pool, "slack")
    await deployed.pool.execute("insert into notify_receivers (receiver, last_sent_at) values ('slack', now())")
    assert await deployed.rounds(deployed.watcher()) == []
    assert deployed.switch.verdicts() == ["well"]
    await deployed.pool.execute("update notify_receivers set last_sent_at = now() - interval '2 minutes'")
    assert await deployed.rounds(deployed.watcher("a")) == [("delivery_failing", "opened", "ticket")]


# -- the store --------------------------------------------------------------------------------------------------------


async def test_minutes_are_only_ever_added(deployed):
    for mask in (0b0110, 0b0011, 0b1000):
        await deployed.store.hear({("t", "//a", 20_000): mask})
    await deployed.store.hear({("t", "//a", 19_999): 1, ("t", "//b", 19_999): 1, ("t", "//b", 20_000): 1 << 1_439})
    now = 20_000 * DAY + 5 * MINUTE
    found = await deployed.store.sources(now, 3, MINUTE)
    assert {source.name: dict(source.days) for source in found} == {
        "//a": {19_999: 1, 20_000: 0b1111}, "//b": {20_000: 1 << 1_439},
    }  # fmt: skip
    assert await deployed.store.sources(20_010 * DAY, 3, MINUTE) == []


async def test_a_database_that_does_not_answer_is_said_as_one_error(database_url):
    await migrate(database_url)
    pool = await open_pool(database_url)
    await pool.close()
    with pytest.raises(StoreError):
        await PostgresWatch(pool, "sluice").take("a", 30.0)
