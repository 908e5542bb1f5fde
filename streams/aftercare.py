"""What follows alerts by time alone, as protocols: reviews that are opened, weeks that are told."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from schemas.alerts import Alert
from streams.core.notifying import Notification


class Unreviewed(NamedTuple):
    """An episode that was critical and has no review: the alert as it was at its worst, and when that was recorded."""

    alert: Alert
    recorded_at: int


class Reviews(Protocol):
    """Reviews of critical alerts."""

    async def unreviewed(self, since: int, limit: int) -> Sequence[Unreviewed]:
        """Episodes that were critical at some time after ``since`` (microseconds) and have no review."""
        ...

    async def open(self, reviews: Sequence[Any]) -> None:
        """Write reviews (``streams.core.alert_life.Review``); what is there stays as it is."""
        ...


class Weeks(Protocol):
    """What the ledger says of weeks, and which were told."""

    async def week(
        self, subject: str, name: str, bounds: tuple[int, int, int], month: tuple[int, int], now: int
    ) -> Mapping[str, Any]:
        """The rows of one subject's week, as ``streams.core.weekly.facts_of`` takes them."""
        ...

    async def teams(self, start: int, end: int) -> Sequence[str]:
        """Who spent anything between two instants."""
        ...

    async def owner(self, team: str) -> str:
        """The mail address of whoever owns the team's own budget; empty where none is known."""
        ...

    async def told(self, week: date) -> Collection[tuple[str, str]]:
        """Subjects and names whose report of a week was told already."""
        ...

    async def tell(
        self, subject: str, name: str, week: date, body: Mapping[str, Any], said: Sequence[Notification], now: int
    ) -> bool:
        """Keep a report and owe its messages, in one transaction; False where somebody else did before."""
        ...
