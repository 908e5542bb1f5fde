"""``make bench-window``: one hour of ids at 5 000 events a second, in memory, on its way to the table, and back.

python -m loadtest.window --rate 5000 --partitions 8
"""

import argparse
import os
import resource
import sys
from typing import Any

from rich.console import Console

from loadtest.bench.machine import describe, store
from schemas.instants import HOUR, SECOND
from streams.clock import elapsed_s
from streams.core.dedupe import DedupeWindow, Mark

BATCH = 512
_SIZE = 16


def fill(window: DedupeWindow, count: int, rate: float) -> float:
    """Give a window so many new ids in the course of stream time; returns the seconds spent in the window alone."""
    spent, offset = 0.0, 0
    while offset < count:
        random = os.urandom(BATCH * _SIZE)
        digests = [random[first : first + _SIZE] for first in range(0, len(random), _SIZE)]
        stream_time = int(offset / rate * SECOND)
        began = elapsed_s()
        new = []
        for digest, is_suspect in zip(digests, window.suspects(digests), strict=True):
            if is_suspect or stream_time >= window.turns_at:
                window.note(new)
                new = []
                window.first_seen(digest, offset, stream_time)
            else:
                new.append(digest)
        window.note(new)
        spent += elapsed_s() - began
        offset += BATCH
    return spent


def take_back(window: DedupeWindow, ids_max: int) -> tuple[float, int]:
    """Write down what is sealed and read it into a fresh window, as a restart does; seconds of reading, and ids."""
    kept = [(generation.mark, generation.table.to_bytes()) for generation in window.sealed]
    marks = [mark for mark, _ in kept]
    last = marks[-1]
    fresh = DedupeWindow(HOUR, ids_max, [*marks, Mark(last.number + 1, last.first_offset + 1, last.length_us)])
    began = elapsed_s()
    for mark, digests in kept:
        fresh.adopt(mark, [digests])
    return elapsed_s() - began, len(fresh)


def measure(rate: int, partitions: int) -> dict[str, Any]:
    """Windows of all partitions of one worker, full."""
    count, ids_max = rate * 3600 // partitions, 20_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    windows, spent = [], 0.0
    for _ in range(partitions):
        window = DedupeWindow(HOUR, ids_max)
        spent += fill(window, count, rate / partitions)
        windows.append(window)
    ids = sum(len(window) for window in windows)
    memory = sum(window.memory_bytes for window in windows)
    back_s, back = take_back(windows[0], ids_max)
    return {
        "ids": ids,
        "tables_mib": round(memory / 2**20),
        "bytes_per_id": round(memory / ids, 1),
        "process_grew_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "microseconds_per_id": round(spent / ids * 1e6, 3),
        "take_back_s_all": round(back_s * partitions, 2),
        "taken_back": back * partitions,
    }


def main(arguments: list[str]) -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(prog="make bench-window", description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000, help="events a second, for one hour")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    options = parser.parse_args(arguments)
    found, out = measure(options.rate, options.partitions), Console(highlight=False)
    out.print(f"{found['ids']:,} ids in {found['tables_mib']:,} MiB: {found['bytes_per_id']} bytes each")
    out.print(f"{found['microseconds_per_id']} us an id, one batch of {BATCH} at a time")
    out.print(f"taken back from the table in {found['take_back_s_all']} s (without the reading from Kafka)")
    if not options.no_store:
        parameters = {"rate": options.rate, "partitions": options.partitions, "batch": BATCH}
        whole = {"machine": describe(""), "parameters": parameters, "window": found}
        out.print(f"stored as {store('window', whole)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
