"""What a group says to whom, and when next: one function of values and ``now``.

The order is written once, in ``flush``: inhibit, silence, quiet hours, escalate, needs-update, repeat.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from schemas.alerts import Alert
from streams.core.inhibition import Inhibitors
from streams.core.notifying import Acknowledgement, Notification, Silence, Told
from streams.core.placing import Group
from streams.core.routes import Routes


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a group: its newest statement."""

    alert: Alert
    #: When the first statement of its episode was recorded, in microseconds.
    since: int
    #: ``Placement.receivers``.
    receivers: tuple[str, ...]
    #: Its newest statement is placed in other groups; it ends here.
    departed: bool = False


class Mute(NamedTuple):
    """Why a firing alert is not told, for the dashboard."""

    dedup_key: str
    by: Literal["inhibition", "silence", "quiet_hours"]
    #: The inhibiting alert's dedup key, the silence's id, or the name of the quiet hours.
    what: str
    #: Empty: whom it concerns at all; else only these integrations.
    receivers: tuple[str, ...] = ()


class Flushed(NamedTuple):
    """What a flush decided; all of it is written in one transaction."""

    notifications: tuple[Notification, ...]
    #: The ``Told`` of every receiver that has one, whether it changed or not. Those with nothing firing are to be kept:
    #: they count the incidents.
    told: tuple[Told, ...]
    #: When to flush again though no statement comes, in microseconds; None: never.
    due: int | None
    mutes: tuple[Mute, ...] = ()


def flush(
    group: Group,
    members: Sequence[Member],
    told: Sequence[Told],
    silences: Sequence[Silence],
    acknowledgements: Sequence[Acknowledgement],
    inhibitors: Inhibitors,
    routes: Routes,
    now: int,
) -> Flushed:
    """Decide what the group's receivers are owed now.

    The same values give the same notifications under the same ids, whatever ``now`` is: an id follows from the group,
    the receiver and what it was told before. A group whose route is gone says only what ended.

    Args:
        members: every alert of the group whose newest statement fires, and every one that has ended and is still in
            the ``firing`` of some ``Told``.
        told: what each receiver was told last, at most one for each.
        silences: those in force, or all; ``now`` decides.
        acknowledgements: of the members, of any episode.
        inhibitors: made of all alerts that may silence others, once for many flushes.
    """
    raise NotImplementedError
