"""The log of spenders: what of it counts when it was cut short anywhere, and that it stays short."""

import msgspec
import pytest

from streams.core import spenders as spenders_module
from streams.core.spender_log import NAMES_MAX, ROWS_MAX, SPENDER_LOGS, SpenderLog, kept
from streams.core.spenders import Spenders
from tests.unit.records import state, usage_record


def spenders_of(count: int, name: str = "u") -> tuple[Spenders, list]:
    """One cell's, of so many users with a call each, and the cell; its own first call names nobody."""
    partition = state(spenders_max=10**6, team_spenders_max=10**6)
    partition.fold([usage_record(0)], 1)
    found, (cell,) = partition.spenders, partition.cells.values()
    number = found.number(cell)
    for place in range(count):
        found.add((number, "k", f"{name}{place}"), place, 1, 0)
    return found, [number]


def read(log: list[SpenderLog]) -> dict[str, int]:
    """Calls by user, of records that went through their encoding."""
    rows = kept([SPENDER_LOGS.decode(msgspec.json.encode(each)) for each in log])
    return {row.user_id: row.requests for row in rows if row.key_id}


def call(found: Spenders, number: int, user: str, offset: int) -> None:
    found.add((number, "k", user), offset, 1, 0)


def test_a_flush_writes_what_changed_and_names_only_what_is_new():
    found, (number,) = spenders_of(50)
    first = found.take(99).records
    call(found, number, "u7", 100)
    call(found, number, "new", 101)
    (second,) = found.take(101).records
    assert ([name[3:] for name in second.names], len(second.rows) // 4, second.cells) == ([("k", "new")], 2, [])
    assert read([*first, second])["u7"] == 2
    assert read([*first, second])["new"] == 1
    assert found.take(101).records == []


def test_everything_is_written_anew_where_the_log_has_become_long(monkeypatch):
    monkeypatch.setattr(spenders_module, "_LOGGED_MIN", 20)
    found, (number,) = spenders_of(10)
    log = {record.sequence: record for record in found.take(99).records}
    longest = 0
    for turn in range(200):
        call(found, number, f"u{turn % 11}", 100 + turn)
        logged = found.take(100 + turn)
        log |= {record.sequence: record for record in logged.records}
        for sequence in logged.outdated:
            del log[sequence]
        longest = max(longest, len(log))
        assert sum(read(list(log.values())).values()) == 10 + turn + 1
    assert longest < 30


@pytest.mark.parametrize("written", [0, 1, 2])
def test_what_was_written_anew_counts_only_where_it_is_whole(monkeypatch, written):
    monkeypatch.setattr(spenders_module, "_LOGGED_MIN", 0)
    found, (number,) = spenders_of(4)
    before = found.take(99).records
    monkeypatch.setattr("streams.core.spender_log.NAMES_MAX", 40)
    for offset in (100, 200):
        for user in range(4):
            call(found, number, f"u{user}", offset + user)
        anew = found.take(offset + 4)
        before += anew.records if not anew.outdated else []
    assert anew.outdated == range(len(before))
    assert (len(anew.records), {record.parts for record in anew.records}) == (3, {3})
    assert read([*before, *anew.records[:written]]) == {f"u{user}": 2 for user in range(4)}
    assert read([*before, *anew.records]) == {f"u{user}": 3 for user in range(4)}
    assert read(anew.records) == {f"u{user}": 3 for user in range(4)}


def test_records_stay_below_what_a_broker_takes():
    found, _ = spenders_of(ROWS_MAX + 5, "\x00" * 250)
    records = found.take(1 << 40).records
    assert len(records) == -(-(ROWS_MAX + 5) // (NAMES_MAX // (251 + 5 + 16)))
    assert max(len(msgspec.json.encode(record)) for record in records) < 1_000_000
    assert len(read(records)) == ROWS_MAX + 5


def test_a_cell_that_left_is_told_of_by_the_flush_after_the_one_that_deleted_it():
    partition = state()
    partition.fold([usage_record(0, key_id="k", user_id="u")], 1)
    first = partition.spenders.take(0).records
    assert not partition.evict(1 << 60), "what is not stated stays"
    list(partition.spenders.say(0, 1))
    partition.changed_cells.clear()
    partition.stream_time += 10**11
    assert len(partition.evict(1 << 60)) == 2
    assert partition.spenders.take(0).records == []
    (told,) = partition.spenders.take(0).records
    assert (read(first), read([*first, told])) == ({"u": 1}, {})
