"""Gathers every fact, from the broker and the database at once; what is away leaves its facts out."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas import topics as contract
from schemas.statements import Source
from schemas.topics import Topic
from streams.clock import Clock
from streams.core.facts import Address, ClockFact, Facts, LettersFact, Reach, SchemaFact, SlotFact
from streams.core.letters import escaped
from streams.core.replay_progress import Survey
from streams.dead_letters.reading import survey
from streams.doctor import clocks, database
from streams.doctor.broker import BrokerFacts, try_addresses
from streams.doctor.groups import read_by
from streams.kafka_connection import connection
from streams.settings import Settings
from streams.settings_checks import STAGES
from streams.topic_admin import changelogs

KAFKA_TIMEOUT_S = 120.0
DATABASE_TIMEOUT_S = 30.0
#: Some 20 000 letters a second are read.
LETTERS_TIMEOUT_S = 60.0
DETAIL_LENGTH = 160


class _Ledger(NamedTuple):
    problem: str = ""
    schema: SchemaFact | None = None
    ledger: database.LedgerFact | None = None
    clock: ClockFact | None = None


async def gather(settings: Settings, clock: Clock) -> Facts:
    """All that can be found out. ``settings`` name a broker and a database; ``clock`` is this machine's."""
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    ledger, facts = await asyncio.gather(_database(url, clock), _kafka(settings, clock))
    facts.database, facts.database_problem = database.place_of(url), ledger.problem
    facts.schema = ledger.schema
    if ledger.clock is not None:
        facts.clocks = (*facts.clocks, ledger.clock)
    if ledger.ledger is not None:
        facts.ledger_silent_s = ledger.ledger.silent_s
        if facts.reaches is not None:
            metering = {group.name for group in facts.groups or () if "meter" in group.stages}
            reaches = [reach for reach in facts.reaches if reach.group in metering]
            facts.slots = await _slots(settings, ledger.ledger.offsets, reaches, _broker_now(facts.clocks, clock))
    return facts


# -- the database ---------------------------------------------------------------------------------------------------


async def _database(url: str, clock: Clock) -> _Ledger:
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            opened = await database.connect(url)
            try:
                schema = await database.schema(opened)
                usable = not (schema.missing or schema.newer)
                ledger = await database.ledger(opened) if usable else None
                return _Ledger("", schema, ledger, await clocks.database_clock(opened, clock))
            finally:
                await opened.close(timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return _Ledger(database.problem_of(error))


# -- the broker -----------------------------------------------------------------------------------------------------


def wanted_topics(app_id: str) -> tuple[Topic, ...]:
    """Every topic that a deployment needs."""
    return (*contract.ALL, *changelogs(app_id))


async def _kafka(settings: Settings, clock: Clock) -> Facts:
    how = connection(settings)
    wanted = wanted_topics(settings.app_id)
    addresses = await try_addresses(how, how["bootstrap_servers"], advertised=False)
    facts = Facts(addresses=addresses, wanted=wanted)
    if all(address.problem for address in addresses):
        return facts
    # A client that begins at an address that is away would wait for it.
    how = how | {"bootstrap_servers": [address.name for address in addresses if not address.problem]}
    try:
        async with asyncio.timeout(KAFKA_TIMEOUT_S):
            await _ask(facts, how, settings, clock)
    except (KafkaError, OSError, TimeoutError) as error:
        where = ",".join(how["bootstrap_servers"])
        facts.addresses = [*facts.addresses, Address(where, f"did not do as asked: {error!r}", advertised=True)]
        facts.topics = None
    return facts


async def _ask(facts: Facts, how: Mapping[str, Any], settings: Settings, clock: Clock) -> None:
    admin = AIOKafkaAdminClient(**how, request_timeout_ms=15_000)
    consumer = AIOKafkaConsumer(
        **how, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50,
        max_partition_fetch_bytes=65_536, request_timeout_ms=15_000,
    )  # fmt: skip
    try:
        await admin.start()
        broker = BrokerFacts(admin, consumer)
        known = {address.name for address in facts.addresses}
        others = [name for name in await broker.advertised() if name not in known]
        facts.addresses = [*facts.addresses, *await try_addresses(how, others, advertised=True)]
        found = await broker.topics(facts.wanted)
        if any(address.problem for address in facts.addresses if address.advertised):
            # Partitions on brokers that cannot be reached would only make every question wait for its timeout.
            facts.topics = found
            return
        await consumer.start()
        facts.clocks = (await clocks.kafka_clock(how, settings.app_id, settings.replication_factor, clock),)
        facts.groups, facts.stages = await broker.groups(settings.app_id), STAGES
        counts = {name: topic.partitions for name, topic in found.items() if not topic.leaderless}
        await _read_offsets(facts, broker, counts, settings, _broker_now(facts.clocks, clock))
        facts.letters = await _letters(broker, how, settings.app_id, counts)
        facts.topics = found
    finally:
        await consumer.stop()
        await admin.close()


async def _read_offsets(
    facts: Facts, broker: BrokerFacts, counts: Mapping[str, int], settings: Settings, now: int
) -> None:
    reaches: list[Reach] = []
    for group in facts.groups or ():
        read = {name: counts[name] for name in read_by(group.stages) if name in counts}
        own = await broker.reaches(read, await broker.committed(group.name, read))
        # What a group has never committed it has not read: everything there is unread.
        starts = {
            TopicPartition(reach.topic, reach.partition): _start(reach) for reach in own if _start(reach) < reach.end
        }
        ages = await broker.ages(starts, now)
        for reach in own:
            age = ages.get(TopicPartition(reach.topic, reach.partition))
            reaches.append(reach._replace(unread_us=age, group=group.name))
    facts.reaches = reaches
    names = {topic.name: counts[topic.name] for topic in changelogs(settings.app_id) if topic.name in counts}
    sizes: dict[str, int] = dict.fromkeys(names, 0)
    for reach in await broker.reaches(names, {}):
        sizes[reach.topic] += reach.end - reach.begin
    facts.changelogs = sizes


def _start(reach: Reach) -> int:
    return reach.begin if reach.committed is None else max(reach.begin, reach.committed)


async def _letters(
    broker: BrokerFacts, how: Mapping[str, Any], app_id: str, counts: Mapping[str, int]
) -> list[LettersFact]:
    names = {topic.name: counts[topic.name] for topic in contract.DEAD_LETTERS if topic.name in counts}
    try:
        async with asyncio.timeout(LETTERS_TIMEOUT_S):
            return _counted(await survey(how, app_id, list(names)), list(names))
    except TimeoutError:
        most: dict[str, int] = dict.fromkeys(names, 0)
        for reach in await broker.reaches(names, {}):
            most[reach.topic] += reach.end - reach.begin
        why = "too many to be read here; `sluice dlq list` reads them all"
        return [LettersFact(name, count, 0, "at most so many", why) for name, count in most.items()]


def _counted(counted: Survey, names: Sequence[str]) -> list[LettersFact]:
    found = []
    for name in names:
        piles = [pile for pile in counted.piles() if pile.topic == name]
        newest = counted.newest_waiting.get(name)
        found.append(
            LettersFact(
                name,
                sum(pile.waiting for pile in piles),
                sum(pile.in_doubt for pile in piles),
                escaped(newest.reason) if newest else "",
                escaped(newest.detail)[:DETAIL_LENGTH] if newest else "",
            )
        )
    return found


async def _slots(settings: Settings, offsets: Mapping[str, int], reaches: Sequence[Reach], now: int) -> list[SlotFact]:
    """How far the ledger is on each partition of the inputs, with the age of what it lacks."""
    inputs = {topic.name for topic in contract.INPUTS}
    slots = [
        SlotFact(
            reach.topic, reach.partition,
            offsets.get(Source(reach.topic, settings.topic_epoch, reach.partition).slot(), 0),
            reach.begin, reach.end, reach.committed,
        )
        for reach in reaches
        if reach.topic in inputs
    ]  # fmt: skip
    lacking = {
        TopicPartition(slot.topic, slot.partition): max(slot.ledger_next, slot.begin)
        for slot in slots
        if slot.ledger_next < (slot.committed or 0) <= slot.end and slot.begin < (slot.committed or 0)
    }
    if not lacking:
        return slots
    consumer = AIOKafkaConsumer(**connection(settings), enable_auto_commit=False, max_partition_fetch_bytes=65_536)
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await consumer.start()
        ages = await BrokerFacts(admin, consumer).ages(lacking, now)
    except (KafkaError, TimeoutError):
        # It answered a moment ago; what is not known is not held against the ledger.
        return slots
    finally:
        await consumer.stop()
        await admin.close()
    return [slot._replace(lacking_us=ages.get(TopicPartition(slot.topic, slot.partition))) for slot in slots]


def _broker_now(known: Sequence[ClockFact], clock: Clock) -> int:
    """The broker's time: ages of records are judged by the clock that stamped them."""
    ahead = next((found.ahead_us for found in known if found.name == "Kafka" and not found.problem), 0)
    return clock.now() - ahead
