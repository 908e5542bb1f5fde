"""One command as a gate applies it: its instants as numbers, its measures with their buckets. Pure.

A command without measures is its ``action`` for all calls, as earlier releases wrote it.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from schemas.commands import Measure, ScopeType, ThrottleCommand
from schemas.instants import parse_instant

#: In the order of ``Call.identities``.
SCOPE_TYPES: tuple[ScopeType, ...] = (
    "org", "cost_center", "team", "project", "feature", "model", "provider", "environment", "request_type",
    "experiment", "run", "key", "user", "task", "session",
)  # fmt: skip
POSITION = {scope_type: position for position, scope_type in enumerate(SCOPE_TYPES)}
MODEL, PROVIDER = POSITION["model"], POSITION["provider"]
ENVIRONMENT, REQUEST_TYPE = POSITION["environment"], POSITION["request_type"]
GRADE = {"allow": 0, "release": 0, "rate_limit": 1, "cap_tokens": 2, "downgrade": 3, "block": 4}
NEVER = 1 << 62
_MINUTE = 60_000_000

Done = Literal["allow", "rate_limit", "cap_tokens", "downgrade", "block", "release", "not_ready"]


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What a gateway does with one call.

    ``allowed`` False: answer ``http_status`` with ``reason`` and Retry-After ``retry_after_s``. ``allowed`` True: call
    ``model_fallback`` instead where it is set, and let it write at most ``max_tokens`` where that is set. ``command``
    is what decided, if any; ``action`` is the gravest thing that was done.
    """

    allowed: bool
    action: Done = "allow"
    reason: str = ""
    retry_after_s: int = 0
    http_status: int = 200
    model_fallback: str | None = None
    command: ThrottleCommand | None = None
    max_tokens: int | None = None


ALLOWED = Decision(True)


class Bucket:
    """Lets through ``per_minute`` units a minute, ``at_once`` (a minute's worth) at once. Times are microseconds."""

    __slots__ = ("_at", "at_once", "level", "per_minute")

    def __init__(self, per_minute: int, now: int, at_once: int | None = None) -> None:
        self.per_minute = per_minute
        self.at_once = per_minute if at_once is None else at_once
        self.level = float(self.at_once)
        self._at = now

    def room(self, wanted: float, now: int) -> bool:
        """Whether ``wanted`` units may go now; takes none."""
        if now > self._at:
            self.level = min(self.at_once, self.level + (now - self._at) * self.per_minute / _MINUTE)
        # A clock that went back fills nothing, and counts anew from there.
        self._at = now
        return self.level >= wanted

    def wait_s(self, wanted: float) -> int:
        """Seconds until ``wanted`` units may go."""
        if self.per_minute <= 0:
            return 60
        return max(1, math.ceil((wanted - self.level) * 60 / self.per_minute))


class Rule:
    """One measure of a command, with its buckets."""

    __slots__ = ("blocks", "entry", "grade", "max_tokens", "measure", "models", "reason", "requests", "takes", "tokens")

    def __init__(self, measure: Measure, entry: "Entry", now: int, before: "Rule | None" = None) -> None:
        self.measure = measure
        self.entry = entry
        self.grade = GRADE[measure.action]
        self.blocks = measure.action == "block"
        self.reason = entry.command.reason
        self.max_tokens = measure.max_tokens if measure.action == "cap_tokens" else None
        self.models = measure.models if measure.action == "downgrade" else None
        self.requests = self.tokens = None
        if before is not None:
            # Said again, or with more beside it: a limit that was there before goes on where it was.
            self.requests, self.tokens = before.requests, before.tokens
        if measure.action == "rate_limit" and (before is None or before.measure != measure):
            self.requests = _bucket(measure.rpm, now, measure.burst, self.requests)
            self.tokens = _bucket(measure.tpm, now, None, self.tokens)
        #: Whether it is about calls of this request type and environment; None: about all.
        self.takes = _selection(measure)

    def instead_of(self, model: str) -> str:
        """The model that is used where this one was asked for."""
        models = self.models or {}
        return models.get(model) or models.get("*") or model


class Entry:
    """A command that holds, or will, with its instants in microseconds."""

    __slots__ = (
        "command", "effective", "ends", "exempts", "expires", "match", "position", "rules", "spares", "stale",
        "strictness",
    )  # fmt: skip

    def __init__(self, command: ThrottleCommand, now: int, before: "Entry | None" = None) -> None:
        """Raises schemas.instants.InstantError where an instant can't be read."""
        self.command = command
        self.position = POSITION[command.target.scope_type]
        self.effective = parse_instant(command.effective_at)
        self.expires = parse_instant(command.expires_at)
        over = parse_instant(command.holds_until) if command.holds_until else None
        self.spares = parse_instant(command.spares_before) if command.spares_before else self.effective
        if over is not None:
            self.expires = min(self.expires, over)
        #: After this it asks for nothing, renewed or not.
        self.ends = self.expires if over is None or command.on_stale == "open" else over
        self.exempts = _patterns(command.exempt_models)
        self.match = _conditions(command.match)
        known = list(before.rules) if before is not None else []
        self.rules = tuple(Rule(measure, self, now, _taken(known, measure)) for measure in measures_of(command))
        #: What holds between ``expires`` and ``ends``.
        self.stale = self.rules
        if self.rules and command.on_stale == "close":
            self.stale = (Rule(Measure("block"), self, now),)
            self.stale[0].reason = f"{command.reason} Sluice is silent, and this budget refuses then (on_stale: close)."
        lowest = min((_least(rule.measure) for rule in self.rules), default=math.inf)
        self.strictness = (max((rule.grade for rule in self.rules), default=0), -lowest, self.ends)

    def is_exempt(self, model: str, provider: str = "") -> bool:
        """Whether a model is never touched; it may be named with its provider, as in ``ollama/*``."""
        exempts = self.exempts
        return exempts is not None and (exempts(model) or (provider != "" and exempts(f"{provider}/{model}")))


class Call(NamedTuple):
    """Who calls what, in the order of ``SCOPE_TYPES``; tokens are what it is expected to use."""

    identities: tuple[str, ...]
    tokens: int
    #: When it began and what time it is, microseconds since 1970.
    began: int
    now: int


def measures_of(command: ThrottleCommand) -> tuple[Measure, ...]:
    """What a command asks of the calls that it is about; nothing where it lets go or is a dry run."""
    if command.dry_run or command.action in ("allow", "release"):
        return ()
    if command.measures:
        return command.measures
    if command.action == "rate_limit":
        return (Measure("rate_limit", rpm=command.rpm_limit, tpm=command.tpm_limit),)
    if command.action == "downgrade":
        found = [Measure("downgrade", models={"*": command.model_fallback} if command.model_fallback else {})]
        if command.rpm_limit is not None or command.tpm_limit is not None:
            found.append(Measure("rate_limit", rpm=command.rpm_limit, tpm=command.tpm_limit))
        return tuple(found)
    return (Measure(command.action),)


def applicable(entries: Sequence[Entry], call: Call) -> list[Rule]:
    """The rules of these entries that are about this call."""
    identities, now, began = call.identities, call.now, call.began
    found: list[Rule] = []
    for entry in entries:
        if not entry.effective <= now < entry.ends or began < entry.spares:
            continue
        if entry.exempts is not None and entry.is_exempt(identities[MODEL], identities[PROVIDER]):
            continue
        if entry.match is not None and not all(test(identities[place]) for place, test in entry.match):
            continue
        for rule in entry.rules if now < entry.expires else entry.stale:
            if rule.takes is None or rule.takes(identities[REQUEST_TYPE], identities[ENVIRONMENT]):
                found.append(rule)
    return found


def _taken(known: list[Rule], measure: Measure) -> Rule | None:
    """The rule of that very measure, else of one that limits the same calls by other numbers, taken out of the list."""
    for is_same in (_is_that, _limits_the_same):
        for place, rule in enumerate(known):
            if is_same(rule.measure, measure):
                return known.pop(place)
    return None


def _is_that(one: Measure, other: Measure) -> bool:
    return one == other


def _limits_the_same(one: Measure, other: Measure) -> bool:
    calls = other.request_types, other.environments
    return one.action == other.action == "rate_limit" and (one.request_types, one.environments) == calls


def _bucket(per_minute: int | None, now: int, at_once: int | None, before: Bucket | None) -> Bucket | None:
    """A bucket that is as full as the one before it: a limit that changes again and again must not begin anew."""
    if per_minute is None:
        return None
    found = Bucket(per_minute, now, at_once)
    if before is not None:
        before.room(0, now)
        found.level = min(found.level, before.level)
    return found


def _least(measure: Measure) -> float:
    return min(math.inf if limit is None else limit for limit in (measure.rpm, measure.tpm))


def _selection(measure: Measure) -> Callable[[str, str], bool] | None:
    types, environments = _names(measure.request_types), _names(measure.environments)
    if types is None and environments is None:
        return None
    if environments is None and types is not None:
        takes_type = types
        return lambda request_type, environment: takes_type(request_type)

    def takes(request_type: str, environment: str) -> bool:
        return (types is None or types(request_type)) and (environments is None or environments(environment))

    return takes


def _names(names: Sequence[str]) -> Callable[[str], bool] | None:
    """A test for these names, of which those after ``!`` are left out; None: all of them."""
    if not names:
        return None
    without = frozenset(name[1:] for name in names if name.startswith("!"))
    within = frozenset(name for name in names if not name.startswith("!"))
    if not within:
        return lambda name: name not in without
    return (within - without).__contains__


def _patterns(patterns: Sequence[str]) -> Callable[[str], bool] | None:
    """A test for models: exact names, or ``*`` for any characters."""
    if not patterns:
        return None
    known = re.compile("|".join(".*".join(map(re.escape, one.split("*"))) for one in patterns), re.DOTALL)
    # A gateway calls a few models over and over.
    return lru_cache(maxsize=256)(lambda model: known.fullmatch(model) is not None)


def _conditions(match: Sequence[tuple[ScopeType, str]]) -> tuple[tuple[int, Callable[[str], bool]], ...] | None:
    """A test for each attribute: one of its values, none after ``!``; models may be patterns."""
    found: dict[int, list[str]] = {}
    for attribute, value in match:
        found.setdefault(POSITION[attribute], []).append(value)
    tests = [(place, _patterns(values) if place == MODEL else _names(values)) for place, values in found.items()]
    return tuple((place, test) for place, test in tests if test is not None) or None
