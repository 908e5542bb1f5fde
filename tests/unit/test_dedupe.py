"""The de-duplication window against its rule written naively, with batches, restarts, and generations that fill up."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import dedupe
from streams.core.dedupe import GENERATIONS, DedupeWindow, Mark, identity

#: One generation lasts ten.
WINDOW = 10 * GENERATIONS


class Generation(NamedTuple):
    """A naive generation."""

    number: int
    first_offset: int
    ids: set[bytes]


class Naive:
    """The rule as documented: ids live in generations of stream time, full ones are followed by another."""

    def __init__(self, ids_max: int) -> None:
        self.ids_max, self.full = ids_max, max(1, ids_max // GENERATIONS)
        self.generations: list[Generation] = []
        self.dropped_early = 0

    def first_seen(self, digest: bytes, offset: int, stream_time: int) -> bool:
        number, held = stream_time // 10, self.generations
        if not held or number > held[-1].number:
            held.append(Generation(number, offset, set()))
            while len(held) > 1 and held[0].number < number - GENERATIONS:
                del held[0]
        elif len(held[-1].ids) >= self.full:
            held.append(Generation(held[-1].number, offset, set()))
        seen = any(digest in generation.ids for generation in held)
        if digest not in held[-1].ids:
            held[-1].ids.add(digest)
            if sum(len(generation.ids) for generation in held) > self.ids_max and len(held) > 1:
                del held[0]
                self.dropped_early += 1
        return not seen


class Seen(NamedTuple):
    """One record as far as the window cares."""

    offset: int
    digest: bytes
    stream_time: int


def _in_batches(window: DedupeWindow, batch: Sequence[Seen]) -> list[bool]:
    """As METER asks: suspects at once, new ids noted together, turns where stream time crosses one."""
    verdicts, fresh = [], []
    suspects = window.suspects([each.digest for each in batch])
    for each, is_suspect in zip(batch, suspects, strict=True):
        if is_suspect:
            window.note(fresh)
            fresh.clear()
            verdicts.append(window.first_seen(each.digest, each.offset, each.stream_time))
            continue
        if each.stream_time >= window.turns_at:
            window.note(fresh)
            fresh.clear()
            window.advance(each.stream_time, each.offset)
        fresh.append(each.digest)
        verdicts.append(True)
    window.note(fresh)
    return verdicts


def _shape(window: DedupeWindow) -> tuple[list[tuple[int, int]], int, int]:
    return [(mark.number, mark.first_offset) for mark in window.marks], len(window), window.dropped_early


def _naive_shape(naive: Naive) -> tuple[list[tuple[int, int]], int, int]:
    return (
        [(generation.number, generation.first_offset) for generation in naive.generations],
        sum(len(generation.ids) for generation in naive.generations),
        naive.dropped_early,
    )


#: Few ids, so that most come again; some share a half, and the lower half of the first is zero.
POOL = [struct.pack("<QQ", number // 3 * (number % 2), number) for number in range(24)] + [
    identity("//gw/1", f"e{number}") for number in range(24)
]


@st.composite
def streams(draw):
    """Records with gaps between their offsets and a stream time that stands, creeps and leaps."""
    plan = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(POOL) - 1),
                st.sampled_from([1, 1, 1, 2, 5]),
                st.sampled_from([0, 0, 0, 1, 4, 11, 75]),
            ),
            max_size=90,
        )
    )
    offset, stream_time, found = draw(st.integers(0, 3)), draw(st.integers(0, 100)), []
    for number, step, later in plan:
        stream_time += later
        found.append(Seen(offset, POOL[number], stream_time))
        offset += step
    return found


def _splits(draw, records: Sequence[Seen]) -> list[Sequence[Seen]]:
    bounds = sorted(draw(st.sets(st.integers(1, max(1, len(records) - 1)), max_size=8)))
    pieces = [records[start:end] for start, end in zip([0, *bounds], [*bounds, len(records)], strict=True)]
    return [piece for piece in pieces if piece]


@settings(max_examples=150, deadline=None)
@given(
    records=streams(),
    ids_max=st.sampled_from([1, 5, 12, 30, 61, 1000]),
    noted_max=st.sampled_from([1, 3, 4096]),
    data=st.data(),
)
def test_any_batches_give_the_verdicts_of_one_by_one_and_of_the_rule(records, ids_max, noted_max, data):
    naive, single, batched = Naive(ids_max), DedupeWindow(WINDOW, ids_max), DedupeWindow(WINDOW, ids_max)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dedupe, "_NOTED_MAX", noted_max)
        for batch in _splits(data.draw, records):
            expected = [naive.first_seen(each.digest, each.offset, each.stream_time) for each in batch]
            assert [single.first_seen(each.digest, each.offset, each.stream_time) for each in batch] == expected
            assert _in_batches(batched, batch) == expected
            assert _shape(single) == _naive_shape(naive)
            assert _shape(batched) == _naive_shape(naive)
            assert len(batched) <= ids_max or len(batched.marks) == 1


@settings(max_examples=150, deadline=None)
@given(records=streams(), ids_max=st.sampled_from([5, 12, 30, 1000]), deaths=st.integers(1, 3), data=st.data())
def test_a_window_rebuilt_from_its_first_mark_answers_like_the_one_that_never_died(records, ids_max, deaths, data):
    naive, window = Naive(ids_max), DedupeWindow(WINDOW, ids_max)
    done = 0
    for _ in range(deaths):
        end = data.draw(st.integers(done, len(records)))
        for batch in _splits(data.draw, records[done:end]):
            expected = [naive.first_seen(each.digest, each.offset, each.stream_time) for each in batch]
            assert _in_batches(window, batch) == expected
        done, died = end, window
        window = DedupeWindow(WINDOW, ids_max, died.marks)
        # Reading may begin anywhere at or below the first mark: what is older belongs to no generation.
        begin = died.rebuild_from
        again = [
            each for each in records[:done] if begin is not None and each.offset >= begin - data.draw(st.integers(0, 9))
        ]
        for batch in _splits(data.draw, again):
            window.recall([each.digest for each in batch], [each.offset for each in batch])
        assert (window.marks, len(window)) == (died.marks, len(died))
    for each in records[done:]:
        expected = naive.first_seen(each.digest, each.offset, each.stream_time)
        assert window.first_seen(each.digest, each.offset, each.stream_time) == expected
    assert _shape(window)[:2] == _naive_shape(naive)[:2]


@settings(max_examples=100, deadline=None)
@given(records=streams(), ids_max=st.sampled_from([5, 30, 1000]), data=st.data())
def test_recalling_what_a_living_window_holds_changes_nothing(records, ids_max, data):
    naive, window = Naive(ids_max), DedupeWindow(WINDOW, ids_max)
    done: list[Seen] = []
    for batch in _splits(data.draw, records):
        expected = [naive.first_seen(each.digest, each.offset, each.stream_time) for each in batch]
        assert _in_batches(window, batch) == expected
        done += batch
        if data.draw(st.booleans()):
            again = done[data.draw(st.integers(0, len(done) - 1)) :]
            window.recall([each.digest for each in again], [each.offset for each in again])
        assert _shape(window) == _naive_shape(naive)


def test_an_id_is_known_for_the_whole_window_and_forgotten_a_generation_after_it():
    window = DedupeWindow(WINDOW, 1000)
    assert window.first_seen(POOL[0], 0, 9)
    assert not window.first_seen(POOL[0], 1, 9 + WINDOW)
    forgetful = DedupeWindow(WINDOW, 1000)
    assert forgetful.first_seen(POOL[0], 0, 9)
    assert forgetful.first_seen(POOL[0], 1, 10 + WINDOW)


def test_a_hundred_thousand_ids_take_at_most_64_bytes_each():
    for stream_times in (lambda _: 0, lambda place: place // 1_000):
        window = DedupeWindow(WINDOW * 10, 20_000_000)
        for first in range(0, 100_000, 500):
            batch = [
                Seen(place, identity("//gw/1", str(place)), stream_times(place)) for place in range(first, first + 500)
            ]
            assert all(_in_batches(window, batch))
        assert len(window) == 100_000
        assert window.memory_bytes / len(window) <= 64


def test_an_identity_is_its_source_and_its_id_and_where_one_ends():
    assert identity("a", "bc") != identity("ab", "c")
    assert identity("", "1:a") != identity("1:a", "")
    assert identity("\ud800", "x") != identity("\ud801", "x")


def test_a_window_whose_length_was_changed_by_a_setting_still_lets_go_and_still_knows_its_ids():
    hour = 3_600_000_000
    start = 1_795_000_000_000_000
    known = identity("//gw/1", "before")
    for before, after in ((hour, 2 * hour), (2 * hour, hour)):
        window = DedupeWindow(before, 1_000)
        assert window.first_seen(known, 0, start)
        kept = window.marks
        changed = DedupeWindow(after, 1_000, kept)
        changed.recall([known], [0])
        assert not changed.first_seen(known, 1, start + 60_000_000), "what came a minute ago is known"
        assert start < changed.turns_at <= start + hour, "the present generation ends in its own time"
        for step in range(1, 40):
            changed.first_seen(identity("//gw/1", str(step)), step + 1, start + step * hour // 4)
        assert len(changed.marks) <= GENERATIONS + 2
        assert changed.first_seen(known, 99, start + 10 * hour), "and what is over is let go"


def test_marks_of_a_release_that_kept_no_length_were_of_ten_minutes():
    old = Mark(2_991_666, 41)
    assert (old.begins, old.ends) == (2_991_666 * 600_000_000, 2_991_667 * 600_000_000)
    assert Mark.named(*old.name().split("|")) == old
