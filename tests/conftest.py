"""The real parts that tests run on: one broker and one PostgreSQL a session, started when a test first asks.

A test is apart from the others by its own ``database_url``, ``topics`` and ``app_id``. Tests that run whole
workers use the topic names of ``schemas.topics`` and take ``fresh_kafka``, a broker of their module's own.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from streams.embedded.broker import Broker, choose_broker
from streams.embedded.postgres import EmbeddedPostgres

MakeTopic = Callable[..., Awaitable[str]]

NOT_PROVEN_ON_TANSU = (
    "recovery of Faust tables (end offsets are wrong)",
    "anything over a broker restart (nothing is kept)",
    "compaction, retention and per-topic configuration",
    "rebalance timing, static membership and offset commits as Apache Kafka does them",
    "idempotent producers",
)
_LINES = pytest.StashKey[list[str]]()
_BROKERS = pytest.StashKey[dict[str, Broker]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LINES] = []
    config.stash[_BROKERS] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a real part needs one, wherever its file lies."""
    for item in items:
        needs = set(getattr(item, "fixturenames", ())) & {"broker", "postgres", "fresh_kafka"}
        if needs or {"integration", "e2e"} & set(item.path.parts):
            item.add_marker(pytest.mark.integration)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests ran on, and loudly what they then do not prove."""
    for line in config.stash[_LINES]:
        terminalreporter.write_line(line)
    brokers = config.stash[_BROKERS].values()
    for name, version in sorted({(broker.name, broker.version) for broker in brokers}):
        terminalreporter.write_line(f"broker: {name} {version}")
    if any(not broker.is_real_kafka for broker in brokers):
        terminalreporter.section("NOT RUN ON APACHE KAFKA", sep="!", red=True, bold=True)
        terminalreporter.write_line("Java or mvn is missing, so the broker was a stand-in. NOT PROVEN by this run:")
        for line in NOT_PROVEN_ON_TANSU:
            terminalreporter.write_line(f"  - {line}", red=True)
        terminalreporter.write_line("On Debian: apt-get install default-jre-headless maven")


def _start_broker(config: pytest.Config, state_dir: Path) -> Broker:
    async def start() -> Broker:
        broker, reason = await choose_broker("auto", state_dir, fast_start=True)
        await broker.start()
        line = f"broker: {reason}"
        if not broker.is_real_kafka and line not in config.stash[_LINES]:
            config.stash[_LINES].append(line)
        return broker

    # Here and not in a thread of the event loop's pool: the broker dies with the thread that starts it.
    broker = asyncio.run(start())
    config.stash[_BROKERS][broker.bootstrap] = broker
    return broker


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's broker: leave it running and unpaused."""
    started = _start_broker(pytestconfig, tmp_path_factory.mktemp("broker"))
    yield started
    asyncio.run(started.stop())


@pytest.fixture(scope="module")
def fresh_kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module's own, without topics, free to be paused, killed and started again (3 s)."""
    started = _start_broker(pytestconfig, tmp_path_factory.mktemp("fresh-broker"))
    yield started
    asyncio.run(started.stop())


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The session's PostgreSQL; tests use ``database_url``."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    asyncio.run(server.start())
    pytestconfig.stash[_LINES].append(f"database: PostgreSQL {server.version}")
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def kafka_url(broker: Broker) -> str:
    """``host:port`` of the session's broker."""
    return broker.bootstrap


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database of this test's own, empty and without migrations."""
    name = f"test_{uuid4().hex[:12]}"
    yield await postgres.create_database(name)
    await postgres.drop_database(name)


@pytest.fixture
def app_id(request: pytest.FixtureRequest) -> str:
    """A consumer group and changelog prefix of this test's own, which says whose it is."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:24].strip("-")
    return f"t-{words}-{uuid4().hex[:8]}"


@pytest.fixture
async def topics(broker: Broker, app_id: str) -> AsyncIterator[MakeTopic]:
    """``await topics("usage", partitions=4, config={...})`` makes a topic of this test's own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    made: list[str] = []

    async def make(hint: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"{app_id}.{hint}"
        new = NewTopic(name, partitions, 1, topic_configs=dict(config or {}))
        response = await admin.create_topics([new])
        for entry in response.topic_errors:
            if entry[1]:
                raise for_code(entry[1])(entry[2])
        made.append(name)
        return name

    yield make
    if made:
        await admin.delete_topics(made)
    await admin.close()
