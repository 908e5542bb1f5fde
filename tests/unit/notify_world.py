"""Alerts, groups and people in one process: what the dispatcher does with a database, done with dictionaries."""

from dataclasses import dataclass, field

import msgspec

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import SECOND, format_instant, parse_instant
from streams.core.inhibition import Inhibitors, Source
from streams.core.notify_pipeline import Flushed, Member, flush
from streams.core.notifying import Acknowledgement, Notification, Silence, Told
from streams.core.placing import Group, due_at, placements
from streams.core.routes import Routes
from tests.unit.records import NOON

RANK = {"opened": 0, "updated": 1, "resolved": 2}


def alert(
    name: str = "search", status: str = "opened", *, episode: int = 1, at: int = 0, step: int = 0, **more
) -> Alert:
    """A page of a budget, ``at`` seconds after noon."""
    rule = more.get("rule", "budget_threshold")
    key = more.pop("key", f"v1:{rule}:budget:{name}")
    fields = {
        "alert_id": keys.alert_id(key, episode, status, step), "dedup_key": key, "episode": episode, "status": status,
        "severity": "emergency", "tier": "page", "rule": rule, "scope_type": "budget", "scope_id": name,
        "summary": f"{name} {status}", "occurred_at": format_instant(NOON + at * SECOND),
        "stated_at": format_instant(NOON + at * SECOND), "team_id": "search",
    }  # fmt: skip
    return Alert(**(fields | more))


def _order(one: Alert) -> tuple[int, int, int, str]:
    # Two statements of one instant: which is the newer is decided somehow, but always alike.
    return one.episode, RANK[one.status], parse_instant(one.stated_at), one.alert_id


@dataclass
class Stored:
    """A group as the database has it."""

    group: Group
    receivers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    departed: set[str] = field(default_factory=set)
    told: tuple[Told, ...] = ()
    due: int | None = None
    flushed_at: int | None = None


class World:
    """Takes statements, flushes what is due, and keeps what was said."""

    def __init__(self, routes: Routes, now: int = NOON) -> None:
        self.routes, self.now = routes, now
        self.alerts: dict[str, Alert] = {}
        self.since: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        #: When each episode of an alert was first heard of.
        self.heard: dict[tuple[str, int], int] = {}
        self.groups: dict[str, Stored] = {}
        self.silences: list[Silence] = []
        self.acknowledgements: list[Acknowledgement] = []
        self.said: list[Notification] = []
        self.flushes: list[tuple[int, str, Flushed]] = []

    def hear(self, *statements: Alert) -> "World":
        """Store and place statements, as one batch."""
        for one in statements:
            self._hear(one)
        return self

    def _hear(self, one: Alert) -> None:
        key, old = one.dedup_key, self.alerts.get(one.dedup_key)
        if old is not None and _order(one) <= _order(old):
            return
        if old is None or one.episode > old.episode:
            self.since[key] = self.heard[key, one.episode] = self.now
        self.alerts[key] = one
        inside = [stored for stored in self.groups.values() if key in stored.receivers]
        if one.status == "resolved":
            self.ended[key] = self.now
            for stored in inside:
                self._due(stored, max(self.now, (stored.flushed_at or 0) + self._interval(stored)))
            return
        self.ended.pop(key, None)
        placed = {each.group.key: each for each in placements(one, self.routes)}
        for stored in inside:
            if stored.group.key not in placed:
                stored.departed.add(key)
                self._due(stored, self.now)
        for each in placed.values():
            stored = self.groups.setdefault(each.group.key, Stored(each.group))
            stored.receivers[key] = each.receivers
            stored.departed.discard(key)
            self._due(stored, due_at(each, one, stored.flushed_at, self.now))

    def _interval(self, stored: Stored) -> int:
        route = self.routes.route(stored.group.route)
        return route.interval_us if route else 0

    @staticmethod
    def _due(stored: Stored, at: int) -> None:
        stored.due = at if stored.due is None else min(stored.due, at)

    def pass_until(self, seconds: float) -> "World":
        """Let time pass to so many seconds after noon, flushing each group when it is due."""
        end = NOON + round(seconds * SECOND)
        for _ in range(10_000):
            due = [stored for stored in self.groups.values() if stored.due is not None and stored.due <= end]
            if not due:
                break
            first = min(due, key=lambda stored: (stored.due, stored.group.key))
            self.now = max(self.now, first.due or 0)
            self.flush(first)
        else:
            raise AssertionError("the groups never come to rest")
        self.now = max(self.now, end)
        return self

    def flush(self, stored: Stored) -> Flushed:
        """Flush one group now, due or not."""
        sources = [Source(one, self.ended.get(key)) for key, one in self.alerts.items()]
        members = [
            Member(alert=self.alerts[key], since=self.since[key], receivers=names, departed=key in stored.departed)
            for key, names in stored.receivers.items()
        ]
        args = (self.silences, self.acknowledgements, Inhibitors(self.routes, sources), self.routes, self.now)
        flushed = flush(stored.group, members, stored.told, *args)
        # A crash before it was written says the same again.
        assert flush(stored.group, members, stored.told, *args) == flushed
        stored.told, stored.due = flushed.told, flushed.due
        fires = any(member.fires() for member in members)
        stored.flushed_at = self.now if fires else None
        for key in stored.departed & {each.alert.dedup_key for each in members}:
            if not any(key in told.firing for told in stored.told):
                stored.departed.discard(key)
                stored.receivers.pop(key, None)
        self.said += flushed.notifications
        self.flushes.append((self.now, stored.group.key, flushed))
        return flushed

    def flush_all(self) -> "World":
        """Flush every group now."""
        for stored in list(self.groups.values()):
            self.flush(stored)
        return self

    def told(self) -> list[str]:
        """What was said, in order: ``receiver reason alert,alert`` with the scopes of the alerts."""
        return [f"{one.receiver} {one.reason} {','.join(a.scope_id for a in one.alerts)}" for one in self.said]

    def knows(self) -> dict[tuple[str, str], dict[str, str]]:
        """What each receiver knows of each group: alert to mark."""
        return {
            (stored.group.key, told.receiver): told.firing
            for stored in self.groups.values()
            for told in stored.told
            if told.firing
        }  # fmt: skip

    def silence(self, ends: float, *matchers, starts: float = 0, name: str = "s") -> "World":
        """A silence between seconds after noon."""
        begin, end = NOON + round(starts * SECOND), NOON + round(ends * SECOND)
        self.silences.append(Silence(id=name, matchers=matchers, starts=begin, ends=end, author="ann", reason="known"))
        return self

    def acknowledge(self, one: Alert, via: str = "api", by: str = "ann") -> "World":
        """Somebody takes it; its groups are due at once."""
        self.acknowledgements.append(
            Acknowledgement(dedup_key=one.dedup_key, episode=one.episode, by=by, at=self.now, via=via)
        )
        for stored in self.groups.values():
            if one.dedup_key in stored.receivers:
                self._due(stored, self.now)
        return self

    def reload(self, routes: Routes) -> "World":
        """Other routes: every alert that fires is placed anew."""
        self.routes = routes
        for one in self.alerts.values():
            placed = {each.group.key: each for each in placements(one, routes)} if one.status != "resolved" else {}
            for stored in list(self.groups.values()):
                if one.dedup_key in stored.receivers and one.status != "resolved" and stored.group.key not in placed:
                    stored.departed.add(one.dedup_key)
                    self._due(stored, self.now)
            for each in placed.values():
                stored = self.groups.setdefault(each.group.key, Stored(each.group))
                stored.receivers[one.dedup_key] = each.receivers
                self._due(stored, self.now)
        return self


def changed(one: Alert, **fields) -> Alert:
    """An alert with other fields."""
    return msgspec.structs.replace(one, **fields)
