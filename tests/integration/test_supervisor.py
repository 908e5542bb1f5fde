"""What `sluice up` promises about its processes. They are small programs here, which fail on demand; broker,
database, topics and migrations are real."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import ALL
from streams.embedded.broker import Broker
from streams.embedded.process import EmbeddedError
from streams.settings import Settings, load_settings
from streams.supervisor import Supervisor, SupervisorInterruptedError
from streams.topic_admin import TopicError, changelogs
from tests.integration.reading import eventually

DEADLINE_S = 30.0

#: Stands where the command line of Sluice does: writes the ready file, or answers /readyz.
PROGRAM = """
import http.server, os, signal, sys, time
what = sys.argv[1]
print(what, os.environ.get("SLUICE_GROUP_INSTANCE_ID"), os.environ["SLUICE_KAFKA_URL"], flush=True)
if what == os.environ.get("FAILING"):
    sys.exit("the reason why")
def leave(*_):
    with open(os.environ["ENDED"], "a") as ended:
        ended.write(what + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
if what == "worker":
    open(os.environ["SLUICE_READY_FILE"], "w").close()
    while True:
        time.sleep(60)
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["SLUICE_API_PORT"])), Ready).serve_forever()
"""


@pytest.fixture
def settings(tmp_path: Path, fresh_kafka: Broker, database_url: str) -> Settings:
    return load_settings(
        state_dir=tmp_path / "state",
        kafka_url=fresh_kafka.bootstrap,
        database_url=database_url,
        api_port=0,
        partitions=2,
    )


def supervise(settings: Settings, tmp_path: Path, workers: int = 1, failing: str = "") -> Supervisor:
    environment = {"ENDED": str(tmp_path / "ended"), "FAILING": failing}
    return Supervisor(settings, workers, environment, program=[sys.executable, "-c", PROGRAM])


async def test_brings_up_topics_tables_workers_and_api_and_stops_the_api_first(
    settings: Settings, tmp_path: Path
) -> None:
    async with supervise(settings, tmp_path, workers=2) as running:
        assert running.broker is None, "a broker was given, so none is embedded"
        assert all(worker.running for worker in running.workers)
        said = [worker.log.read_text() for worker in running.workers]
        assert said == [f"worker sluice-worker-{index} {settings.kafka_url}\n" for index in (0, 1)]
        admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka_url)
        await admin.start()
        assert {topic.name for topic in (*ALL, *changelogs("sluice"))} <= set(await admin.list_topics())
        await admin.close()
        connection = await asyncpg.connect(running.database_url)
        assert await connection.fetchval("SELECT count(*) FROM information_schema.tables") > 0
        await connection.close()
    assert not any(worker.running for worker in running.workers)
    assert (tmp_path / "ended").read_text().split() == ["api", "worker", "worker"]


async def test_starts_a_crashed_worker_again_but_not_one_that_was_killed_on_purpose(
    settings: Settings, tmp_path: Path
) -> None:
    async with supervise(settings, tmp_path, workers=2) as running:
        crashed, killed = running.workers
        first = crashed.pid
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: crashed.running and crashed.pid != first, DEADLINE_S)
        await running.kill_worker(1)
        await running.kill_worker(0, signal.SIGSTOP)
        await running.kill_worker(0, signal.SIGCONT)
        assert (crashed.running, killed.running, running.restarts) == (True, False, 1)
        await running.start_worker(1)
        assert killed.running


@pytest.mark.parametrize("failing", ["worker", "api"])
async def test_quotes_the_log_of_what_did_not_come_up_and_leaves_nothing_behind(
    failing: str, settings: Settings, tmp_path: Path
) -> None:
    supervisor = supervise(settings, tmp_path, failing=failing)
    with pytest.raises(EmbeddedError, match="the reason why"):
        async with supervisor:
            pytest.fail("nothing came up")
    assert not any(worker.running for worker in supervisor.workers)
    async with supervise(settings, tmp_path) as again:
        assert again.workers[0].running


async def test_refuses_a_state_folder_that_is_in_use(settings: Settings, tmp_path: Path) -> None:
    async with supervise(settings, tmp_path):
        with pytest.raises(EmbeddedError, match=rf"Sluice \(process {os.getpid()}\) uses"):
            async with supervise(settings, tmp_path):
                pytest.fail("two of them on one folder")


async def test_refuses_a_port_that_is_in_use(settings: Settings, tmp_path: Path) -> None:
    async with supervise(settings, tmp_path) as running:
        other = settings.model_copy(update={"api_port": running.settings.api_port, "state_dir": tmp_path / "other"})
        with pytest.raises(EmbeddedError, match="is in use: set another api_port"):
            async with supervise(other, tmp_path):
                pytest.fail("two of them on one port")


async def test_refuses_topics_with_another_number_of_partitions(settings: Settings, tmp_path: Path) -> None:
    async with supervise(settings, tmp_path):
        pass
    with pytest.raises(TopicError, match="has 2 partitions, not 3"):
        async with supervise(settings.model_copy(update={"partitions": 3}), tmp_path):
            pytest.fail("it ran over topics that do not fit")


@pytest.mark.parametrize("received", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_a_signal_ends_the_wait_or_the_body_and_all_processes(
    received: signal.Signals, settings: Settings, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    async with supervise(settings, tmp_path) as running:
        loop.call_soon(os.kill, os.getpid(), received)
        assert await running.wait() is received
    async with supervise(settings, tmp_path) as running:
        loop.call_soon(os.kill, os.getpid(), received)
        await asyncio.sleep(DEADLINE_S)
        pytest.fail("the body went on")
    assert running.interrupted_by is received
    assert not running.workers[0].running
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "a later timeout must not see our cancellation"


async def test_a_signal_before_all_is_up_stops_what_had_started(settings: Settings, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    supervisor = supervise(settings, tmp_path)
    loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
    with pytest.raises(SupervisorInterruptedError):
        async with supervisor:
            pytest.fail("it came up within 50 ms")
    assert not any(worker.running for worker in supervisor.workers)
