"""NOTIFY in a process of its own, fed from a file as Kafka would feed it, that dies by SIGKILL at the step it is told.

    python -m tests.integration.notify_worker '{"database_url": …, "feed": …, "acked": …, "step": "leased", "of": "trigger"}'

The feed is read again from where the last batch was acknowledged. Receivers come from the environment's settings.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from schemas.topics import ALERTS
from streams.agents.deliver import Deliverer
from streams.agents.notify import Dispatcher, NotifyAgent, Woken
from streams.core.delivery import policies
from streams.core.routes_default import default_routes
from streams.settings import load_settings
from streams.sinks import notify_groups
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import open_pool
from streams.sinks.receivers import receivers
from streams.sinks.silences import load_silences

PAGES = "pagerduty"
#: Of a message that its worker died with; a real one is longer, and tests would wait.
LEASE_S, SEND_S = 1.0, 0.8
STATUS = {"trigger": "opened", "resolve": "resolved"}


class Fate:
    """Where this process dies: at a step of the delivery of a trigger or a resolve; nowhere without one."""

    def __init__(self, step: str = "", of: str = "") -> None:
        self._step, self._of = step, of

    def comes(self, step: str, *of: str) -> None:
        """Die, if it is time."""
        if step == self._step and self._of in of:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingGroups(PostgresGroups):
    """Dies within the transactions, where everything of them is lost, and right after them."""

    fate = Fate()

    async def record(self, batch, placing):
        """Within: when the alert is stored, and when it is placed."""
        said = [action for _, alert in batch.alerts for action, status in STATUS.items() if alert.status == status]
        place = notify_groups._place

        async def placed(*each):
            self.fate.comes("storing", *said)
            await place(*each)
            self.fate.comes("placing", *said)

        notify_groups._place = placed
        new = await super().record(batch, placing)
        notify_groups._place = place
        self.fate.comes("recorded", *said)
        return new

    async def flush(self, limit, decide):
        """Within: when it is decided what is said, and nothing of it is written."""

        def deciding(due):
            found = decide(due)
            self.fate.comes("deciding", *(said.action for one in found.values() for said in one.notifications))
            return found

        said = await super().flush(limit, deciding)
        self.fate.comes("flushed", *(each.action for each in said))
        return said


class DyingOutbox(PostgresOutbox):
    """Dies between the steps of a page."""

    fate = Fate()

    async def lease(self, receiver, room, lease_s, policy):
        """After the lease."""
        owed = await super().lease(receiver, room, lease_s, policy)
        if receiver == PAGES:
            self.fate.comes("leased", *(each.notification.action for each in owed))
        return owed

    async def sent(self, delivery, receipt, took_s):
        """Before and after the row is marked."""
        of = delivery.notification.action if delivery.notification.receiver == PAGES else ""
        self.fate.comes("answered", of)
        await super().sent(delivery, receipt, took_s)
        self.fate.comes("marked", of)


class _Record(NamedTuple):
    offset: int
    value: bytes


class _Batch(NamedTuple):
    topic: str
    partition: int
    end: int
    records: list[_Record]


class _Event(NamedTuple):
    value: _Batch
    acked: Path

    def ack(self) -> None:
        """Where reading goes on after a restart."""
        swap = self.acked.with_suffix(".new")
        swap.write_text(str(self.value.end))
        swap.replace(self.acked)


class Feed:
    """A file of alerts, a line each, as a stream of batches."""

    def __init__(self, feed: Path, acked: Path) -> None:
        self._feed, self._acked = feed, acked

    def noack(self) -> "Feed":
        """As Faust's streams have it."""
        return self

    async def events(self) -> Any:
        """Batches of what is new, for ever."""
        begin = int(self._acked.read_text()) if self._acked.exists() else 0
        while True:
            lines = self._feed.read_bytes().splitlines()
            if len(lines) > begin:
                records = [_Record(begin + number, line) for number, line in enumerate(lines[begin:])]
                begin = len(lines)
                yield _Event(_Batch(ALERTS, 0, begin, records), self._acked)
            await asyncio.sleep(0.02)


async def main(order: dict[str, str]) -> None:
    """Run until killed."""
    DyingGroups.fate = DyingOutbox.fate = Fate(order.get("step", ""), order.get("of", ""))
    pool = await open_pool(order["database_url"])
    reach = receivers(load_settings())
    routes = default_routes(reach)
    groups, outbox = DyingGroups(pool, load_silences, load_acknowledgements), DyingOutbox(pool)
    groups_woken, outbox_woken = Woken(), Woken()
    keeping = [(name, receiver.keeps_incidents) for name, receiver in reach.items()]
    notify = NotifyAgent(groups, routes, 0, groups_woken)
    await asyncio.gather(
        notify.run(Feed(Path(order["feed"]), Path(order["acked"]))),
        notify.run_background(),
        Dispatcher(groups, routes, groups_woken, outbox_woken).run_background(),
        Deliverer(
            outbox, reach, policies(routes, keeping), {}, outbox_woken, send_s=SEND_S, lease_s=LEASE_S
        ).run_background(),
    )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
