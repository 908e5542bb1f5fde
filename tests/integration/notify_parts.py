"""NOTIFY without Kafka and without receivers: alerts in, what each receiver would have been told out."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import SECOND, format_instant
from streams.agents.notify import ByRoutes, Dispatcher, Woken
from streams.core.delivery import ReceiverPolicy
from streams.core.notifying import Notification
from streams.core.routes import Routes
from streams.core.routes_default import default_routes
from streams.delivering import Batch
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.silences import load_silences
from tests.unit.records import NOON

RECEIVERS = ("pagerduty", "slack", "email")


def alert(name: str, status: str = "opened", *, episode: int = 1, second: int = 0, **more: Any) -> Alert:
    """A page of a budget, said ``second`` seconds after noon."""
    key = f"v1:budget_threshold:budget:{name}:2026:100"
    found: dict[str, Any] = {
        "severity": "emergency", "tier": "page", "rule": "budget_threshold", "scope_type": "budget",
        "scope_id": name, "summary": f"{name} {status}",
    }  # fmt: skip
    at = format_instant(NOON + second * SECOND)
    return Alert(
        alert_id=keys.alert_id(key, episode, status, second), dedup_key=key, episode=episode, status=status,
        occurred_at=at, stated_at=at, **(found | more),
    )  # fmt: skip


class People:
    """Everybody who is told: groups speak when they are let, and everything that is owed is taken at once."""

    def __init__(self, pool: Any, routes: Routes | None = None) -> None:
        self.pool = pool
        self.routes = routes or default_routes(RECEIVERS)
        self.groups = PostgresGroups(pool, load_silences, load_acknowledgements)
        self.outbox = PostgresOutbox(pool)
        self.placing = ByRoutes(self.routes)
        self.dispatcher = Dispatcher(self.groups, self.routes, Woken(), Woken())
        self.heard: list[Notification] = []

    async def hear(self, *alerts: Alert, source: str = "", begin: int = 0) -> "People":
        """One batch."""
        said = [(begin + number, each) for number, each in enumerate(alerts)]
        await self.groups.record(Batch(source or uuid4().hex, begin + len(said), said), self.placing)
        return self

    async def flush(self) -> Sequence[Notification]:
        """Let the groups speak that are due."""
        return await self.groups.flush(100, self.dispatcher.decide)

    async def pass_time(self) -> "People":
        """All timers of groups run out."""
        await self.pool.execute("update notify_groups set due_at = now() where due_at is not null")
        return self

    async def take(self) -> list[Notification]:
        """What is owed now; everybody takes it."""
        found = []
        for name in await self.pool.fetch("select distinct receiver from outbox where state = 'owed'"):
            policy = ReceiverPolicy(name["receiver"])
            while owed := await self.outbox.lease(name["receiver"], 100, 30.0, policy):
                for delivery in owed:
                    await self.outbox.sent(delivery, f"receipt {delivery.notification.notification_id}", 0.0)
                    found.append(delivery.notification)
        self.heard += found
        return found

    async def told(self, receiver: str = "pagerduty") -> list[tuple[str, str]]:
        """After all timers ran out: the scopes and actions that a receiver was told, in order, since the beginning."""
        await self.pass_time()
        await self.flush()
        await self.take()
        return [(each.alerts[0].scope_id, each.action) for each in self.heard if each.receiver == receiver]
