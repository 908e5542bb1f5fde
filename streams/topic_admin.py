"""Creates the topics with their configuration, and refuses to go on over topics that do not fit.

A topic with another number of partitions would put a key's state on one worker and its events on another, so
a mismatch is an error for a person, never mended here.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from schemas import topics as contract
from schemas.topics import Topic
from streams.clock import elapsed_s

#: Faust tables of the service; their changelogs are made here because Faust may not declare topics.
TABLES = (
    "meter", "digests", "budgets", "rollup", "spikes", "regimes", "unusuals", "runaways", "loops", "gpus", "idles",
)  # fmt: skip
#: Of changelogs; twice as long as an owner may take over a partition (docs/decisions/0005). A restart reads what was
#: written within this, a segment and the cleaner's next round.
CHANGELOG_LAG_MS = 240_000
CHANGELOG_SEGMENT_MS = 60_000
CONNECT_DEADLINE_S = 30.0
LEADERS_DEADLINE_S = 30.0
REQUEST_MS = 15_000
POLL_S = 0.1


class TopicError(Exception):
    """Topics cannot be made or do not fit; the text says which and what to do."""


class TopicReport(NamedTuple):
    """What was found and done; ``wrong`` has one sentence for every topic that does not fit."""

    created: tuple[str, ...]
    existing: tuple[str, ...]
    wrong: tuple[str, ...]

    def demand(self) -> "TopicReport":
        """Itself when all topics fit.

        Raises:
            TopicError: some do not.
        """
        if self.wrong:
            raise TopicError("topics do not fit:\n" + "\n".join(f"  {line}" for line in self.wrong))
        return self


def changelog(app_id: str, table: str) -> Topic:
    """The compacted topic that holds a Faust table.

    >>> changelog("sluice", "meter").name
    'sluice-meter-changelog'
    """
    return Topic(
        f"{app_id}-{table}-changelog",
        "key of the table",
        None,
        # The lag has to be of the broker's time: a stalled owner's late records would carry the time before its stall.
        broker_time=True,
        compaction_lag_ms=CHANGELOG_LAG_MS,
        segment_ms=CHANGELOG_SEGMENT_MS,
    )


def changelogs(app_id: str, tables: Iterable[str] = TABLES) -> tuple[Topic, ...]:
    """The changelog topics of all tables of an app."""
    return tuple(changelog(app_id, table) for table in tables)


async def ensure_topics(
    connection: Mapping[str, Any],
    partitions: int,
    replication: int,
    topics: Iterable[Topic] = contract.ALL,
    extra: Iterable[Topic] = (),
) -> TopicReport:
    """Create what is missing of ``topics`` and ``extra``, check what exists, and wait until all have leaders.

    Args:
        connection: what ``kafka_connection.connection`` returns.
        partitions: of every topic.
        replication: copies of every partition, for new topics.

    Raises:
        TopicError: the cluster cannot be reached, refuses to create, or elects no leaders in time.
    """
    wanted = {topic.name: topic for topic in (*topics, *extra)}
    admin = AIOKafkaAdminClient(**connection, request_timeout_ms=REQUEST_MS)
    servers = ",".join(connection["bootstrap_servers"])
    until = elapsed_s() + CONNECT_DEADLINE_S
    try:
        await _connect(admin, servers)
        while True:
            try:
                return await _ensure(admin, wanted, partitions, replication)
            except (KafkaError, TimeoutError) as error:
                # A connection that breaks between two requests; asking again for what is there already does no harm.
                if not getattr(error, "retriable", False) or elapsed_s() >= until:
                    raise TopicError(f"Kafka at {servers} did not do as asked: {error!r}") from error
                await asyncio.sleep(POLL_S)
    finally:
        await admin.close()


async def _ensure(
    admin: AIOKafkaAdminClient, wanted: Mapping[str, Topic], partitions: int, replication: int
) -> TopicReport:
    # Listed, not described: some brokers create what is described.
    present = set(await admin.list_topics()) & set(wanted)
    created = await _create(admin, [t for t in wanted.values() if t.name not in present], partitions, replication)
    counts = await _partition_counts(admin, list(wanted))
    existing = tuple(sorted(set(wanted) - set(created)))
    wrong = [
        f"{name} has {counts[name]} partitions, not {partitions}: set partitions={counts[name]} if all "
        "topics have so many; else make a new topic and raise topic_epoch"
        for name in existing
        if counts[name] != partitions
    ]
    wrong += await _wrong_policies(admin, [wanted[name] for name in existing])
    return TopicReport(tuple(created), existing, tuple(wrong))


async def _connect(admin: AIOKafkaAdminClient, servers: str) -> None:
    until = elapsed_s() + CONNECT_DEADLINE_S
    while True:
        try:
            await admin.start()
            return
        except KafkaConnectionError as error:
            if elapsed_s() > until:
                raise TopicError(f"no Kafka broker answers at {servers}; check kafka_url and kafka_security") from error
        await asyncio.sleep(POLL_S)


async def _create(admin: AIOKafkaAdminClient, missing: list[Topic], partitions: int, replication: int) -> list[str]:
    """Create topics; one that somebody else made in the meantime counts as existing."""
    if not missing:
        return []
    new = [NewTopic(t.name, partitions, replication, topic_configs=t.config()) for t in missing]
    response = await admin.create_topics(new)
    created, refused = [], []
    for name, code, message in ((entry[0], entry[1], entry[2]) for entry in response.topic_errors):
        if code == 0:
            created.append(name)
        elif for_code(code) is not TopicAlreadyExistsError:
            refused.append(f"  {name}: {message or for_code(code).__name__}")
    if refused:
        raise TopicError("Kafka refused to create topics:\n" + "\n".join(refused))
    return sorted(created)


async def _partition_counts(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Partitions of each topic, once all of them have leaders."""
    until = elapsed_s() + LEADERS_DEADLINE_S
    while True:
        described = {entry["topic"]: entry for entry in await admin.describe_topics(names)}
        waiting = [name for name in names if not _led(described.get(name))]
        if not waiting:
            return {name: len(described[name]["partitions"]) for name in names}
        if elapsed_s() > until:
            raise TopicError(f"topics without a leader after {LEADERS_DEADLINE_S:g} s: {', '.join(sorted(waiting))}")
        await asyncio.sleep(POLL_S)


def _led(entry: dict[str, Any] | None) -> bool:
    if entry is None or entry["error_code"] or not entry["partitions"]:
        return False
    return all(part["error_code"] == 0 and part["leader"] >= 0 for part in entry["partitions"])


async def _wrong_policies(admin: AIOKafkaAdminClient, existing: list[Topic]) -> list[str]:
    """Topics whose clean-up would lose statements. A broker that cannot tell (Tansu) is believed."""
    if not existing:
        return []
    asked = [ConfigResource(ConfigResourceType.TOPIC, t.name, configs={"cleanup.policy": ""}) for t in existing]
    try:
        answers = await admin.describe_configs(asked)
    except KafkaConnectionError:
        return []
    found = {}
    for resource in (entry for answer in answers for entry in answer.resources):
        # (error code, error text, type, name, entries); an entry starts with name and value.
        found[resource[3]] = next((entry[1] for entry in resource[4] if entry[0] == "cleanup.policy"), None)
    return [
        f"{t.name} has cleanup.policy={found[t.name]}, not {t.config()['cleanup.policy']}: alter the topic"
        for t in existing
        if found.get(t.name) and found[t.name] != t.config()["cleanup.policy"]
    ]
