"""What a restart reads: changelogs in which little counts, kept generations, and the lines that say how it went."""

import logging
import os
from datetime import datetime
from types import SimpleNamespace

import pytest

from loadtest.restart.milestones import Milestone, Phase, milestones, phases
from streams.agents import digests
from streams.agents.pictures import RECALLED_CHUNKS
from streams.agents.resuming import Resuming
from streams.core.dedupe import DedupeWindow, Generation, Mark
from streams.core.digest_table import DigestTable, halves
from streams.topic_admin import CHANGELOG_LAG_MS, CHANGELOG_SEGMENT_MS, changelog
from streams.transport import RecordBatch
from streams.transport.changelog import _take
from streams.transport.fetching import CHUNK, Unread
from streams.transport.phases import Phases
from streams.transport.table import FENCED_RESTORE_TIMEOUT_S
from tests.unit.meter_rig import Rig, rig_rules
from tests.unit.records import SOURCE, usage_record

A, B, GONE = b"a", b"b", b"gone"

# -- changelogs ---------------------------------------------------------------------------------------------------


def _unread(*entries: tuple[int, bytes, bytes | None]) -> Unread:
    records = [SimpleNamespace(offset=offset, key=key, value=value) for offset, key, value in entries]
    batches = [iter(records[first : first + 40]) for first in range(0, len(records), 40)]
    return Unread(0, records[-1].offset + 1, 0, batches)


@pytest.mark.parametrize(
    ("entries", "end", "known", "left", "count", "size"),
    [
        pytest.param([(0, A, b"1"), (1, B, b"2")], 9, {}, {A: b"1", B: b"2"}, 2, 4, id="what was written is there"),
        pytest.param([(0, A, b"1"), (1, A, b"22")], 9, {}, {A: b"22"}, 2, 5, id="the later value replaces the earlier"),
        pytest.param([(4, A, b"2")], 9, {A: b"1"}, {A: b"2"}, 1, 2, id="a later fetch replaces what an earlier one had"),
        pytest.param([(0, A, None)], 9, {A: b"1"}, {}, 1, 1, id="a deletion takes away"),
        pytest.param([(0, GONE, None)], 9, {}, {}, 1, 4, id="a deletion of what compaction took is nothing"),
        pytest.param([(0, A, None), (1, A, b"3")], 9, {}, {A: b"3"}, 2, 3, id="what is written after a deletion counts"),
        pytest.param([(7, A, b"1"), (8, A, b"2"), (9, A, b"3")], 8, {}, {A: b"1"}, 1, 2, id="from the end on nothing counts"),
        pytest.param([(8, A, b"2")], 8, {A: b"1"}, {A: b"1"}, 0, 0, id="a fetch behind the end says nothing"),
        pytest.param([(n, A, b"%d" % n) for n in range(300)], 150, {}, {A: b"149"}, 150, 490, id="the end may lie in any batch"),
    ],
)  # fmt: skip
def test_the_newest_value_below_the_end_counts(entries, end, known, left, count, size):
    newest = dict(known)
    assert _take(_unread(*entries), end, newest) == (count, size)
    assert newest == left


def test_the_table_of_cases_covers_fetches_of_several_batches_and_chunks():
    assert len([(n, A, b"") for n in range(300)]) > 2 * CHUNK


def test_a_changelog_keeps_superseded_entries_for_twice_as_long_as_an_owner_may_read():
    config = changelog("app", "meter").config()
    assert int(config["min.compaction.lag.ms"]) == CHANGELOG_LAG_MS >= 2 * 1_000 * FENCED_RESTORE_TIMEOUT_S


def test_a_changelog_is_compacted_within_minutes_by_the_brokers_own_clock():
    config = changelog("app", "meter").config()
    assert config["cleanup.policy"] == "compact"
    assert int(config["segment.ms"]) == CHANGELOG_SEGMENT_MS <= CHANGELOG_LAG_MS
    assert config["message.timestamp.type"] == "LogAppendTime"


# -- kept generations ---------------------------------------------------------------------------------------------


def _kept(count: int) -> tuple[Generation, list[tuple[bytes, bytes]]]:
    generation = Generation(Mark(7, 100))
    generation.table.add_many(*halves(os.urandom(16 * count)))
    kept = digests.kept_entries("slot", generation)
    return generation, [(key, value) for key, value in kept if value is not None]


def test_a_generation_of_many_pieces_is_found_in_one():
    generation, kept = _kept(3 * digests.PIECE)
    assert len(kept) == 3
    assert digests.found_generations(dict(kept)) == {("slot", Mark(7, 100)): generation.table.to_bytes()}


def test_a_generation_that_misses_a_piece_is_not_found():
    _, kept = _kept(3 * digests.PIECE)
    assert digests.found_generations(dict(kept[:1] + kept[2:])) == {}


def test_a_kept_generation_goes_into_its_table_at_once(monkeypatch):
    """Piece after piece, each a narrow range of the digests, would crowd into a few slots of a table that grows."""
    generation, kept = _kept(3 * digests.PIECE)
    added = []
    add_many = DigestTable.add_many
    monkeypatch.setattr(DigestTable, "add_many", lambda self, *new: (added.append(len(new[0])), add_many(self, *new)))
    window = DedupeWindow(3_600_000_000, 20_000_000, [Mark(7, 100), Mark(8, 200)])
    for (_, mark), whole in digests.found_generations(dict(kept)).items():
        assert window.adopt(mark, [whole])
    assert added == [3 * digests.PIECE]
    assert window.sealed[0].table.to_bytes() == generation.table.to_bytes()


# -- the window's present generation ------------------------------------------------------------------------------


async def test_what_was_folded_before_only_rebuilds_the_window_in_large_parts():
    count = 3 * RECALLED_CHUNKS * CHUNK // 2
    records = [usage_record(offset, input_tokens=1) for offset in range(count)]
    owners = Rig(rig_rules(), records, iter("abc").__next__)
    owners.take(count, 512)
    owners.flush(evicting=False)
    seen = len(owners.state.window)
    owners.begin()
    assert not owners.state.is_rebuilt
    parts: list[int] = []
    owners.state._recall, recall = lambda part: (parts.append(len(part)), recall(part)), owners.state._recall
    owners._meter._table.app.consumer = SimpleNamespace(end_of=lambda *_: count)
    batch = RecordBatch(SOURCE.topic, SOURCE.partition, 0, count, Unread(0, count, 0, [iter(records)]))
    await owners._meter._take(SimpleNamespace(value=batch))
    assert parts == [RECALLED_CHUNKS * CHUNK, RECALLED_CHUNKS * CHUNK // 2]
    assert (owners.state.is_rebuilt, len(owners.state.window), owners.state.folded) == (True, seen, 0)


# -- what is said -------------------------------------------------------------------------------------------------

ONE, TWO = ("usage", 1), ("usage", 2)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "sluice.restart")

    def lines() -> list[tuple[str, str]]:
        texts = [record.getMessage() for record in caplog.records]
        return [(text.partition(",")[0], text.rpartition(": ")[2].partition(" ")[0]) for text in texts]

    return lines


FIRST, ALL = "the first new event is folded", "all partitions fold new events"


def test_it_says_once_when_new_events_are_folded_and_when_all_windows_are_rebuilt(said):
    resuming = Resuming()
    resuming.restored(ONE, 100)
    resuming.restored(TWO, 1_000)
    resuming.read(ONE, 40, 90)
    assert said() == []
    resuming.read(ONE, 90, 130)
    assert said() == [(FIRST, "60")]
    resuming.read(ONE, 130, 400)
    resuming.read(TWO, 900, 1_000)
    assert said() == [(FIRST, "60")]
    resuming.read(TWO, 1_000, 1_001)
    assert said() == [(FIRST, "60"), (ALL, "160")]


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(lambda resuming: resuming.restored(ONE, 0), id="a partition that nobody had read"),
        pytest.param(lambda resuming: (resuming.restored(ONE, 5), resuming.dropped(ONE)), id="a partition that went away"),
    ],
)  # fmt: skip
def test_it_says_nothing_of(happens, said):
    resuming = Resuming()
    happens(resuming)
    resuming.read(ONE, 0, 10)
    assert said() == []


def test_it_says_it_again_after_another_assignment(said):
    resuming = Resuming()
    for watermark in (10, 20):
        resuming.restored(ONE, watermark)
        resuming.read(ONE, watermark - 5, watermark + 1)
    assert said() == [(FIRST, "5"), (ALL, "5")] * 2


def test_phases_are_told_in_order_and_add_up():
    stopwatch = Phases()
    for phase in ("reading", "writing", "reading"):
        stopwatch.ended(phase)
    assert str(stopwatch) == "0.00 s reading, 0.00 s writing"
    assert stopwatch.total_s >= 0


LOG = """
2026-11-21 10:00:01,000 INFO sluice.worker: starting: meter
2026-11-21 10:00:01,500 WARNING mode.timers: something else
2026-11-21 10:00:03,250 INFO sluice.restart: the group has given us 8 partitions; restoring 2 tables
2026-11-21 10:00:05,250 INFO sluice.restart: all tables restored in 2.00 s: 2.00 s meter; reading begins
2026-11-21 10:00:06,000 INFO sluice.restart: the first new event is folded, 0.75 s after METER's table: 9 earlier ones
"""


def test_the_log_of_a_restart_is_read_as_phases_one_after_the_other():
    told = milestones(LOG.splitlines(), datetime(2026, 11, 21, 10).astimezone())
    assert told[0] == Milestone(1.0, "starting: meter")
    assert phases(told) == [
        Phase("process and imports", 1.0, 1.0),
        Phase("joining the group", 3.25, 2.25),
        Phase("tables", 5.25, 2.0),
        Phase("window read again, first new event", 6.0, 0.75),
    ]
