"""A real HAProxy obeys commands: it refuses, limits and lets go, and is put right after a restart."""

import os
import shutil
import time
import uuid
import warnings

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from gateway.haproxy import HaproxyEnforcer
from loadtest.gateways.enforcer import CONFIG
from schemas import topics
from schemas.commands import Measure, Target, ThrottleAck, ThrottleCommand
from schemas.instants import HOUR, SECOND, format_instant
from streams.embedded.process import ChildProcess, free_port, http_status
from tests.integration.reading import eventually, eventually_records, with_topics

PROGRAM = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.integration

if PROGRAM is None:
    warnings.warn(
        "HAPROXY IS NOT INSTALLED (apt-get install haproxy): its enforcer is NOT PROVEN by this run", stacklevel=1
    )
    pytest.skip("haproxy is not installed", allow_module_level=True)


@pytest.fixture
async def kafka(kafka_url):
    return await with_topics(kafka_url)


@pytest.fixture
async def sluice(kafka):
    """Commands throttles as BUDGET does."""
    producer = AIOKafkaProducer(**kafka, acks="all")
    await producer.start()

    async def send(command):
        await producer.send_and_wait(topics.GATEWAY_COMMANDS, msgspec.json.encode(command), key=command.key().encode())

    yield send
    await producer.stop()


@pytest.fixture
async def haproxy(tmp_path):
    """A running HAProxy before a server that answers ok; ``start`` again after ``stop``."""
    app = web.Application()

    async def ok(_):
        return web.Response(text="ok")

    app.router.add_get("/", ok)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=tmp_path, port=port, upstream=f"127.0.0.1:{runner.addresses[0][1]}"))
    for name in ("blocked.map", "limits.map"):
        (tmp_path / name).touch()
    child = ChildProcess("haproxy", (PROGRAM, "-db", "-f", str(config)), tmp_path / "haproxy.log")
    child.port = port

    async def listens():
        return await http_status(port, "/") is not None

    child.listens = listens
    child.start()
    await child.ready(listens, 15)
    yield child
    await child.stop(deadline_s=2)
    await runner.cleanup()


@pytest.fixture
async def call(haproxy):
    """A call of a team; its status, headers and text."""
    async with aiohttp.ClientSession() as session:

        async def send(team):
            url = f"http://127.0.0.1:{haproxy.port}/"
            async with session.get(url, headers={"x-sluice-team": team}) as response:
                return response.status, response.headers, await response.text()

        yield send


@pytest.fixture
async def enforcer(kafka, haproxy, tmp_path):
    found = HaproxyEnforcer(
        kafka, name="lb-1", socket_path=str(tmp_path / "admin.sock"), folder=tmp_path, ack_interval_s=0.1
    )
    assert await found.start(15)
    yield found
    await found.stop()


@pytest.fixture
def team():
    return f"team-{uuid.uuid4().hex[:12]}"


def command(team, *measures, revision=1, action=None):
    now = time.time_ns() // 1_000
    return ThrottleCommand(
        command_id=f"{team}#{revision}", budget_id="daily", target=Target("team", team),
        action=action or measures[0].action, revision=revision, reason="The day's budget; it is \"spent\".",
        issued_at=format_instant(now), effective_at=format_instant(now - SECOND),
        expires_at=format_instant(now + HOUR), measures=measures, retry_after_s=77,
    )  # fmt: skip


async def eventually_answers(call, team, status):
    async def answered():
        return (await call(team))[0] == status

    until = time.monotonic() + 15
    while not await answered():
        assert time.monotonic() < until, await call(team)


async def test_a_block_is_obeyed_acknowledged_and_lifted(sluice, enforcer, call, team, kafka_url):
    assert (await call(team))[0] == 200
    await sluice(command(team, Measure("block")))
    await eventually_answers(call, team, 429)
    status, headers, text = await call(team)
    assert (status, headers["Retry-After"], text) == (429, "77", 'The day\'s budget; it is "spent".')
    assert (await call("another"))[0] == 200
    key = f"team:{team}|daily".encode()
    (ack, *_) = await eventually_records(kafka_url, topics.GATEWAY_ACKS, lambda record: record.key == key, 1)
    assert msgspec.json.decode(ack.value, type=ThrottleAck).gateway == "lb-1"
    await sluice(command(team, action="allow", revision=2))
    await eventually_answers(call, team, 200)


async def test_a_limit_of_calls_lets_so_many_through(sluice, enforcer, call, team, tmp_path):
    await sluice(command(team, Measure("rate_limit", rpm=5)))
    await eventually(lambda: f"team:{team} 5" in (tmp_path / "limits.map").read_text())
    assert [(await call(team))[0] for _ in range(8)] == [200] * 5 + [429] * 3


async def test_a_restarted_haproxy_refuses_from_its_first_call(sluice, enforcer, haproxy, call, team, tmp_path):
    await sluice(command(team, Measure("block")))
    await eventually_answers(call, team, 429)
    await eventually(lambda: team in (tmp_path / "blocked.map").read_text())
    await haproxy.stop(deadline_s=2)
    haproxy.start()
    await haproxy.ready(haproxy.listens, 15)
    assert (await call(team))[0] == 429
    await sluice(command(team, action="allow", revision=2))
    await eventually_answers(call, team, 200)


async def test_an_entry_that_somebody_else_removed_is_put_back(sluice, enforcer, call, team, tmp_path):
    await sluice(command(team, Measure("block")))
    await eventually_answers(call, team, 429)
    assert await enforcer._socket.ask(f"del map {tmp_path / 'blocked.map'} team:{team}") == ""
    assert (await call(team))[0] == 200
    await eventually_answers(call, team, 429)
