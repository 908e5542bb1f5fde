"""What DETECT remembers of one spend scope, and how earlier releases wrote it down."""

from collections.abc import Mapping
from typing import Any

import msgspec

from detectors.base import Observation
from detectors.spend_spike import Answer, Outlook, SpendScore, SpendSpike, SpendSpikeState
from schemas.alerts import Alert, Tier
from schemas.instants import HOUR
from schemas.statements import ScopeStatement
from schemas.versions import Versioned
from streams.core import slots as stated
from streams.core.detect_reach import Reach
from streams.core.slots import Segment, Slot, slot_after

#: Contributors that a slot keeps; the rest is not needed to name who drives a spike.
CONTRIBUTORS_KEPT = 5


class SpikeIncident(msgspec.Struct, frozen=True):
    """An open incident; ``hour`` is the one in which it opened and gives it its name."""

    hour: int
    episode: int
    opened_at: int
    occurred_at: int
    #: The newest hour above the bar.
    last_hot: int
    peak_hour: int
    peak: SpendScore
    #: The severity that was said, as the number of steps passed.
    step: int
    updates: int
    #: The highest that was said.
    tier: Tier
    historic: bool


class SpikeState(msgspec.Struct, frozen=True):
    """All of one scope. Hours below ``frozen_before`` cannot change any more; those below ``next_close`` are
    learned.
    """

    scope: str
    v: int = 3
    hours: dict[int, dict[str, Slot[Segment]]] = {}
    reaches: dict[str, Reach] = {}
    next_close: int = 0
    frozen_before: int = 0
    history: SpendSpikeState = SpendSpikeState()
    #: What is known about hours that may still change; made anew whenever an hour before them is learned.
    outlooks: dict[int, Outlook | None] = {}
    #: The fixed rules that hours break which may still change, whatever became of them.
    broken: dict[int, tuple[str, ...]] = {}
    #: How often an incident has opened in an hour that may still change.
    episodes: dict[int, int] = {}
    incident: SpikeIncident | None = None
    #: The excess of each hour that an incident has told of: a late event there is no new incident.
    told: dict[int, int] = {}
    #: The last thing said, to be said again under the same id after a restart.
    last: Alert | None = None
    #: The version of each answer that was taken, and the plans that the detector knows of.
    taken: dict[str, int] = {}
    plans: tuple[Answer, ...] = ()


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
    return _of_v2(msgspec.json.encode(old))


def _of_v2(value: bytes) -> SpikeState:
    """Version 2 kept a week of hours in digits, holes where they were anomalous, and paged for whatever was above."""
    old = msgspec.json.decode(value)
    history, known = SpendSpike(), old["history"]
    hour = known["end"] - len(known["nanos"]) * HOUR
    for nanos in known["nanos"]:
        history.learn(Observation(hour, hour + HOUR, nanos), is_anomalous=False)
        hour += HOUR
    incident = old.get("incident")
    if incident is not None:
        # Its severity is not said a second time.
        incident |= {"step": 99}
        incident["peak"] |= {"previous": None, "yesterday": None, "strangeness": 1_000}
    changed = {"v": 3, "history": msgspec.to_builtins(history.state()), "incident": incident}
    return msgspec.json.decode(msgspec.json.encode(old | changed), type=SpikeState)


SPIKE_STATES = Versioned("a scope's spend", SpikeState, {1: _of_v1, 2: _of_v2})


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
