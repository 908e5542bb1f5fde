"""METER's changelog: which writer a successor believes, and what it deletes of the others."""

from schemas import topics
from streams.agents import entries
from streams.core.meter import PartitionState
from tests.unit.records import SOURCE, rules, state, usage_record


def _written(partition: PartitionState, writer: str) -> dict[bytes, bytes]:
    """What a whole flush by this writer leaves in the changelog."""
    found = [
        entries.statement_entry(statement, writer)
        for statement in (*partition.cells.values(), *partition.counters.values())
    ]
    return dict([*found, entries.checkpoint_entry(partition.checkpoint(), writer)])


def _after(count: int) -> PartitionState:
    partition = state()
    partition.fold([usage_record(offset, input_tokens=10) for offset in range(count)], count)
    return partition


def _cost(recovered: entries.Recovered) -> int:
    fresh = PartitionState(SOURCE, rules(), recovered.checkpoint)
    fresh.restore(recovered.statements)
    return sum(cell.totals.cost_nanos for cell in fresh.cells.values())


def test_what_a_flush_wrote_is_read_back():
    recovered = entries.recover(_written(_after(5), "a"))[SOURCE.slot()]
    assert (recovered.checkpoint.next_offset, _cost(recovered)) == (5, 500)


def test_a_stalled_owner_that_wakes_up_and_writes_last_changes_nothing():
    log = _written(_after(9), "new") | _written(_after(5), "stalled")
    recovered = entries.recover(log)[SOURCE.slot()]
    assert (recovered.checkpoint.next_offset, _cost(recovered)) == (9, 900)


def test_entries_of_a_writer_without_a_watermark_say_nothing():
    partition = _after(9)
    unfinished = dict([entries.statement_entry(next(iter(partition.cells.values())), "new")])
    recovered = entries.recover(_written(_after(5), "old") | unfinished)[SOURCE.slot()]
    assert (recovered.checkpoint.next_offset, _cost(recovered)) == (5, 500)


def test_every_entry_of_earlier_writers_is_left_over_with_the_deletion_of_its_statement():
    log = _written(_after(3), "old")
    left = entries.leftovers(log, partitions=4)[SOURCE.slot()]
    assert {entry.key for entry in left} == set(log)
    deletions = [entry.deletion for entry in left if entry.deletion is not None]
    assert {deletion.value for deletion in deletions} == {None}
    assert {deletion.topic for deletion in deletions} == {topics.SPEND_CELLS, topics.SPEND_SCOPES}


def test_a_statements_deletion_goes_where_the_statement_went():
    partition = _after(3)
    for counter in partition.counters.values():
        said = entries.scope_record(counter, "old", 4)
        log = dict([entries.statement_entry(counter, "old")])
        (left,) = entries.leftovers(log, 4)[SOURCE.slot()]
        assert (left.deletion.topic, left.deletion.partition, left.deletion.key) == said[:3]


def test_all_slots_of_a_scope_meet_in_one_partition():
    partitions = set()
    for number in range(4):
        partition = PartitionState(SOURCE.__class__(SOURCE.topic, 0, number), rules())
        partition.fold([usage_record(0, input_tokens=1)], 1)
        [counter] = partition.counters.values()
        partitions.add(entries.scope_record(counter, f"writer-{number}", 8).partition)
    assert len(partitions) == 1


def test_watermarks_are_told_from_cells_by_their_key():
    partition = _after(1)
    cell = entries.cell_record(next(iter(partition.cells.values())), "a")
    assert entries.is_watermark(entries.watermark_record(partition.watermark(), "a").key)
    assert not entries.is_watermark(cell.key)
    assert cell.partition == SOURCE.partition


def test_a_dead_letter_is_the_untouched_record_with_the_reason_beside_it():
    partition = state()
    record = usage_record(7)
    record.value = b"{"
    partition.fold([record], 8)
    letter = entries.dead_letter_record(partition.letters[0], SOURCE)
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == ("usage.events.v1.dlt", record.key, b"{")
    assert headers["__streams.errors.exception"] == b"not_json"
    assert headers["__streams.errors.offset"] == b"7"
    assert headers["ce_id"] == b"e7"
