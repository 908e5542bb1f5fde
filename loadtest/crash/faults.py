"""What each fault of a plan does to the running parts: one small function each, one table."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from loadtest.crash.parts import Parts
from loadtest.crash.plan import Fault
from streams.clock import elapsed_s
from streams.embedded.process import EmbeddedError

logger = logging.getLogger("crash-rig")

Terms = dict[str, Any]

#: A worker that takes longer to stop is asked what it waits for.
SLOW_STOP_S = 8.0


async def kill_worker(parts: Parts, terms: Terms) -> str:
    """SIGKILL, and back after a while."""
    return await _end_worker(parts, terms, signal.SIGKILL)


async def stop_worker(parts: Parts, terms: Terms) -> str:
    """SIGTERM: it finishes what it read, leaves, and comes back."""
    return await _end_worker(parts, terms, signal.SIGTERM)


async def _end_worker(parts: Parts, terms: Terms, wanted: signal.Signals) -> str:
    worker = terms["worker"]
    async with parts.locks[f"worker-{worker}"]:
        begun = elapsed_s()
        ending = asyncio.create_task(parts.running.kill_worker(worker, wanted))
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


async def kill_broker(parts: Parts, terms: Terms) -> str:
    """SIGKILL of the JVM, and a start on the same data and port."""
    async with parts.locks["kafka"]:
        parts.kafka.kill()
        await asyncio.sleep(terms["back_after_s"])
        await parts.kafka.start()
    return "Kafka is back"


async def restart_broker(parts: Parts, terms: Terms) -> str:
    """SIGTERM, a controlled shutdown, and a start on the same data and port."""
    async with parts.locks["kafka"]:
        await parts.kafka.stop()
        await asyncio.sleep(terms["back_after_s"])
        await parts.kafka.start()
    return "Kafka is back"


async def kill_postgres(parts: Parts, terms: Terms) -> str:
    """SIGKILL of the postmaster; the start recovers from its log."""
    async with parts.locks["postgres"]:
        parts.postgres.kill()
        await asyncio.sleep(terms["back_after_s"])
        await parts.postgres.start()
    return "PostgreSQL is back"


async def restart_postgres(parts: Parts, terms: Terms) -> str:
    """A fast shutdown, and a start."""
    async with parts.locks["postgres"]:
        await parts.postgres.stop()
        await asyncio.sleep(terms["back_after_s"])
        await parts.postgres.start()
    return "PostgreSQL is back"


async def cut_kafka(parts: Parts, terms: Terms) -> str:
    """A reset of every connection to Kafka, some times."""
    async with parts.locks["kafka"]:
        return await _cut(parts.kafka_proxy.cut, terms)


async def cut_postgres(parts: Parts, terms: Terms) -> str:
    """A reset of every connection to PostgreSQL, some times."""
    async with parts.locks["postgres"]:
        return await _cut(parts.postgres_proxy.cut, terms)


async def _cut(cut: Callable[[], int], terms: Terms) -> str:
    counts = []
    for _ in range(terms["times"]):
        counts.append(cut())
        await asyncio.sleep(0.7)
    return f"{' + '.join(map(str, counts))} connections were reset"


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


CARRY_OUT: dict[str, Callable[[Parts, Terms], Awaitable[str]]] = {
    "kill worker": kill_worker,
    "stop worker": stop_worker,
    "third worker joins and leaves": third_worker,
    "freeze worker": freeze_worker,
    "freeze broker": freeze_broker,
    "kill broker": kill_broker,
    "restart broker": restart_broker,
    "kill PostgreSQL": kill_postgres,
    "restart PostgreSQL": restart_postgres,
    "cut Kafka connections": cut_kafka,
    "cut PostgreSQL connections": cut_postgres,
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
