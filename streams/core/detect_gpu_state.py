"""What DETECT remembers of one GPU, and by what it judges it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from detectors.gpu_utilisation import FULL, GpuUtilisationState
from schemas.alerts import Alert, Rule, Tier
from schemas.instants import HOUR, MINUTE, SECOND
from schemas.versions import Versioned

_PERCENT = FULL // 100
#: Kubernetes ends names that it makes up with these letters: a ReplicaSet's hash and a pod's, or a pod's alone.
_LETTERS = "[bcdfghjklmnpqrstvwxz2456789]"
_MADE_UP = re.compile(rf"-{_LETTERS}{{8,10}}-{_LETTERS}{{5}}$|-{_LETTERS}{{5}}$|-\d+$")


@dataclass(frozen=True, slots=True)
class GpuPolicy:
    """Idle is a mean below ``enter_percent`` over ``idle_us``; it ends above ``exit_percent``."""

    enter_percent: int = 20
    exit_percent: int = 30
    idle_us: int = HOUR
    #: A longer time without a sample is unknown: the run restarts.
    gap_us: int = 180 * SECOND
    #: After this long without a sample an open alert is resolved.
    gone_us: int = HOUR
    #: How much of the trailing window must be known before an alert may end: one busy sample is not work.
    settle_us: int = 10 * MINUTE
    #: A finding older than this is history.
    live_within_us: int = 3 * HOUR
    #: Price of an hour in nanodollars by GPU model, and by ``model|profile`` of MIG slices; others have no money.
    nanos_per_hour: Mapping[str, int] = field(default_factory=dict)
    runbook: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.enter_percent < self.exit_percent <= 100:
            raise ValueError("a GPU needs 0 < enter_percent < exit_percent <= 100, or alerts would flap")

    @property
    def enter(self) -> int:
        """The bar in millionths."""
        return self.enter_percent * _PERCENT

    @property
    def exit(self) -> int:
        """Where idleness ends, in millionths."""
        return self.exit_percent * _PERCENT


class GpuIncident(msgspec.Struct, frozen=True):
    """An open alert; ``hour`` is the one in which it opened and gives it its name."""

    hour: int
    episode: int
    opened_at: int
    occurred_at: int
    #: Start of the trailing window that was found idle.
    idle_since: int
    is_strict: bool
    updates: int
    tier: Tier
    historic: bool
    #: Releases before 0.5 told of each GPU for itself, as ``gpu_idle``: theirs go on under their name until they end.
    rule: Rule = "gpu_idle"


class ToldOwner(msgspec.Struct, frozen=True):
    """What was last said of the GPU to the scope that groups its owner's GPUs, and at which event time."""

    scope: str = ""
    kind: str = ""
    revision: int = 0
    since: int = 0
    at: int = 0


class GpuState(msgspec.Struct, frozen=True):
    """All of one GPU (or MIG instance)."""

    scope_id: str
    v: int = 2
    detector: GpuUtilisationState = GpuUtilisationState()
    #: End of the newest window seen, missing ones included, and what ``now`` was when the newest known one
    #: came.
    newest_end: int = 0
    seen_at: int = 0
    model: str = ""
    mig_profile: str = ""
    node: str = ""
    pod: str = ""
    deployment: str = ""
    pool: str = ""
    org_id: str = ""
    team_id: str = ""
    feature: str = ""
    #: End of the newest sample that reached the bar, and since when it is the present owner's.
    busy_until: int = 0
    owned_since: int = 0
    #: The hour and episode of the newest incident, so that two in one hour have two names.
    last_hour: int = 0
    last_episode: int = 0
    #: Since when the trailing mean has been below the bar without a break; 0 while it is not.
    low_since: int = 0
    incident: GpuIncident | None = None
    told: ToldOwner = ToldOwner()
    #: The last thing said, to be said again under the same id after a restart.
    last: Alert | None = None


def _of_v1(value: bytes) -> GpuState:
    found = msgspec.json.decode(value, type=GpuState)
    # Where in its hour it was last busy is not known: it counts as busy up to now, and is found an hour later at most.
    return msgspec.structs.replace(found, v=2, busy_until=found.detector.end, owned_since=found.detector.since)


GPU_STATES = Versioned("a GPU's state", GpuState, {1: _of_v1})


def deployment_of(pod: str) -> str:
    """What a pod is a replica of, read off the name that Kubernetes gave it; empty where there is no pod.

    >>> deployment_of("llama-7d9f8b6c5d-x2x4z"), deployment_of("vllm-0"), deployment_of("trainer"), deployment_of("")
    ('llama', 'vllm', 'trainer', '')
    """
    return _MADE_UP.sub("", pod) or pod
