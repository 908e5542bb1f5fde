"""NOTIFY's shell: alerts into the outbox, and from the outbox to people.

An alert is acknowledged once PostgreSQL owes its messages; sending is a loop of its own over the outbox, so a receiver
that is down delays nobody and a crash neither loses a message nor sends it under another name.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from schemas.instants import parse_instant
from schemas.readers import ALERTS
from streams import metrics
from streams.agents.shell import decoded, fail_stop
from streams.core.notifying import Notification
from streams.core.routing import receivers_of
from streams.ports import Delivery, Outbox, PermanentError, Receiver, RetryableError

logger = logging.getLogger("sluice.notify")

POLL_S = 0.2
#: A receiver that has not answered by then is asked again later; each of them gives up by itself before.
SEND_S = 16.0
#: How long a page waits whose worker died with it in hand; longer than any sending, or two would send it.
LEASE_S = 20.0
LEASED_MAX = 32
ATTEMPTS_MAX = 20
BACKOFF_S_MAX = 300.0


def backoff_s(attempts: int, asked: float | None) -> float:
    """Seconds until the next try: what the receiver asked for, else doubling from one second.

    >>> backoff_s(0, None), backoff_s(3, None), backoff_s(30, None), backoff_s(0, 7.5)
    (1.0, 8.0, 300.0, 7.5)
    """
    if asked is not None:
        return min(asked, BACKOFF_S_MAX)
    return min(float(2 ** min(attempts, 10)), BACKOFF_S_MAX)


def _notification(delivery: Delivery) -> Notification:
    """One alert statement as a message of its own."""
    alert = delivery.alert
    is_over = alert.status == "resolved"
    return Notification(
        notification_id=delivery.notification_id,
        receiver=delivery.receiver,
        thread_key=alert.dedup_key,
        action="resolve" if is_over else "trigger",
        reason="resolved" if is_over else "opened",
        alerts=(alert,),
        decided_at=parse_instant(alert.stated_at),
    )


class NotifyAgent:
    """The alerts of this worker's partitions, and its share of the outbox."""

    def __init__(self, outbox: Outbox, receivers: Mapping[str, Receiver]) -> None:
        self._outbox = outbox
        self._receivers = receivers

    async def run(self, stream: Any) -> None:
        """``alerts``: store each statement and owe its messages."""
        async for event in stream.noack().events():
            try:
                alerts = [alert for _, alert in decoded(event.value.records, ALERTS.decode)]
                await self._outbox.record(
                    [(alert, receivers_of(alert, self._receivers)) for alert in alerts],
                    lambda ticket: receivers_of(ticket, self._receivers),
                )
            except Exception as error:
                fail_stop("NOTIFY", error)
            event.ack()

    async def run_background(self) -> None:
        """Deliver what is owed, until cancelled."""
        while True:
            try:
                owed = await self._outbox.lease(LEASED_MAX, LEASE_S)
                await asyncio.gather(*(self._deliver(delivery) for delivery in owed))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fail_stop("NOTIFY outbox", error)
            if not owed:
                await asyncio.sleep(POLL_S)

    async def _deliver(self, delivery: Delivery) -> None:
        receiver = self._receivers.get(delivery.receiver)
        if receiver is None:
            await self._failed(delivery, f"receiver {delivery.receiver} is not configured any more", None)
            return
        try:
            receipt = await asyncio.wait_for(receiver.send(_notification(delivery), None), SEND_S)
        except PermanentError as error:
            await self._failed(delivery, str(error), None)
        except RetryableError as error:
            await self._retry(delivery, str(error), error.retry_after_s)
        except TimeoutError:
            await self._retry(delivery, f"no answer within {SEND_S:.0f} s", None)
        except Exception as error:
            # A receiver's own mistake must not stop the money: it is tried again, and then given up, loudly.
            logger.exception("%s failed in a way it does not know", delivery.receiver)
            await self._retry(delivery, repr(error), None)
        else:
            metrics.NOTIFICATIONS.labels(receiver=delivery.receiver, outcome="sent").inc()
            await self._outbox.sent(delivery.notification_id, receipt)

    async def _retry(self, delivery: Delivery, error: str, asked: float | None) -> None:
        retry_in = backoff_s(delivery.attempts, asked) if delivery.attempts < ATTEMPTS_MAX else None
        await self._failed(delivery, error, retry_in)

    async def _failed(self, delivery: Delivery, error: str, retry_in_s: float | None) -> None:
        outcome = "given_up" if retry_in_s is None else "retried"
        metrics.NOTIFICATIONS.labels(receiver=delivery.receiver, outcome=outcome).inc()
        log = logger.error if retry_in_s is None else logger.warning
        log("%s did not take %s (%s): %s", delivery.receiver, delivery.alert.dedup_key, outcome, error)
        await self._outbox.failed(delivery.notification_id, error, retry_in_s)
