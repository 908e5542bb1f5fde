"""From the outbox to people: each receiver has a line of its own, so that one that stalls holds up nobody else.

A message is leased, sent, and marked. A crash in between leaves it leased, and it is sent again under the same id once
the lease is over: a receiver with a dedup key takes it for what it is, the others see it twice at most.
"""

import asyncio
import logging
from collections.abc import Mapping

from streams import metrics
from streams.agents.notify import Woken
from streams.agents.shell import fail_stop
from streams.clock import WallClock, elapsed_s
from streams.core.delivery import ReceiverPolicy, after_failure, retry_in_s
from streams.delivering import Delivery, Failure, Outbox
from streams.ports import PermanentError, Receiver, RetryableError

logger = logging.getLogger("sluice.notify")

POLL_S = 0.25
#: How often it is asked whether fallbacks have to be told.
FALL_BACK_POLL_S = 1.0
#: A receiver that has not answered by then is asked again later; each of them gives up by itself before.
SEND_S = 16.0
#: How long a message waits whose worker died with it in hand; longer than any sending, or two would send it.
LEASE_S = 20.0
AT_ONCE_MAX = 8
#: A worker with other settings may still be about to end, or to start.
STRANGERS_AFTER_S = 600.0
#: What is on its way when the worker stops may still arrive, instead of being said again by the next one.
FINISH_S = 4.0


class Line:
    """What one receiver is owed."""

    def __init__(
        self,
        outbox: Outbox,
        receiver: Receiver,
        policy: ReceiverPolicy,
        fallbacks: tuple[str, ...] = (),
        *,
        send_s: float = SEND_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._outbox = outbox
        self._receiver = receiver
        self._policy = policy
        self._fallbacks = fallbacks
        self._send_s = send_s
        self._lease_s = lease_s
        self._clock = WallClock()
        self._busy: set[asyncio.Task[None]] = set()
        self.woken = Woken()

    async def run(self) -> None:
        """Deliver until cancelled; then wait a moment for what is on its way."""
        looked = 0.0
        try:
            while True:
                owed = await self._outbox.lease(
                    self._policy.receiver, AT_ONCE_MAX - len(self._busy), self._lease_s, self._policy
                )
                for delivery in owed:
                    task = asyncio.create_task(self._deliver(delivery))
                    self._busy.add(task)
                    task.add_done_callback(self._done)
                if self._fallbacks and elapsed_s() - looked >= FALL_BACK_POLL_S:
                    looked = elapsed_s()
                    copies = await self._outbox.fall_back(self._policy.receiver, self._fallbacks, self._policy)
                    metrics.NOTIFICATIONS_FELL_BACK.labels(receiver=self._policy.receiver).inc(copies)
                if not owed:
                    await self.woken.wait(POLL_S)
        finally:
            if self._busy:
                await asyncio.wait(self._busy, timeout=FINISH_S)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            fail_stop("NOTIFY outbox", error)
        self.woken.wake()

    async def _deliver(self, delivery: Delivery) -> None:
        started = elapsed_s()
        said = delivery.notification
        try:
            receipt = await asyncio.wait_for(self._receiver.send(said, delivery.thread), self._send_s)
        except PermanentError as error:
            failure = Failure(str(error), is_permanent=True)
        except RetryableError as error:
            failure = Failure(str(error), asked_s=error.retry_after_s)
        except TimeoutError:
            failure = Failure(f"no answer within {self._send_s:.0f} s")
        except Exception as error:
            # A receiver's own mistake must not stop the money: it is tried again, and then given up, loudly.
            logger.exception("%s failed in a way it does not know", said.receiver)
            failure = Failure(repr(error))
        else:
            await self._outbox.sent(delivery, receipt, elapsed_s() - started)
            metrics.NOTIFICATIONS.labels(receiver=said.receiver, outcome="sent").inc()
            waited_us = max(0, self._clock.now() - delivery.owed_at)
            metrics.NOTIFICATION_SECONDS.labels(receiver=said.receiver).observe(waited_us / 1_000_000)
            return
        await self._failed(delivery, failure, elapsed_s() - started)

    async def _failed(self, delivery: Delivery, failure: Failure, took_s: float) -> None:
        said, name = delivery.notification, delivery.notification.receiver
        now = self._clock.now()
        again_s = retry_in_s(said.notification_id, delivery.attempt, delivery.owed_at, failure, now)
        outcome = "given_up" if again_s is None else "retried"
        metrics.NOTIFICATIONS.labels(receiver=name, outcome=outcome).inc()
        log = logger.error if again_s is None else logger.warning
        log("%s did not take %s (%s): %s", name, said.thread_key, outcome, failure.error)
        await self._outbox.failed(
            delivery,
            failure,
            took_s,
            again_s,
            lambda standing, at: after_failure(name, standing, failure, at - round(took_s * 1_000_000), at),
        )


class Deliverer:
    """This worker's share of the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        receivers: Mapping[str, Receiver],
        policies: Mapping[str, ReceiverPolicy],
        fallbacks: Mapping[str, tuple[str, ...]],
        woken: Woken,
        *,
        send_s: float = SEND_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._outbox = outbox
        self._woken = woken
        self._lines = {
            name: Line(outbox, receiver, policies[name], fallbacks.get(name, ()), send_s=send_s, lease_s=lease_s)
            for name, receiver in receivers.items()
        }

    async def run_background(self) -> None:
        """Deliver what is owed, until cancelled."""
        tasks = [asyncio.create_task(self._kept(line)) for line in self._lines.values()]
        looked = 0.0
        try:
            while True:
                if await self._woken.wait(POLL_S):
                    for line in self._lines.values():
                        line.woken.wake()
                if elapsed_s() - looked >= STRANGERS_AFTER_S / 10:
                    looked = elapsed_s()
                    await self._look_for_strangers()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _kept(self, line: Line) -> None:
        try:
            await line.run()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            fail_stop("NOTIFY outbox", error)

    async def _look_for_strangers(self) -> None:
        try:
            strangers = await self._outbox.give_up_on_strangers(sorted(self._lines), STRANGERS_AFTER_S)
        except Exception as error:
            fail_stop("NOTIFY outbox", error)
        for name in strangers:
            logger.error("messages to %s are given up: that receiver is not configured any more", name)
