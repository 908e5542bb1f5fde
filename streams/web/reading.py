"""Who may read what, and which span of time a request is about.

The rule: while the API listens on a loopback address and ``api_open_reads`` is true, a request that calls it by a
loopback name needs no key (another name on a loopback socket is a proxy or DNS rebinding). Every other read needs
a key of scope ``read``. A key that is bound to a team reads that team only. Writes always need a key.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Literal, NamedTuple, Protocol

import asyncpg
from fastapi import Depends, HTTPException, Request

from schemas.instants import DAY, HOUR, InstantError, hour_of, parse_instant, to_datetime, to_micros
from streams.clock import Clock
from streams.settings import Settings
from streams.settings_checks import is_loopback
from streams.sources.access import Keys, require_scope
from streams.web import queries

Period = Literal["hour", "today", "7d", "30d", "all"]
_BEGINNING = 0
_END = to_micros(datetime(9999, 1, 1, tzinfo=UTC))


class Reader(NamedTuple):
    """A caller that may read; ``team`` is the only team it may see, empty where it sees all."""

    team: str

    def sees_all(self) -> None:
        """Go on for a reader of everything.

        Raises:
            HTTPException: 403, the key is bound to one team.
        """
        if self.team:
            raise HTTPException(403, f"this key reads team {self.team!r} only; use a key that is not bound to a team")


class Surroundings(Protocol):
    """What ``create_api`` puts into ``app.state``."""

    settings: Settings
    pool: asyncpg.Pool
    keys: Keys
    clock: Clock


def surroundings(request: Request) -> Surroundings:
    """The application's parts."""
    state: Surroundings = request.app.state
    return state


async def reader(request: Request, parts: Annotated[Surroundings, Depends(surroundings)]) -> Reader:
    """The caller, if it may read.

    Raises:
        HTTPException: 401, 403 or 503 as ``require_scope`` says.
    """
    settings = parts.settings
    called_as = request.url.hostname or ""
    if settings.api_open_reads and settings.listens_on_loopback() and is_loopback(called_as):
        return Reader("")
    return Reader((await require_scope(request, parts.keys, "read")).team_id)


Reading = Annotated[Reader, Depends(reader)]
Parts = Annotated[Surroundings, Depends(surroundings)]


async def present(parts: Surroundings) -> int:
    """The instant that relative spans count from: the wall's, or the stream's where ``clock=stream``."""
    if parts.settings.clock == "stream":
        newest = await queries.newest_stream_time(parts.pool)
        if newest is not None:
            return newest
    return parts.clock.now()


class Span(NamedTuple):
    """Whole UTC hours, ``start`` included, ``end`` not; microseconds since 1970."""

    start: int
    end: int

    def bounds(self) -> tuple[datetime, datetime]:
        """As PostgreSQL parameters."""
        return to_datetime(self.start), to_datetime(self.end)


def span_of(start: str | None, end: str | None, period: Period, now: int) -> Span:
    """The span that ``from``, ``to`` or else ``period`` names, widened to whole hours.

    >>> from schemas.instants import format_instant
    >>> [format_instant(i) for i in span_of("2026-11-20", "2026-11-20T10:30:00Z", "today", 0)]
    ['2026-11-20T00:00:00Z', '2026-11-20T11:00:00Z']

    Raises:
        ValueError: a bound is no date or instant, or the end is not after the start.
    """
    if start is None and end is None:
        return _period(period, now)
    first = hour_of(_instant(start, "from")) if start is not None else _BEGINNING
    last = -hour_of(-_instant(end, "to")) if end is not None else _END
    if last <= first:
        raise ValueError("`to` must be after `from`")
    return Span(first, last)


def _period(period: Period, now: int) -> Span:
    hour, today = hour_of(now), now - now % DAY
    spans = {
        "hour": Span(hour, hour + HOUR),
        "today": Span(today, today + DAY),
        "7d": Span(today - 6 * DAY, today + DAY),
        "30d": Span(today - 29 * DAY, today + DAY),
        "all": Span(_BEGINNING, _END),
    }
    return spans[period]


def _instant(text: str, name: str) -> int:
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            instant = to_micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
        else:
            # A plus sign that nobody percent-encoded arrives as a space.
            instant = parse_instant(text.replace(" ", "+"))
    except (InstantError, ValueError, OverflowError) as error:
        example = "2026-11-21 or 2026-11-21T09:00:00Z"
        raise ValueError(f"`{name}` is not a date or an instant with an offset, such as {example}") from error
    if not _BEGINNING <= instant < _END - DAY:
        raise ValueError(f"`{name}` lies outside the years 1970 to 9998")
    return instant
