"""Who spent a cell's money: keys and users, told apart up to bounds, and never more or less than the cell holds."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.instants import HOUR
from streams.core.admission import OTHER
from streams.core.spender_log import BLOCK, SPENDER_LOGS, kept
from streams.core.spenders import Spenders
from tests.unit.meter_rig import Oracle, Rig, plain, rig_rules
from tests.unit.records import NOON, rules, state, usage_record


def spent(partition):
    """Calls by key and user, over all cells of a partition."""
    found = {}
    for cell in partition.cells.values():
        for row in partition.spenders.rows_of(cell):
            found[row.key_id, row.user_id] = found.get((row.key_id, row.user_id), 0) + row.requests
    return found


def calls(*names, **fields):
    """A call for each ``key/user``, in order."""
    found = []
    for offset, name in enumerate(names):
        key, _, user = name.partition("/")
        found.append(usage_record(offset, key_id=key, user_id=user, input_tokens=1 + offset, **fields))
    return found


def rows_in(logged):
    """The rows of records that went through their encoding, in any order."""
    return kept([SPENDER_LOGS.decode(msgspec.json.encode(record)) for record in reversed(logged.records)])


def folded(*names, **changes):
    partition = state(**changes)
    partition.fold(calls(*names), len(names))
    return partition


@pytest.mark.parametrize(
    ("names", "bounds", "expected"),
    [
        pytest.param(["k/u", "k/u", "k/v"], {}, {("k", "u"): 2, ("k", "v"): 1}, id="each key and user by itself"),
        pytest.param(["7/8", "9/9", "7/8"], {}, {("7", "8"): 2, ("9", "9"): 1}, id="whatever they are called"),
        pytest.param(["", "/u", "k/"], {}, {("", ""): 1, ("", "u"): 1, ("k", ""): 1}, id="who names nobody is nobody"),
        pytest.param(
            ["k/a", "k/b", "k/c", "k/a"], {"team_spenders_max": 2}, {("k", "a"): 2, ("k", "b"): 1, ("k", OTHER): 1},
            id="users without room stand under their key",
        ),
        pytest.param(
            ["k/a", "l/b", "m/c", "n/d", "l/z"], {"team_spenders_max": 1}, {("k", "a"): 1, ("l", OTHER): 2},
            id="keys without room are in the cell alone",
        ),
        pytest.param(["k/a", "l/b"], {"spenders_max": 1}, {("k", "a"): 1, ("l", OTHER): 1}, id="a partition has its own bound"),
        pytest.param(["k/a", "k/b"], {"spenders_max": 0}, {}, id="none are told apart where none may be"),
        pytest.param(
            [f"k/{OTHER}", "k/a", f"k/{OTHER}"], {}, {("k", OTHER): 2, ("k", "a"): 1}, id="a user who is called as the rest is",
        ),
    ],
)  # fmt: skip
def test_calls_are_told_apart_by_key_and_user(names, bounds, expected):
    assert spent(folded(*names, **bounds)) == expected


def test_a_cell_that_leaves_memory_makes_room_for_others():
    partition = folded("k/a", "k/b", team_spenders_max=2)
    partition.changed_cells.clear()
    partition.stream_time = NOON + 9 * HOUR
    gone = partition.evict(1 << 60)
    assert [statement.rows for statement in gone[-1:]] == [[]]
    partition.fold(calls("k/x", "k/y", "k/z", at=NOON + 9 * HOUR)[2:], 3)
    assert spent(partition) == {("k", "z"): 1}
    assert len(partition.spenders) == 1


def test_a_cell_leaves_only_after_the_ledger_has_read_what_was_said_of_its_rows():
    partition = folded("k/a", "k/b")
    partition.spenders.take(1)
    assert partition.spenders.say(0, partition.next_offset)
    partition.changed_cells.clear()
    partition.stream_time = NOON + 9 * HOUR
    # The watermark of 2 may have been read before the rows.
    assert partition.evict(2) == []
    assert partition.evict(3) != []


def test_rows_stay_in_their_blocks_whatever_was_durable_of_each():
    names = [f"k/u{number}" for number in range(2 * BLOCK + 3)]
    partition = folded(*names)
    # The end of the first block, and all of the third, were in a record that was never written.
    durable = [
        row for row in rows_in(partition.spenders.take(99)) if row.stands not in (*range(14, 16), *range(32, 35))
    ]
    other = state()
    other.restore(partition.cells.values(), durable)
    missing = [*names[BLOCK - 2 : BLOCK], names[2 * BLOCK]]
    other.fold([usage_record(100 + number, key_id="k", user_id=name[2:]) for number, name in enumerate(missing)], 103)
    other.spenders.take(102)
    again = [
        [row.user_id for row in block.rows]
        for block in sorted(other.spenders.say(0, other.next_offset), key=lambda each: each.block)
    ]
    assert again == [
        [f"u{number}" for number in range(BLOCK)],
        [f"u{number}" for number in range(BLOCK, 2 * BLOCK)],
        [f"u{2 * BLOCK}"],
    ]


def test_a_million_dollar_call_and_a_billion_dollar_row_are_kept_to_the_nanodollar():
    spenders = Spenders(9, 9)
    (cell,) = folded("k/a").cells.values()
    who = (spenders.number(cell), "k", "a")
    amounts = [10**18 + 1, 7, 2**62, 2**50 - 1, 2**50, 3]
    for offset, nanos in enumerate(amounts):
        spenders.add(who, offset, nanos, 0)
        if offset % 2:
            spenders.drain()
    for _ in range(5_000):
        spenders.add(who, 99, 2**50 - 1, 0)
    assert spenders.rows_of(cell)[0].cost_nanos == sum(amounts) + 5_000 * (2**50 - 1)


def test_only_blocks_in_which_something_changed_are_stated_again():
    partition = state()
    names = [f"k/u{number}" for number in range(BLOCK + 2)]
    partition.fold(calls(*names), len(names))
    partition.spenders.take(partition.next_offset - 1)
    assert [each.block for each in partition.spenders.say(0, partition.next_offset)] == [0, 1]
    partition.fold([usage_record(99, key_id="k", user_id=f"u{BLOCK}", input_tokens=5)], 100)
    (changed,) = partition.spenders.take(partition.next_offset - 1).records
    assert len(changed.rows) == 4, "one number"
    (again,) = partition.spenders.say(0, partition.next_offset)
    assert (again.block, [row.requests for row in again.rows]) == (1, [2, 1])
    assert (
        partition.spenders.take(partition.next_offset - 1).records
        == list(partition.spenders.say(0, partition.next_offset))
        == []
    )


def test_rows_whose_cell_is_gone_are_left_out():
    partition = folded("k/a", "k/b")
    (cell,) = partition.cells.values()
    rows = rows_in(partition.spenders.take(1))
    other = state()
    other.restore([], rows)
    assert len(other.spenders) == 0
    other.restore([cell], rows)
    assert spent(other) == {("k", "a"): 1, ("k", "b"): 1}
    assert other.sure_from == 2


def test_a_bound_may_be_changed_between_two_lives():
    partition = folded("k/a", "k/b", "k/c")
    (cell,) = partition.cells.values()
    rows = rows_in(partition.spenders.take(2))
    other = state(team_spenders_max=1)
    other.restore([cell], rows)
    other.next_offset = 3
    other.fold([usage_record(3, key_id="k", user_id="d", input_tokens=1), *calls(*["k/a"] * 5)[4:]], 5)
    assert spent(other) == {("k", "a"): 2, ("k", "b"): 1, ("k", "c"): 1, ("k", OTHER): 1}


traffic = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 6), st.integers(0, 2)), max_size=40)


def _records(found):
    return [
        usage_record(
            offset, at=NOON + hours * 3 * HOUR, arrived=NOON + 6 * HOUR, team=f"t{key % 2}", feature=f"f{offset % 2}",
            key_id=f"k{key}", user_id=f"u{user}", input_tokens=1 << tokens,
        )
        for offset, (key, user, tokens, hours) in enumerate(found)
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    found=traffic,
    first=st.integers(0, 20),
    meanwhile=st.integers(0, 5),
    cut=st.floats(0, 1),
    evicting=st.booleans(),
    most=st.integers(0, 6),
    team_most=st.integers(0, 4),
)
def test_a_crash_anywhere_tells_the_same_of_everybody_and_no_more_than_the_cells_hold(
    found, first, meanwhile, cut, evicting, most, team_most
):
    changes = {"spenders_max": most, "team_spenders_max": team_most, "cells_idle_us": HOUR // 2}
    records = _records(found)
    rig, undying = (Rig(rig_rules(**changes), records, iter("abcd").__next__) for _ in range(2))
    for each in (rig, undying):
        each.take(first, 7)
        each.flush(evicting=False)
        each.flush(evicting=True)
        each.take(meanwhile, 2)
    rig.flush(evicting=evicting, cut=cut)
    rig.begin()
    for each in (rig, undying):
        each.finish()
    if not evicting:  # else there is room for others in the one life before the other
        assert plain(rig.store.spent_by()) == plain(undying.store.spent_by())
    oracle = Oracle(rig_rules(**changes), records)
    told = plain(rig.store.spent_by())
    for (cell, key, user), numbers in told.items():
        if user != OTHER:
            assert numbers["cost_nanos"] <= oracle.spenders[cell, key, user]["cost_nanos"]
    for cell, key in {who[:2] for who in told}:
        of_key = sum(each["cost_nanos"] for who, each in told.items() if who[:2] == (cell, key))
        assert of_key <= sum(each["cost_nanos"] for who, each in oracle.spenders.items() if who[:2] == (cell, key))
    live = [row for cell in rig.state.cells.values() for row in rig.state.spenders.rows_of(cell)]
    assert sum(row.user_id != OTHER for row in live) <= most
    if most >= 6 and team_most >= 4 and len({each[:2] for each in found}) * 6 <= team_most:
        assert told == plain(oracle.spenders)


@settings(max_examples=60, deadline=None)
@given(found=traffic, cut=st.floats(0, 1))
def test_by_key_and_by_user_the_sums_are_the_cells_to_the_nanodollar(found, cut):
    records = _records(found)
    rig = Rig(rig_rules(), records, iter("abcd").__next__)
    rig.take(len(records) // 2, 3)
    rig.flush(evicting=False, cut=cut)
    rig.begin()
    rig.finish()
    oracle = Oracle(rig_rules(), records)
    assert plain(rig.store.spent_by()) == plain(oracle.spenders)
    rows = sum(numbers["cost_nanos"] for numbers in rig.store.spent_by().values())
    assert rows == sum(cell["cost_nanos"] for cell in rig.store.sums(of_cells=True).values()) == oracle.nanos


@pytest.mark.parametrize("cut", [number / 20 for number in range(21)])
def test_wherever_a_flush_is_cut_short_no_call_is_added_twice_to_who_made_it(cut):
    records = calls("k/a", "k/b", "l/a", "k/a", "k/c", "l/a", "k/b", "", "k/a", team="search")
    rig = Rig(rig_rules(), records, iter("abcd").__next__)
    rig.take(3, 2)
    rig.flush(evicting=False)
    rig.take(4, 2)
    rig.flush(evicting=False, cut=cut)
    rig.begin()
    rig.finish()
    assert plain(rig.store.spent_by()) == plain(Oracle(rig_rules(), records).spenders)


def test_rules_bound_spenders_unless_they_are_told_otherwise():
    assert (rules().spenders_max, rules().team_spenders_max) == (100_000, 20_000)
