"""What DETECT remembers of one spend scope, and how earlier releases wrote it down."""

from collections.abc import Mapping

import msgspec

from detectors.base import Observation
from detectors.spend_spike import Answer, Outlook, SpendScore, SpendSpike, SpendSpikeState
from schemas.alerts import Alert, Tier
from schemas.instants import HOUR
from schemas.versions import Versioned
from streams.core.detect_reach import Reach


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one part of an hour costs so far, and how new that is."""

    rank: int
    cost_nanos: int


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
    #: By hour and part; what they are made of is kept beside (``streams.core.composition``).
    hours: dict[int, dict[int, Part]] = {}
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
    #: The event time at which they were: what was known once does not become unknown again.
    taught_at: int = 0


def _of_v2(value: bytes) -> SpikeState:
    """Versions 1 and 2 kept a week of hours in digits, holes where they were anomalous, and paged for all above.

    They heard of open hours from METER's counters, by source. ROLLUP states these hours again, from their cells: what
    was learned of them stays, and what was not is learned from there.
    """
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
    frozen_before = max(old.get("frozen_before", 0), old.get("next_close", 0))
    old |= {"hours": {}, "reaches": {}, "outlooks": {}, "frozen_before": frozen_before}
    changed = {"v": 3, "history": msgspec.to_builtins(history.state()), "incident": incident}
    return msgspec.json.decode(msgspec.json.encode(old | changed), type=SpikeState)


SPIKE_STATES = Versioned("a scope's spend", SpikeState, {1: _of_v2, 2: _of_v2})


def total(parts: Mapping[int, Part]) -> int:
    """The hour's cost, nanodollars."""
    return sum(part.cost_nanos for part in parts.values())
