"""A training run beyond the hours that it announced is a ticket, measured from its first money to its newest."""

import msgspec
import pytest

from schemas.instants import HOUR, format_instant
from tests.unit.records import NOON
from tests.unit.test_budget_changes import RUN, Flight, scope_of_run
from tests.unit.test_budgets import said

TEN_HOURS = msgspec.structs.replace(RUN, state="approved", estimate_hours=10)


async def spends(world: Flight, *hours: int) -> Flight:
    """A dollar more at each of these hours after noon."""
    for offset, hour in enumerate(hours, 1):
        world.clock.at = NOON + hour * HOUR
        await world.hear(said(offset, offset=offset, at=NOON + hour * HOUR), scope=scope_of_run())
    return world


def told(world: Flight) -> list[tuple[str, str, str, str]]:
    return [(a.status, a.severity, a.observed, a.expected) for a in world.alerts if a.rule == "run_overdue"]


@pytest.mark.parametrize(
    ("run", "hours", "expected"),
    [
        (TEN_HOURS, (0, 5, 10), []),
        (TEN_HOURS, (0, 5, 11), [("opened", "warning", "11", "10")]),
        (TEN_HOURS, (0, 11, 12, 14), [("opened", "warning", "11", "10")]),
        (TEN_HOURS, (0, 11, 15, 16), [("opened", "warning", "11", "10"), ("updated", "critical", "15", "10")]),
        (TEN_HOURS, (0, 40), [("opened", "critical", "40", "10")]),
        (TEN_HOURS, (30, 35, 40), []),
        (RUN, (0, 500), []),
        (msgspec.structs.replace(TEN_HOURS, state="ended"), (0, 40), []),
    ],
    ids=[
        "within its hours",
        "an hour too long",
        "told once",
        "graver at one and a half times",
        "at once where it was not heard of in between",
        "from its first money, not from its announcement",
        "no hours announced",
        "ended",
    ],
)
async def test_a_run(run, hours, expected):
    assert told(await spends(Flight(run), *hours)) == expected


async def test_a_run_that_is_given_more_time_is_let_off_and_told_again_when_that_is_over():
    world = await spends(Flight(TEN_HOURS), 0, 11)
    await world.define(msgspec.structs.replace(TEN_HOURS, estimate_hours=20)).tick(NOON + 11 * HOUR)
    assert [status for status, *_ in told(world)] == ["opened", "resolved"]
    world.clock.at = NOON + 21 * HOUR
    await world.hear(said(9, offset=9, at=NOON + 21 * HOUR), scope=scope_of_run())
    assert [status for status, *_ in told(world)] == ["opened", "resolved", "opened"]
    overdue = [a for a in world.alerts if a.rule == "run_overdue"]
    assert [a.episode for a in overdue] == [1, 1, 2]
    assert overdue[0].summary.startswith("Training run r-7 of team ml has run for 11 h and announced 10 h: $2.00 of")
    assert {a.tier for a in overdue} == {"ticket"}


async def test_a_run_that_ends_is_resolved():
    world = await spends(Flight(TEN_HOURS), 0, 11)
    await world.define(msgspec.structs.replace(TEN_HOURS, state="ended")).tick(NOON + 12 * HOUR)
    assert [status for status, *_ in told(world)] == ["opened", "resolved"]


async def test_a_restart_says_nothing_twice():
    world = await spends(Flight(TEN_HOURS), 0, 11)
    await world.restart(TEN_HOURS).tick(NOON + 11 * HOUR)
    assert len(told(world)) == 1


async def test_a_run_that_gets_worse_or_ends_has_been_late_since_it_was_late_first():
    world = await spends(Flight(TEN_HOURS), 0, 11, 15)
    await world.define(msgspec.structs.replace(TEN_HOURS, state="ended")).tick(NOON + 16 * HOUR)
    overdue = [(a.status, a.occurred_at, a.stated_at) for a in world.alerts if a.rule == "run_overdue"]
    late = format_instant(NOON + 11 * HOUR)
    assert overdue == [
        ("opened", late, late),
        ("updated", late, format_instant(NOON + 15 * HOUR)),
        ("resolved", late, format_instant(NOON + 16 * HOUR)),
    ]
