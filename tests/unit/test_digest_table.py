"""The table of digests against a plain set: what is in it, however it grew and whatever met on one slot."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.digest_table import DigestTable, filter_bits, halves


def _digest(lower: int, upper: int) -> bytes:
    return struct.pack("<QQ", lower, upper)


#: Slots follow the upper 32 bits of the lower half: few values there make long runs, the largest make them wrap around.
#: A lower half of nothing is kept as one, so the two are never generated together.
LOWERS = st.one_of(
    st.just(0),
    st.integers(2, (1 << 64) - 1),
    st.sampled_from([2, 1 << 32, (1 << 64) - 1, 0xFFFFFFFF_00000000, 0xFFFFFFFF_00000001, 0x7FFFFFFF_00000000]),
)
DIGESTS = st.builds(_digest, LOWERS, st.one_of(st.integers(0, 5), st.integers(0, (1 << 64) - 1)))


def _check(table: DigestTable, expected: set[bytes], strangers: set[bytes]) -> None:
    assert len(table) == len(expected)
    assert all(digest in table for digest in expected)
    assert not any(digest in table for digest in strangers - expected)
    lower, upper = table.digests()
    assert {(max(1, lo), up) for lo, up in map(struct.Struct("<QQ").unpack, expected)} == set(
        zip(lower.tolist(), upper.tolist(), strict=True)
    )
    if expected:
        lower, upper = halves(b"".join(expected))
        assert table.suspects(upper, filter_bits(lower)).all(), "a filter never overlooks what is there"


@settings(max_examples=100, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.booleans(), st.sets(DIGESTS, max_size=80)), max_size=12),
    strangers=st.sets(DIGESTS, max_size=40),
    expected=st.integers(0, 300),
)
def test_a_table_holds_what_a_set_holds(chunks, strangers, expected):
    table, oracle = DigestTable(expected), set()
    for at_once, chunk in chunks:
        new = sorted(chunk - oracle)
        if at_once and new:
            table.add_many(*halves(b"".join(new)))
        else:
            for digest in new:
                table.add(digest)
        oracle |= chunk
        _check(table, oracle, strangers)


@pytest.mark.parametrize("first", [0, (1 << 64) - (1 << 40)], ids=["from the first slot", "from the last slot on"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_digests_that_all_want_one_slot_are_all_kept(first, at_once):
    digests = [_digest(first, upper) for upper in range(600)]
    table = DigestTable()
    if at_once:
        table.add_many(*halves(b"".join(digests)))
    else:
        for digest in digests:
            table.add(digest)
    _check(table, set(digests), {_digest(first, upper) for upper in range(600, 700)} | {_digest(first + 2, 0)})


def test_a_table_that_grows_many_times_keeps_everything_and_stays_small():
    random = np.random.default_rng(7)
    table, oracle = DigestTable(), set()
    for size in (1, 150, 9, 1, 3_000, 1, 40_000, 1, 1, 57_000):
        raw = random.bytes(16 * size)
        table.add_many(*halves(raw))
        oracle |= {raw[place : place + 16] for place in range(0, len(raw), 16)}
    strangers = random.bytes(16 * 100_000)
    lower, upper = halves(strangers)
    _check(table, oracle, {strangers[:16]})
    assert table.memory_bytes / len(table) <= 64
    assert table.suspects(upper, filter_bits(lower)).mean() < 0.05, "the filter lets too much through"


def test_adding_from_the_outside_leaves_the_givers_bytes_alone():
    raw = _digest(0, 1) + _digest(5, 6)
    lower, upper = halves(raw)
    table = DigestTable()
    table.add_many(lower, upper)
    assert (lower.tolist(), upper.tolist()) == ([1, 5], [1, 6])
    assert _digest(0, 1) in table
    assert _digest(0, 6) not in table


@settings(max_examples=50, deadline=None)
@given(digests=st.sets(DIGESTS, min_size=1, max_size=60), expected=st.integers(0, 300))
def test_the_bytes_of_a_table_follow_from_what_is_in_it_and_not_from_how_it_grew(digests, expected):
    """Pieces of them are kept, and a piece of one writer may stand beside a piece of another."""
    grown, filled = DigestTable(), DigestTable(expected)
    for digest in digests:
        grown.add(digest)
    filled.add_many(*halves(b"".join(sorted(digests))))
    assert grown.to_bytes() == filled.to_bytes()
    again = DigestTable()
    again.add_many(*halves(filled.to_bytes()))
    _check(again, digests, set())
