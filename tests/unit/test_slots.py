"""What counts of a source that is being stated anew: all of what it said before, until all of it was said again."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import NANOS
from streams.core import slots as stated
from streams.core.slots import Slot
from tests.unit.records import NOON
from tests.unit.test_budgets import DAY_END, Run, said


def heard(*statements) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for statement in statements:
        stated.take_in(slots, statement)
    return slots


def total(slots: dict[str, Slot]) -> int:
    return stated.total(slots.values()) // NANOS


BEFORE = (said(40, offset=9), said(30, offset=25, segment=20))


@pytest.mark.parametrize(
    ("again", "spent", "whole"),
    [
        ([said(40, offset=9, revision=1)], 70, False),
        ([said(30, offset=25, segment=20, revision=1)], 70, False),
        ([said(1, offset=3, revision=1), said(30, offset=25, segment=20, revision=1)], 70, False),
        ([said(35, offset=9, revision=1), said(30, offset=25, segment=20, revision=1)], 65, True),
        ([said(62, offset=25, revision=1)], 62, True),
        ([said(62, offset=30, revision=1)], 62, True),
        ([said(62, offset=24, revision=1)], 70, False),
        ([said(99, offset=30, segment=5, revision=1)], 70, False),
        ([said(5, offset=3, revision=1), said(62, offset=30, revision=2)], 62, True),
        ([said(62, offset=30, revision=2), said(99, offset=40, revision=1)], 62, True),
        ([said(5, offset=3, revision=1), said(99, offset=90, revision=0)], 70, False),
    ],
    ids=[
        "one of two segments is missing",
        "the older one is missing",
        "one of them is not as far as it was",
        "both are as far as they were",
        "one new segment holds both",
        "and more",
        "it ends before they ended",
        "it begins after they began",
        "a third revision overtakes the second",
        "a revision that was overtaken says nothing any more",
        "nor does the one that is being replaced",
    ],
)
def test_a_source_stated_anew_counts_once_it_covers_what_was_stated_before(again, spent, whole):
    slots = heard(*BEFORE, *again)
    assert (total(slots), all(slot.is_whole for slot in slots.values())) == (spent, whole)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_statements_of_two_revisions_commute(order):
    statements = [*BEFORE, said(50, offset=9, revision=1), said(31, offset=26, segment=20, revision=1)]
    assert total(heard(*(statements[place] for place in order))) == 81


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
@pytest.mark.parametrize(
    ("again", "spent"),
    [
        pytest.param(said(90, offset=25), 90, id="counted anew from the beginning, it holds both"),
        pytest.param(said(90, offset=22), 120, id="it ends before the second does, which adds to it"),
        pytest.param(said(10, offset=24, segment=21), 70, id="it lies within the second and says nothing"),
    ],
)
def test_a_segment_that_lies_within_another_says_nothing_in_any_order(again, spent, order):
    statements = [*BEFORE, again, again]
    assert total(heard(*(statements[place] for place in order))) == spent


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 30), st.integers(0, 2)), max_size=30))
def test_a_repeat_of_everything_changes_nothing(told):
    statements = [
        said(
            10 + offset, offset=10 * segment + offset % 10, segment=10 * segment, revision=revision, partition=partition
        )
        for revision, segment, offset, partition in told
    ]
    slots = heard(*statements)
    before = total(slots), {name: slot.revision for name, slot in slots.items()}
    for statement in statements:
        stated.take_in(slots, statement)
    assert (total(slots), {name: slot.revision for name, slot in slots.items()}) == before


def test_nothing_is_resolved_or_released_until_the_source_is_whole_again_and_nothing_crosses_twice():
    run = Run().hear(said(60, offset=50)).hear(said(60, offset=50, partition=1))
    run.alerts.clear()
    # A rebuild at another price states its counters from the beginning; the other source has a credit meanwhile.
    run.hear(said(0, offset=0, partition=1, revision=1)).hear(said(10, offset=60))
    assert (run.alerts, run.actions) == ([], ["block"])
    run.hear(said(29, offset=49, partition=1, revision=1))
    assert (run.alerts, run.actions) == ([], ["block"])
    run.hear(said(30, offset=50, partition=1, revision=1))
    assert [status for _, status, _ in run.alerts] == ["resolved"] * 4
    assert run.actions == ["block", "allow"]


def test_a_source_that_is_never_whole_again_is_let_go_by_the_end_of_its_period():
    run = Run().hear(said(110, offset=50)).hear(said(1, offset=0, revision=1)).decide(DAY_END - 1)
    assert run.actions == ["block"]
    assert run.decide(DAY_END).actions == ["block", "allow"]


def test_a_source_that_is_half_there_survives_a_restart_as_that():
    run = Run().hear(said(110, offset=50)).hear(said(1, offset=0, revision=1)).restart()
    assert not run.state.is_whole
    assert run.hear(said(90, offset=50, revision=1), now=NOON).actions == ["block", "allow"]
