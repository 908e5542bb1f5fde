"""What the doctor makes of facts: a deployment that is well, and each thing that can be wrong with it, one at a time."""

import msgspec
import pytest

from schemas.instants import SECOND
from schemas.topics import ALL, SPEND_CELLS, USAGE_EVENTS
from streams.core.diagnosis import diagnose, is_well
from streams.core.facts import (
    Address,
    Bounds,
    ClockFact,
    Facts,
    GroupFact,
    LettersFact,
    Level,
    Reach,
    SchemaFact,
    SlotFact,
    TopicFact,
)

BOUNDS = Bounds(partitions=4, app_id="sluice", servers="k1:9092,k2:9092")
STAGES = ("meter", "budget", "detect", "ledger", "notify")
WANTED = {topic.name: topic for topic in ALL}


def well(**changes):
    """The facts of a deployment that is well, with changes."""
    facts = Facts(
        addresses=[Address("k1:9092", ""), Address("k2:9092", "")],
        wanted=ALL,
        topics={topic.name: TopicFact(4, topic.config()) for topic in ALL},
        groups=[GroupFact("Stable", 2, 0.0, "sluice", STAGES)],
        stages=STAGES,
        reaches=[Reach(USAGE_EVENTS, 0, 0, 10, 10)],
        changelogs={"sluice-meter-changelog": 5_000},
        database="PostgreSQL at db/ledger",
        schema=SchemaFact(),
        slots=[SlotFact(USAGE_EVENTS, 0, 10, 0, 10, 10)],
        ledger_silent_s=3.0,
        letters=[LettersFact("usage.events.v1.dlt", 0, 0, "", "")],
        clocks=[ClockFact("Kafka", -2_000, 3_000), ClockFact("PostgreSQL", -100, 400)],
    )
    return msgspec.structs.replace(facts, **changes)


def topics_with(name, **changes):
    """All topics well but one, whose fact or configuration differs (``cleanup_policy`` for ``cleanup.policy``)."""
    found = dict(well().topics)
    config = {key.replace("_", "."): value for key, value in changes.items() if key not in TopicFact._fields}
    fact = {key: value for key, value in changes.items() if key in TopicFact._fields}
    found[name] = found[name]._replace(config=dict(found[name].config) | config)._replace(**fact)
    return {"topics": found}


def without(name):
    return {"topics": {key: fact for key, fact in well().topics.items() if key != name}}


def slot(**changes):
    return {"slots": [SlotFact(USAGE_EVENTS, 0, 10, 0, 10, 10)._replace(**changes)]}


def unread(seconds, **changes):
    return {"reaches": [Reach(USAGE_EVENTS, 0, 0, 30, 10, int(seconds * SECOND))._replace(**changes)]}


def test_a_deployment_that_is_well_has_only_good_findings():
    findings = diagnose(well(), BOUNDS)
    assert {finding.level for finding in findings} == {Level.OK}
    assert not any(finding.todo for finding in findings)
    assert is_well(findings)


GONE = "refuses connections: nothing listens there"
CASES = [
    pytest.param({"addresses": [Address("k1:9092", ""), Address("k2:9092", GONE)]}, "broker", "WARN", "k2:9092 refuses", id="one address is away"),
    pytest.param({"addresses": [Address("k1:9092", ""), Address("10.0.0.1:9092", "does not answer", True)]}, "broker", "FAIL", "advertised.listeners", id="an advertised address is away"),
    pytest.param(without(SPEND_CELLS), "topics", "FAIL", "sluice topics create", id="a topic is missing"),
    pytest.param(topics_with(SPEND_CELLS, partitions=8), "partitions", "FAIL", "spend.cells.v1 has 8, not 4", id="other partitions"),
    pytest.param(topics_with(SPEND_CELLS, leaderless=1), "replicas", "FAIL", "no leader", id="a partition without a leader"),
    pytest.param(topics_with(SPEND_CELLS, behind=1), "replicas", "WARN", "lack copies", id="a copy that is behind"),
    pytest.param(topics_with(SPEND_CELLS, cleanup_policy="delete"), "cleanup policy", "FAIL", "--topic spend.cells.v1 --add-config cleanup.policy=compact", id="statements are deleted"),
    pytest.param(topics_with(USAGE_EVENTS, cleanup_policy="compact"), "cleanup policy", "FAIL", "--add-config cleanup.policy=delete", id="events are compacted"),
    pytest.param(topics_with(SPEND_CELLS, min_compaction_lag_ms="0"), "cleanup policy", "WARN", "min.compaction.lag.ms=600000", id="statements are compacted at once"),
    pytest.param(topics_with(USAGE_EVENTS, retention_ms="1000"), "retention", "FAIL", "retention.ms=604800000", id="events are kept for a second"),
    pytest.param(topics_with(USAGE_EVENTS, retention_ms=str(2 * 86_400_000)), "retention", "WARN", "retention.ms=604800000", id="events are kept for two days"),
    pytest.param(topics_with(USAGE_EVENTS, message_timestamp_type="CreateTime"), "arrival time", "FAIL", "message.timestamp.type=LogAppendTime", id="a producer's time"),
    pytest.param(topics_with(USAGE_EVENTS, max_message_bytes="1000000"), "record size", "WARN", "max.message.bytes=4194304", id="small records only"),
    pytest.param({"groups": [GroupFact("Empty", 0, 0.0, "sluice", STAGES)]}, "workers", "FAIL", "sluice worker", id="no worker"),
    pytest.param({"groups": [GroupFact("Dead", 0, 0.0, "sluice", STAGES)]}, "workers", "FAIL", "sluice worker", id="never a worker"),
    pytest.param({"groups": [GroupFact("PreparingRebalance", 2, 10.0, "sluice", STAGES)]}, "workers", "FAIL", "sluice is PreparingRebalance since 10 s", id="an endless rebalance"),
    pytest.param({"groups": [GroupFact("Stable", 6, 0.0, "sluice", STAGES)]}, "workers", "WARN", "stop 2", id="more workers than partitions"),
    pytest.param({"groups": [GroupFact("Stable", 1, 0.0, "sluice-meter", ("meter",)), GroupFact("Stable", 1, 0.0, "sluice-budget-ledger", ("budget", "ledger"))]}, "workers", "FAIL", "no worker runs detect, notify", id="a stage that nobody runs"),
    pytest.param(unread(400, group="sluice-meter"), "lag", "FAIL", "usage.events.v1 (sluice-meter): 20 unread", id="unread in a group of some stages"),
    pytest.param(unread(400), "lag", "FAIL", "20 unread, the oldest for 6 min", id="unread for long"),
    pytest.param(unread(100), "lag", "WARN", "the oldest for 100 s", id="unread for a while"),
    pytest.param(unread(400, committed=None), "lag", "FAIL", "30 unread", id="never read"),
    pytest.param({"ledger_silent_s": 90.0}, "tables", "WARN", "no watermark for 90 s", id="silent for a while"),
    pytest.param({"ledger_silent_s": 900.0}, "tables", "FAIL", "no watermark for 15 min", id="silent for long"),
    pytest.param({"changelogs": {"t": 20_000_000}}, "tables", "WARN", "20,000,000 changelog records, about 100 s", id="a long restart"),
    pytest.param({"database_problem": GONE, "schema": None, "slots": None}, "database", "FAIL", "PostgreSQL at db/ledger refuses", id="no database"),
    pytest.param({"schema": SchemaFact(missing=("0002_x",)), "slots": None}, "schema", "FAIL", "0002_x", id="not migrated"),
    pytest.param({"schema": SchemaFact(edited=("0001_ledger",))}, "schema", "FAIL", "never edited", id="an edited migration"),
    pytest.param({"schema": SchemaFact(newer=9), "slots": None}, "schema", "FAIL", "newer version", id="a newer database"),
    pytest.param(slot(ledger_next=12), "ledger", "FAIL", "ends at 10, and the ledger has read up to 12", id="a ledger ahead"),
    pytest.param(slot(committed=12, end=11), "ledger", "FAIL", "ends at 11, and the group has read up to 12", id="a group ahead"),
    pytest.param(slot(ledger_next=4, lacking_us=400 * SECOND), "ledger", "FAIL", "--reset-offsets --to-earliest", id="a ledger that lacks"),
    pytest.param(slot(ledger_next=3, begin=5, end=5, committed=5), "ledger", "WARN", "begins at 5", id="deleted before they were read"),
    pytest.param({"letters": [LettersFact("usage.gpu.v1.dlt", 3, 0, "not_json", "expected {")]}, "dead letters", "FAIL", "usage.gpu.v1.dlt: 3 wait; the newest: not_json: expected {", id="dead letters"),
    pytest.param({"letters": [LettersFact("usage.gpu.v1.dlt", 0, 1, "not_json", "x")]}, "dead letters", "FAIL", "1 wait (1 in doubt)", id="a dead letter in doubt"),
    pytest.param({"clocks": [ClockFact("Kafka", 60 * SECOND, 60 * SECOND + 9)]}, "clock", "FAIL", "60.0 s ahead of Kafka", id="a clock ahead"),
    pytest.param({"clocks": [ClockFact("PostgreSQL", -6 * SECOND, -5 * SECOND)]}, "clock", "WARN", "5.0 s behind PostgreSQL", id="a clock a little behind"),
    pytest.param({"clocks": [ClockFact("Kafka", problem="not allowed")]}, "clock", "WARN", "Kafka: not allowed", id="a clock that cannot be asked"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "item", "level", "says"), CASES)
def test_what_is_wrong_is_the_one_item_that_is_not_well(changes, item, level, says):
    findings = diagnose(well(**changes), BOUNDS)
    bad = [finding for finding in findings if finding.level in (Level.WARN, Level.FAIL)]
    assert [(finding.item, finding.level) for finding in bad] == [(item, level)]
    (found,) = bad
    assert says in "\n".join((found.found, found.todo, *found.details))
    assert found.todo
    assert is_well(findings) is (level == "WARN")


AWAY = {
    "topics": None,
    "groups": None,
    "reaches": None,
    "changelogs": None,
    "slots": None,
    "letters": None,
    "clocks": [],
}


def test_a_broker_that_is_away_fails_alone_and_the_rest_is_not_judged():
    findings = diagnose(well(addresses=[Address("k1:9092", GONE)], **AWAY), BOUNDS)
    levels = {finding.item: finding.level for finding in findings}
    assert [item for item, level in levels.items() if level is Level.FAIL] == ["broker"]
    assert [item for item, level in levels.items() if level is Level.OK] == ["database", "schema"]


FINE = [
    pytest.param(slot(ledger_next=4, lacking_us=2 * SECOND), id="a ledger that is a moment behind"),
    pytest.param(slot(ledger_next=0, committed=None), id="nothing was counted yet"),
    pytest.param({"reaches": [Reach(USAGE_EVENTS, 0, 0, 11, 10, None)]}, id="a transaction's marker at the end"),
    pytest.param({"groups": [GroupFact("Stable", 1, 0.0, "sluice-meter", ("meter",)), GroupFact("Stable", 1, 0.0, "sluice-rest", STAGES[1:])]}, id="stages that run apart"),
    pytest.param(unread(2), id="records on their way"),
    pytest.param(slot(ledger_next=9, begin=10, committed=9), id="a transaction's marker deleted"),
    pytest.param(topics_with(USAGE_EVENTS, retention_ms="-1"), id="kept for ever"),
    pytest.param({"ledger_silent_s": None}, id="a ledger that never heard"),
    pytest.param({"clocks": [ClockFact("Kafka", -40 * SECOND, 40 * SECOND)]}, id="an exchange too slow to tell"),
]  # fmt: skip


@pytest.mark.parametrize("changes", FINE)
def test_what_is_ordinary_is_well(changes):
    findings = diagnose(well(**changes), BOUNDS)
    assert [finding.item for finding in findings if finding.level is not Level.OK] == []


def test_a_broker_that_does_not_tell_configurations_leaves_them_unjudged():
    silent = {name: fact._replace(config=None) for name, fact in well().topics.items()}
    findings = {finding.item: finding.level for finding in diagnose(well(topics=silent), BOUNDS)}
    assert {item for item, level in findings.items() if level is Level.SKIP} == {
        "cleanup policy", "retention", "arrival time", "record size",
    }  # fmt: skip


def test_dead_letters_that_are_allowed_are_a_warning():
    facts = well(letters=[LettersFact("usage.gpu.v1.dlt", 3, 0, "not_json", "x")])
    assert is_well(diagnose(facts, BOUNDS._replace(dead_letters_max=3)))
    assert not is_well(diagnose(facts, BOUNDS._replace(dead_letters_max=2)))
