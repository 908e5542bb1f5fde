"""A real nginx with the configuration of docs/gateways.md asks ``/v1/decide`` before each call."""

import os
import re
import shutil
import time
import uuid
import warnings
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from gateway.decide import application
from gateway.gate import ThrottleGate
from schemas import topics
from schemas.commands import Measure, Target, ThrottleCommand
from schemas.instants import HOUR, format_instant
from streams.embedded.process import ChildProcess, free_port, http_status
from tests.integration.reading import eventually, with_topics

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.integration

if PROGRAM is None:
    warnings.warn("NGINX IS NOT INSTALLED (apt-get install nginx-light): its snippet is NOT PROVEN", stacklevel=1)
    pytest.skip("nginx is not installed", allow_module_level=True)

GUIDE = (Path(__file__).parents[2] / "docs" / "gateways.md").read_text()
(SNIPPET,) = re.findall(r"```nginx\n(.*?)```", GUIDE, re.S)
CONFIG = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_authorization $team {{ "Bearer key-of-search" search; "Bearer key-of-risk" risk; default ""; }}
    upstream upstream {{ server 127.0.0.1:{upstream}; }}
    server {{ listen 127.0.0.1:{port}; {snippet} }}
}}
"""


async def listening(app: web.Application):
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, runner.addresses[0][1]


class House:
    """nginx before an upstream that tells which headers it got, and the decision endpoint beside it."""

    def __init__(self, nginx: ChildProcess, deciding: web.AppRunner, gate: ThrottleGate, session) -> None:
        self.nginx, self.deciding, self.gate, self._session = nginx, deciding, gate, session

    async def call(self, team: str = "search", **headers: str):
        sent = {"Authorization": f"Bearer key-of-{team}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        async with self._session.post(f"http://127.0.0.1:{self.nginx.port}/v1/chat", data=b"{}", headers=sent) as found:
            return found.status, found.headers, await found.text()


@pytest.fixture
async def house(kafka_url, tmp_path):
    kafka = await with_topics(kafka_url)

    async def upstream(request):
        return web.json_response({name.lower(): value for name, value in request.headers.items()})

    behind = web.Application()
    behind.router.add_route("*", "/{path:.*}", upstream)
    up, up_port = await listening(behind)
    gate = ThrottleGate(kafka, gateway=f"nginx-{uuid.uuid4().hex[:8]}")
    assert await gate.start(ready_within_s=15)
    deciding, decide_port = await listening(application(gate))
    port, config = free_port(), tmp_path / "nginx.conf"
    snippet = SNIPPET.replace("127.0.0.1:8687", f"127.0.0.1:{decide_port}")
    config.write_text(CONFIG.format(folder=tmp_path, port=port, upstream=up_port, snippet=snippet))
    nginx = ChildProcess("nginx", (PROGRAM, "-p", str(tmp_path), "-c", str(config)), tmp_path / "nginx.log")
    nginx.port = port

    async def listens():
        return await http_status(port, "/v1/") is not None

    nginx.start()
    await nginx.ready(listens, 15)
    async with aiohttp.ClientSession() as session:
        yield House(nginx, deciding, gate, session)
    await nginx.stop(deadline_s=2)
    await gate.stop()
    await deciding.cleanup()
    await up.cleanup()


@pytest.fixture
async def commanded(kafka_url, house):
    """Gives commands as BUDGET does, waits until the gate has them, and takes them back at the end."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_url, acks="all")
    await producer.start()
    given = []

    async def send(*measures: Measure, revision: int = 1, **fields):
        now = time.time_ns() // 1_000
        budget = f"nginx-{uuid.uuid4().hex[:8]}"
        command = ThrottleCommand(
            command_id=budget, budget_id=budget, target=Target("team", "search"), revision=revision,
            action=measures[0].action, measures=measures, reason="Budget search-daily is spent: $10.02 of $10.00.",
            issued_at=format_instant(now), effective_at=format_instant(now), expires_at=format_instant(now + HOUR),
            retry_after_s=77, **fields,
        )  # fmt: skip
        given.append(command)
        await producer.send_and_wait(topics.GATEWAY_COMMANDS, msgspec.json.encode(command), key=command.key().encode())
        await eventually(lambda: any(live.command.budget_id == budget for live in house.gate.live()))

    yield send
    for command in given:
        await producer.send_and_wait(topics.GATEWAY_COMMANDS, None, key=command.key().encode())
    await producer.stop()


async def test_a_call_goes_where_nothing_is_commanded(house):
    status, _, text = await house.call()
    assert (status, "authorization" in text) == (200, True)


async def test_a_blocked_team_gets_429_with_the_reason_and_when_to_come_back_and_others_go_on(house, commanded):
    await commanded(Measure("block"))
    status, headers, text = await house.call()
    assert (status, headers["Retry-After"], "Budget search-daily is spent" in text) == (429, "77", True)
    assert (await house.call("risk"))[0] == 200


@pytest.mark.parametrize(
    "spoofed",
    [
        {"x_sluice_team": "risk"},
        {"x_sluice_environment": "dev"},
        {"x_sluice_feature": "free"},
        {"x_sluice_model": "gpt-free"},
    ],
    ids=["another team", "another environment", "a feature that is let go", "a model that is spared"],
)
async def test_a_caller_cannot_talk_itself_out_of_a_block(house, commanded, spoofed):
    await commanded(Measure("block", environments=("prod",)), exempt_models=("gpt-free",))
    assert (await house.call(**spoofed))[0] == 429


async def test_the_model_to_call_instead_reaches_the_upstream_and_a_callers_own_does_not(house, commanded):
    assert "gpt-spoofed" not in (await house.call(x_sluice_model="gpt-spoofed"))[2]
    await commanded(Measure("downgrade", models={"*": "gpt-4o-mini"}))
    status, _, text = await house.call(x_sluice_model="gpt-spoofed")
    assert (status, '"x-sluice-model": "gpt-4o-mini"' in text) == (200, True)


async def test_calls_go_on_while_nobody_answers(house, commanded):
    await commanded(Measure("block"))
    await house.deciding.cleanup()
    assert (await house.call())[0] == 200
