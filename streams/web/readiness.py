"""Whether the parts that the service needs are there: PostgreSQL with the ledger in it, and Kafka with the topics."""

import asyncio

import asyncpg
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from schemas import topics
from streams.clock import elapsed_s
from streams.kafka_connection import connection
from streams.settings import Settings, SettingsError
from streams.sinks.postgres import migration_files
from streams.web.answers import Missing
from streams.web.problems import DATABASE_ERRORS

PROBE_TIMEOUT_S = 3.0
#: A probe's answer holds for this long: readiness is asked for often, and each probe opens a connection.
GOOD_FOR_S = 2.0
BAD_FOR_S = 0.3


class BrokerProbe:
    """Asks Kafka for its topics, at most once every ``GOOD_FOR_S``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._problem = ""
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def problem(self) -> str:
        """What is wrong with the broker, and what to do; empty where nothing is."""
        async with self._asking:
            if elapsed_s() >= self._until:
                self._problem = await self._ask()
                self._until = elapsed_s() + (BAD_FOR_S if self._problem else GOOD_FOR_S)
            return self._problem

    async def _ask(self) -> str:
        try:
            arguments = connection(self._settings)
        except SettingsError as error:
            return str(error)
        client = AIOKafkaClient(**arguments, client_id="sluice-readiness", request_timeout_ms=2_000)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await client.bootstrap()
                known = (await client.fetch_all_metadata()).topics(exclude_internal_topics=False)
        except (KafkaError, OSError, TimeoutError) as error:
            where = self._settings.kafka_url
            return f"no Kafka broker answers at {where}: {error!r}; check kafka_url and that it runs"
        finally:
            await client.close()
        absent = [topic.name for topic in topics.ALL if topic.name not in known]
        return f"topics are missing: {', '.join(absent)}; run `sluice topics create`" if absent else ""


async def ledger_problem(pool: asyncpg.Pool) -> str:
    """What is wrong with the database, and what to do; empty where nothing is."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            has_any = await pool.fetchval("select to_regclass('schema_migrations') is not null")
            rows = await pool.fetch("select number from schema_migrations") if has_any else []
    except DATABASE_ERRORS as error:
        return f"PostgreSQL does not answer: {error!r}; check database_url and that it runs"
    applied = {row["number"] for row in rows}
    absent = [name for number, name, _ in migration_files() if number not in applied]
    return f"migrations are missing: {', '.join(absent)}; start a worker or the API anew" if absent else ""


async def missing_parts(pool: asyncpg.Pool, probe: BrokerProbe) -> list[Missing]:
    """Everything that is not there, in one go."""
    database, broker = await asyncio.gather(ledger_problem(pool), probe.problem())
    found = [("ledger", database), ("broker", broker)]
    return [Missing(part=part, problem=problem) for part, problem in found if problem]
