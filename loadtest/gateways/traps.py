"""What callers and LiteLLM do that a plugin must not fall for, each tried on the real proxy and read from Kafka."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from loadtest.gateways.clients import ask
from schemas.events import UsageEvent
from schemas.topics import USAGE_EVENTS
from streams.clock import elapsed_s

#: LiteLLM logs in the background, some seconds later at worst.
ARRIVES_WITHIN_S = 20.0
QUIET_S = 1.5
_decode = msgspec.json.Decoder(UsageEvent).decode


class Told(NamedTuple):
    """A usage event with its identity."""

    id: str
    event: UsageEvent


class Listener:
    """Reads a topic from now on: usage events, unless another is named."""

    def __init__(self, kafka: str, partitions: int, topic: str = USAGE_EVENTS) -> None:
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._consumer = AIOKafkaConsumer(bootstrap_servers=kafka, fetch_max_wait_ms=50)

    async def start(self) -> None:
        """From the present end of the topic."""
        await self._consumer.start()
        self._consumer.assign(self._places)
        await self._consumer.seek_to_end(*self._places)
        for place in self._places:
            await self._consumer.position(place)

    async def after(self, call: Awaitable[Any], count: int) -> tuple[Any, list[Told]]:
        """What a call came to, and the events that it caused: ``count`` of them, then none for a while."""
        answer = await call
        found: list[Told] = []
        until = elapsed_s() + ARRIVES_WITHIN_S
        while elapsed_s() < until:
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    found.append(Told(dict(record.headers)["ce_id"].decode(), _decode(record.value)))
            if len(found) >= count:
                until = min(until, elapsed_s() + QUIET_S)
                count = 1 << 30
        return answer, found

    async def until(self, is_it: Callable[[Any], bool]) -> None:
        """Read until such a record; raises TimeoutError."""
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            while True:
                for records in (await self._consumer.getmany(timeout_ms=200)).values():
                    if any(is_it(record) for record in records):
                        return

    async def stop(self) -> None:
        """End."""
        await self._consumer.stop()


async def _hang_up(session: aiohttp.ClientSession, url: str) -> int:
    """Read the beginning of a stream, and go."""
    body = {
        "model": "gpt-4o", "stream": True,
        "messages": [{"role": "user", "content": "prompt=50 words=90 seconds=4"}],
    }  # fmt: skip
    headers = {"Authorization": "Bearer sk-traps"}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.content.readany()
        await asyncio.sleep(1.5)
        response.close()
        return response.status


def _brief(told: Sequence[Told]) -> list[tuple[str, str, int, int]]:
    return [(t.event.team_id, t.event.status, t.event.input_tokens, t.event.output_tokens) for t in told]


class Trap(NamedTuple):
    """A sentence, a call, how many events it causes, and what must be so."""

    says: str
    call: Callable[[], Awaitable[Any]]
    events: int
    holds: Callable[[Any, list[Told]], bool]


def all_traps(session: aiohttp.ClientSession, url: str) -> list[Trap]:
    """The table."""

    def one(**fields: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: ask(session, url, **({"key": "sk-traps", "wish": "prompt=50 words=20 seconds=0"} | fields))

    def usage(told: list[Told]) -> list[tuple[str, str, int, int]]:
        return _brief(told)

    whole = [("traps", "success", 50, 20)]
    cached = {"wish": "prompt=51 words=20 seconds=0", "cache": {"use-cache": True, "no-cache": False}}
    return [
        Trap("a call gives one event", one(), 1, lambda a, t: a.status == 200 and usage(t) == whole),
        Trap("a stream gives one event with exact tokens", one(stream=True), 1,
             lambda a, t: usage(t) == whole and t[0].event.stream),
        Trap("a team in the caller's metadata is nothing",
             one(metadata={"team_id": "search", "user_api_key_team_id": "search"}), 1,
             lambda a, t: usage(t) == whole),
        Trap("a caller's tag names the run, and neither environment nor feature of the key",
             one(metadata={"tags": ["run:r7", "environment:prod", "feature:free", "team:search"]}), 1,
             lambda a, t: (t[0].event.run_id, t[0].event.environment, t[0].event.feature) == ("r7", "test", "traps")),
        Trap("a failure is told and costs nothing", one(wish="fail=all"), 1,
             lambda a, t: a.status == 500 and [x[:2] for x in usage(t)] == [("traps", "failure")]),
        Trap("a fallback is two events under two names",
             one(wish="prompt=50 words=20 seconds=0 fail=gpt-4o", fallbacks=["gpt-4o-mini"]), 2,
             lambda a, t: a.status == 200 and len({x.id for x in t}) == 2
             and sorted(x.event.status for x in t) == ["failure", "success"]
             and [x.event.response_model for x in t if x.event.status == "success"] == ["gpt-4o-mini"]),
        Trap("an answer that goes into the cache", one(**cached), 1, lambda a, t: not t[0].event.cache_hit),
        Trap("an answer from the cache is told as such", one(**cached), 1, lambda a, t: t[0].event.cache_hit),
        Trap("a key that is none has no team", one(key="sk-none"), 1,
             lambda a, t: a.status == 401 and [x[:2] for x in usage(t)] == [("", "failure")]),
        Trap("a model that is none is told and costs nothing", one(model="gpt-9"), 1,
             lambda a, t: a.status in (400, 404) and usage(t) == [("traps", "failure", 0, 0)]),
        Trap("a client that hangs up is told", lambda: _hang_up(session, url), 1,
             lambda a, t: [x[:2] for x in usage(t)] == [("traps", "success")]
             and t[0].event.error_type == "ClientDisconnected"),
    ]  # fmt: skip


async def check(rig: Any, session: aiohttp.ClientSession, url: str, kafka: str, partitions: int) -> None:
    """Walk into each; raises RigError by way of ``rig`` where one holds."""
    listener = Listener(kafka, partitions)
    await listener.start()
    wrong: list[str] = []
    try:
        await listener.after(asyncio.sleep(0), 0)  # The calls before were told in their time.
        for trap in all_traps(session, url):
            answer, told = await listener.after(trap.call(), trap.events)
            try:
                is_well = len(told) == trap.events and trap.holds(answer, told)
            except (IndexError, KeyError):
                is_well = False
            rig.say(f"{'well' if is_well else 'NOT '}  {trap.says}")
            if not is_well:
                wrong.append(f"{trap.says}: {str(answer)[:2000]}; told {told}")
    finally:
        await listener.stop()
    rig.found["traps_avoided"] = len(all_traps(session, url)) - len(wrong)
    if wrong:
        rig.fail("\n".join(wrong))
