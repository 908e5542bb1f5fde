"""Judges the broker and how its topics are kept. Pure."""

from collections.abc import Callable, Mapping

from schemas.topics import DAY_MS, Topic
from streams.core.facts import Bounds, Facts, Finding, Level, skipped, worst


def broker(facts: Facts, bounds: Bounds) -> Finding:
    """Which addresses answer, and why the others do not."""
    given = [address for address in facts.addresses if not address.advertised]
    away = [address for address in facts.addresses if address.problem]
    lines = tuple(f"{address.name} {address.problem}" for address in away)
    if not away and facts.topics is not None:
        return Finding("broker", Level.OK, f"Kafka answers at {', '.join(address.name for address in given)}")
    if all(address.problem for address in given):
        todo = "start the broker, or mend kafka_url, kafka_security and its neighbours (`sluice check-config`)"
        return Finding("broker", Level.FAIL, f"no Kafka broker answers at {bounds.servers}", todo, lines)
    if facts.topics is None:
        todo = "read the broker's log; is it still starting, or may this user not describe topics?"
        return Finding("broker", Level.FAIL, f"Kafka at {bounds.servers} does not do as asked", todo, lines)
    if any(address.advertised for address in away):
        todo = "mend advertised.listeners of these brokers, or the network in between"
        found = "the cluster names addresses that cannot be reached from here"
        return Finding("broker", Level.FAIL, found, todo, lines)
    todo = "start these brokers, or take them out of kafka_url"
    return Finding("broker", Level.WARN, f"{len(away)} of {len(given)} addresses do not answer", todo, lines)


def topics(facts: Facts, bounds: Bounds) -> Finding:
    """Whether all are there."""
    if facts.topics is None:
        return skipped("topics", "the broker")
    missing = [topic.name for topic in facts.wanted if topic.name not in facts.topics]
    if missing:
        found = f"{len(missing)} of {len(facts.wanted)} topics are missing"
        return Finding("topics", Level.FAIL, found, "run `sluice topics create`", tuple(missing))
    return Finding("topics", Level.OK, f"all {len(facts.wanted)} topics are there")


def partitions(facts: Facts, bounds: Bounds) -> Finding:
    """Whether all topics have as many as the settings say."""
    if facts.topics is None:
        return skipped("partitions", "the broker")
    wrong = [
        (Level.FAIL, f"{topic.name} has {facts.topics[topic.name].partitions}, not {bounds.partitions}")
        for topic in facts.wanted
        if topic.name in facts.topics and facts.topics[topic.name].partitions != bounds.partitions
    ]
    todo = (
        "set `partitions` to what all topics have; where they differ among themselves, make a new topic"
        " and raise topic_epoch (docs/runbook.md, Changes)"
    )
    well = f"every topic has {bounds.partitions}, as the settings say"
    return worst("partitions", wrong, well, f"{len(wrong)} topics have another number of partitions", todo)


def replicas(facts: Facts, bounds: Bounds) -> Finding:
    """Whether every partition has a leader and its copies."""
    if facts.topics is None:
        return skipped("replicas", "the broker")
    wrong = []
    for name, topic in sorted(facts.topics.items()):
        if topic.leaderless:
            wrong.append((Level.FAIL, f"{name}: {topic.leaderless} partitions have no leader"))
        elif topic.behind:
            wrong.append((Level.WARN, f"{name}: {topic.behind} partitions lack copies in sync"))
    todo = "bring the brokers that hold them back; nothing can be written where there is no leader"
    return worst("replicas", wrong, "every partition has a leader and its copies", "partitions lack brokers", todo)


def _configured(
    item: str, facts: Facts, bounds: Bounds, judge: Callable[[Topic, Mapping[str, str]], tuple[Level, str] | None],
    well: str, bad: str,
) -> Finding:  # fmt: skip
    """Judge how every topic that is there is kept; ``judge`` gives the level and the ``key=value`` that is wanted."""
    if facts.topics is None:
        return skipped(item, "the broker")
    known = [(topic, facts.topics[topic.name].config) for topic in facts.wanted if topic.name in facts.topics]
    told = [(topic, config) for topic, config in known if config is not None]
    if known and not told:
        return skipped(item, "a broker that tells how topics are configured")
    wrong: list[tuple[Level, str]] = []
    first = ""
    for topic, config in told:
        judged = judge(topic, config)
        if judged is not None:
            level, wanted = judged
            name = wanted.partition("=")[0]
            wrong.append((level, f"{topic.name} has {name}={config.get(name)}, not {wanted.partition('=')[2]}"))
            first = first or _alter(bounds, topic.name, wanted)
    return worst(item, wrong, well, bad, first)


def _alter(bounds: Bounds, topic: str, wanted: str) -> str:
    return f"kafka-configs.sh --bootstrap-server {bounds.servers} --alter --topic {topic} --add-config {wanted}"


def cleanup(facts: Facts, bounds: Bounds) -> Finding:
    """Whether statements are compacted and events deleted."""

    def judge(topic: Topic, config: Mapping[str, str]) -> tuple[Level, str] | None:
        wanted = topic.config()
        for name, level in (("cleanup.policy", Level.FAIL), ("min.compaction.lag.ms", Level.WARN)):
            if name == "cleanup.policy" and config.get(name, wanted[name]) != wanted[name]:
                return level, f"{name}={wanted[name]}"
            if name in wanted and _below(config.get(name), wanted[name]):
                return level, f"{name}={wanted[name]}"
        return None

    well = "statements are compacted, events are deleted in time"
    return _configured(
        "cleanup policy", facts, bounds, judge, well, "topics are cleaned up wrongly: state would be lost"
    )


def retention(facts: Facts, bounds: Bounds) -> Finding:
    """Whether topics are kept for as long as Sluice counts on."""

    def judge(topic: Topic, config: Mapping[str, str]) -> tuple[Level, str] | None:
        if topic.retention_ms is None or not _below(config.get("retention.ms"), str(topic.retention_ms)):
            return None
        hardly = _below(config.get("retention.ms"), str(DAY_MS))
        return Level.FAIL if hardly else Level.WARN, f"retention.ms={topic.retention_ms}"

    bad = "topics are kept for less long than Sluice counts on: an outage would lose what was not read"
    return _configured("retention", facts, bounds, judge, "every topic is kept for as long as it should be", bad)


def arrival_time(facts: Facts, bounds: Bounds) -> Finding:
    """Whether the broker stamps what arrives on the inputs."""

    def judge(topic: Topic, config: Mapping[str, str]) -> tuple[Level, str] | None:
        name = "message.timestamp.type"
        if not topic.broker_time or config.get(name, "LogAppendTime") == "LogAppendTime":
            return None
        return Level.FAIL, f"{name}=LogAppendTime"

    bad = "producers set the arrival time: lateness is judged by clocks of theirs"
    return _configured("arrival time", facts, bounds, judge, "the broker stamps what arrives (LogAppendTime)", bad)


def record_size(facts: Facts, bounds: Bounds) -> Finding:
    """Whether topics take records as large as they should."""

    def judge(topic: Topic, config: Mapping[str, str]) -> tuple[Level, str] | None:
        wanted = str(topic.max_message_bytes)
        if not _below(config.get("max.message.bytes"), wanted):
            return None
        return Level.WARN, f"max.message.bytes={wanted}"

    bad = "topics refuse large records, which are then lost at the producer instead of being dead-lettered"
    return _configured("record size", facts, bounds, judge, "topics take records as large as they should", bad)


def _below(found: str | None, wanted: str) -> bool:
    """Whether a configured number is smaller; -1 is without bound, and what is not told is believed."""
    return found is not None and found.lstrip("-").isdigit() and 0 <= int(found) < int(wanted)
