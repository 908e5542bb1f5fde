"""What DETECT remembers of one owner's idle GPUs, and by what it judges them."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from schemas.alerts import Alert, Tier
from schemas.instants import HOUR, SECOND
from schemas.money import NANOS
from schemas.versions import Versioned

#: What is found of an owner's GPUs: those that can be taken back, and those that a smaller one would do for.
Finding = Literal["strict", "low"]
FINDINGS: tuple[Finding, ...] = ("strict", "low")
#: More GPUs of one owner are not followed by name; what they cost is then a lower bound.
MEMBERS_MAX = 500
#: A GPU that left is remembered for so long, so that an old word of it, said again after a crash, changes nothing.
LEFT_KEPT_US = 24 * HOUR
#: A GPU is spoken of once an hour while it idles; one that was not for so long has nobody any more who watches it.
SILENT_US = 3 * HOUR + HOUR // 2


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When idle GPUs of one owner page, and when they are worth a ticket."""

    #: An incident pages once its GPUs have cost so much, from when they fell idle: a night of one GPU waits for the
    #: morning, a hundred of them do not.
    page_nanos: int = 500 * NANOS
    ticket_nanos_per_day: int = 1 * NANOS
    #: GPUs that fall idle within it are told together.
    gather_us: int = 30 * SECOND
    #: An incident ends when none of its GPUs has idled for so long: one that idles again is the same incident.
    quiet_us: int = HOUR
    #: A finding older than this is history: a note, never a page.
    live_within_us: int = 3 * HOUR
    enter_percent: int = 20
    idle_us: int = HOUR
    runbook: str = ""

    def __post_init__(self) -> None:
        if self.ticket_nanos_per_day < 0 or self.page_nanos < 0:
            raise ValueError("idle GPUs need ticket_nanos_per_day and page_nanos of 0 or more")


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One GPU as it stands; ``kind`` is empty of one that has left."""

    revision: int
    kind: str
    #: Whether it idled strictly in the incident that is open: it holds that open until it is above the exit bar.
    was_strict: bool
    since: int
    mean_millionths: int
    nanos_per_hour: int | None
    name: str
    model: str
    node: str
    deployment: str
    pool: str
    #: Event time of its newest word, and of the one with which it became what it is; ``now`` at the former.
    said_at: int
    joined_at: int
    heard_at: int


class IdleIncident(msgspec.Struct, frozen=True):
    """An open alert of one finding; ``hour`` is the one in which it opened and gives it its name."""

    hour: int
    episode: int
    occurred_at: int
    since: int
    updates: int
    tier: Tier
    historic: bool
    #: What was told last: its scope, and the money per day.
    scope_type: str
    scope_id: str
    nanos_per_day: int
    #: What members cost that have left, while they idled.
    lost_nanos: int = 0
    #: Since when it has had no member; 0 while it has.
    empty_since: int = 0


class IdleState(msgspec.Struct, frozen=True):
    """All idle GPUs of one owner, up to about 250 bytes each."""

    scope: str
    v: int = 1
    team_id: str = ""
    members: dict[str, Member] = {}
    incidents: dict[str, IdleIncident] = {}
    #: By finding: hour and episode of the newest incident, so that two in one hour have two names.
    last_named: dict[str, tuple[int, int]] = {}
    #: By finding the last thing said, to be said again under the same id after a restart.
    last: dict[str, Alert] = {}


IDLE_STATES = Versioned("an owner's idle GPUs", IdleState)
