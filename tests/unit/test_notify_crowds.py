"""A group of thousands: a message names the worst of them and counts the rest."""

from random import Random

import msgspec
import pytest

from schemas.instants import SECOND
from streams.core.routes import Integration, ReceiverRule, Route, Routes
from streams.core.telling import ALERTS_MAX, ENDED_PLACES
from tests.unit.notify_world import World, alert

ONE_GROUP = Routes(
    Route("/", (), ("room",), (), 10 * SECOND, 10 * SECOND),
    {"room": ReceiverRule("room", (Integration("room/slack", "slack"),))},
)
#: Of 5 000 alerts: 20 emergencies, 480 critical, the rest warnings.
SIZE = 5_000


def one(number: int, status: str = "opened", **more):
    severity = "emergency" if number % 250 == 0 else "critical" if number % 10 == 0 else "warning"
    return alert(f"b{number:04d}", status, **({"severity": severity, "tier": "ticket", "team_id": ""} | more))


def names(said):
    return [each.scope_id for each in said.alerts]


@pytest.fixture(scope="module")
def crowd() -> World:
    return World(ONE_GROUP).hear(*(one(number) for number in range(SIZE))).pass_until(20)


def again(crowd: World) -> World:
    """The same world for one test: what it says belongs to nobody else."""
    fresh = World(ONE_GROUP).hear(*crowd.alerts.values())
    return fresh.pass_until(20)


def test_a_message_names_the_worst_and_counts_the_rest(crowd):
    (said,) = crowd.said
    assert len(said.alerts) == ALERTS_MAX
    assert [each.severity for each in said.alerts] == ["emergency"] * 20 + ["critical"] * 80
    assert said.held_back == {"critical": 400, "warning": 4_500}
    assert len(msgspec.json.encode(said)) < 100_000


def test_everybody_is_known_as_told_though_only_some_are_named(crowd):
    assert {len(told.firing) for stored in crowd.groups.values() for told in stored.told} == {SIZE}
    assert len(again(crowd).flush_all().said) == 1


def test_the_end_of_all_says_that_all_have_ended(crowd):
    world = again(crowd)
    world.hear(*(one(number, "resolved", at=30) for number in range(SIZE))).pass_until(60)
    said = world.said[-1]
    assert (said.action, said.reason, len(said.alerts)) == ("resolve", "resolved", ALERTS_MAX)
    assert said.held_back == {"ended": SIZE - ALERTS_MAX}


def test_what_ended_keeps_a_few_places_beside_what_fires(crowd):
    world = again(crowd)
    world.hear(*(one(number, "resolved", at=30) for number in range(1, SIZE, 2))).pass_until(60)
    said = world.said[-1]
    states = [each.status == "resolved" for each in said.alerts]
    assert states == [False] * (ALERTS_MAX - ENDED_PLACES) + [True] * ENDED_PLACES
    assert said.held_back == {"critical": 420, "warning": 2_000, "ended": 2_500 - ENDED_PLACES}


RANKED = [
    one(1, severity="emergency", tier="page"),
    one(2, severity="emergency"),
    one(3, severity="critical", at_stake_per_hour="12.5"),
    one(4, severity="critical", at_stake_per_hour="3"),
    one(5, severity="critical", at=1),
    one(6, severity="critical", at=1, at_stake_per_hour="strange"),
    one(7, severity="warning", at_stake_per_hour="900"),
]


def test_severity_goes_before_tier_money_and_age_in_whatever_order_they_come():
    shuffled = RANKED[:]
    Random(5).shuffle(shuffled)
    world = World(ONE_GROUP).hear(*shuffled).pass_until(20)
    assert names(world.said[0]) == [each.scope_id for each in RANKED]


def test_of_equals_the_oldest_goes_first():
    world = World(ONE_GROUP).hear(one(9)).pass_until(5).hear(one(8)).pass_until(20)
    assert names(world.said[0]) == ["b0009", "b0008"]
