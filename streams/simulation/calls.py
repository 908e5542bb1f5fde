"""Recorded usage, in the order in which it happened: from a trace file or from the usage topics."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from schemas.cloudevents import Headers
from schemas.events import BillingRecord
from schemas.instants import format_instant
from streams.core.reading import Limits, Record, Rejected, Usage, read
from streams.sources.intake import usage_record
from streams.sources.replay import trace_rows
from streams.sources.traces import Format, TeamMap, TraceError, is_relative

#: So many are sorted in memory at once; some 1 KB each.
CALLS_MAX = 2_000_000


class SimulationError(Exception):
    """What was asked for cannot be simulated; the message says what to do."""


class Call(NamedTuple):
    """One call, GPU window or bill line, with the record that says it."""

    #: When it is known: a call when it happens, a bill line when it arrived. Microseconds since 1970.
    at: int
    source: str
    id: str
    event: Usage
    value: bytes
    headers: Headers
    key: bytes | None


def from_trace(path: Path, kind: Format, teams: TeamMap, since: int | None, until: int | None) -> list[Call]:
    """The calls of a trace between two instants, at the trace's own times; one that has none begins at ``since``.

    Raises:
        TraceError: the trace can't be read.
        SimulationError: it does not say when it was, or has too many calls.
    """
    if is_relative(kind) and since is None:
        raise SimulationError(f"{kind} says only seconds since its beginning: say with --from when that was")
    shift = since if is_relative(kind) and since is not None else 0

    def found() -> Iterator[Call]:
        for row in trace_rows(path, kind, teams):
            at = row.time + shift
            record = usage_record(row.event, id=row.id, source=row.source, time=format_instant(at))
            yield Call(at, row.source, row.id, row.event, record.value, record.headers, record.key)

    return in_order(found(), since, until)


def of_record(record: Record, limits: Limits) -> Call | None:
    """A record of a usage topic; None for what METER would refuse."""
    try:
        found = read(record, limits)
    except Rejected:
        return None
    at = record.timestamp * 1_000 if isinstance(found.event, BillingRecord) else found.event_time
    envelope = found.envelope
    return Call(at, envelope.source, envelope.id, found.event, record.value or b"", record.headers, record.key)


def in_order(calls: Iterable[Call], since: int | None, until: int | None) -> list[Call]:
    """Those between the two instants, each once, in an order that does not depend on how they came.

    Raises:
        SimulationError: too many.
    """
    seen: set[tuple[str, str]] = set()
    kept = []
    for call in calls:
        if (since is not None and call.at < since) or (until is not None and call.at >= until):
            continue
        if (call.source, call.id) in seen:
            continue
        seen.add((call.source, call.id))
        kept.append(call)
        if len(kept) > CALLS_MAX:
            raise SimulationError(f"more than {CALLS_MAX:,} events: narrow it down with --from and --to")
    kept.sort(key=lambda call: (call.at, call.source, call.id))
    return kept


__all__ = ["CALLS_MAX", "Call", "SimulationError", "TraceError", "from_trace", "in_order", "of_record"]
