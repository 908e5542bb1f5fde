"""What METER's fold is told: limits, prices, what is watched; and what it leaves besides its totals."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.instants import HOUR
from schemas.statements import CellStatement, Dimensions, ScopeStatement, Source, SpenderStatement
from schemas.versions import Versioned
from streams.core import cells
from streams.core.cells import Charge
from streams.core.dedupe import Mark
from streams.core.rates import FlatTerms
from streams.core.reading import Limits, Reason

#: What is kept of a partition, and stated.
Total = CellStatement | ScopeStatement
#: What is stated.
Statement = Total | SpenderStatement


class Watched(NamedTuple):
    """One scope that an event counts in, with the period that the event falls into."""

    scope: str
    period_start: int
    period_end: int
    #: What the counter is broken down by, for people.
    label: str


def new_counter(watched: Watched, source: Source, segment: int, revision: int, since: int = 0) -> ScopeStatement:
    """A counter without anything in it, whose segment begins at this offset."""
    return ScopeStatement(
        scope=watched.scope,
        period_start=watched.period_start,
        period_end=watched.period_end,
        source=source,
        segment=segment,
        revision=revision,
        offset=-1,
        cost_nanos=0,
        requests=0,
        tokens=0,
        stream_time=0,
        arrived_at=0,
        contributors={},
        since=since or msgspec.UNSET,
    )


def is_of_one_value(scope: str) -> bool:
    """Whether a scope is one of very many, each of a session, key or other value: ``budget:<id>@<definition>#<value>``.

    >>> is_of_one_value("budget:agents@0a1b#s-7"), is_of_one_value("budget:search@0a1b"), is_of_one_value("team:a#b")
    (True, False, False)
    """
    return "#" in scope and scope.startswith("budget:")


class Watchlist(Protocol):
    """Which scopes an event counts in."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """What is watched and no cell has, such as ``key`` or ``tag:customer``."""
        ...

    def watched(
        self, dimensions: Dimensions, shown: Dimensions, values: tuple[str, ...], event_time: int
    ) -> Sequence[Watched]:
        """The scopes of one event, by what it is or by the cell that it is shown under.

        ``values`` are those of ``attributes``.
        """
        ...

    def steady(self, dimensions: Dimensions, values: tuple[str, ...], event_time: int) -> tuple[int, int]:
        """From when to when no more and no fewer scopes are watched for such an event."""
        ...


class Pricing(Protocol):
    """What an event costs."""

    def charge(self, event: Any, event_time: int) -> Charge:
        """The charge of one event.

        Raises:
            Rejected: the event cannot be priced, such as a bill in an unknown currency.
        """
        ...

    def flat(self, event: UsageEvent, event_time: int) -> FlatTerms | None:
        """The rates of every call with the attributes of this one, and for how long; None: ``charge`` each of them."""
        ...

    def bill_category(self, bill: BillingRecord) -> str:
        """The category that a bill line's money belongs to."""
        ...


class Rules(NamedTuple):
    """What folding depends on besides the records."""

    limits: Limits
    pricing: Pricing
    watchlist: Watchlist
    org_id: str = ""
    runaway_tokens: int = 50_000
    dedupe_window_us: int = HOUR
    dedupe_ids_max: int = 20_000_000
    cells_idle_us: int = 2 * HOUR
    #: Stream time without an event after which the counter of a session, key or other single value leaves memory.
    counters_idle_us: int = 24 * HOUR
    #: Live cells of one source partition, and of one team in it; what comes beyond is kept under ``__other__``.
    cells_max: int = 200_000
    team_cells_max: int = 20_000
    #: Keys with users that live cells tell apart, of one source partition and of one team in it.
    spenders_max: int = 100_000
    team_spenders_max: int = 20_000

    def dimensions_of(self, event: GpuSample | BillingRecord) -> Dimensions:
        """The cell of what is no call."""
        return cells.own_dimensions(event, self.pricing.bill_category, self.org_id)


class DeadLetter(NamedTuple):
    """A record that was not counted, and why."""

    record: Any
    reason: Reason
    detail: str


class Checkpoint(msgspec.Struct, kw_only=True):
    """A watermark as METER keeps it: what a successor needs besides cells and counters."""

    v: int = 2
    source: Source
    revision: int
    next_offset: int
    stream_time: int
    arrived_at: int
    marks: tuple[Mark, ...]
    #: Offsets within the window whose records had no price: they are not seen.
    refused: tuple[int, ...] = ()
    dead_letters: int
    duplicates: int
    #: Every cell that ever left memory ended below this offset; 0: none did. Earlier releases do not say.
    evicted_until: int | msgspec.UnsetType = msgspec.UNSET


def evicted_until(checkpoint: Checkpoint | None) -> int:
    """Below which offset every cell ended that ever left memory; below 0: not known."""
    if checkpoint is None:
        return 0
    return -1 if checkpoint.evicted_until is msgspec.UNSET else checkpoint.evicted_until


def _of_v1(value: bytes) -> Checkpoint:
    """Version 1 had marks without a length, which reads as the ten minutes that it was."""
    found = msgspec.json.decode(value, type=Checkpoint)
    found.v = 2
    return found


#: Reads every version of a checkpoint that this release knows.
CHECKPOINTS = Versioned("METER's watermark", Checkpoint, {1: _of_v1})
