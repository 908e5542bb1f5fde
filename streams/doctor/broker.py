"""Facts about Kafka: which addresses answer, how topics are kept, where the workers' group stands."""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorForGroupError,
    SaslAuthenticationFailed,
)

from schemas.topics import Topic
from streams.clock import elapsed_s
from streams.core.facts import Address, GroupFact, Reach, TopicFact
from streams.doctor.groups import stages_of

ADDRESS_TIMEOUT_S = 5.0
#: A rebalance is ordinary; one that lasts longer than this is not.
SETTLE_S = 10.0
COORDINATOR_S = 5.0
UNREAD_TIMEOUT_S = 10.0
POLL_S = 0.2
SETTLED = ("Stable", "Empty", "Dead")
#: What of a topic's configuration is judged.
CONFIG = (
    "cleanup.policy", "min.compaction.lag.ms", "retention.ms", "message.timestamp.type", "max.message.bytes",
)  # fmt: skip


async def try_addresses(connection: Mapping[str, Any], names: Sequence[str], *, advertised: bool) -> list[Address]:
    """Connect to each address by itself, as any client would."""
    found = await asyncio.gather(*(_problem(connection, name) for name in names))
    return [Address(name, problem, advertised) for name, problem in zip(names, found, strict=True)]


async def _problem(connection: Mapping[str, Any], name: str) -> str:
    ((host, port, _),) = collect_hosts([name])
    security = connection["security_protocol"]
    arguments = {key: value for key, value in connection.items() if key != "bootstrap_servers"}
    try:
        async with asyncio.timeout(ADDRESS_TIMEOUT_S):
            opened = await create_conn(host, port, request_timeout_ms=int(ADDRESS_TIMEOUT_S * 1000), **arguments)
        opened.close()
    except TimeoutError:
        return f"does not answer within {ADDRESS_TIMEOUT_S:g} s: a firewall, a broker that hangs, or TLS expected"
    except socket.gaierror:
        return "has a name that does not resolve"
    except ConnectionRefusedError:
        return "refuses connections: nothing listens there"
    except ssl.SSLError as error:
        return f"fails at TLS: {error.reason or error}; see kafka_security and kafka_ca_file"
    except SaslAuthenticationFailed as error:
        return f"refuses the login: {error}; see kafka_sasl_username and kafka_sasl_password"
    except (KafkaError, OSError) as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        return f"hangs up ({said}): no Kafka listener for kafka_security={security}?"
    return ""


class BrokerFacts:
    """What an administrator's client sees. Start the client first."""

    def __init__(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self._admin = admin
        self._consumer = consumer

    async def advertised(self) -> list[str]:
        """``host:port`` of every broker, as the cluster itself names them."""
        brokers = (await self._admin.describe_cluster())["brokers"]
        return [f"{broker['host']}:{broker['port']}" for broker in brokers]

    async def topics(self, wanted: Sequence[Topic]) -> dict[str, TopicFact]:
        """Those that are there."""
        # Listed first: some brokers create what is described.
        present = set(await self._admin.list_topics())
        names = sorted({topic.name for topic in wanted} & present)
        if not names:
            return {}
        configs = await self._configs(names)
        return {
            entry["topic"]: TopicFact(
                len(entry["partitions"]),
                None if configs is None else configs.get(entry["topic"]),
                sum(part["leader"] < 0 for part in entry["partitions"]),
                sum(len(part["isr"]) < len(part["replicas"]) for part in entry["partitions"]),
            )
            for entry in await self._admin.describe_topics(names)
        }

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]] | None:
        """None on a broker that does not tell (Tansu)."""
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(CONFIG, "")) for name in names]
        try:
            answers = await self._admin.describe_configs(asked)
        except KafkaConnectionError:
            return None
        # (error code, error text, type, name, entries); an entry starts with name and value.
        told = [resource for answer in answers for resource in answer.resources if resource[0] == 0]
        return {resource[3]: {entry[0]: entry[1] for entry in resource[4] if entry[1] is not None} for resource in told}

    async def groups(self, app_id: str) -> list[GroupFact]:
        """The groups of this deployment that have members; where none has, all that there are."""
        listed = {name for name, *_ in await self._admin.list_consumer_groups()}
        names = sorted(name for name in listed | {app_id} if stages_of(app_id, name))
        found = await asyncio.gather(*(self._settled(app_id, name) for name in names))
        return [group for group in found if group.members] or list(found)

    async def _settled(self, app_id: str, name: str) -> GroupFact:
        """The group, once it is at rest or after ``SETTLE_S``."""
        began = elapsed_s()
        while True:
            found = await self._describe(name)
            watched = elapsed_s() - began
            if found.state in SETTLED or watched >= SETTLE_S:
                return found._replace(watched_s=watched, name=name, stages=stages_of(app_id, name))
            await asyncio.sleep(POLL_S)

    async def _describe(self, group_id: str) -> GroupFact:
        if not await self._has_coordinator(group_id):
            return GroupFact("Dead", 0)
        (answer,) = await self._admin.describe_consumer_groups([group_id])
        # (error code, group, state, protocol type, protocol, members, ...)
        described = answer.groups[0]
        return GroupFact(described[2] or "Dead", len(described[5]))

    async def _has_coordinator(self, group_id: str) -> bool:
        """False on a cluster that no group has ever used; it makes the offsets topic at the first question."""
        until = elapsed_s() + COORDINATOR_S
        while elapsed_s() < until:
            try:
                await self._admin.find_coordinator(group_id)
                return True
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
                await asyncio.sleep(POLL_S)
        return False

    async def committed(self, group_id: str, topics: Mapping[str, int]) -> dict[TopicPartition, int]:
        """What the group has committed of these topics (name: partitions)."""
        if not topics or not await self._has_coordinator(group_id):
            return {}
        # Asked for one by one: some brokers hang up on a question for all.
        found = await self._admin.list_consumer_group_offsets(group_id, partitions=_places(topics))
        return {place: known.offset for place, known in found.items() if known.offset >= 0}

    async def reaches(self, topics: Mapping[str, int], committed: Mapping[TopicPartition, int]) -> list[Reach]:
        """How far the group is on each partition of these topics (name: partitions), without ages."""
        places = _places(topics)
        if not places:
            return []
        begins = await self._consumer.beginning_offsets(places)
        ends = await self._consumer.end_offsets(places)
        return [Reach(*place, begins[place], ends[place], committed.get(place)) for place in places]

    async def ages(self, starts: Mapping[TopicPartition, int], now: int) -> dict[TopicPartition, int]:
        """The age at ``now`` (both in microseconds) of the first record at or above each offset.

        Absent where there is none: the tail may be transaction markers, or was compacted away.
        """
        if not starts:
            return {}
        self._consumer.assign(list(starts))
        ends = await self._consumer.end_offsets(list(starts))
        for place, offset in starts.items():
            self._consumer.seek(place, offset)
        found: dict[TopicPartition, int] = {}
        waiting = set(starts)
        until = elapsed_s() + UNREAD_TIMEOUT_S
        while waiting and elapsed_s() < until:
            for place, records in (await self._consumer.getmany(*waiting, timeout_ms=200, max_records=100)).items():
                if records and place not in found:
                    found[place] = max(0, now - records[0].timestamp * 1_000)
            waiting = {
                place for place in waiting if place not in found and await self._consumer.position(place) < ends[place]
            }
        return found


def _places(topics: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(name, number) for name, count in sorted(topics.items()) for number in range(count)]
