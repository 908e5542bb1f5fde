"""Watching processes from outside while they work a topic off: durable progress, CPU time, memory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from loadtest.bench.figures import Sample, steady
from loadtest.bench.machine import load_average
from loadtest.bench.stage import cpu_s, memory_mib
from streams.clock import elapsed_s
from streams.embedded.process import ChildProcess

POLL_S = 0.1
STALLED_S = 60.0
#: Whoever commits so rarely that this does not show two commits is not measured.
WATCHED_MAX_S = 90.0
#: Fewer in the whole window are no speed but processes that broke.
EVENTS_MIN = 500


class BenchError(Exception):
    """Something did not work, so there is nothing to measure."""


async def measure(
    children: Sequence[ChildProcess],
    progress: Callable[[], Awaitable[int]],
    total: int,
    *,
    warm_up_s: float,
    window_s: float,
) -> dict[str, Any]:
    """Start processes, watch them for ``window_s`` after their warm-up or until the topic is at its end, kill them.

    Args:
        progress: how many of the topic's ``total`` events are durable now.

    Raises:
        BenchError: one ended by itself, or nothing became durable for a minute.
    """
    samples: list[Sample] = []
    for child in children:
        child.start()
    try:
        moved_at, first_at = elapsed_s(), 0.0
        while True:
            await asyncio.sleep(POLL_S)
            now = elapsed_s()
            for child in children:
                if not child.running:
                    raise BenchError(str(child.failure("it ended by itself")))
            sample = Sample(now, await progress(), sum(cpu_s(child.pid) for child in children))
            if samples and sample.durable > samples[-1].durable:
                moved_at, first_at = now, first_at or now
            samples.append(sample)
            if now - moved_at > STALLED_S:
                raise BenchError(str(children[0].failure("nothing became durable for a minute")))
            watched_s = now - first_at if first_at else 0.0
            # A little longer than the window: its last commit is still to come, and two are needed at least.
            over = watched_s > warm_up_s + window_s and now - moved_at < POLL_S and steady(samples, warm_up_s, total)
            if over or watched_s > WATCHED_MAX_S or sample.durable >= 0.98 * total:
                break
        peak = sum(memory_mib(child.pid, peak=True) for child in children)
    finally:
        for child in children:
            child.kill()
    rate = steady(samples, warm_up_s, total)
    if rate is None or rate.events < EVENTS_MIN:
        what = "hardly anything became durable after the warm-up (give more EVENTS?)"
        raise BenchError(str(children[0].failure(what)))
    return {
        "events_per_s": round(rate.events_per_s),
        "cpu_s_per_million": round(rate.cpu_s_per_million, 2),
        "peak_memory_mib": peak,
        "seconds": round(rate.seconds, 2),
        "events": rate.events,
        "load_average": load_average(),
    }
