"""What a worker's log says of its restart, as moments and phases. Pure."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) INFO sluice\.(?:restart|worker): (.*)")

#: How the line begins that ends each phase, and what the phase is called.
PHASES = (
    ("starting", "process and imports"),
    ("joining the group", "database, settings, parts"),
    ("the group has given us", "joining the group"),
    ("all tables restored", "tables"),
    ("the first new event is folded", "window read again, first new event"),
    ("all partitions fold new events", "the other partitions' windows"),
)


class Milestone(NamedTuple):
    """A line of the log, and how many seconds after the start of the process it was written."""

    at_s: float
    text: str


class Phase(NamedTuple):
    """A phase, when it ended, and how long it took."""

    name: str
    ended_s: float
    took_s: float


def milestones(lines: Iterable[str], began: datetime) -> list[Milestone]:
    """The lines about the restart, with the seconds since ``began``; logs are in local time.

    >>> began = datetime(2026, 11, 21, 10).astimezone()
    >>> milestones(["2026-11-21 10:00:02,500 INFO sluice.worker: starting: meter"], began)
    [Milestone(at_s=2.5, text='starting: meter')]
    """
    found = []
    for line in lines:
        if told := _LINE.match(line):
            at = datetime.strptime(told[1], "%Y-%m-%d %H:%M:%S,%f").astimezone()
            found.append(Milestone(round((at - began).total_seconds(), 3), told[2].strip()))
    return found


def phases(found: Iterable[Milestone]) -> list[Phase]:
    """The phases in order; one that the log does not tell of is left out and counts to the next."""
    ends = {name: next((each.at_s for each in found if each.text.startswith(start)), None) for start, name in PHASES}
    told, last = [], 0.0
    for name, at in ends.items():
        if at is not None:
            told.append(Phase(name, at, round(at - last, 3)))
            last = at
    return told
