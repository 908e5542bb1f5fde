"""The throttle commands that hold now, and what they mean for one call. Pure: no broker, no event loop.

A command of lower revision than one known for the same key is ignored; an expired one is void; a dry run
refuses nothing; of several on one scope the strictest holds, and all scopes of a call are looked at.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from gateway.clock import now_micros
from schemas.commands import ThrottleCommand
from schemas.instants import parse_instant

#: In the order of ``CommandBook.check``'s identities.
SCOPE_TYPES = ("org", "cost_center", "team", "project", "feature", "model", "environment", "key", "user")
_POSITION = {scope_type: position for position, scope_type in enumerate(SCOPE_TYPES)}
_GRADE = {"allow": 0, "rate_limit": 1, "downgrade": 2, "block": 3}
_MINUTE = 60_000_000


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What a gateway does with one call.

    ``allowed`` False: answer ``http_status`` with ``reason`` and Retry-After ``retry_after_s``.
    ``allowed`` True with ``model_fallback``: call that model instead. ``command`` is what decided, if any.
    """

    allowed: bool
    action: Literal["allow", "rate_limit", "downgrade", "block", "not_ready"] = "allow"
    reason: str = ""
    retry_after_s: int = 0
    http_status: int = 200
    model_fallback: str | None = None
    command: ThrottleCommand | None = None


ALLOWED = Decision(True)


class _Bucket:
    """Lets through ``per_minute`` units a minute, a minute's worth at once. Times are microseconds."""

    def __init__(self, per_minute: int, now: int) -> None:
        self.per_minute = per_minute
        self.level = float(per_minute)
        self._at = now

    def room(self, wanted: float, now: int) -> bool:
        """Whether ``wanted`` units may go now; takes none."""
        if now > self._at:
            self.level = min(self.per_minute, self.level + (now - self._at) * self.per_minute / _MINUTE)
        # A clock that went back fills nothing, and counts anew from there.
        self._at = now
        return self.level >= wanted

    def wait_s(self, wanted: float) -> int:
        """Seconds until ``wanted`` units may go."""
        if self.per_minute <= 0:
            return 60
        return max(1, math.ceil((wanted - self.level) * 60 / self.per_minute))


class _Entry:
    """A live command with its instants as numbers and its buckets."""

    __slots__ = ("command", "effective", "expires", "requests", "strictness", "tokens")

    def __init__(self, command: ThrottleCommand, effective: int, expires: int, now: int) -> None:
        self.command = command
        self.effective = effective
        self.expires = expires
        self.requests = None if command.rpm_limit is None else _Bucket(command.rpm_limit, now)
        self.tokens = None if command.tpm_limit is None else _Bucket(command.tpm_limit, now)
        lowest = min(
            math.inf if command.rpm_limit is None else command.rpm_limit,
            math.inf if command.tpm_limit is None else command.tpm_limit,
        )
        self.strictness = (_GRADE[command.action], -lowest, expires)


class Live(NamedTuple):
    """A command that holds, its key, and how many calls it has refused here."""

    key: str
    command: ThrottleCommand
    rejected_count: int


class CommandBook:
    """Keeps the newest command of every key and answers for calls in about a microsecond."""

    def __init__(self, clock: Callable[[], int] = now_micros) -> None:
        self._clock = clock
        #: Key -> the highest revision seen, lifted commands too.
        self._revisions: dict[str, int] = {}
        self._commands: dict[str, ThrottleCommand] = {}
        #: Key -> scope, for the keys that may refuse something.
        self._scopes: dict[str, tuple[int, str]] = {}
        self._entries: dict[tuple[int, str], dict[str, _Entry]] = {}
        #: What ``check`` reads: for each scope type in use its position and {scope id: strictest first}.
        self._tables: tuple[tuple[int, dict[str, tuple[_Entry, ...]]], ...] = ()
        self._rejected: dict[str, int] = {}

    def apply(self, key: str, command: ThrottleCommand | None, now: int | None = None) -> bool:
        """Take a command, or None, which lifts what the key held; True where that is news.

        Raises:
            schemas.instants.InstantError: ``effective_at`` or ``expires_at`` is no instant; nothing changes.
        """
        if command is None:
            held = self._commands.pop(key, None)
            self._drop(key)
            return held is not None
        known = self._revisions.get(key)
        if known is not None and command.revision < known:
            return False
        effective, expires = parse_instant(command.effective_at), parse_instant(command.expires_at)
        held = self._commands.get(key)
        self._revisions[key] = command.revision
        self._commands[key] = command
        news = known != command.revision or (held is not None and held.command_id != command.command_id)
        if not news and key in self._scopes:
            # Said again, or renewed: a rate limit keeps its bucket, and holds for longer.
            entry = self._entries[self._scopes[key]][key]
            entry.expires = max(entry.expires, expires)
            return False
        self._drop(key)
        if command.action != "allow" and not command.dry_run:
            entry = _Entry(command, effective, expires, self._clock() if now is None else now)
            self._hold(key, (_POSITION[command.target.scope_type], command.target.scope_id), entry)
        return news

    def check(
        self,
        team: str = "",
        feature: str = "",
        model: str = "",
        org: str = "",
        key: str = "",
        user: str = "",
        *,
        cost_center: str = "",
        project: str = "",
        environment: str = "",
        tokens: int = 0,
        now: int | None = None,
    ) -> Decision:
        """What to do with one call of these identities; ``tokens`` is what it is expected to use.

        A refusal is counted for the command that refused. ``now`` is microseconds since 1970.
        """
        tables = self._tables
        if not tables:
            return ALLOWED
        identities = (org, cost_center, team, project, feature, model, environment, key, user)
        found: list[_Entry] | None = None
        for position, table in tables:
            entries = table.get(identities[position])
            if entries is not None:
                if now is None:
                    now = self._clock()
                for entry in entries:
                    if entry.effective <= now < entry.expires:
                        found = [entry] if found is None else [*found, entry]
                        break
        if found is None or now is None:
            return ALLOWED
        return self._judge(found, tokens, now)

    def live(self, now: int | None = None) -> list[Live]:
        """The commands that have not expired, ``allow`` and dry runs too."""
        instant = self._clock() if now is None else now
        return [
            Live(key, command, self._rejected.get(command.command_id, 0))
            for key, command in self._commands.items()
            if parse_instant(command.expires_at) > instant
        ]

    def rejected_count(self, command_id: str) -> int:
        """Calls that this command has refused here so far."""
        return self._rejected.get(command_id, 0)

    def forget_rejections(self, command_id: str) -> None:
        """Drop the count of a command that no longer holds and whose count was told."""
        self._rejected.pop(command_id, None)

    def prune(self, now: int | None = None) -> int:
        """Forget expired commands, which refuse nothing any more; returns how many. Revisions stay."""
        instant = self._clock() if now is None else now
        expired = [k for k, c in self._commands.items() if parse_instant(c.expires_at) <= instant]
        for key in expired:
            del self._commands[key]
            self._drop(key)
        return len(expired)

    def _judge(self, found: list[_Entry], tokens: int, now: int) -> Decision:
        strictest = max(found, key=lambda entry: entry.strictness)
        if strictest.command.action == "block":
            return self._refuse(strictest.command, strictest.command.retry_after_s)
        for entry in found:
            if entry.requests is not None and not entry.requests.room(1, now):
                return self._refuse(entry.command, entry.requests.wait_s(1))
            # A call may be larger than a minute's tokens: it goes when there are any, and is paid off after.
            if entry.tokens is not None and not entry.tokens.room(1, now):
                return self._refuse(entry.command, entry.tokens.wait_s(1))
        for entry in found:
            if entry.requests is not None:
                entry.requests.level -= 1
            if entry.tokens is not None:
                entry.tokens.level -= tokens
        command = strictest.command
        return Decision(True, command.action, command.reason, 0, 200, command.model_fallback, command)

    def _refuse(self, command: ThrottleCommand, retry_after_s: int) -> Decision:
        self._rejected[command.command_id] = self._rejected.get(command.command_id, 0) + 1
        return Decision(False, command.action, command.reason, retry_after_s, command.http_status, None, command)

    def _hold(self, key: str, scope: tuple[int, str], entry: _Entry) -> None:
        self._scopes[key] = scope
        self._entries.setdefault(scope, {})[key] = entry
        self._publish(scope)

    def _drop(self, key: str) -> None:
        scope = self._scopes.pop(key, None)
        if scope is not None:
            entries = self._entries[scope]
            del entries[key]
            if not entries:
                del self._entries[scope]
            self._publish(scope)

    def _publish(self, scope: tuple[int, str]) -> None:
        """Replace what ``check`` reads of one scope, in one assignment: threads see the old or the new."""
        position, scope_id = scope
        tables = dict(self._tables)
        table = dict(tables.get(position, {}))
        entries = self._entries.get(scope)
        if entries:
            table[scope_id] = tuple(sorted(entries.values(), key=lambda e: e.strictness, reverse=True))
        else:
            table.pop(scope_id, None)
        tables[position] = table
        self._tables = tuple((place, found) for place, found in sorted(tables.items()) if found)
