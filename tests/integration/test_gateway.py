"""What a gateway embeds, against a broker of its own: events, commands, acknowledgements, outages."""

import asyncio
import time
import uuid

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from gateway.gate import ThrottleGate
from gateway.publisher import BufferFullError, UsagePublisher
from schemas import topics
from schemas.commands import RELEASE_KEY, Target, ThrottleAck, ThrottleCommand
from schemas.events import UsageEvent
from schemas.instants import HOUR, SECOND, format_instant
from tests.integration.reading import (
    connection,
    eventually,
    eventually_records,
    header,
    records_of,
    with_topics,
)

pytestmark = pytest.mark.integration

NOBODY = connection("127.0.0.1:9")


@pytest.fixture
async def kafka(fresh_kafka):
    """aiokafka's arguments for a broker that may be paused."""
    return await with_topics(fresh_kafka.bootstrap)


@pytest.fixture
async def sluice(kafka):
    """Commands throttles as BUDGET does."""
    producer = AIOKafkaProducer(**kafka, acks="all")
    await producer.start()

    async def send(command, key=None):
        value = None if command is None else msgspec.json.encode(command)
        await producer.send_and_wait(topics.GATEWAY_COMMANDS, value, key=(key or command.key()).encode())

    yield send
    await producer.stop()


@pytest.fixture
async def gates(kafka):
    """Starts gates and stops them at the end."""
    started = []

    async def start(name="gw-1", **options):
        gate = ThrottleGate(kafka, gateway=name, ack_interval_s=0.1, **options)
        started.append(gate)
        assert await gate.start(ready_within_s=15)
        return gate

    yield start
    for gate in started:
        await gate.stop()


@pytest.fixture
def team():
    return f"team-{uuid.uuid4().hex[:12]}"


def command(team, action="block", revision=1, *, lasts=HOUR, **fields):
    now = time.time_ns() // 1_000
    return ThrottleCommand(
        command_id=f"{team}#{revision}",
        budget_id="daily",
        target=Target("team", team),
        action=action,
        revision=revision,
        reason=f"The daily budget of {team} is spent.",
        issued_at=format_instant(now),
        effective_at=format_instant(now - SECOND),
        expires_at=format_instant(now + lasts),
        **fields,
    )


def call(team="search", **fields):
    return UsageEvent(provider="openai", response_model="gpt-4o", input_tokens=10, team_id=team, **fields)


def of_team(team):
    return lambda record: record.key == team.encode()


def read_ack(record):
    return msgspec.json.decode(record.value, type=ThrottleAck)


async def acks_of(kafka_url, team, until=lambda ack: True):
    """All acknowledgements of a team's budget, once there is one like that."""
    key = f"team:{team}|daily".encode()
    await eventually_records(
        kafka_url, topics.GATEWAY_ACKS, lambda record: record.key == key and until(read_ack(record)), 1
    )
    found = await records_of(kafka_url, topics.GATEWAY_ACKS, lambda record: record.key == key)
    return [read_ack(record) for record in found]


class TestGate:
    async def test_a_block_is_followed_acknowledged_counted_and_released(self, sluice, gates, fresh_kafka, team):
        gate = await gates()
        assert gate.check(team=team).allowed
        await sluice(command(team))
        await eventually(lambda: not gate.check(team=team).allowed)
        for _ in range(9):
            refused = gate.check(team=team)
        assert refused.reason == f"The daily budget of {team} is spent."
        acks = await acks_of(fresh_kafka.bootstrap, team, until=lambda ack: ack.rejected_count >= 10)
        assert {(ack.command_id, ack.revision, ack.gateway) for ack in acks} == {(f"{team}#1", 1, "gw-1")}
        assert len({ack.applied_at for ack in acks}) == 1
        assert [ack.rejected_count for ack in acks] == sorted({ack.rejected_count for ack in acks})
        assert acks[-1].rejected_count >= 10

        await sluice(command(team, "allow", 2))
        await eventually(lambda: gate.check(team=team).allowed)
        acks = await acks_of(fresh_kafka.bootstrap, team, until=lambda ack: ack.revision == 2)
        assert (acks[-1].command_id, acks[-1].rejected_count) == (f"{team}#2", 0)

    async def test_a_command_takes_effect_within_half_a_second(self, sluice, gates, team):
        gate = await gates()
        delays = []
        for revision in range(1, 20, 2):
            await sluice(command(team, "block", revision))
            began = time.perf_counter()
            await eventually(lambda: not gate.check(team=team).allowed)
            delays.append(time.perf_counter() - began)
            await sluice(command(team, "allow", revision + 1))
            await eventually(lambda: gate.check(team=team).allowed)
        assert sorted(delays)[len(delays) // 2] < 0.5

    async def test_a_gate_that_starts_later_knows_every_command_before_it_is_ready(self, sluice, gates, team):
        await sluice(command(team))
        await sluice(command(f"{team}-open", "block", 1))
        await sluice(command(f"{team}-open", "allow", 2))
        gate = await gates("late")
        assert not gate.check(team=team).allowed
        assert gate.check(team=f"{team}-open").allowed

    async def test_at_the_start_only_what_still_holds_is_acknowledged(self, sluice, gates, fresh_kafka, team):
        await sluice(command(f"{team}-old", lasts=-1))
        await sluice(command(team))
        await gates()
        assert len(await acks_of(fresh_kafka.bootstrap, team)) == 1
        mine = f"team:{team}-old|daily".encode()
        old = await records_of(fresh_kafka.bootstrap, topics.GATEWAY_ACKS, lambda record: record.key == mine)
        assert old == []

    async def test_a_null_lifts(self, sluice, gates, team):
        gate = await gates()
        await sluice(command(team))
        await eventually(lambda: not gate.check(team=team).allowed)
        await sluice(None, key=f"team:{team}|daily")
        await eventually(lambda: gate.check(team=team).allowed)

    async def test_a_command_runs_out_by_itself(self, sluice, gates, team):
        gate = await gates()
        await sluice(command(team, lasts=2 * SECOND))
        await eventually(lambda: not gate.check(team=team).allowed)
        await eventually(lambda: gate.check(team=team).allowed)

    async def test_a_record_that_is_no_command_does_not_stop_the_gate(self, kafka, sluice, gates, team):
        gate = await gates()
        producer = AIOKafkaProducer(**kafka)
        await producer.start()
        for value in (b"not json", b"{}", b'{"target": 7}', b"\xff"):
            await producer.send_and_wait(topics.GATEWAY_COMMANDS, value, key=b"team:x|y", partition=0)
        await producer.stop()
        await eventually(lambda: gate.unreadable == 4)
        await sluice(command(team))
        await eventually(lambda: not gate.check(team=team).allowed)

    async def test_while_the_broker_is_frozen_known_commands_hold_and_new_ones_follow(
        self, sluice, gates, fresh_kafka, team
    ):
        gate = await gates()
        await sluice(command(team))
        await eventually(lambda: not gate.check(team=team).allowed)
        fresh_kafka.pause()
        try:
            sending = asyncio.create_task(sluice(command(team, "allow", 2)))
            for _ in range(20):
                await asyncio.sleep(0.05)
                assert not gate.check(team=team).allowed
        finally:
            fresh_kafka.resume()
        await sending
        await eventually(lambda: gate.check(team=team).allowed, 30)

    @pytest.mark.parametrize(
        ("fail", "allowed", "status"),
        [pytest.param("open", True, 200, id="open"), pytest.param("closed", False, 503, id="closed")],
    )
    async def test_a_gate_that_has_never_seen_the_broker_does_as_it_was_told(self, fail, allowed, status, team):
        gate = ThrottleGate(NOBODY, gateway="gw-1", fail=fail)
        try:
            assert await gate.start(ready_within_s=0.2) is False
            decision = gate.check(team=team)
            assert (decision.allowed, decision.http_status) == (allowed, status)
        finally:
            await gate.stop()

    async def test_a_release_opens_a_gate_that_refuses_until_it_is_ready_and_one_that_is(
        self, sluice, gates, kafka, team
    ):
        await sluice(command(team))
        gate = await gates()
        assert not gate.check(team=team).allowed
        release = command(team, "release")
        await sluice(release, key=RELEASE_KEY)
        await eventually(lambda: gate.check(team=team).action == "release")
        unready = ThrottleGate(kafka, gateway="gw-2", fail="closed")
        unready._book.apply(RELEASE_KEY, release)  # Read, and nothing else yet.
        assert unready.check(team=team).allowed
        await sluice(None, key=RELEASE_KEY)
        await eventually(lambda: not gate.check(team=team).allowed)

    async def test_a_command_that_holds_is_acknowledged_again_and_again(self, sluice, gates, fresh_kafka, team):
        await gates("beats", heartbeat_s=0.3)
        await sluice(command(team))
        key = f"team:{team}|daily".encode()
        found = await eventually_records(
            fresh_kafka.bootstrap, topics.GATEWAY_ACKS, lambda record: record.key == key, 3
        )
        assert len({header(record, "ce_id") for record in found}) == len(found)
        assert len({read_ack(record).applied_at for record in found}) == 1

    async def test_a_renewal_keeps_a_gate_closed_past_the_first_end(self, sluice, gates, team):
        gate = await gates()
        await sluice(command(team, lasts=2 * SECOND))
        await eventually(lambda: not gate.check(team=team).allowed)
        await sluice(command(team, lasts=HOUR))
        first_end = time.time_ns() // 1_000 + 2 * SECOND
        later = format_instant(first_end + 60 * SECOND)
        key = f"team:{team}|daily"
        await eventually(lambda: any(one.key == key and one.command.expires_at > later for one in gate.live()))
        assert not gate.check(team=team, now=first_end + SECOND).allowed

    async def test_what_could_not_be_passed_on_is_not_acknowledged(self, sluice, gates, fresh_kafka, team):
        works = []

        async def pass_on():
            if not works:
                raise OSError("the enforcer is away")

        gate = await gates("passes-on", before_ack=pass_on)
        await sluice(command(team))
        await eventually(lambda: not gate.check(team=team).allowed)
        assert gate.acks_sent == 0
        works.append(True)
        assert len(await acks_of(fresh_kafka.bootstrap, team)) == 1


class TestUsagePublisher:
    async def test_events_arrive_under_their_names(self, kafka, fresh_kafka, team):
        publisher = UsagePublisher(kafka, source="//gateway/litellm/eu-1")
        await publisher.start()
        for number in range(500):
            publisher.publish(call(team), id=f"call-{number}", time=1_800_000_000_000_000)
        assert await publisher.stop() == 0
        assert (publisher.stats.accepted, publisher.stats.delivered) == (500, 500)
        found = await records_of(fresh_kafka.bootstrap, topics.USAGE_EVENTS, of_team(team))
        assert [header(record, "ce_id") for record in found] == [f"call-{number}" for number in range(500)]
        assert header(found[0], "ce_source") == "//gateway/litellm/eu-1"
        assert header(found[0], "ce_time") == "2027-01-15T08:00:00Z"
        assert msgspec.json.decode(found[0].value, type=UsageEvent) == call(team)

    async def test_a_full_buffer_is_an_error_and_counted(self, team):
        publisher = UsagePublisher(NOBODY, buffer_max=3)
        await publisher.start()
        for number in range(3):
            publisher.publish(call(team), id=str(number))
        with pytest.raises(BufferFullError, match="1 dropped so far"):
            publisher.publish(call(team), id="3")
        assert await publisher.stop(timeout_s=0.1) == 3
        assert (publisher.stats.accepted, publisher.stats.dropped, publisher.stats.delivered) == (3, 1, 0)

    async def test_an_event_too_large_for_the_topic_is_counted_and_the_others_arrive(self, kafka, fresh_kafka, team):
        publisher = UsagePublisher(kafka)
        await publisher.start()
        publisher.publish(call(team), id="first")
        publisher.publish(call(team, tags={"x": "y" * 5_000_000}), id="large")
        publisher.publish(call(team), id="last")
        assert await publisher.stop() == 0
        assert (publisher.stats.delivered, publisher.stats.refused) == (2, 1)
        found = await records_of(fresh_kafka.bootstrap, topics.USAGE_EVENTS, of_team(team))
        assert [header(record, "ce_id") for record in found] == ["first", "last"]

    async def test_events_of_an_outage_wait_and_arrive(self, kafka, fresh_kafka, team):
        publisher = UsagePublisher(kafka)
        await publisher.start()
        publisher.publish(call(team), id="before")
        assert await publisher.flush() == 0
        fresh_kafka.kill()
        for number in range(100):
            publisher.publish(call(team), id=f"during-{number}")
            await asyncio.sleep(0.005)
        assert publisher.waiting == 100
        await fresh_kafka.start()
        publisher.publish(call(team), id="after")
        assert await publisher.flush(timeout_s=40) == 0
        await publisher.stop()
        found = await records_of(fresh_kafka.bootstrap, topics.USAGE_EVENTS, of_team(team))
        assert {header(record, "ce_id") for record in found} == {
            "before",
            "after",
            *(f"during-{number}" for number in range(100)),
        }
