"""Stand-ins for the ports that define and release, in memory: the same promises, no broker; and alerts for a database."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from schemas.alerts import Alert
from schemas.budgets import Definition
from schemas.commands import ThrottleCommand
from schemas.keys import digest
from streams.core.notifying import Notification
from streams.delivering import Batch
from streams.ports import ConflictError, Placed, RetryableError, Version
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.owing import owe
from streams.sinks.silences import load_silences


class MemoryDefinitions:
    """Implements ``streams.ports.DefinitionStore``; ``away`` is a broker that does not answer."""

    def __init__(self, now: int = 1) -> None:
        self.now = now
        self.away = False
        self.versions: list[Version] = []

    async def current(self) -> Mapping[str, Definition]:
        if self.away:
            raise RetryableError("no Kafka broker answers", 5.0)
        held = {version.key: version.definition for version in self.versions}
        return {key: found for key, found in held.items() if found is not None}

    def version_of(self, key: str) -> int:
        return max((version.version for version in self.versions if version.key == key), default=0)

    async def publish(
        self, changes: Sequence[Definition], *, by: str, reason: str, expected: Mapping[str, int] | None = None
    ) -> Sequence[Placed]:
        held = await self.current()
        for key, wanted in (expected or {}).items():
            standing = self.version_of(key) if key in held else 0
            if standing != wanted:
                raise ConflictError(key, wanted, standing)
        return [self._place(change.key(), change, by, reason) for change in changes]

    def _place(self, key: str, change: Definition | None, by: str, reason: str) -> Placed:
        version = self.version_of(key) + 1
        said = {"version": version, "changed_by": by, "reason": reason, "changed_at": self.now}
        if change is not None:
            known = {field: value for field, value in said.items() if field in change.__struct_fields__}
            change = msgspec.structs.replace(change, **known)
        self.versions.append(Version(key, version, change, by, reason, self.now + len(self.versions)))
        return Placed(key, version, change)

    async def withdraw(self, key: str, *, by: str, reason: str, expected: int | None = None) -> bool:
        if key not in await self.current():
            return False
        if expected is not None and expected != self.version_of(key):
            raise ConflictError(key, expected, self.version_of(key))
        self._place(key, None, by, reason)
        return True

    async def history(self, key_prefix: str) -> Sequence[Version]:
        return [version for version in reversed(self.versions) if version.key.startswith(key_prefix)]


class MemoryReleases:
    """Implements ``streams.ports.ReleaseSwitch``."""

    def __init__(self) -> None:
        self.said: list[ThrottleCommand] = []

    async def current(self) -> ThrottleCommand | None:
        return self.said[-1] if self.said else None

    async def say(self, command: ThrottleCommand) -> None:
        self.said.append(command)


class Nowhere:
    """Implements ``streams.delivering.Placing``: alerts that are only kept."""

    def placements(self, alert: Alert) -> Sequence[Any]:
        return ()

    def due_at(self, placement: Any, alert: Alert, flushed_at: int | None, now: int) -> int:
        raise AssertionError(f"{alert.dedup_key} was placed")

    def may_inhibit(self, alert: Alert) -> bool:
        return False


def told(alert: Alert, receiver: str) -> Notification:
    """One message about one statement of an alert, in the alert's own thread."""
    reasons = {"opened": "opened", "updated": "worse", "resolved": "resolved"}
    return Notification(
        notification_id=digest("notification", alert.alert_id, receiver),
        receiver=receiver,
        thread_key=alert.dedup_key,
        action="resolve" if alert.status == "resolved" else "trigger",
        reason=reasons[alert.status],
        alerts=(alert,),
    )


async def record_alerts(pool: asyncpg.Pool, alerts: Sequence[tuple[Alert, Sequence[str]]]) -> None:
    """Keep alerts as they stand, and owe a message about each to the receivers named with it."""
    groups = PostgresGroups(pool, load_silences, load_acknowledgements)
    for alert, receivers in alerts:
        await groups.record(Batch(f"test-{uuid4().hex}", 1, [(0, alert)]), Nowhere())
        async with pool.acquire() as connection, connection.transaction():
            await owe(connection, [told(alert, receiver) for receiver in receivers])
