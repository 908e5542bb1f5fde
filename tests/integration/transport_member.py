"""A worker in a process of its own, which a test can stop and continue: ``python -m`` with a broker, group and topic.

It acknowledges what it reads, and writes to its fenced table without a pause, as long as it takes itself for the owner.
"""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

from streams.transport.ownership import NotOwnedError
from tests.integration.transport_parts import Member, acknowledge


async def _run(url: str, group: str, topic: str, folder: str) -> None:
    member = Member(SimpleNamespace(url=url, group=group, folder=Path(folder), members=[]), topic, [acknowledge])
    table = member.table(fenced=True, on_load=lambda partition, entries: None)
    await (await member.start()).ready()
    written = 0
    while True:
        try:
            await table.write(0, [(b"mine", b"%d" % written)])
            written += 1
        except NotOwnedError:
            print("not ours any more", flush=True)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
