"""What DETECT remembers of one spend scope, and the questions that can be asked of it without changing it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from detectors.base import Observation, Score
from detectors.hourly_spend import HourlySpend, HourlySpendState
from schemas.alerts import Alert, Tier
from schemas.instants import HOUR, MINUTE
from schemas.statements import ScopeStatement
from schemas.versions import Versioned
from streams.core import slots as stated
from streams.core.detect_reach import Reach, reached
from streams.core.slots import Segment, Slot, slot_after

#: Contributors that a slot keeps; the rest is not needed to name who drives a spike.
CONTRIBUTORS_KEPT = 5


@dataclass(frozen=True, slots=True)
class SpikePolicy:
    """A spike is above ``ratio_percent`` of what is expected, and by more than ``floor_nanos``."""

    ratio_percent: int = 150
    floor_nanos: int = 5_000_000_000
    #: A finding whose hour ended longer ago is history: a note, never a page.
    live_within_us: int = 3 * HOUR
    #: How many closed hours below the bar end an incident.
    quiet_hours: int = 1
    #: How long after its end an hour stays open for what is still under way.
    grace_us: int = 5 * MINUTE
    #: How long after its end an hour can be corrected.
    keep_us: int = 3 * HOUR
    #: The most hours kept open for correction, however far apart the source partitions are.
    hours_max: int = 12
    #: After this long, what is still high is learned: a new level, and no incident for ever.
    accept_after_us: int = 24 * HOUR
    runbook: str = ""

    def __post_init__(self) -> None:
        if self.ratio_percent <= 100 or self.floor_nanos < 0:
            raise ValueError("a spike needs ratio_percent above 100 and floor_nanos of at least 0")
        if self.quiet_hours < 1 or self.hours_max < 2:
            raise ValueError("quiet_hours must be at least 1 and hours_max at least 2")
        if not 0 <= self.grace_us <= self.keep_us:
            raise ValueError("grace_us must be between 0 and keep_us: an hour is learned before it is frozen")


class SpikeIncident(msgspec.Struct, frozen=True):
    """An open incident; ``hour`` is the one in which it opened and gives it its name."""

    hour: int
    episode: int
    opened_at: int
    occurred_at: int
    #: The newest hour above the bar.
    last_hot: int
    peak_hour: int
    peak: Score
    #: The excess that was last said: the next update needs twice of it.
    said_excess: int
    updates: int
    tier: Tier
    historic: bool


class SpikeState(msgspec.Struct, frozen=True):
    """All of one scope. Hours below ``frozen_before`` cannot change any more; those below ``next_close`` are
    learned.
    """

    scope: str
    v: int = 2
    hours: dict[int, dict[str, Slot[Segment]]] = {}
    reaches: dict[str, Reach] = {}
    next_close: int = 0
    frozen_before: int = 0
    history: HourlySpendState = HourlySpendState()
    #: How often an incident has opened in an hour that may still change.
    episodes: dict[int, int] = {}
    incident: SpikeIncident | None = None
    #: The excess of each hour that an incident has told of: a late event there is no new incident.
    told: dict[int, int] = {}
    #: The last thing said, to be said again under the same id after a restart.
    last: Alert | None = None


def _of_v1(value: bytes) -> SpikeState:
    """Version 1 had a slot for each segment (``<source>:<segment>``), and no second revision of one."""
    old = msgspec.json.decode(value)
    for hour, known in old["hours"].items():
        slots: dict[str, list[Any]] = {}
        for name, (revision, *segment) in known.items():
            source, _, first = name.rpartition(":")
            slot = slots.setdefault(source, [revision, {}])
            slot[0] = max(slot[0], revision)
            slot[1][first] = segment
        old["hours"][hour] = slots
    return msgspec.json.decode(msgspec.json.encode(old | {"v": 2}), type=SpikeState)


SPIKE_STATES = Versioned("a scope's spend", SpikeState, {1: _of_v1})


def slot_with(slot: Slot[Segment] | None, statement: ScopeStatement) -> Slot[Segment]:
    """A source's slot with this statement; of contributors the largest, in an order that does not depend on arrival."""
    largest = sorted(statement.contributors.items(), key=lambda item: (-item[1], item[0]))
    return slot_after(slot, statement, dict(largest[:CONTRIBUTORS_KEPT]))


def total(slots: Mapping[str, Slot[Segment]]) -> int:
    """The hour's cost: the sum over source partitions and segments."""
    return stated.total(slots.values())


def contributors(slots: Mapping[str, Slot[Segment]]) -> list[tuple[str, int]]:
    """The largest contributors of an hour, largest first."""
    return stated.contributors(slots.values())[:CONTRIBUTORS_KEPT]


def scope_time(state: SpikeState, now: int, policy: SpikePolicy) -> int:
    """How far event time has come for this scope; at most ``hours_max`` hours behind its newest hour."""
    newest = max(state.hours, default=0)
    return max(reached(state.reaches, now), newest - policy.hours_max * HOUR)


def score_hour(history: HourlySpend, hour: int, nanos: int) -> Score | None:
    """The hour's total so far against what is expected of it; None during the cold start."""
    return history.score_one(Observation(hour, hour + HOUR, nanos))


def is_hot(score: Score | None, policy: SpikePolicy) -> bool:
    """Whether a score is above the bar, in integers.

    >>> is_hot(Score(16_000_000_000, 10_000_000_000, 6_000_000_000, 160), SpikePolicy())
    True
    >>> is_hot(Score(15_000_000_000, 10_000_000_000, 5_000_000_000, 150), SpikePolicy())
    False
    """
    if score is None or score.expected is None or score.excess <= policy.floor_nanos:
        return False
    return score.observed * 100 > policy.ratio_percent * score.expected


def bar(expected: int, policy: SpikePolicy) -> int:
    """The spend above which an hour is a spike, in nanodollars.

    >>> bar(100_000_000_000, SpikePolicy()), bar(2_000_000_000, SpikePolicy())
    (150000000000, 7000000000)
    """
    return max(expected * policy.ratio_percent // 100, expected + policy.floor_nanos)
