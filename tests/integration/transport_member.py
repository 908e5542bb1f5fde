"""A worker in a process of its own, which a test can stop and continue: ``python -m`` with a broker, group and topic.

It acknowledges what it reads, and writes to its fenced table without a pause, as long as it takes itself for the owner.
"""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

from streams.clock import elapsed_s
from streams.transport.ownership import NotOwnedError
from tests.integration.transport_parts import Member, acknowledge

STALLED_S = 2.0


async def _run(url: str, group: str, topic: str, folder: str) -> None:
    member = Member(SimpleNamespace(url=url, group=group, folder=Path(folder), members=[]), topic, [acknowledge])
    table = member.table(fenced=True, on_load=lambda partition, entries: None)
    await (await member.start()).ready()
    written = 0
    while True:
        began = elapsed_s()
        try:
            await table.write(0, [(b"mine", b"%d" % written)])
            written += 1
        except NotOwnedError:
            print("not ours any more", flush=True)
        if elapsed_s() - began < STALLED_S:
            await asyncio.sleep(0.01)
        # else it was stopped within the write, and has to write again before the group can tell it what it missed.


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
