"""The shell of keyed agents: what it says and keeps, in which order, and when it must not speak."""

import asyncio
from asyncio import Queue
from types import SimpleNamespace

import msgspec
import pytest

from schemas.versions import UnknownVersionError, Versioned
from streams.agents import keyed
from streams.agents.keyed import DeliveryGapError, EvictedError, KeyedAgent
from streams.clock import WallClock
from streams.transport import Outgoing, RecordBatch
from streams.transport.fetching import Unread
from tests.unit.records import NOON, RawRecord


class Count(msgspec.Struct):
    v: int = 1
    name: str = ""
    count: int = 0


class Word(msgspec.Struct):
    word: str


class Recorder:
    """Stands where the broker is: keeps what was written, in order."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.partitions = 4
        self.producer = self
        self.while_writing = None

    async def write(self, records, partitions: int) -> int:
        records = list(records)
        self.written += [("said", record.value) for record in records]
        if self.while_writing is not None:
            self.while_writing()
        return len(records)


class Table:
    """A table's face, as agents see it."""

    fenced = False
    confirmed = True

    def __init__(self) -> None:
        self.app = Recorder()

    async def write(self, partition: int, entries) -> int:
        self.app.written += [("kept", value) for _, value in entries]
        return 1

    async def confirm(self) -> bool:
        return self.confirmed


class Counter(KeyedAgent[Count]):
    """Counts words, and says each."""

    def key_of(self, message: Word) -> str | None:
        return message.word

    def step(self, state: Count | None, message: Word) -> tuple[Count, list[Outgoing]]:
        after = Count(name=message.word, count=(state.count if state else 0) + 1)
        return after, [Outgoing("out", 0, b"k", b"%d" % after.count)]

    def tick(self, state: Count) -> tuple[Count | None, list[Outgoing]]:
        return state, [Outgoing("out", 0, b"k", b"tick")]


def batch(begin: int, *words: str, partition: int = 0) -> RecordBatch:
    records = [RawRecord(begin + place, NOON, b'{"word":"%s"}' % word.encode()) for place, word in enumerate(words)]
    end = begin + len(words)
    return RecordBatch("words", partition, begin, end, Unread.of(begin, end, records))


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def agent(table):
    made = Counter("COUNTS", table, Versioned("a count", Count), msgspec.json.Decoder(Word).decode, WallClock())
    table.on_load(0, {})
    return made


async def test_what_follows_is_said_before_the_state_is_kept(agent, table):
    assert await agent.take([batch(0, "a", "a")]) == [True]
    assert table.app.written == [("said", b"1"), ("said", b"2"), ("kept", b'{"v":1,"name":"a","count":2}')]


async def test_batches_that_wait_are_said_together_and_then_kept_once(agent, table):
    table.on_load(1, {})
    assert await agent.take([batch(0, "a"), batch(0, "b", partition=1), batch(1, "a")]) == [True, True, True]
    assert [what for what, _ in table.app.written] == ["said", "said", "said", "kept", "kept"]
    assert {value for what, value in table.app.written if what == "kept"} == {
        b'{"v":1,"name":"a","count":2}', b'{"v":1,"name":"b","count":1}',
    }  # fmt: skip


async def test_a_partition_taken_away_while_others_speak_is_left_to_its_next_owner(agent, table):
    table.on_load(1, {})
    table.app.while_writing = lambda: table.on_drop({1})
    assert await agent.take([batch(0, "a"), batch(0, "b", partition=1)]) == [True, False]
    assert [value for what, value in table.app.written if what == "kept"] == [b'{"v":1,"name":"a","count":1}']


async def test_a_partition_given_back_while_its_states_are_encoded_keeps_its_new_ones(agent, table, monkeypatch):
    async def slowly(entries, pace):
        table.on_drop({0})
        table.on_load(0, {})
        return list(entries)

    monkeypatch.setattr(keyed, "in_slices", slowly)
    assert await agent.take([batch(0, "a")]) == [False]
    assert [what for what, _ in table.app.written] == ["said"]


class Event:
    def __init__(self, value):
        self.value, self.acked = value, 0

    def ack(self):
        self.acked += 1


async def test_the_agent_acknowledges_each_batch_once_after_what_follows_is_kept(agent, table):
    events = [Event(batch(n, "a")) for n in range(200)]

    async def come():
        for event in events:
            yield event
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while not all(event.acked for event in events):
                await asyncio.sleep(0)

    await agent.run(SimpleNamespace(noack=lambda: SimpleNamespace(events=come), channel=SimpleNamespace(queue=Queue())))
    assert [event.acked for event in events] == [1] * 200
    assert table.app.written[-1] == ("kept", b'{"v":1,"name":"a","count":200}')


async def test_its_table_is_fenced(agent, table):
    assert table.fenced


async def test_batches_that_join_and_batches_that_come_again_are_taken(agent):
    for each in (batch(5, "a", "a"), batch(7, "a"), batch(6, "a", "a"), batch(8, "a")):
        assert await agent.take([each]) == [True]


async def test_a_gap_in_delivery_stops_it_before_anything_is_said(agent, table):
    await agent.take([batch(5, "a")])
    table.app.written.clear()
    with pytest.raises(DeliveryGapError, match="a gap of 2 offsets"):
        await agent.take([batch(8, "a")])
    assert table.app.written == []


async def test_a_gap_in_one_partition_is_not_hidden_by_another(agent, table):
    table.on_load(1, {})
    await agent.take([batch(0, "a")])
    await agent.take([batch(0, "a", "a", partition=1)])
    with pytest.raises(DeliveryGapError):
        await agent.take([batch(2, "a")])


async def test_a_partition_that_comes_back_begins_where_it_was_sought(agent, table):
    await agent.take([batch(0, "a")])
    table.on_drop({0})
    assert await agent.take([batch(1, "a")]) == [False]
    table.on_load(0, {})
    assert await agent.take([batch(90, "a")]) == [True]


async def test_a_state_of_a_newer_release_is_refused_and_not_forgotten(agent, table):
    with pytest.raises(UnknownVersionError, match="a count of version 2"):
        table.on_load(0, {b"a": b'{"v":2,"name":"a"}'})


async def test_a_partition_taken_away_while_it_speaks_is_not_written(agent, table):
    table.app.while_writing = lambda: table.on_drop({0})
    assert await agent.take([batch(0, "a")]) == [False]
    assert [what for what, _ in table.app.written] == ["said"]


async def test_a_partition_taken_away_and_given_back_while_it_speaks_keeps_its_new_state(agent, table):
    table.app.while_writing = lambda: (table.on_drop({0}), table.on_load(0, {}))
    assert await agent.take([batch(0, "a")]) == [False]
    table.app.while_writing = None
    await agent.take([batch(0, "a")])
    assert table.app.written[-1] == ("kept", b'{"v":1,"name":"a","count":1}')


@pytest.mark.parametrize("speaks", ["a batch", "a tick"])
async def test_after_a_stall_an_evicted_owner_says_nothing_more(agent, table, monkeypatch, speaks):
    await agent.take([batch(0, "a")])
    table.app.written.clear()
    table.confirmed = False
    at = agent._awake_at
    monkeypatch.setattr(keyed, "elapsed_s", lambda: at + keyed.STALL_S + 1)
    with pytest.raises(EvictedError, match="stalled for 6 s"):
        await (agent.take([batch(1, "a")]) if speaks == "a batch" else agent.tick_all([0]))
    assert table.app.written == []


async def test_after_a_stall_an_owner_that_the_group_still_knows_goes_on(agent, table, monkeypatch):
    at = agent._awake_at
    monkeypatch.setattr(keyed, "elapsed_s", lambda: at + keyed.STALL_S + 1)
    assert await agent.take([batch(0, "a")]) == [True]
