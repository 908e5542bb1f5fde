"""Publishes a load at its pace. What the broker did not confirm is sent again: it may then be there twice."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from loadtest.crash.load import EVENTS, Send, encode
from loadtest.oracle import USAGE
from streams.clock import elapsed_s

logger = logging.getLogger("crash-rig")

TICK_S = 0.01
#: For all that a load still owes once its time is over.
CONFIRM_DEADLINE_S = 150.0
_FIRST: dict[str, Any] = {"provider": "openai", "request_model": "gpt-4o", "team_id": "first", "feature": "first"}


class Sender:
    """``sent`` counts what was handed over, ``confirmed`` what the broker has."""

    def __init__(self, bootstrap: str, partitions: int, anchor: datetime) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", linger_ms=5, max_request_size=4_000_000, request_timeout_ms=40_000
        )
        self._partitions = partitions
        self._anchor = anchor
        self._failed: list[Send] = []
        self._open: set[asyncio.Future[Any]] = set()
        self.confirmed = 0
        self.repeated = 0

    async def start(self) -> list[str]:
        """Connect, and publish one event of this moment to every partition; returns their ids.

        The window within which repetitions are known is counted from the newest event of a partition, so the first one
        must not be hours old.
        """
        await self._producer.start()
        ids = []
        for partition in range(self._partitions):
            send = Send(0.0, EVENTS, "first", f"first-{partition}", USAGE, 0.0, _FIRST | {"input_tokens": 1}, {})
            value, headers = encode(send, self._anchor)
            await self._producer.send_and_wait(EVENTS, value, key=b"first", partition=partition, headers=headers)
            ids.append(send.id)
        return ids

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def play(self, sends: Sequence[Send], begun: float) -> None:
        """Publish all at their times, or as soon after as the broker lets us, and wait until all are confirmed."""
        place = 0
        while place < len(sends):
            now = elapsed_s() - begun
            while place < len(sends) and sends[place].at_s <= now:
                await self._send(sends[place])
                place += 1
            await asyncio.sleep(TICK_S)
        await self.confirm()

    async def confirm(self) -> None:
        """Wait until the broker has everything, sending again what failed.

        Raises:
            TimeoutError: it has not at the deadline.
        """
        async with asyncio.timeout(CONFIRM_DEADLINE_S):
            while self._open or self._failed:
                again, self._failed = self._failed, []
                for send in again:
                    self.repeated += 1
                    await self._send(send)
                if self._open:
                    await asyncio.wait(set(self._open), timeout=1.0)

    async def _send(self, send: Send) -> None:
        value, headers = encode(send, self._anchor)
        try:
            future = await self._producer.send(send.topic, value, key=send.key.encode(), headers=headers)
        except KafkaError as error:
            self._note(send, error)
            return
        self._open.add(future)
        future.add_done_callback(lambda done: self._on_done(send, done))

    def _on_done(self, send: Send, done: asyncio.Future[Any]) -> None:
        self._open.discard(done)
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            self._note(send, error)
        else:
            self.confirmed += 1

    def _note(self, send: Send, error: BaseException | None) -> None:
        logger.info("%s is sent again: %r", send.id, error)
        self._failed.append(send)
