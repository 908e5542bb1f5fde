"""What each fault of a plan does to the running parts: one small function each, one table."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from loadtest.crash.parts import Parts
from loadtest.crash.plan import Fault
from loadtest.crash.proxy import Proxy
from streams.clock import elapsed_s
from streams.embedded.kafka import KafkaBroker
from streams.embedded.postgres import EmbeddedPostgres
from streams.embedded.process import EmbeddedError

logger = logging.getLogger("crash-rig")

Terms = dict[str, Any]
#: Does one fault to the parts, under the terms of the plan; says what became of it.
Act = Callable[[Parts, Terms], Awaitable[str]]

SERVERS = {"kafka": "Kafka", "postgres": "PostgreSQL"}

#: A worker that takes longer to stop is asked what it waits for.
SLOW_STOP_S = 8.0


def worker_ends(how: signal.Signals) -> Act:
    """SIGKILL; or SIGTERM, at which it finishes what it read and leaves. It comes back after a while."""

    async def act(parts: Parts, terms: Terms) -> str:
        worker = terms["worker"]
        async with parts.locks[f"worker-{worker}"]:
            begun = elapsed_s()
            ending = asyncio.create_task(parts.running.kill_worker(worker, how))
            if not (await asyncio.wait({ending}, timeout=SLOW_STOP_S))[0]:
                parts.say(f"… worker {worker} takes its time to stop")
                parts.running.workers[worker].send(signal.SIGUSR1)
            # A worker whose broker is away may take longer to stop than anybody waits.
            await asyncio.gather(ending, return_exceptions=True)
            parts.running.workers[worker].kill()
            ended_s = elapsed_s() - begun
            await asyncio.sleep(terms["back_after_s"])
            await parts.bring_back(worker)
        return f"worker {worker} is back; it took {ended_s:.1f} s to end"

    return act


async def freeze_worker(parts: Parts, terms: Terms) -> str:
    """SIGSTOP for longer than its session: the group goes on without it, and then it wakes up."""
    worker = terms["worker"]
    async with parts.locks[f"worker-{worker}"]:
        await parts.running.kill_worker(worker, signal.SIGSTOP)
        await asyncio.sleep(terms["for_s"])
        await parts.running.kill_worker(worker, signal.SIGCONT)
    return f"worker {worker} woke up"


async def third_worker(parts: Parts, terms: Terms) -> str:
    """Another member of the group: partitions move to it and away again."""
    async with parts.locks["third"]:
        try:
            await parts.third.start()
        except EmbeddedError as error:
            logger.warning("the third worker could not start: %s", error)
            return "the third worker could not join while its parts were away"
        await asyncio.sleep(terms["for_s"])
        with contextlib.suppress(TimeoutError):
            await parts.third.send(signal.Signals[terms["leaves_by"]])
        parts.third.child.kill()
    return "the third worker came and went"


async def freeze_broker(parts: Parts, terms: Terms) -> str:
    """SIGSTOP of the JVM: connections stay open, and nobody answers."""
    async with parts.locks["kafka"]:
        parts.kafka.pause()
        await asyncio.sleep(terms["for_s"])
        parts.kafka.resume()
    return "Kafka goes on"


def server_ends(part: str, *, in_order: bool) -> Act:
    """A SIGKILL or an orderly shutdown, and after a while a start on the same data: it recovers from its own log."""

    async def act(parts: Parts, terms: Terms) -> str:
        async with parts.locks[part]:
            server: KafkaBroker | EmbeddedPostgres = getattr(parts, part)
            if in_order:
                await server.stop()
            else:
                server.kill()
            await asyncio.sleep(terms["back_after_s"])
            await server.start()
        return f"{SERVERS[part]} is back"

    return act


def connections_break(part: str) -> Act:
    """A reset of every connection to a server, some times."""

    async def act(parts: Parts, terms: Terms) -> str:
        proxy: Proxy = getattr(parts, f"{part}_proxy")
        counts = []
        async with parts.locks[part]:
            for _ in range(terms["times"]):
                counts.append(proxy.cut())
                await asyncio.sleep(0.7)
        return f"{' + '.join(map(str, counts))} connections were reset"

    return act


async def fill_disk(parts: Parts, terms: Terms) -> str:
    """No room on the disk that holds Kafka's log, PostgreSQL's, the workers' folder and logs; then room again.

    Kafka and PostgreSQL stop themselves rather than lose a write, and whoever gave them room starts them again.
    """
    if parts.disk is None:
        return "left out: this process may not mount a small disk"
    async with parts.locks["kafka"], parts.locks["postgres"]:
        used = parts.disk.fill()
        await asyncio.sleep(terms["for_s"])
        parts.disk.free()
        died = await parts.revive()
    return f"there is room again after {used} MiB; what had stopped: {', '.join(died) or 'nothing'}"


CARRY_OUT: dict[str, Act] = {
    "kill worker": worker_ends(signal.SIGKILL),
    "stop worker": worker_ends(signal.SIGTERM),
    "third worker joins and leaves": third_worker,
    "freeze worker": freeze_worker,
    "freeze broker": freeze_broker,
    "kill broker": server_ends("kafka", in_order=False),
    "restart broker": server_ends("kafka", in_order=True),
    "kill PostgreSQL": server_ends("postgres", in_order=False),
    "restart PostgreSQL": server_ends("postgres", in_order=True),
    "cut Kafka connections": connections_break("kafka"),
    "cut PostgreSQL connections": connections_break("postgres"),
    "fill the disk": fill_disk,
}


async def carry_out(parts: Parts, faults: tuple[Fault, ...], begun: float) -> None:
    """Do what the plan says, each at its moment; faults of different parts overlap."""

    async def one(fault: Fault) -> None:
        await asyncio.sleep(max(0.0, begun + fault.at_s - elapsed_s()))
        parts.say(f"{fault.name} …")
        outcome = await CARRY_OUT[fault.name](parts, fault.terms)
        parts.say(f"… {outcome}")

    async with asyncio.TaskGroup() as tasks:
        for fault in faults:
            tasks.create_task(one(fault))
