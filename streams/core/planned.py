"""A planned event in time: whether it lies ahead, runs or is over, and what ending it leaves."""

from typing import Literal

from msgspec.structs import replace

from schemas.answers import PlannedEvent
from schemas.instants import format_instant
from streams.core.defining import RequestError, Wrong

#: What stands once an event was ended; None: nothing, it is withdrawn.
PlanEnd = PlannedEvent | None


def phase_of(event: PlannedEvent, now: int) -> Literal["ahead", "running", "over"]:
    """Where it stands.

    >>> event = PlannedEvent(id="e", scope="team:a", starts=10, until=20, nanos=1, known_from=0)
    >>> [phase_of(event, now) for now in (9, 10, 20)]
    ['ahead', 'running', 'over']
    """
    return "ahead" if now < event.starts else "running" if now < event.until else "over"


def ending_of(event: PlannedEvent, now: int) -> PlanEnd:
    """What stands once it is ended: what it has cost until now stays planned, of what lies ahead nothing is left.

    Raises:
        RequestError: it is over.
    """
    phase = phase_of(event, now)
    if phase == "over":
        raise RequestError(
            [Wrong("id", f"{event.id} was over at {format_instant(event.until)}: there is nothing left to end")]
        )
    return None if phase == "ahead" else replace(event, until=now)
