"""What all do with one event, with Sluice's own functions: decode, de-duplicate, price, find its counters.

The folding itself and the state are each contender's own. The order is METER's (``streams.core.meter``).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadtest.bench.window import DictWindow
from schemas.events import UsageEvent
from schemas.instants import HOUR, SECOND
from schemas.keys import cell_id
from schemas.statements import Dimensions, Totals
from streams.core import cells
from streams.core.budget_file import load_budgets
from streams.core.cells import Charge
from streams.core.charging import Charging
from streams.core.dedupe import identity
from streams.core.lanes import CONTRIBUTORS_MAX, OTHERS
from streams.core.matching import values_of_calls
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard
from streams.core.reading import Limits, Rejected, read
from streams.core.rules import Watched
from streams.core.scopes import ScopeWatchlist, watched_of

METERED = frozenset({"openai", "anthropic", "azure", "google", "aws", "mistral"})
IDS_MAX = 20_000_000


class Record(NamedTuple):
    """A record as ``streams.core.reading.read`` wants it, whichever client fetched it."""

    offset: int
    #: Milliseconds since 1970.
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Iterable[tuple[str, bytes]]


class Priced(NamedTuple):
    """An event that counts, with what it costs and where it counts."""

    event: UsageEvent
    charge: Charge
    late: bool
    #: Names the cell: dimensions and hour.
    cell: str
    tokens: int
    watched: Iterable[Watched]


class Counter(msgspec.Struct, array_like=True):
    """The cumulative counter of one scope and period."""

    cost_nanos: int = 0
    requests: int = 0
    tokens: int = 0
    contributors: dict[str, int] = {}


class Work:
    """The part of the work that is the same for all; one per process.

    Ids are kept in this process's memory, in dicts. METER rebuilds its window after a restart and
    a peer would not: a table of ids would cost it one more durable write an event, which is left out in its favour.
    """

    def __init__(self, budgets: Path) -> None:
        self._limits = Limits()
        self._charging = Charging(PriceBook(RateCard(), frozenset()), METERED)
        self._watchlist = ScopeWatchlist([watched_of(budget) for budget in load_budgets(budgets.read_text())])
        self._values = values_of_calls(self._watchlist.attributes)
        self._windows: dict[int, DictWindow] = {}
        self._stream_times: dict[int, int] = {}
        self._cells: dict[tuple[Dimensions, int], str] = {}
        self.rejected = 0
        self.duplicates = 0

    def price(self, record: Record, partition: int) -> Priced | None:
        """The event of a record; None for one that does not count (unreadable, or seen before)."""
        try:
            reading = read(record, self._limits)
            event = reading.event
            charge = self._charging.charge(event, reading.event_time)
        except Rejected:
            self.rejected += 1
            return None
        assert isinstance(event, UsageEvent)
        stream_time = self._advance(partition, min(reading.event_time, reading.arrived_at))
        window = self._windows.get(partition)
        if window is None:
            window = self._windows[partition] = DictWindow(3600 * SECOND, IDS_MAX)
        envelope = reading.envelope
        if not window.first_seen(identity(envelope.source, envelope.id), record.offset, stream_time):
            self.duplicates += 1
            return None
        dimensions = cells.usage_dimensions(event, envelope.subject, "")
        values = self._values(event)
        watched = self._watchlist.watched(dimensions, dimensions, values, reading.event_time)
        return Priced(
            event,
            charge,
            window.is_late(reading.event_time, stream_time),
            self._cell(dimensions, reading.event_time),
            event.input_tokens + event.output_tokens,
            watched,
        )

    def _advance(self, partition: int, believable: int) -> int:
        known = self._stream_times.get(partition, 0)
        if believable > known:
            self._stream_times[partition] = believable
            return believable
        return known

    def _cell(self, dimensions: Dimensions, event_time: int) -> str:
        key = (dimensions, event_time - event_time % HOUR)
        name = self._cells.get(key)
        if name is None:
            name = self._cells[key] = cell_id(*key)
        return name


def counter_name(watched: Watched) -> str:
    """Names a counter: its scope and the start of its period."""
    return f"{watched.scope}|{watched.period_start}"


def fold_cell(totals: Totals, priced: Priced) -> None:
    """Add an event to its cell."""
    cells.fold_usage(totals, priced.event, priced.charge, priced.late)


def fold_counter(counter: Counter, priced: Priced, watched: Watched) -> None:
    """Add an event to one of its counters, as METER does."""
    nanos = priced.charge.nanos
    counter.cost_nanos += nanos
    counter.requests += 1
    counter.tokens += priced.tokens
    if nanos:
        shares, label = counter.contributors, watched.label
        if label not in shares and len(shares) >= CONTRIBUTORS_MAX:
            label = OTHERS
        shares[label] = shares.get(label, 0) + nanos


#: State on its way to a contender's store and back; msgpack takes a third of JSON's time.
encode: Any = msgspec.msgpack.Encoder().encode
decode_totals: Any = msgspec.msgpack.Decoder(Totals).decode
decode_counter: Any = msgspec.msgpack.Decoder(Counter).decode
