"""The crash rig's short form: one seed with fewer events and faults. `make crash SEEDS=25` is the long one."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.crash.proxy import Proxy
from streams.embedded.kafka_jars import find_distribution
from streams.embedded.process import EmbeddedError

pytestmark = [pytest.mark.integration]

ROOT = Path(__file__).parents[2]
#: Two SIGKILLs of workers, a third worker, and a SIGKILL of the broker.
SEED = 5
DEADLINE_S = 240


@pytest.fixture(scope="module")
def real_kafka():
    """The rig freezes and restarts its broker, and expects what it acknowledged to be there afterwards."""
    try:
        asyncio.run(find_distribution())
    except EmbeddedError as error:
        pytest.skip(f"the crash rig needs Apache Kafka: {error}")


def test_a_seed_of_the_crash_rig_holds(real_kafka, tmp_path):
    command = [sys.executable, "-m", "loadtest.crash", "--short", "--seed", str(SEED), "--state", str(tmp_path)]
    # A process of its own: it mounts a small disk in a namespace of its own, and starts children from its main thread.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 seeds hold" in done.stdout


@pytest.fixture
async def echo_port():
    """A server that says back what it hears."""

    async def answer(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_the_proxy_passes_bytes_on_until_it_is_cut_and_then_resets(echo_port):
    proxy = Proxy(lambda: echo_port)
    await proxy.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    again, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"again")
    assert await asyncio.wait_for(again.readexactly(5), 5) == b"again"
    await proxy.stop()


async def test_the_proxy_resets_whoever_comes_while_nothing_is_behind_it():
    proxy = Proxy(lambda: None)
    await proxy.start()
    reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    await proxy.stop()
