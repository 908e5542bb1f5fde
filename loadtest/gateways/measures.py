"""Commands given by hand to the real proxies, and what then becomes of calls on every route."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer

from loadtest.gateways.clients import Answer, ask
from loadtest.gateways.traps import Listener, Told
from schemas.commands import Action, Measure, Target, ThrottleCommand
from schemas.instants import HOUR, format_instant
from schemas.topics import GATEWAY_ACKS, GATEWAY_COMMANDS

#: Every way in that LiteLLM has for a call that costs money, with a body for it.
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9},
}


class Commander:
    """Says what team ``traps`` is to suffer, and waits until the proxy has acknowledged it."""

    def __init__(self, kafka: str, partitions: int, gateway: str, now: Callable[[], int]) -> None:
        self._producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
        self._acks = Listener(kafka, partitions, GATEWAY_ACKS)
        self._gateway = gateway
        self._now = now
        self._revisions = itertools.count(1)

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()
        await self._acks.start()

    async def say(self, *measures: Measure) -> str:
        """Command these, or nothing; returns the command's id. Raises TimeoutError where nobody acknowledges."""
        revision, now = next(self._revisions), self._now()
        action: Action = measures[0].action if measures else "allow"
        command = ThrottleCommand(
            command_id=f"by-hand-{revision}",
            budget_id="by-hand",
            target=Target("team", "traps"),
            action=action,
            revision=revision,
            reason="Said by hand.",
            issued_at=format_instant(now),
            effective_at=format_instant(now),
            expires_at=format_instant(now + HOUR),
            measures=measures,
        )
        value = msgspec.json.encode(command)
        await self._producer.send_and_wait(GATEWAY_COMMANDS, value, key=command.key().encode())
        await self._acks.until(
            lambda record: command.command_id.encode() in record.value and self._gateway.encode() in record.value
        )
        return command.command_id

    async def stop(self) -> None:
        """End."""
        await self._producer.stop()
        await self._acks.stop()


class Case(NamedTuple):
    """A sentence, what is commanded, a call, how many events it causes, and what must be so."""

    says: str
    measures: tuple[Measure, ...]
    call: Callable[[], Awaitable[Any]]
    events: int
    holds: Callable[[Any, list[Told]], bool]


def cases(session: aiohttp.ClientSession, url: str) -> list[Case]:
    """The table."""

    def one(**fields: Any) -> Callable[[], Awaitable[Answer]]:
        return lambda: ask(session, url, **({"key": "sk-traps", "wish": "prompt=50 words=90 seconds=0"} | fields))

    async def every_route() -> dict[str, tuple[int, str]]:
        found = {}
        for route, body in ROUTES.items():
            headers = {"Authorization": "Bearer sk-traps"}
            async with session.post(url + route, json={"model": "gpt-4o", **body}, headers=headers) as response:
                found[route] = (response.status, response.headers.get("Retry-After", ""))
        return found

    async def twice() -> list[int]:
        return [(await one()()).status for _ in range(2)]

    def names(told: list[Told]) -> list[str]:
        return [t.event.response_model for t in told if t.event.status == "success"]

    swap = (Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"}),)
    cap = (Measure("cap_tokens", max_tokens=7),)
    return [
        Case("a downgraded call is billed as the cheaper model", swap, one(), 1,
             lambda a, t: a.headers.get("x-sluice-model") == "gpt-4o-mini" and names(t) == ["gpt-4o-mini"]
             and float(t[0].event.reported_cost or 0) < 0.0001),
        Case("a downgraded stream too", swap, one(stream=True), 1, lambda a, t: names(t) == ["gpt-4o-mini"]),
        Case("a caller's fallbacks do not lead back to the dear model", swap,
             one(fallbacks=["gpt-4o"], wish="prompt=50 words=90 seconds=0 fail=gpt-4o-mini"), 1,
             lambda a, t: a.status == 500 and names(t) == []),
        Case("a cap holds where no number was asked for", cap, one(), 1, lambda a, t: t[0].event.output_tokens == 7),
        Case("a cap holds under max_tokens", cap, one(max_tokens=80), 1, lambda a, t: t[0].event.output_tokens == 7),
        Case("a cap holds under a synonym", cap, one(max_completion_tokens=80), 1,
             lambda a, t: t[0].event.output_tokens == 7),
        Case("a limit of calls", (Measure("rate_limit", rpm=1),), twice, 2, lambda a, t: a == [200, 429]),
        Case("a measure for batch calls leaves others alone", (Measure("block", request_types=("batch",)),), one(), 1,
             lambda a, t: a.status == 200),
        Case("a measure for batch calls takes those that say they are",
             (Measure("block", request_types=("batch",)),), one(metadata={"tags": ["request_type:batch"]}), 1,
             lambda a, t: a.status == 429),
        Case("a measure for all but test leaves test alone", (Measure("block", environments=("!test",)),), one(), 1,
             lambda a, t: a.status == 200),
        Case("a block refuses on every route, with a time to come back", (Measure("block"),), every_route, 5,
             lambda a, t: set(a.values()) == {(429, "60")} and {x.event.status for x in t} == {"failure"}),
        Case("it lets go", (), one(), 1, lambda a, t: a.status == 200),
    ]  # fmt: skip


async def check(rig: Any, session: aiohttp.ClientSession, url: str, kafka: str, partitions: int, gateway: str) -> None:
    """Try each; fails by way of ``rig``."""
    listener, commander = Listener(kafka, partitions), Commander(kafka, partitions, gateway, rig.now)
    await listener.start()
    await commander.start()
    wrong: list[str] = []
    try:
        for case in cases(session, url):
            await commander.say(*case.measures)
            answer, told = await listener.after(case.call(), case.events)
            try:
                is_well = len(told) == case.events and case.holds(answer, told)
            except (IndexError, KeyError):
                is_well = False
            rig.say(f"{'well' if is_well else 'NOT '}  {case.says}")
            if not is_well:
                wrong.append(f"{case.says}: {str(answer)[:600]}; told {told}")
    finally:
        await commander.stop()
        await listener.stop()
    rig.found["measures_obeyed"] = len(cases(session, url)) - len(wrong)
    if wrong:
        rig.fail("\n".join(wrong))
