"""Two real workers watch themselves: one heartbeat, each alert once, and whoever watched may be killed."""

import signal
from uuid import uuid4

import pytest

from schemas import topics
from schemas.readers import ALERTS
from streams.embedded.process import free_port
from tests.e2e.conftest import run_service
from tests.integration.dead_mans_switch import dead_mans_switch
from tests.integration.reading import records_of

pytestmark = [pytest.mark.integration]

CALL = {"provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "chat", "input_tokens": 1000}
OPEN = "select count(*) from alerts where rule = $1 and status <> 'resolved'"


async def test_two_workers_watch_themselves_and_one_may_be_killed(fresh_kafka, postgres, tmp_path):
    database = await postgres.create_database(f"e2e_{uuid4().hex[:12]}")
    async with dead_mans_switch() as switch:
        changes = {
            "heartbeat_url": switch.url, "heartbeat_interval_s": 0.5, "watch_interval_s": 1.0, "watch_delivery_s": 2,
            "watch_dead_letters_min": 3, "watch_unpriced_min": 1,
            "slack_webhook_url": f"http://127.0.0.1:{free_port()}/services/nobody/listens",
        }  # fmt: skip
        async with run_service(fresh_kafka, database, tmp_path, workers=2, **changes) as service:
            await _beats(service, switch)
            await _says_what_is_wrong(service, switch)
            await _goes_on_after_a_kill(service, switch)
            said = await records_of(fresh_kafka.bootstrap, topics.ALERTS, lambda record: record.value is not None)
            opened = [alert for alert in map(ALERTS.decode, (r.value for r in said)) if alert.status == "opened"]
            names = [(alert.rule, alert.scope_id, alert.episode) for alert in opened]
            assert len(names) == len(set(names)), names


async def _beats(service, switch) -> None:
    async def well():
        return switch.pings and not switch.pings[-1].what

    await service.until(well, "a heartbeat")
    assert "OK   workers: 2 active in group sluice: stable" in switch.pings[-1].body
    await service.send(CALL, id=uuid4().hex, key="search")

    async def heard():
        return await service.pool.fetchval("select minutes::text from sources_heard where source = '//test'")

    assert "1" in await service.until(heard, "the source to be heard")


async def _says_what_is_wrong(service, switch) -> None:
    for _ in range(4):
        await service.send(b"no json", id=uuid4().hex)
    await service.send(CALL | {"request_model": "model-of-nobody", "provider": "nobody"}, id=uuid4().hex, key="search")

    async def told(rule):
        return await service.pool.fetchval(OPEN, rule)

    for rule in ("dead_letters", "unpriced_usage", "delivery_failing"):
        await service.until(lambda rule=rule: told(rule), f"an alert {rule}")

    async def failing():
        return switch.pings[-1].what == "fail" and "FAIL outbox" in switch.pings[-1].body

    await service.until(failing, "the heartbeat to say that messages do not leave")


async def _goes_on_after_a_kill(service, switch) -> None:
    holder, term = await service.pool.fetchrow("select holder, term from watchers")
    (watching,) = [number for number, worker in enumerate(service.running.workers) if f"-{worker.pid}-" in holder]
    await service.running.kill_worker(watching, signal.SIGKILL)
    await service.pool.execute("update watchers set leased_until = now()")

    async def taken_over():
        return await service.pool.fetchval("select holder from watchers where term > $1 and holder <> $2", term, holder)

    await service.until(taken_over, "the other worker to watch")
    heard = len(switch.pings)

    async def beats_on():
        return len(switch.pings) > heard + 1

    await service.until(beats_on, "the heartbeat of the other worker")
    await service.running.start_worker(watching)
