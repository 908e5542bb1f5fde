"""Looks at Kafka again and again for the watcher: the same facts as the doctor's, over connections that stay."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas import topics as contract
from streams.clock import Clock, elapsed_s
from streams.core.facts import Address, Facts, Reach, TopicFact
from streams.core.watch_look import KafkaStanding, LettersLook, TopicLag
from streams.doctor.broker import BrokerFacts, try_addresses
from streams.doctor.groups import read_by
from streams.settings_checks import STAGES

logger = logging.getLogger("sluice.watch")

#: How topics are made changes rarely.
TOPICS_EVERY_S = 300.0
LOOK_TIMEOUT_S = 20.0


class KafkaLooks:
    """Use as long as you like; ``close`` ends its connections."""

    def __init__(self, connection: Mapping[str, Any], app_id: str, clock: Clock) -> None:
        self._connection = connection
        self._app_id = app_id
        self._clock = clock
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None
        self._topics: dict[str, TopicFact] = {}
        self._topics_until = 0.0

    async def look(self) -> KafkaStanding:
        """What is to be seen now; where the broker is away, why."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                return await self._look(await self._broker())
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            await self.close()
            return await self._why(error)

    async def close(self) -> None:
        """End the connections; the next look opens them anew."""
        clients, self._clients, self._topics_until = self._clients, None, 0.0
        for client in clients or ():
            await _quietly(client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())

    async def _broker(self) -> BrokerFacts:
        if self._clients is None:
            admin = AIOKafkaAdminClient(**self._connection, request_timeout_ms=15_000)
            consumer = AIOKafkaConsumer(
                **self._connection, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50,
                max_partition_fetch_bytes=65_536, request_timeout_ms=15_000,
            )  # fmt: skip
            try:
                await admin.start()
                await consumer.start()
            except BaseException:
                await _quietly(consumer.stop())
                await _quietly(admin.close())
                raise
            self._clients = admin, consumer
        return BrokerFacts(*self._clients)

    async def _look(self, broker: BrokerFacts) -> KafkaStanding:
        if elapsed_s() >= self._topics_until:
            self._topics = await broker.topics(contract.ALL)
            # What ails is looked at again each time: a broker that comes back has its leaders within a moment.
            is_well = not any(topic.leaderless or topic.behind for topic in self._topics.values())
            self._topics_until = elapsed_s() + TOPICS_EVERY_S if is_well else 0.0
        counts = {name: topic.partitions for name, topic in self._topics.items() if not topic.leaderless}
        facts = Facts(
            addresses=[Address(name, "") for name in self._connection["bootstrap_servers"]],
            wanted=contract.ALL, topics=self._topics, stages=STAGES, changelogs={},
        )  # fmt: skip
        facts.groups = await broker.groups(self._app_id)
        facts.reaches = await self._reaches(broker, facts, counts)
        letters = [contract.dead_letter(topic.name) for topic in contract.INPUTS]
        ends = await self._ends(broker, {name: counts[name] for name in letters if name in counts})
        arrived = await self._ends(
            broker, {topic.name: counts[topic.name] for topic in contract.INPUTS if topic.name in counts}
        )
        return KafkaStanding(
            facts,
            lags_of(facts.reaches),
            [
                LettersLook(name, ends[contract.dead_letter(name)], arrived[name])
                for name in arrived
                if contract.dead_letter(name) in ends
            ],
        )

    async def _reaches(self, broker: BrokerFacts, facts: Facts, counts: Mapping[str, int]) -> list[Reach]:
        reaches: list[Reach] = []
        now = self._clock.now()
        for group in facts.groups or ():
            read = {name: counts[name] for name in read_by(group.stages) if name in counts}
            own = await broker.reaches(read, await broker.committed(group.name, read))
            starts = {
                TopicPartition(each.topic, each.partition): begin_of(each) for each in own if begin_of(each) < each.end
            }
            ages = await broker.ages(starts, now)
            reaches += [
                each._replace(unread_us=ages.get(TopicPartition(each.topic, each.partition)), group=group.name)
                for each in own
            ]
        return reaches

    @staticmethod
    async def _ends(broker: BrokerFacts, counts: Mapping[str, int]) -> dict[str, int]:
        """How many records were ever written to each topic."""
        found = dict.fromkeys(counts, 0)
        for reach in await broker.reaches(counts, {}):
            found[reach.topic] += reach.end
        return found

    async def _why(self, error: BaseException) -> KafkaStanding:
        """Each address by itself, as the doctor tries them."""
        addresses = await try_addresses(self._connection, self._connection["bootstrap_servers"], advertised=False)
        if not any(address.problem for address in addresses):
            where = ",".join(self._connection["bootstrap_servers"])
            addresses.append(Address(where, f"did not do as asked: {error!r}", advertised=True))
        return KafkaStanding(Facts(addresses=addresses, wanted=contract.ALL))


def begin_of(reach: Reach) -> int:
    """Where a group goes on reading: what it has never committed it has not read."""
    return reach.begin if reach.committed is None else max(reach.begin, reach.committed)


def lags_of(reaches: Sequence[Reach]) -> list[TopicLag]:
    """What each group has not read, by topic."""
    found: dict[tuple[str, str], TopicLag] = {}
    for reach in reaches:
        key = reach.group, reach.topic
        known = found.get(key, TopicLag(*key, 0, 0))
        if reach.unread_us is not None:
            unread = known.unread + max(0, reach.end - begin_of(reach))
            known = known._replace(unread=unread, oldest_us=max(known.oldest_us, reach.unread_us))
        found[key] = known
    return list(found.values())


async def _quietly(closing: Any) -> None:
    try:
        async with asyncio.timeout(5):
            await closing
    except Exception as error:
        logger.debug("a connection did not close: %r", error)
