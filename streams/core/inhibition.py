"""Alerts that silence others: which do, whom, and until when."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from schemas.alerts import Alert
from streams.core.routes import Inhibition, Routes

#: A source that has ended silences for so long: what ends with it (a period) ends a moment later, and must not speak.
LINGER_US = 15_000_000


class Source(msgspec.Struct, frozen=True):
    """An alert that may silence others: one that fires, or has ended lately."""

    alert: Alert
    #: When its end was recorded, in microseconds; None: it fires.
    ended_at: int | None = None


class Inhibited(NamedTuple):
    """By which rule and alert something is silenced, and when that has to be asked again (None: by no timer)."""

    rule: Inhibition
    by: str
    until: int | None


def may_inhibit(alert: Alert, routes: Routes) -> bool:
    """Whether an alert is a source of any rule: only those need to be loaded for ``Inhibitors``."""
    raise NotImplementedError


class Inhibitors:
    """The sources, found by what they share with their targets."""

    def __init__(self, routes: Routes, sources: Iterable[Source]) -> None:
        """Index the sources: the firing ones, and of ended ones those that ended since the oldest ``Member.since``
        of the groups to be flushed or within ``LINGER_US``."""
        raise NotImplementedError

    def of(self, alert: Alert, since: int, now: int) -> tuple[Inhibited, ...]:
        """What silences an alert whose episode began at ``since``."""
        raise NotImplementedError


def is_explained(target: Alert, source: Alert) -> bool:
    """Whether the excess of an organisation explains a team's: then one alert says both."""
    raise NotImplementedError
