"""What DETECT remembers of a feature's busy callers, and the questions that can be asked of it without changing it."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from detectors.base import SIZE_MAX
from detectors.runaway_loop import RunawayLoopState
from schemas.alerts import Alert, Rule, Tier
from schemas.instants import HOUR, MINUTE
from schemas.statements import CallerWindow
from schemas.versions import Versioned
from streams.core.detect_reach import Reach

#: Windows of a caller that are kept, callers of a feature, and alerts that were resolved last.
WINDOWS_KEPT = 6
CALLERS_KEPT = 12
#: Money is learned in millionths of a dollar.
MICRO = 1_000


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """When a caller runs away; money is nanodollars an hour at the pace of its last window."""

    #: Calls in a window, and money in it, that are strange for a feature that nobody knows yet.
    cold_calls: int = 600
    cold_nanos: int = 2_000_000_000
    #: Nothing is said below the floor, but of a storm of errors; nobody is woken below ``page_nanos``.
    floor_nanos: int = 1_000_000_000
    page_nanos: int = 10_000_000_000
    #: The context has grown where calls carry so many times what they did, and at least so many tokens each.
    growth_factor: int = 4
    growth_tokens: int = 16_000
    #: A storm: at least so many calls in a window, half of them errors, and twice as many as in the window before.
    storm_calls: int = 100
    #: So long without a strange window ends it.
    quiet_us: int = 30 * MINUTE
    live_within_us: int = 3 * HOUR
    runbook: str = ""
    storm_runbook: str = ""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one source partition said of one window so far."""

    requests: int
    errors: int
    input_tokens: int
    cost_nanos: int


class LoopIncident(msgspec.Struct, frozen=True):
    """An open alert about one caller; the hour in which it opened gives it its name."""

    rule: Rule
    hour: int
    episode: int
    occurred_at: int
    #: The end of the newest strange window.
    last_hot: int
    said_nanos: int
    updates: int
    tier: Tier
    historic: bool
    last: Alert | None = None


class Caller(msgspec.Struct, frozen=True):
    """One busy caller: its newest windows by their start, each by source partition."""

    kind: str
    id: str
    team_id: str
    model: str
    windows: dict[int, dict[str, Part]] = {}
    #: What windows cost that are not kept any more.
    before_nanos: int = 0
    #: Windows that began earlier are learned.
    learned_until: int = 0
    incident: LoopIncident | None = None
    #: The hour in which an alert opened last, and how often one did in it.
    hour: int = 0
    episode: int = 0

    @property
    def newest(self) -> int:
        """The start of its newest window."""
        return max(self.windows)

    @property
    def cost_nanos(self) -> int:
        """All it cost since it was first busy."""
        return self.before_nanos + sum(total(parts).cost_nanos for parts in self.windows.values())


class Usual(msgspec.Struct, frozen=True):
    """What busy callers of one kind usually do in a window: calls, and millionths of dollars."""

    calls: RunawayLoopState
    money: RunawayLoopState


class LoopState(msgspec.Struct, frozen=True):
    """All of one feature; ``usual`` is by the kind of caller, since a key may be a whole service."""

    scope: str
    v: int = 1
    offsets: dict[str, int] = {}
    reaches: dict[str, Reach] = {}
    callers: dict[str, Caller] = {}
    usual: dict[str, Usual] = {}
    resolved: list[Alert] = []


LOOP_STATES = Versioned("a feature's callers", LoopState)


def usual_of(state: LoopState, kind: str, policy: LoopPolicy) -> Usual:
    """What is usual for a kind of caller. Of keys nothing is strange before they are known: each may be a service."""
    if kind in state.usual:
        return state.usual[kind]
    if kind == "key":
        return Usual(RunawayLoopState(cold=SIZE_MAX), RunawayLoopState(cold=SIZE_MAX))
    return Usual(RunawayLoopState(cold=policy.cold_calls), RunawayLoopState(cold=policy.cold_nanos // MICRO))


def total(parts: Mapping[str, Part]) -> Part:
    """A window of a caller over all source partitions."""
    found = parts.values()
    return Part(
        sum(part.requests for part in found),
        sum(part.errors for part in found),
        sum(part.input_tokens for part in found),
        sum(part.cost_nanos for part in found),
    )


def with_window(caller: Caller, slot: str, window: CallerWindow) -> Caller:
    """The caller with what was stated of a window; the larger of two totals of it counts."""
    parts = caller.windows.get(window.start, {})
    part = Part(window.requests, window.errors, window.input_tokens, window.cost_nanos)
    if slot in parts and parts[slot].requests >= part.requests:
        return caller
    windows = {**caller.windows, window.start: {**parts, slot: part}}
    before = caller.before_nanos
    for start in sorted(windows)[:-WINDOWS_KEPT]:
        before += total(windows.pop(start)).cost_nanos
    return msgspec.structs.replace(caller, windows=windows, before_nanos=before)


def has_grown(caller: Caller, policy: LoopPolicy) -> bool:
    """Whether each call carries many times what calls of this caller did before; a key's calls have no context."""
    if caller.kind == "key":
        return False
    means = [
        whole.input_tokens // whole.requests
        for _, parts in sorted(caller.windows.items())
        if (whole := total(parts)).requests
    ]
    if len(means) < 2 or means[-1] < policy.growth_tokens:
        return False
    return means[-1] >= policy.growth_factor * max(1, min(means[:-1]))


def is_storm(caller: Caller, policy: LoopPolicy) -> bool:
    """Whether most calls of the newest window fail, and there are ever more of them."""
    newest = total(caller.windows[caller.newest])
    if newest.requests < policy.storm_calls:
        return False
    before = caller.windows.get(max((start for start in caller.windows if start < caller.newest), default=-1), {})
    is_rising = newest.requests >= 2 * total(before).requests
    has_begun = caller.incident is not None and caller.incident.rule == "retry_storm"
    return 2 * newest.errors > newest.requests and (is_rising or has_begun)
