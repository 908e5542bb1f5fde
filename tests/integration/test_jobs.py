"""Job commands end real processes: one that writes a checkpoint, one that does not listen, and none that did not agree."""

import asyncio
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from gateway.jobs import JobExecutor
from schemas import topics
from schemas.commands import JobAck, JobCommand
from schemas.instants import HOUR, format_instant
from tests.integration.reading import eventually, eventually_records, with_topics

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]

#: Trains until it is told to end; then it writes a checkpoint, which takes a moment.
TRAINS = """
import signal, sys, time
from pathlib import Path
def save(*_):
    time.sleep(0.3)
    Path(sys.argv[1]).write_text("checkpoint")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("trains", flush=True)
while True:
    time.sleep(0.05)
"""
IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("trains", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
async def kafka(kafka_url):
    return await with_topics(kafka_url)


@pytest.fixture
async def sluice(kafka):
    """Commands runs as BUDGET does."""
    producer = AIOKafkaProducer(**kafka, acks="all")
    await producer.start()

    async def send(command):
        await producer.send_and_wait(topics.JOB_COMMANDS, msgspec.json.encode(command), key=command.key().encode())

    yield send
    await producer.stop()


@pytest.fixture
async def executor(kafka):
    found = JobExecutor(kafka, executor="node-1")
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def train(tmp_path):
    """Starts a real process and waits until it trains."""
    started = []

    def start(program):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "checkpoint")],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(child)
        assert child.stdout.readline() == b"trains\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def run_id():
    return f"run-{uuid.uuid4().hex[:12]}"


def command(run_id, action="stop_job", revision=1, *, lasts=HOUR, grace_s=10, **fields):
    now = time.time_ns() // 1_000
    return JobCommand(
        command_id=f"{run_id}#{revision}", run_id=run_id, action=action, revision=revision,
        reason="The run passed its estimate by half.", issued_at=format_instant(now),
        expires_at=format_instant(now + lasts), grace_s=grace_s, **fields,
    )  # fmt: skip


async def acks_of(kafka_url, run_id, count=1):
    found = await eventually_records(kafka_url, topics.JOB_ACKS, lambda record: record.key == run_id.encode(), count)
    return [msgspec.json.decode(record.value, type=JobAck) for record in found]


async def test_a_run_that_agreed_is_asked_to_end_and_has_time_for_a_checkpoint(
    sluice, executor, train, run_id, kafka_url, tmp_path
):
    child = train(TRAINS)
    executor.register(run_id, child.pid, auto_shutdown=True)
    await sluice(command(run_id))
    (ack,) = await acks_of(kafka_url, run_id)
    assert (ack.outcome, ack.executor, ack.revision) == ("stopped", "node-1", 1)
    assert (tmp_path / "checkpoint").read_text() == "checkpoint"
    assert child.wait(5) == 0


async def test_a_run_that_does_not_listen_is_killed_after_its_grace(sluice, executor, train, run_id, kafka_url):
    child = train(IGNORES)
    executor.register(run_id, child.pid, auto_shutdown=True)
    began = time.monotonic()
    await sluice(command(run_id, grace_s=1))
    (ack,) = await acks_of(kafka_url, run_id)
    assert (ack.outcome, child.wait(5)) == ("killed", -9)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("allowed", "fields", "outcome"),
    [
        pytest.param(False, {}, "refused", id="a job that does not carry auto_shutdown goes on"),
        pytest.param(True, {"dry_run": True}, "refused", id="a dry run ends nothing"),
        pytest.param(True, {"action": "scale_cap", "replicas_max": 2}, "refused", id="what cannot be scaled is not"),
    ],
)
async def test_a_process_goes_on(sluice, executor, train, run_id, kafka_url, allowed, fields, outcome):
    child = train(TRAINS)
    executor.register(run_id, child.pid, auto_shutdown=allowed)
    await sluice(command(run_id, **fields))
    (ack,) = await acks_of(kafka_url, run_id)
    assert ack.outcome == outcome
    assert child.poll() is None


async def test_an_expired_or_overtaken_command_ends_nothing(sluice, executor, train, run_id, kafka_url):
    child, other = train(TRAINS), f"{run_id}-other"
    executor.register(run_id, child.pid, auto_shutdown=True)
    await sluice(command(run_id, lasts=-1))
    await sluice(command(other, dry_run=True, revision=5))
    executor.register(other, child.pid, auto_shutdown=True)
    await sluice(command(other, revision=4))
    await sluice(command(other, dry_run=True, revision=6))
    acks = await acks_of(kafka_url, other, 2)
    assert [ack.revision for ack in acks] == [5, 6]
    assert child.poll() is None


async def test_a_command_that_was_given_before_the_run_was_registered_is_obeyed_once(
    sluice, executor, train, run_id, kafka_url
):
    await sluice(command(run_id))
    await eventually(lambda: run_id in executor._commands)
    child = train(TRAINS)
    executor.register(run_id, child.pid, auto_shutdown=True)
    await sluice(command(run_id))
    await acks_of(kafka_url, run_id)
    child.wait(5)
    await sluice(command(run_id, revision=2))
    assert [ack.outcome for ack in await acks_of(kafka_url, run_id, 2)] == ["stopped", "gone"]


async def test_replicas_are_capped_by_whoever_can(sluice, executor, run_id, kafka_url):
    asked = []
    executor.register(run_id, scale=asked.append)
    await sluice(command(run_id, "scale_cap", replicas_max=2))
    (ack,) = await acks_of(kafka_url, run_id)
    assert (ack.outcome, asked) == ("capped", [2])


async def test_the_command_line_runs_a_program_under_command(sluice, run_id, kafka_url, tmp_path):
    wrapped = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.jobs", "--kafka", kafka_url, "--run", run_id, "--auto-shutdown", "--executor", "cli",
        "--", sys.executable, "-c", TRAINS, str(tmp_path / "checkpoint"), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert await asyncio.wait_for(wrapped.stdout.readline(), 20) == b"trains\n"
        await sluice(command(run_id))
        assert await asyncio.wait_for(wrapped.wait(), 20) == 0
        (ack,) = await acks_of(kafka_url, run_id)
        assert (ack.outcome, ack.executor) == ("stopped", "cli")
        assert (tmp_path / "checkpoint").read_text() == "checkpoint"
    finally:
        if wrapped.returncode is None:
            wrapped.kill()
