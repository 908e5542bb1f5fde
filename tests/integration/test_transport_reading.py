"""Where reading begins and how much is read at a time, on a real broker."""

import asyncio
import random

import pytest

from streams.transport import consumer
from streams.transport.consumer import LogTruncatedError
from streams.transport.driver import QUEUED_BATCHES, UNDER_WAY
from tests.integration.transport_parts import DEADLINE_S, Scene, acknowledge, until

pytestmark = pytest.mark.integration
#: Of the fetches of one partition that may wait for an agent: in its queue, one in hands, one on its way to the queue.
WAITING_MAX = QUEUED_BATCHES + UNDER_WAY + 2
#: Ten fetches' time.
WATCH_S = 0.5


@pytest.fixture
async def scene(kafka_url, topics, app_id, tmp_path):
    async with Scene(kafka_url, topics, app_id, tmp_path) as scene:
        yield scene


def _noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(("wish", "start"), [(5, 5), (15, 12)], ids=["below", "above and is not heard"])
async def test_reading_begins_where_a_restored_table_asks_for_it_when_that_is_below_the_commit(scene, wish, start):
    topic = await scene.topic()
    await scene.changelog()
    loaded = []
    earlier = scene.member(topic)
    table = earlier.table(on_load=lambda partition, entries: None)
    await (await earlier.start()).ready()
    await scene.append(topic, [b"%d" % number for number in range(12)])
    await table.write(0, [(b"wanted", b"%d" % wish)])
    await scene.commits(topic, 12)
    await earlier.stop()
    # In batches of one, so that what is fetched before the seek would be a batch that must not be there.
    for number in range(12, 20):
        await scene.append(topic, [b"%d" % number])
    later = scene.member(topic)
    later.table(
        on_load=lambda partition, entries: loaded.append(int(entries[b"wanted"])),
        start_of=lambda topic, partition: loaded[-1],
    )
    await later.start()
    await scene.commits(topic, 20)
    assert loaded == [wish]
    assert later.seen[0][0].begin == start
    assert later.offsets() == list(range(start, 20))


async def test_a_log_that_ends_below_what_was_committed_stops_the_worker(scene):
    topic = await scene.topic()
    await scene.append(topic, [b"a", b"b", b"c"])
    await scene.commit(topic, 10)
    member = await scene.member(topic).start()
    await until(lambda: member.app.crashed)
    assert isinstance(member.app.crash_reason, LogTruncatedError)
    assert member.seen == [[]]
    assert await scene.committed(topic) == 10


async def test_a_topic_made_anew_that_ends_below_what_a_table_remembers_stops_the_worker(scene):
    topic = await scene.topic()
    await scene.changelog()
    await scene.append(topic, [b"old"] * 10)
    await scene.remake(topic)
    await scene.append(topic, [b"new"] * 3)
    member = scene.member(topic)
    member.table(on_load=lambda partition, entries: None, start_of=lambda topic, partition: 10)
    await member.start()
    await until(lambda: member.app.crashed)
    assert isinstance(member.app.crash_reason, LogTruncatedError)
    assert member.seen == [[]]


async def test_a_fetch_that_begins_inside_a_producers_batch_delivers_exactly_the_records_from_there(scene):
    compressions = (None, "gzip", "lz4", "zstd")
    topic = await scene.topic(partitions=len(compressions))
    for partition, compression in enumerate(compressions):
        values = [b"%d" % number for number in range(600)]
        await scene.append(topic, values, partition, compression=compression)
        await scene.commit(topic, 300, partition)
    member = await scene.running(topic, partitions=len(compressions))
    for partition in range(len(compressions)):
        await scene.commits(topic, 600, partition)
        assert member.offsets(partition) == list(range(300, 600))
        seen = [seen for seen in member.seen[0] if seen.partition == partition]
        assert (seen[0].begin, seen[-1].end) == (300, 600)
        assert [int(value) for one in seen for value in one.values] == list(range(300, 600))


async def test_a_record_as_large_as_the_broker_takes_and_many_megabytes_at_once_arrive_whole(scene):
    topic = await scene.topic()
    largest = _noise(5 * 1_048_576 - 1_000)
    await scene.append(topic, [largest])
    for number in range(8):
        await scene.append(topic, [_noise(500_000, seed) for seed in (number, number + 100)])
    member = await scene.running(topic, fetch_max_bytes=16 * 1_048_576)
    await scene.commits(topic, 17)
    values = [value for seen in member.seen[0] for value in seen.values]
    assert values[0] == largest
    assert values[1:] == [_noise(500_000, seed) for number in range(8) for seed in (number, number + 100)]
    assert max(sum(map(len, seen.values)) for seen in member.seen[0]) > 8_000_000


async def test_a_record_larger_than_a_fetch_and_one_record_at_a_time_arrive_in_order(scene):
    topic = await scene.topic()
    values = [b"%d" % number for number in range(20)]
    for value in values:
        await scene.append(topic, [value])
    await scene.append(topic, [_noise(100_000)])
    member = await scene.running(topic, fetch_max_bytes=1)
    await scene.commits(topic, 21)
    assert [seen.offsets for seen in member.seen[0]] == [[offset] for offset in range(21)]
    assert [(seen.begin, seen.end) for seen in member.seen[0]] == [(offset, offset + 1) for offset in range(21)]


async def test_two_agents_of_a_topic_both_get_every_record_and_one_agent_reads_a_batch_once(scene):
    two, one = await scene.topic("two"), await scene.topic("one")
    kept = {}

    def remember(name):
        async def work(event, seen):
            # Between the two agents' readings.
            await asyncio.sleep(0)
            kept[name] = event.value.unread._kept is not None
            event.ack()

        return work

    for topic in (two, one):
        await scene.append(topic, [b"%d" % number for number in range(1_000)], compression="lz4")
    member = scene.member(two, remember("two"), remember("two"))
    member.bind(one, remember("one"))
    await member.start()
    await scene.commits(two, 1_000)
    await scene.commits(one, 1_000)
    assert [member.offsets(agent=agent) for agent in range(3)] == [list(range(1_000))] * 3
    assert kept == {"two": True, "one": False}


async def test_an_agent_that_takes_nothing_lets_few_fetches_pile_up_and_gets_everything_once_it_goes_on(scene):
    topic = await scene.topic()
    go = asyncio.Event()

    async def stands(event, seen):
        await go.wait()
        event.ack()

    await scene.append_each(topic, [b"%d" % number for number in range(100)])
    member = await scene.running(topic, stands, fetch_max_bytes=1)
    await until(lambda: member.is_held_back(topic))
    end = asyncio.get_running_loop().time() + WATCH_S
    while asyncio.get_running_loop().time() < end:
        assert member.unread(topic) <= WAITING_MAX
        await asyncio.sleep(0.02)
    go.set()
    await scene.commits(topic, 100)
    assert member.offsets() == list(range(100))
    assert [len(seen.records) for seen in member.seen[0]] == [1] * 100


async def test_an_agent_that_stands_still_with_all_its_partitions_holds_back_no_other_agent(scene):
    partitions, count = 8, 2 * (QUEUED_BATCHES + UNDER_WAY)
    stuck, other = await scene.topic("stuck", partitions=partitions), await scene.topic("other", partitions=partitions)
    go = asyncio.Event()

    async def stands(event, seen):
        await go.wait()
        event.ack()

    for partition in range(partitions):
        for number in range(count):
            await scene.append(stuck, [b"%d" % number], partition)
    member = scene.member(stuck, stands, partitions=partitions, fetch_max_bytes=1)
    member.bind(other, acknowledge)
    await (await member.start()).ready()
    await until(lambda: all(member.is_held_back(stuck, partition) for partition in range(partitions)))
    for partition in range(partitions):
        for number in range(count):
            await scene.append(other, [b"%d" % number], partition)
    for partition in range(partitions):
        await scene.commits(other, count, partition)
    assert len(member.seen[0]) == 1
    go.set()
    for partition in range(partitions):
        await scene.commits(stuck, count, partition)
        assert member.offsets(partition) == member.offsets(partition, agent=1) == list(range(count))


@pytest.mark.parametrize(
    "has_silent",
    [
        pytest.param(True, id="while a fetch waits for a silent topic's records"),
        pytest.param(False, id="while nothing else is there to be fetched"),
    ],
)
async def test_what_was_held_back_is_handed_out_once_its_agent_has_room(scene, monkeypatch, has_silent):
    # A fetch that nobody wakes would wait for longer than this test does.
    monkeypatch.setattr(consumer, "FETCH_POLL_S", 10 * DEADLINE_S)
    count = 3 * (QUEUED_BATCHES + UNDER_WAY)
    topic, silent = await scene.topic(), await scene.topic("silent")
    go = asyncio.Event()

    async def stands(event, seen):
        await go.wait()
        event.ack()

    await scene.append_each(topic, [b"%d" % number for number in range(count)])
    member = scene.member(topic, stands, fetch_max_bytes=1)
    if has_silent:
        member.bind(silent, acknowledge)
    await (await member.start()).ready()
    await until(lambda: member.is_held_back(topic))
    await until(lambda: member.has_fetched(topic))
    go.set()
    await scene.commits(topic, count)
    assert member.offsets() == list(range(count))
