"""Publishes a recorded trace as usage events: as fast as the broker takes them, or paced in event time.

Ids come from the file's content and the row, so an interrupted replay can simply be run again within METER's
de-duplication window: what arrived is not counted twice.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from schemas.instants import SECOND, InstantError, format_instant, parse_instant
from streams.clock import Clock, WallClock, elapsed_s
from streams.ports import DeliveryError
from streams.sources.intake import usage_record
from streams.sources.publisher import Delivery, Record
from streams.sources.traces import Format, Row, TeamMap, TraceError, is_relative, read_team_map, read_trace

PROGRESS_EVERY_ROWS = 500
PACE_SLACK_S = 0.005
STALLED_S = 30.0


class ReplayError(Exception):
    """A replay that did not publish every row; the message says how far it came and what to do."""


class ReplaySummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay published. Times are the events' own, shifted as asked, microseconds since 1970."""

    rows: int
    published: int
    input_tokens: int
    output_tokens: int
    first_time: int
    last_time: int


class Progress(msgspec.Struct, frozen=True):
    """How far a replay has come."""

    rows: int
    rows_total: int
    tokens: int
    #: Event time of the last row sent.
    time: int


class Sender(Protocol):
    """Pipelined publishing (``streams.sources.publisher.UsagePublishing``)."""

    async def send(self, record: Record) -> Delivery:
        """Hand over one record; the future ends when it is acknowledged."""
        ...


class _Survey(msgspec.Struct):
    rows: int = 0
    first: int = 0
    last: int = 0


async def replay(
    path: Path,
    kind: Format,
    publisher: Sender,
    *,
    speed: float | None = None,
    at: str = "now",
    team_map: Path | None = None,
    clock: Clock | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ReplaySummary:
    """Read the whole trace once to check it, then publish it.

    Args:
        path: the trace; ``.gz`` is unpacked.
        speed: how many seconds of the trace pass in one; None or 0 publishes as fast as the broker takes it.
        at: when it happens: ``original`` keeps the trace's times, ``now`` lets its last row be published at
            its event time, an RFC 3339 instant is when it begins.
        team_map: YAML, see ``traces.TeamMap``.

    Raises:
        TraceError: the trace or the team map can't be read; nothing was published.
        ReplayError: the broker did not take every row.
        RetryableError: no broker answers.
    """
    teams = team_map_of(team_map)
    name = await asyncio.to_thread(_digest, path)
    survey = await asyncio.to_thread(_survey, path, kind, name, teams)
    pace = speed if speed and speed > 0 else None
    shift = _shift(at, kind, survey, pace, (clock or WallClock()).now())
    run = _Run(publisher, survey, shift, pace, on_progress)
    with _lines(path) as lines:
        for row in read_trace(kind, lines, name, teams):
            await run.take(row)
    return await run.finish()


def trace_rows(path: Path, kind: Format, team_map: TeamMap) -> Iterator[Row]:
    """The calls of a trace file, under the ids that a replay of it gives them.

    Raises:
        TraceError: the trace can't be read.
    """
    name = _digest(path)
    with _lines(path) as lines:
        yield from read_trace(kind, lines, name, team_map)


class _Run:
    """One pass over the rows: counts what is sent, and what the broker acknowledged."""

    def __init__(
        self,
        publisher: Sender,
        survey: _Survey,
        shift: int,
        pace: float | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._publisher = publisher
        self._survey = survey
        self._shift = shift
        self._pace = pace
        self._on_progress = on_progress
        self._began = elapsed_s()
        self._outstanding: set[Delivery] = set()
        self._error: BaseException | None = None
        self.sent = self.published = self.input_tokens = self.output_tokens = 0

    async def take(self, row: Row) -> None:
        """Publish one row when its time has come."""
        if self._pace is not None:
            due = self._began + (row.time - self._survey.first) / SECOND / self._pace
            if (early := due - elapsed_s()) > PACE_SLACK_S:
                await asyncio.sleep(early)
        time = row.time + self._shift
        record = usage_record(row.event, id=row.id, source=row.source, time=format_instant(time))
        try:
            delivery = await self._publisher.send(record)
        except DeliveryError as error:
            self._error = error
            self._check()
            raise
        self._outstanding.add(delivery)
        delivery.add_done_callback(self._delivered)
        self.sent += 1
        self.input_tokens += row.event.input_tokens
        self.output_tokens += row.event.output_tokens
        if self.sent % PROGRESS_EVERY_ROWS == 0:
            self._tell(time)
            # Handing over never waits while batches have room: let the producer and the terminal have a turn.
            await asyncio.sleep(0)
            self._check()

    async def finish(self) -> ReplaySummary:
        """Wait for the acknowledgements that are missing."""
        while self._outstanding:
            before = self.published
            await asyncio.wait(set(self._outstanding), timeout=STALLED_S)
            if self._outstanding and self.published == before and self._error is None:
                self._error = TimeoutError(f"no acknowledgement for {STALLED_S:g} s")
            self._check()
        self._check()
        last = self._survey.last + self._shift
        self._tell(last)
        return ReplaySummary(
            rows=self.sent,
            published=self.published,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            first_time=self._survey.first + self._shift,
            last_time=last,
        )

    def _delivered(self, delivery: Delivery) -> None:
        self._outstanding.discard(delivery)
        if delivery.cancelled():
            self._error = self._error or asyncio.CancelledError()
        elif (error := delivery.exception()) is not None:
            self._error = self._error or error
        else:
            self.published += 1

    def _check(self) -> None:
        if self._error is not None:
            raise ReplayError(
                f"the broker took {self.published} of {self._survey.rows} rows, then said {self._error!r}; "
                "run the same replay again, what arrived is not counted twice"
            ) from self._error

    def _tell(self, time: int) -> None:
        if self._on_progress is not None:
            tokens = self.input_tokens + self.output_tokens
            self._on_progress(Progress(self.sent, self._survey.rows, tokens, time))


def _shift(at: str, kind: Format, survey: _Survey, pace: float | None, now: int) -> int:
    if at == "original":
        if is_relative(kind):
            raise TraceError(f"{kind} says only seconds since its beginning: use --at now or --at an instant")
        return 0
    if at == "now":
        lasts = round((survey.last - survey.first) / pace) if pace else 0
        return now + lasts - survey.last
    try:
        return parse_instant(at) - survey.first
    except InstantError as error:
        raise TraceError(f"--at is original, now or an RFC 3339 instant: {error}") from error


def _survey(path: Path, kind: Format, name: str, teams: TeamMap) -> _Survey:
    """Count rows, find the first and last instant; a bad row is found before any is sent."""
    survey = _Survey()
    with _lines(path) as lines:
        for row in read_trace(kind, lines, name, teams):
            survey.first = min(survey.first, row.time) if survey.rows else row.time
            survey.last = max(survey.last, row.time) if survey.rows else row.time
            survey.rows += 1
    if survey.rows == 0:
        raise TraceError(f"{path} has no rows")
    return survey


@contextmanager
def _lines(path: Path) -> Iterator[Iterable[str]]:
    """The lines of a text file, unpacked if its name says so."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, EOFError) as error:
        raise TraceError(f"{path} can't be read: {error}") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path} is no UTF-8 text: {error}") from error


def _digest(path: Path) -> str:
    """Names the content, so that the same file gives the same ids wherever it lies."""
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
    except OSError as error:
        raise TraceError(f"{path} can't be read: {error.strerror or error}") from error
    return hasher.hexdigest()[:16]


def team_map_of(path: Path | None) -> TeamMap:
    """The team map of a file; that of nobody without one.

    Raises:
        TraceError: it can't be read.
    """
    if path is None:
        return TeamMap()
    try:
        return read_team_map(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"team map {path} can't be read: {error}") from error
