"""Usage events that wait on disk: while the broker is away or frozen, over restarts, and over real kills."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from gateway.publisher import BufferFullError, UsagePublisher
from schemas import topics
from schemas.events import UsageEvent
from tests.integration.reading import connection, eventually, header, records_of, with_topics

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NOBODY = connection("127.0.0.1:9")


@pytest.fixture
async def kafka(fresh_kafka):
    """aiokafka's arguments for a broker that may be paused."""
    return await with_topics(fresh_kafka.bootstrap)


@pytest.fixture
def team():
    return f"team-{uuid.uuid4().hex[:12]}"


def call(team):
    return UsageEvent(provider="openai", response_model="gpt-4o", input_tokens=10, team_id=team)


async def ids_of(kafka_url, team):
    found = await records_of(kafka_url, topics.USAGE_EVENTS, lambda record: record.key == team.encode())
    return [header(record, "ce_id") for record in found]


async def test_what_an_outage_leaves_on_disk_goes_at_the_next_start_once_and_in_order(
    kafka, fresh_kafka, team, tmp_path
):
    first = UsagePublisher(NOBODY, buffer_max=3, spill_dir=tmp_path)
    await first.start()
    for number in range(1_200):
        first.publish(call(team), id=str(number))
    assert (first.waiting, first.stats.dropped) == (1_200, 0)
    assert await first.stop(timeout_s=0.1) == 1_200

    second = UsagePublisher(kafka, buffer_max=3, spill_dir=tmp_path)
    await second.start()
    assert second.stats.recovered == 1_200
    second.publish(call(team), id="after")
    assert await second.stop(timeout_s=20) == 0
    assert await ids_of(fresh_kafka.bootstrap, team) == [*map(str, range(1_200)), "after"]

    third = UsagePublisher(kafka, spill_dir=tmp_path)
    await third.start()
    assert (third.stats.recovered, await third.stop()) == (0, 0)


async def test_a_full_disk_share_refuses_loudly_and_keeps_what_it_took(kafka, fresh_kafka, team, tmp_path):
    publisher = UsagePublisher(NOBODY, buffer_max=3, spill_dir=tmp_path, spill_bytes_max=40_000)
    await publisher.start()
    taken = 0
    with contextlib.suppress(BufferFullError):
        for taken in range(1_000):
            publisher.publish(call(team), id=str(taken))
    assert 50 < taken < 900
    assert (publisher.stats.accepted, publisher.stats.dropped) == (taken, 1)
    await publisher.stop(timeout_s=0)
    again = UsagePublisher(kafka, spill_dir=tmp_path, spill_bytes_max=40_000)
    await again.start()
    assert await again.stop(timeout_s=20) == 0
    assert await ids_of(fresh_kafka.bootstrap, team) == [str(number) for number in range(taken)]


async def test_while_the_broker_is_frozen_events_go_to_disk_and_later_once_in_order(kafka, fresh_kafka, team, tmp_path):
    publisher = UsagePublisher(kafka, buffer_max=50, spill_dir=tmp_path)
    await publisher.start()
    publisher.publish(call(team), id="before")
    assert await publisher.flush() == 0
    fresh_kafka.pause()
    try:
        for number in range(1_000):
            publisher.publish(call(team), id=str(number))
            if number % 100 == 0:
                await asyncio.sleep(0.05)
        assert publisher.waiting == 1_000
    finally:
        fresh_kafka.resume()
    assert await publisher.stop(timeout_s=30) == 0
    assert await ids_of(fresh_kafka.bootstrap, team) == ["before", *map(str, range(1_000))]


#: Publishes as a gateway does, and says each id once ``publish`` has taken it.
GATEWAY = """
import asyncio, json, sys
from gateway.publisher import UsagePublisher
from schemas.events import UsageEvent
bootstrap, team, folder, first = sys.argv[1:]
async def main():
    usage = UsagePublisher({"bootstrap_servers": bootstrap}, buffer_max=40, spill_dir=folder, spill_bytes_max=1 << 22)
    await usage.start()
    number = int(first)
    while True:
        for _ in range(7):
            usage.publish(UsageEvent(provider="openai", response_model="gpt-4o", team_id=team), id=str(number))
            print(number, flush=True)
            number += 1
        await asyncio.sleep(0.001)
asyncio.run(main())
"""


def live(arguments, said):
    """A gateway in a process of its own, which writes what it took into a file."""
    with said.open("wb") as output:
        return subprocess.Popen([sys.executable, "-c", GATEWAY, *arguments], cwd=ROOT, stdout=output)


async def test_a_gateway_killed_again_and_again_loses_nothing_that_it_took(kafka, fresh_kafka, team, tmp_path):
    chance = random.Random(4)
    taken: list[int] = []
    for life in range(8):
        arguments = (fresh_kafka.bootstrap, team, str(tmp_path / "spill"), str((taken or [-1])[-1] + 1_000))
        said = tmp_path / f"life-{life}"
        child = live(arguments, said)
        try:
            if life == 3:
                fresh_kafka.pause()  # One life passes without a broker.
            await eventually(lambda said=said: said.stat().st_size > 0, 30)
            # Long enough to be killed in the middle of sending, of acknowledging, and of what an earlier life left.
            await asyncio.sleep(chance.uniform(0.0, 0.8))
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            if life == 3:
                fresh_kafka.resume()
        lines = said.read_text().split("\n")[:-1]  # The last line may be torn.
        taken += [int(line) for line in lines]
    last = UsagePublisher(kafka, spill_dir=tmp_path / "spill")
    await last.start()
    assert last.stats.damaged == 0
    assert await last.stop(timeout_s=30) == 0
    found = [int(one) for one in await ids_of(fresh_kafka.bootstrap, team)]
    assert set(taken) - set(found) == set()
    # What was under way when it died may come twice, and not more than that.
    assert len(found) - len(set(found)) < len(found) / 5
    first_seen = list(dict.fromkeys(found))
    assert first_seen == sorted(first_seen)
