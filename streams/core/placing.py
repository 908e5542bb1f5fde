"""Which groups an alert belongs to: the walk down the tree of routes."""

import msgspec

from schemas.alerts import Alert
from streams.core.routes import Routes


class Group(msgspec.Struct, frozen=True):
    """Alerts that are told together: those of one route that share the labels of its ``group_by``."""

    #: Derived from the route's id and the labels; at most 255 characters.
    key: str
    #: ``Route.id``.
    route: str
    labels: dict[str, str]
    #: The thread of its first incident: the alert's own dedup key where every alert is a group of its own.
    thread: str


class Placement(msgspec.Struct, frozen=True):
    """One group of an alert, and whom this alert is told to by it."""

    group: Group
    #: Ids of integrations. One that an earlier placement of the same alert has is not here: nobody is told twice.
    receivers: tuple[str, ...]
    #: How long the group's first message waits for others; never less than what may silence the alert needs to come.
    wait_us: int
    #: How long after the group's last flush a change of it may wait.
    interval_us: int


def placements(alert: Alert, routes: Routes) -> tuple[Placement, ...]:
    """The groups that an alert which fires belongs to, in the order of the tree; none for what is only shown.

    Asked of firing statements (``opened``, ``updated``). A resolved one ends the alert in the groups that it is in,
    whatever its labels have become; one that a later statement places elsewhere has departed from the others.
    """
    raise NotImplementedError


def due_at(placement: Placement, alert: Alert, flushed_at: int | None, now: int) -> int:
    """When the group is to be flushed for a firing statement, in microseconds; the earlier of this and what it is.

    Args:
        flushed_at: the group's last flush since it has had firing members; None: there was none.
    """
    raise NotImplementedError


def owned(alert: Alert, routes: Routes) -> Alert:
    """The alert with the owner that ``owners`` has for its budget, its owner's name, its team, or everybody else."""
    raise NotImplementedError
