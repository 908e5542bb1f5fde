"""What all agents share: failing loudly, and reading batches of our own topics."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn, Protocol

import msgspec

from streams.transport import events_together

logger = logging.getLogger("sluice")

#: The exit code of a worker that stopped because going on could have lost or doubled money (EX_SOFTWARE).
FAIL_STOP_EXIT_CODE = 70
#: Shorter than any session timeout that a broker allows (6 s unless it is told otherwise): whoever was awake more often
#: than this was not evicted for silence.
STALL_S = 5.0
#: Batches that wait in an agent's hands; more stay in Faust's queues, which holds their partitions back.
WAITING_MAX = 64


class EvictedError(RuntimeError):
    """The group went on without this process while it was stalled."""


def fail_stop(where: str, error: BaseException) -> NoReturn:
    """Stop the process at once, without another commit: a successor resumes from what is durable."""
    logger.critical("%s failed; stopping so that nothing is lost: %r", where, error, exc_info=error)
    logging.shutdown()
    os._exit(FAIL_STOP_EXIT_CODE)


class Together:
    """Takes a stream's events together: what comes while some are under way waits, and all of it is taken next.

    ``take`` gets them in order and acknowledges them; where it fails the process stops, as ``name``.
    """

    def __init__(self, name: str, take: Callable[[list[Any]], Awaitable[None]]) -> None:
        self._name, self._take = name, take
        self._waiting: list[Any] = []
        self._taking: asyncio.Task[None] | None = None

    async def run(self, stream: Any) -> None:
        """Take until the stream ends."""
        try:
            async for events in events_together(stream):
                self._waiting += events
                if self._taking is None or self._taking.done():
                    self._taking = asyncio.create_task(self._take_what_waits(), name=f"{self._name} takes")
                if len(self._waiting) >= WAITING_MAX:
                    await self._taking
        finally:
            if self._taking is not None:
                self._taking.cancel()

    async def _take_what_waits(self) -> None:
        while self._waiting:
            events, self._waiting = self._waiting, []
            try:
                await self._take(events)
            except Exception as error:
                fail_stop(self._name, error)


class Loop(Protocol):
    """An agent with work of its own between records."""

    async def run_background(self) -> None:
        """Run until cancelled."""
        ...


def decoded(records: Any, decode: Callable[[bytes], Any]) -> Iterator[tuple[Any, Any]]:
    """The records of one of our own topics with their decoded values; tombstones are passed over.

    A value that does not decode was not written by this version: it is logged with its place and passed over, since
    whoever wrote it states its total again.
    """
    for record in records:
        if record.value is None:
            continue
        try:
            yield record, decode(record.value)
        except msgspec.DecodeError as error:
            logger.error("the record at offset %d cannot be read: %s", record.offset, error)
