"""The decision endpoint as Envoy and nginx ask it, and what HAProxy's maps hold for the same commands."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.commands import CommandBook
from gateway.decide import application
from gateway.haproxy import wanted
from schemas.commands import Measure, Target, ThrottleCommand
from schemas.instants import HOUR, MINUTE, format_instant

NOON = 1_800_000_000_000_000
BLOCK = Measure("block")


def command(*measures, scope=("team", "search"), reason="Spent.\nGrüße — 1 ¥", starts_in=0, **fields):
    return ThrottleCommand(
        command_id=f"{scope[1]}#1", budget_id="b1", target=Target(*scope), action=measures[0].action, revision=1,
        reason=reason, issued_at=format_instant(NOON), effective_at=format_instant(NOON + starts_in),
        expires_at=format_instant(NOON + 15 * MINUTE), measures=measures, **fields,
    )  # fmt: skip


class FakeGate:
    def __init__(self, *commands):
        self.book = CommandBook(clock=lambda: NOON)
        for one in commands:
            self.book.apply(one.key(), one)
        self.check, self.live = self.book.check, self.book.live
        self.ready = self.connected = True


@pytest.fixture
async def asking():
    """Starts the endpoint over these commands."""
    clients = []

    async def start(*commands):
        client = TestClient(TestServer(application(FakeGate(*commands))))
        clients.append(client)
        await client.start_server()
        return client

    yield start
    for client in clients:
        await client.close()


@pytest.mark.parametrize(
    ("method", "path", "given", "status"),
    [
        pytest.param("GET", "/v1/decide", {"headers": {"x-sluice-team": "search"}}, 429, id="a refusal"),
        pytest.param("GET", "/v1/decide", {"headers": {"X-Sluice-Team": "ads"}}, 200, id="another team goes"),
        pytest.param("GET", "/v1/decide", {}, 200, id="nobody in particular goes"),
        pytest.param("GET", "/v1/decide?deny=403", {"headers": {"x-sluice-team": "search"}}, 403, id="nginx knows 403 alone"),
        pytest.param("POST", "/v1/decide/v1/chat/completions", {"headers": {"x-sluice-team": "search"}, "json": {"team": "ads"}},
                     429, id="Envoy appends the call's path, and its body is not read"),
        pytest.param("POST", "/v1/decide", {"json": {"team": "search"}}, 429, id="a JSON body"),
        pytest.param("POST", "/v1/decide", {"json": {"team": "ads"}, "headers": {"x-sluice-team": "search"}}, 429,
                     id="a header outranks the body"),
        pytest.param("GET", "/v1/decide?team=search", {}, 429, id="a parameter"),
        pytest.param("POST", "/v1/decide", {"data": "{", "headers": {"Content-Type": "application/json"}}, 400, id="no JSON"),
        pytest.param("GET", "/v1/decide", {"headers": {"x-sluice-tokens": "many"}}, 400, id="tokens that are no number"),
        pytest.param("GET", "/readyz", {}, 200, id="ready"),
    ],
)  # fmt: skip
async def test_the_endpoint_answers(asking, method, path, given, status):
    client = await asking(command(BLOCK))
    async with client.request(method, path, **given) as response:
        assert response.status == status


async def test_a_refusal_carries_reason_wait_and_budget_in_headers_that_are_fit_to_be_sent(asking):
    client = await asking(command(BLOCK, retry_after_s=90))
    async with client.get("/v1/decide", headers={"x-sluice-team": "search"}) as response:
        found = response.headers
        assert (found["Retry-After"], found["x-sluice-budget"], found["x-sluice-action"]) == ("90", "b1", "block")
        assert found["x-sluice-reason"].startswith("Spent. Gr")
        assert (await response.json())["reason"] == "Spent.\nGrüße — 1 ¥"


async def test_what_is_to_be_changed_is_told(asking):
    client = await asking(
        command(Measure("downgrade", models={"gpt-4o": "mini"}), Measure("cap_tokens", max_tokens=99))
    )
    asked = {"x-sluice-team": "search", "x-sluice-model": "gpt-4o"}
    async with client.get("/v1/decide", headers=asked) as response:
        assert (response.status, response.headers["x-sluice-model"], response.headers["x-sluice-max-tokens"]) == (
            200,
            "mini",
            "99",
        )


@pytest.mark.parametrize(
    ("commands", "blocked", "limits", "beyond"),
    [
        pytest.param([command(BLOCK)], {"team:search"}, {}, 0, id="a block"),
        pytest.param([command(Measure("rate_limit", rpm=9))], set(), {"team:search": "9"}, 0, id="a limit of calls"),
        pytest.param([command(Measure("rate_limit", rpm=9), Measure("rate_limit", rpm=5))], set(), {"team:search": "5"}, 0, id="the lower limit"),
        pytest.param([command(Measure("rate_limit", tpm=9))], set(), {}, 1, id="tokens are not seen"),
        pytest.param([command(Measure("cap_tokens", max_tokens=9), BLOCK)], {"team:search"}, {}, 1, id="a block beside what it cannot do"),
        pytest.param([command(Measure("block", environments=("prod",)))], {"team:search"}, {}, 0, id="its own environment"),
        pytest.param([command(Measure("block", environments=("!prod",)))], set(), {}, 0, id="another environment"),
        pytest.param([command(Measure("block", request_types=("batch",)))], set(), {}, 0, id="another kind of request"),
        pytest.param([command(BLOCK, exempt_models=("free",))], set(), {}, 1, id="models that it cannot tell apart"),
        pytest.param([command(BLOCK, match=(("feature", "chat"),))], set(), {}, 1, id="a part of a team"),
        pytest.param([command(BLOCK, scope=("model", "gpt-4o"))], set(), {}, 1, id="an attribute that it does not look up"),
        pytest.param([command(BLOCK, scope=("team", "two words"))], set(), {}, 1, id="a name that is no word"),
        pytest.param([command(BLOCK, starts_in=1)], set(), {}, 0, id="not yet"),
        pytest.param([command(BLOCK, dry_run=True)], set(), {}, 0, id="a dry run"),
    ],
)  # fmt: skip
def test_haproxy_s_maps(commands, blocked, limits, beyond):
    found = wanted(FakeGate(*commands).book.standing(), ("team", "feature"), "prod", "interactive", NOON)
    assert (set(found.blocked), found.limits, len(found.beyond)) == (blocked, limits, beyond)
    assert all("\n" not in line and line.startswith("60 ") for line in found.blocked.values())


def test_haproxy_goes_on_with_what_stands_when_sluice_is_silent():
    kept = command(BLOCK, on_stale="keep", holds_until=format_instant(NOON + HOUR))
    book = FakeGate(kept, command(BLOCK, scope=("team", "ads"))).book
    found = wanted(book.standing(), ("team",), "", "interactive", NOON + 30 * MINUTE)
    assert set(found.blocked) == {"team:search"}
