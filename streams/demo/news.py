"""What happened, one line each, each once: alerts, pages, messages and commands as they come. Pure."""

from typing import NamedTuple

from schemas.instants import DAY, HOUR, MINUTE
from streams.demo.scenario import Calendar
from streams.demo.verdict import Finding, Order, Page

_DOES = {
    "allow": "lets go of", "rate_limit": "slows down", "downgrade": "takes cheaper models for",
    "block": "blocks",
}  # fmt: skip


class Line(NamedTuple):
    """One line of news; ``kind`` is what it is about."""

    at: int
    #: ``alert``, ``page``, ``resolved``, ``throttle`` or ``release``.
    kind: str
    text: str


def local_time(calendar: Calendar, at: int) -> str:
    """The played day's own time of day.

    >>> calendar = Calendar(history=0, day=7 * DAY, midnight=8 * DAY, end=8 * DAY + 2 * HOUR, zone="Etc/UTC")
    >>> local_time(calendar, 7 * DAY + 9 * HOUR + 5 * MINUTE), local_time(calendar, 8 * DAY), local_time(calendar, 0)
    ('09:05', '00:00 +1d', '00:00 -7d')
    """
    days, rest = divmod(at - calendar.day, DAY)
    text = f"{rest // HOUR:02d}:{rest % HOUR // MINUTE:02d}"
    return f"{text} {days:+d}d" if days else text


class News:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._told: set[tuple[str, ...]] = set()
        self.lines: list[Line] = []

    def take(self, findings: list[Finding], pages: list[Page], orders: list[Order]) -> list[Line]:
        """The lines that are new."""
        fresh = []
        for finding in findings:
            fresh += self._once(("alert", finding.dedup_key), Line(finding.opened_at, "alert", finding.summary))
            if finding.resolved_at is not None and finding.tier != "note":
                line = Line(finding.resolved_at, "resolved", finding.summary)
                fresh += self._once(("resolved", finding.dedup_key), line)
        for page in pages:
            key = ("page", page.dedup_key, str(page.opened_at))
            fresh += self._once(key, Line(page.opened_at, "page", page.summary))
        for order in orders:
            kind = "release" if order.action == "allow" else "throttle"
            text = f"gateway {_DOES.get(order.action, 'throttles')} what {order.budget_id} pays for"
            fresh += self._once((kind, order.budget_id, str(order.at)), Line(order.at, kind, text))
        fresh.sort()
        self.lines += fresh
        return fresh

    def _once(self, key: tuple[str, ...], line: Line) -> list[Line]:
        if key in self._told:
            return []
        self._told.add(key)
        return [line]
