"""The heartbeat: what it takes to beat, and what it says."""

import msgspec
import pytest

from schemas.instants import SECOND
from schemas.topics import USAGE_EVENTS
from streams.core.diagnosis import is_well
from streams.core.facts import GroupFact, Level, Reach
from streams.core.watch import WatchState, open_episodes, step
from streams.core.watch_heartbeat import BODY_MAX, body, bounds_of, judged, unseen
from streams.core.watch_look import Look, TopicLag, WatchPolicy, marks_of, slots_of
from streams.embedded.process import free_port
from streams.sinks.heartbeat import HttpHeartbeat
from streams.watch_ports import HeartbeatError, ReceiverOwed
from tests.integration.dead_mans_switch import dead_mans_switch
from tests.unit.records import NOON
from tests.unit.test_diagnosis import STAGES, Address, well, without

POLICY = WatchPolicy()
BOUNDS = bounds_of(POLICY, 4, "k1:9092,k2:9092")
FINE = Look(receivers=[])


def owed(seconds):
    return Look(receivers=[ReceiverOwed("slack", 3, seconds * SECOND, 0, 0, "HTTP 500")])


def alerts(lag_s, topic=USAGE_EVENTS):
    """What is open once a lag has been there for a while."""
    state = WatchState()
    for number in range(5):
        look = Look(lags=[TopicLag("sluice", topic, 5, lag_s * SECOND)])
        state, _ = step(state, look, NOON + number * 15 * SECOND, POLICY)
    return open_episodes(state)


def unread(seconds):
    return {"reaches": [Reach(USAGE_EVENTS, 0, 0, 10, 5, round(seconds * SECOND), "sluice")]}


BEATS = {
    "all is well": (well(), FINE, []),
    "idle by right: nothing is unread, however long ago the last record came": (well(**unread(0)), FINE, []),
    "records on their way": (well(**unread(20)), FINE, []),
    "a lag that is a ticket": (well(**unread(90)), FINE, alerts(90)),
    "messages that are retried": (well(), owed(60), []),
}


@pytest.mark.parametrize("case", BEATS)
def test_it_beats(case):
    facts, look, said = BEATS[case]
    assert is_well(judged(facts, look, said, BOUNDS, POLICY))


SKIPS = {
    "the broker is away": (
        msgspec.structs.replace(well(), addresses=[Address("k1:9092", "refuses connections")], topics=None, groups=None),
        FINE, [], "broker",
    ),
    "a topic is missing": (well(**without("alerts.v1")), FINE, [], "topics"),
    "the database is away": (well(database_problem="does not answer"), Look(), [], "database"),
    "no worker is active": (well(groups=[GroupFact("Empty", 0, 0.0, "sluice", STAGES)]), FINE, [], "workers"),
    "no worker folds": (well(groups=[GroupFact("Stable", 1, 0.0, "sluice-notify", ("notify",))]), FINE, [], "workers"),
    "the stream stands still": (well(**unread(301)), FINE, [], "lag"),
    "the ledger is not written": (well(ledger_silent_s=301.0), FINE, [], "tables"),
    "messages do not leave": (well(), owed(301), [], "outbox"),
    "a page about Sluice itself is open": (well(), FINE, alerts(301), "watch"),
}  # fmt: skip


@pytest.mark.parametrize("case", SKIPS)
def test_it_fails_and_says_where(case):
    facts, look, said, item = SKIPS[case]
    findings = judged(facts, look, said, BOUNDS, POLICY)
    assert [finding.item for finding in findings if finding.level is Level.FAIL] == [item]
    assert all(finding.todo for finding in findings if finding.level is Level.FAIL)
    assert body(findings, "sluice").splitlines()[1].startswith(f"FAIL {item}: ")


def test_the_body_names_the_deployment_and_every_check():
    text = body(judged(well(), FINE, [], BOUNDS, POLICY), "sluice-eu")
    assert text.splitlines()[0] == "Sluice sluice-eu"
    for item in ("broker", "topics", "replicas", "database", "workers", "tables", "lag", "ledger", "outbox", "watch"):
        assert f"OK   {item}: " in text


def test_the_body_has_a_bound():
    said = [msgspec.structs.replace(alert, summary="x" * 1_000) for alert in alerts(90)] * 50
    assert len(body(judged(well(), FINE, said, BOUNDS, POLICY), "x" * 20_000)) == BODY_MAX


def test_a_look_that_fails_is_no_beat():
    assert not is_well(unseen("RuntimeError()"))


def test_the_ledger_is_compared_with_what_METER_and_nobody_else_has_committed():
    groups = [
        GroupFact("Stable", 1, name="s-meter", stages=("meter",)),
        GroupFact("Stable", 1, name="s-detect", stages=("detect",)),
    ]
    reaches = [
        Reach(USAGE_EVENTS, 0, 5, 100, 90, group="s-meter"), Reach("usage.gpu.v1", 0, 0, 100, 99, group="s-detect"),
        Reach(USAGE_EVENTS, 1, 7, 7, None, group="s-meter"),
    ]  # fmt: skip
    slots = slots_of(well(groups=groups, reaches=reaches), {"usage.events.v1@3-0": 80}, 3)
    assert [(slot.topic, slot.partition, slot.ledger_next, slot.committed) for slot in slots] == [
        (USAGE_EVENTS, 0, 80, 90), (USAGE_EVENTS, 1, 0, None),
    ]  # fmt: skip
    assert [(mark.slot, mark.committed, mark.ledger_next) for mark in marks_of(slots)] == [
        ("usage.events.v1-0", 90, 80)
    ]
    assert slots_of(well(reaches=None), {}, 0) is marks_of(None) is None


# -- the request ------------------------------------------------------------------------------------------------------


async def test_success_and_failure_go_to_their_own_addresses_with_the_checks_as_body():
    async with dead_mans_switch() as switch:
        heartbeat = HttpHeartbeat(f"{switch.url}?rid=7", "/fail")
        await heartbeat.beat(True, "OK   lag: everything is read")
        await heartbeat.beat(False, "FAIL lag: …")
        await heartbeat.close()
        assert [tuple(ping) for ping in switch.pings] == [
            ("", "POST", "OK   lag: everything is read"), ("fail", "POST", "FAIL lag: …"),
        ]  # fmt: skip


async def test_a_plain_switch_hears_nothing_of_a_failure():
    async with dead_mans_switch() as switch:
        heartbeat = HttpHeartbeat(switch.url, "", "GET")
        await heartbeat.beat(False, "FAIL")
        await heartbeat.beat(True, "OK")
        await heartbeat.close()
        assert [tuple(ping) for ping in switch.pings] == [("", "GET", "")]


async def test_what_was_not_taken_is_an_error_without_the_secret_address():
    async with dead_mans_switch() as switch:
        switch.refuses = True
        heartbeat = HttpHeartbeat(switch.url, "/fail")
        with pytest.raises(HeartbeatError, match="it answered 503") as refused:
            await heartbeat.beat(True, "")
        await heartbeat.close()
        away = HttpHeartbeat(f"http://127.0.0.1:{free_port()}/secret", "/fail")
        with pytest.raises(HeartbeatError, match="cannot be reached") as unreachable:
            await away.beat(True, "")
        await away.close()
        for caught in (refused, unreachable):
            assert "secret" not in str(caught.value)
            assert caught.value.__cause__ is None
