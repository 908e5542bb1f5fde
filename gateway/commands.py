"""The throttle commands that hold now, and what they mean for one call. Pure: no broker, no event loop.

A command of lower revision than one known for the same key is ignored; one that is over is void; a dry run refuses
nothing; all scopes of a call are looked at, and of all measures that apply to it the strictest holds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.clock import now_micros
from gateway.measures import ALLOWED, MODEL, SCOPE_TYPES, Call, Decision, Done, Entry, Rule, applicable
from schemas.commands import RELEASE_KEY, ThrottleCommand

__all__ = ["ALLOWED", "SCOPE_TYPES", "CommandBook", "Decision", "Live"]

#: The id of a target that every call has.
EVERY = "*"


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
        #: Key -> what holds under it, those too that ask for nothing.
        self._held: dict[str, Entry] = {}
        #: Scope -> key -> the entries that may change what happens to a call.
        self._entries: dict[tuple[int, str], dict[str, Entry]] = {}
        #: What ``check`` reads: for each scope type in use its position and {scope id: strictest first}.
        self._tables: tuple[tuple[int, dict[str, tuple[Entry, ...]]], ...] = ()
        self._everyone: tuple[Entry, ...] = ()
        #: The table of models among them.
        self._models: dict[str, tuple[Entry, ...]] = {}
        #: The command that opens the gate altogether.
        self._release: Entry | None = None
        self._rejected: dict[str, int] = {}

    def apply(self, key: str, command: ThrottleCommand | None, now: int | None = None) -> bool:
        """Take a command, or None, which lifts what the key held; True where that is news.

        A renewal (same id and revision, later end) is no news, and limits go on with what they have let through.

        Raises:
            schemas.instants.InstantError: an instant of it can't be read; nothing changes.
        """
        if command is None:
            held = self._held.get(key)
            self._put(key, None)
            return held is not None
        known, held = self._revisions.get(key), self._held.get(key)
        if known is not None and command.revision < known:
            return False
        entry = Entry(command, self._clock() if now is None else now, held)
        self._revisions[key] = command.revision
        is_known = held is not None and held.command.command_id == command.command_id
        if known == command.revision and held is not None and is_known and entry.expires < held.expires:
            return False  # An earlier word of the same command, by somebody who was overtaken.
        self._put(key, entry)
        return known != command.revision or (held is not None and not is_known)

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
        provider: str = "",
        environment: str = "",
        request_type: str = "interactive",
        experiment: str = "",
        run: str = "",
        task: str = "",
        session: str = "",
        tokens: int = 0,
        began: int | None = None,
        now: int | None = None,
    ) -> Decision:
        """What to do with one call of these identities; ``tokens`` is what it is expected to use.

        A refusal is counted for the command that refused. ``began`` (default: now) and ``now`` are microseconds
        since 1970; a call that began before a command spares it goes on.
        """
        tables = self._tables
        if not tables and not self._everyone and self._release is None:
            return ALLOWED
        identities = (
            org, cost_center, team, project, feature, model, provider, environment, request_type,
            experiment, run, key, user, task, session,
        )  # fmt: skip
        found: Sequence[Entry] = self._everyone
        for position, table in tables:
            entries = table.get(identities[position])
            if entries is not None:
                found = (*found, *entries) if found else entries
        if not found and self._release is None:
            return ALLOWED
        if now is None:
            now = self._clock()
        if self._release is not None and self._is_released(now):
            return _released(self._release)
        if not found:
            return ALLOWED
        return self._judge(found, Call(identities, tokens, now if began is None else began, now))

    def released(self, now: int | None = None) -> Decision | None:
        """What answers every call while a release lives; None: there is none."""
        if self._release is None or not self._is_released(self._clock() if now is None else now):
            return None
        return _released(self._release)

    def live(self, now: int | None = None) -> list[Live]:
        """The commands that are not over, ``allow`` and dry runs too."""
        instant = self._clock() if now is None else now
        return [
            Live(key, entry.command, self._rejected.get(entry.command.command_id, 0))
            for key, entry in self._held.items()
            if entry.ends > instant
        ]

    def holds(self, key: str, now: int | None = None) -> bool:
        """Whether the command under this key is not over."""
        entry = self._held.get(key)
        return entry is not None and entry.ends > (self._clock() if now is None else now)

    def rejected_count(self, command_id: str) -> int:
        """Calls that this command has refused here so far."""
        return self._rejected.get(command_id, 0)

    def forget_rejections(self, command_id: str) -> None:
        """Drop the count of a command that no longer holds and whose count was told."""
        self._rejected.pop(command_id, None)

    def prune(self, now: int | None = None) -> int:
        """Forget commands that are over; returns how many. Revisions stay."""
        instant = self._clock() if now is None else now
        over = [key for key, entry in self._held.items() if entry.ends <= instant]
        for key in over:
            self._put(key, None)
        return len(over)

    def _is_released(self, now: int) -> bool:
        release = self._release
        return release is not None and release.effective <= now < release.expires

    def _judge(self, found: Sequence[Entry], call: Call) -> Decision:
        rules = applicable(found, call)
        if not rules:
            return ALLOWED
        fallback = self._fallback(rules, call)
        if fallback is not None:
            rules += self._of_fallback(fallback, rules, call)
        refusal = self._refusal(rules, call)
        if refusal is not None:
            return refusal
        strictest, cap = rules[0], None
        for rule in rules:
            if rule.grade > strictest.grade:
                strictest = rule
            if rule.requests is not None:
                rule.requests.level -= 1
            if rule.tokens is not None:
                rule.tokens.level -= call.tokens
            if rule.max_tokens is not None and (cap is None or rule.max_tokens < cap):
                cap = rule.max_tokens
        command, action = strictest.entry.command, strictest.measure.action
        return Decision(True, action, strictest.reason, 0, 200, fallback, command, cap)

    @staticmethod
    def _fallback(rules: list[Rule], call: Call) -> str | None:
        """The model that every downgrade is content with, each applied to what the one before left."""
        asked = model = call.identities[MODEL]
        for rule in rules:
            if rule.models is not None and not (rule.entry.exempts is not None and rule.entry.exempts(model)):
                model = rule.instead_of(model)
        return model if model != asked else None

    def _of_fallback(self, fallback: str, rules: list[Rule], call: Call) -> list[Rule]:
        """What applies to the model that is called in the end, besides what applied to the one asked for."""
        entries = self._models.get(fallback)
        if entries is None:
            return []
        identities = (*call.identities[:MODEL], fallback, *call.identities[MODEL + 1 :])
        # Named downgrades of it would lead on and on; what bounds it counts.
        return [rule for rule in applicable(entries, call._replace(identities=identities)) if rule not in rules]

    def _refusal(self, rules: list[Rule], call: Call) -> Decision | None:
        """The answer of the strictest rule that refuses; the limits that had room have given nothing away."""
        worst: Rule | None = None
        wait = 0
        for rule in rules:
            if rule.blocks:
                if worst is None or not worst.blocks or rule.entry.ends > worst.entry.ends:
                    worst, wait = rule, rule.entry.command.retry_after_s
            elif worst is None or not worst.blocks:
                # A call may be larger than a minute's tokens: it goes when there are any, and is paid off after.
                for bucket in (rule.requests, rule.tokens):
                    if bucket is not None and not bucket.room(1, call.now) and bucket.wait_s(1) > wait:
                        worst, wait = rule, bucket.wait_s(1)
        if worst is None:
            return None
        command, action = worst.entry.command, worst.measure.action
        self._rejected[command.command_id] = self._rejected.get(command.command_id, 0) + 1
        return Decision(False, action, worst.reason, wait, command.http_status, None, command)

    def _put(self, key: str, entry: Entry | None) -> None:
        """Let this hold under the key, or nothing."""
        if key == RELEASE_KEY:
            self._hold(key, entry)
            self._release = entry if entry is not None and _opens(entry.command) else None
            return
        held = self._held.get(key)
        scope = None if held is None else (held.position, held.command.target.scope_id)
        wanted = (entry.position, entry.command.target.scope_id) if entry is not None and entry.rules else None
        self._hold(key, entry)
        if scope is not None and scope != wanted and key in self._entries.get(scope, ()):
            del self._entries[scope][key]
            self._publish(scope)
        if entry is not None and wanted is not None:
            self._entries.setdefault(wanted, {})[key] = entry
            self._publish(wanted)

    def _hold(self, key: str, entry: Entry | None) -> None:
        if entry is None:
            self._held.pop(key, None)
        else:
            self._held[key] = entry

    def _publish(self, scope: tuple[int, str]) -> None:
        """Replace what ``check`` reads of one scope, in one assignment: threads see the old or the new."""
        position, scope_id = scope
        entries = self._entries.get(scope)
        if not entries:
            self._entries.pop(scope, None)
        found = tuple(sorted((entries or {}).values(), key=lambda entry: entry.strictness, reverse=True))
        if scope_id == EVERY:
            others = (entry for entry in self._everyone if entry.position != position)
            self._everyone = (*others, *found)
            return
        tables = dict(self._tables)
        table = tables.setdefault(position, {})
        if found:
            table[scope_id] = found
        else:
            table.pop(scope_id, None)
        if not table or position not in dict(self._tables):
            self._tables = tuple((place, ids) for place, ids in sorted(tables.items()) if ids)
            self._models = tables.get(MODEL, {})


def _opens(command: ThrottleCommand) -> bool:
    return command.action == "release" and not command.dry_run


def _released(release: Entry) -> Decision:
    action: Done = "release"
    return Decision(True, action, release.command.reason, command=release.command)
