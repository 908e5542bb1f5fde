"""A worker that is frozen for longer than its session and then goes on: nobody is told twice, and no budget goes back."""

import asyncio
import signal
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import topics
from schemas.commands import ThrottleCommand
from streams.standins.runner import StandIns
from tests.e2e.conftest import run_service
from tests.e2e.test_enforcement import BUDGETS, _spend

pytestmark = [pytest.mark.integration]


async def _commands(service) -> list[ThrottleCommand]:
    """Everything commanded so far, in the order of the log."""
    consumer = AIOKafkaConsumer(bootstrap_servers=service.running.kafka_url, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(topics.GATEWAY_COMMANDS, p) for p in range(service.running.settings.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [msgspec.json.decode(record.value, type=ThrottleCommand) for record in records]
        return found
    finally:
        await consumer.stop()


async def test_a_worker_that_slept_through_its_eviction_takes_nothing_back(fresh_kafka, postgres, tmp_path):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text(BUDGETS.format(amount="10"))
    database = await postgres.create_database(f"e2e_{uuid4().hex[:12]}")
    async with StandIns(tmp_path / "standins") as people:
        changes = {name.removeprefix("SLUICE_").lower(): value for name, value in people.environment().items()}
        async with run_service(
            fresh_kafka, database, tmp_path / "state", workers=2, budgets=budgets, session_timeout_s=6.0, **changes
        ) as service:

            async def crossed(percent: int) -> bool:
                # It may close early: what the new owner hears late, and fast, counts as calls under way.
                return (await service.pool.fetchval("select crossed_percent from budget_status") or 0) >= percent

            await _spend(service, 6.0)
            await service.until(lambda: crossed(50), "50 % to be crossed")
            # Whichever of them has the budget, it is frozen once, and the other one goes on with it.
            for worker, (dollars, percent) in enumerate(((2.0, 75), (2.2, 100))):
                await service.running.kill_worker(worker, signal.SIGSTOP)
                await _spend(service, dollars)
                await service.until(
                    lambda percent=percent: crossed(percent), f"{percent} % with worker {worker} frozen"
                )
                await service.running.kill_worker(worker, signal.SIGCONT)
                await service.caught_up(topics.USAGE_EVENTS)
            await _spend(service, 0.1)
            await service.caught_up(topics.USAGE_EVENTS)

            # What the evicted worker was about to send is sent by another once its lease of 60 s has run out.
            async with asyncio.timeout(150):
                while await service.pool.fetchval("select count(*) from outbox where state = 'owed'"):
                    await asyncio.sleep(0.2)
            (incident,) = people.pagerduty.incidents
            assert incident.resolved_at is None
            # Who ends because it was evicted may have sent it and not noted it; under its key that is the same incident.
            assert incident.triggers <= 2
            episodes = await service.pool.fetch("select distinct episode from alerts")
            assert [row["episode"] for row in episodes] == [1]
            assert await crossed(100)
            commands = await _commands(service)
            # Nothing is given back: slowed down perhaps, then blocked, and that once.
            assert {command.action for command in commands} <= {"rate_limit", "block"}
            assert len({command.revision for command in commands if command.action == "block"}) == 1
            assert max(commands, key=lambda command: command.revision).action == "block"
