"""What METER says: cumulative totals, never increments, each with what it includes (rules 1 and 2)."""

from operator import add
from typing import Literal

import msgspec

#: Upper bounds (exclusive) in nanodollars of the cost-per-request buckets; the last bucket is open.
COST_BOUNDS_NANOS: tuple[int, ...] = tuple(1_000 * 4**i for i in range(15))
#: Upper bounds (exclusive) in milliseconds of the latency buckets; the last bucket is open.
LATENCY_BOUNDS_MS: tuple[int, ...] = tuple(25 * 2**i for i in range(13))

Category = Literal["llm", "gpu", "storage", "vector", "transfer", "tooling"]


class Source(msgspec.Struct, frozen=True, array_like=True):
    """A source partition: topic, the configured epoch of that topic, partition number."""

    topic: str
    epoch: int
    partition: int

    def slot(self) -> str:
        """The name of this partition's slot in keys and rows."""
        return f"{self.topic}@{self.epoch}-{self.partition}"


class Dimensions(msgspec.Struct, frozen=True, array_like=True):
    """What a cell is a cell of, besides its hour."""

    org_id: str
    cost_center: str
    team_id: str
    project_id: str
    feature: str
    model: str
    provider: str
    environment: str
    request_type: str
    user_tier: str
    category: str


class Totals(msgspec.Struct, omit_defaults=True):
    """Cumulative totals of one cell. Every field adds; money is in nanodollars and may be negative (credits)."""

    requests: int = 0
    successes: int = 0
    errors: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0
    audio_tokens: int = 0
    gpu_milliseconds: int = 0
    cost_nanos: int = 0
    #: The gateway's own figure for the same calls: compared, never added.
    reported_cost_nanos: int = 0
    #: Billed for usage that is metered here already: reconciled, never added (rule 7).
    reconciled_cost_nanos: int = 0
    #: Part of ``cost_nanos`` that stands on the gateway's figure because no price was known.
    estimated_cost_nanos: int = 0
    unpriced_requests: int = 0
    unverified_late: int = 0
    cost_histogram: list[int] = msgspec.field(default_factory=lambda: [0] * (len(COST_BOUNDS_NANOS) + 1))
    latency_histogram: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))


class CellStatement(msgspec.Struct, kw_only=True):
    """The cumulative totals of one cell-hour segment, up to and including ``offset`` of ``source``."""

    v: int = 1
    cell_id: str
    #: Start of the UTC hour, microseconds since 1970.
    hour: int
    dimensions: Dimensions
    source: Source
    #: The first offset that this segment folded; part of its key.
    segment: int
    revision: int
    offset: int
    totals: Totals


class SpenderRow(msgspec.Struct, array_like=True):
    """What one key and user spent in a cell, up to and including ``offset``: cumulative, as the cell is."""

    key_id: str
    user_id: str
    #: The last offset that it holds.
    offset: int = -1
    cost_nanos: int = 0
    requests: int = 0


class SpenderStatement(msgspec.Struct, kw_only=True, tag="spenders"):
    """Some of the keys and users that spent a cell-hour segment's money. A later statement of the block replaces it.

    What the cell holds beyond all of its rows is nobody's by name: of calls beyond the bounds of ``spenders_max``, of
    GPUs and bills, and of releases that stated no spenders.
    """

    v: int = 1
    cell_id: str
    #: Start of the UTC hour, microseconds since 1970.
    hour: int
    source: Source
    #: The cell's segment.
    segment: int
    revision: int
    #: Rows of a segment are stated in blocks; each key and user is in one of them.
    block: int
    rows: list[SpenderRow]


class Watermark(msgspec.Struct, kw_only=True, tag="watermark"):
    """Written last in each flush: everything below ``next_offset`` of ``source`` is in what was stated before."""

    v: int = 1
    source: Source
    revision: int
    next_offset: int
    #: The largest believable event time seen, microseconds since 1970.
    stream_time: int
    #: Records of the partition that were dead-lettered, duplicates, or arrived unpriced, since its beginning.
    dead_letters: int = 0
    duplicates: int = 0


class ScopeStatement(msgspec.Struct, kw_only=True):
    """One cumulative counter of a budget's scope, for one period, from one source partition."""

    v: int = 1
    #: ``budget:<id>``; earlier releases counted ``team:<id>`` and ``feature:<id>`` as well.
    scope: str
    #: The period's bounds, microseconds since 1970.
    period_start: int
    period_end: int
    source: Source
    segment: int
    revision: int
    offset: int
    cost_nanos: int
    requests: int
    tokens: int
    #: Stream time of the source partition at this offset: how far event time has come.
    stream_time: int
    #: Broker time of the newest record folded, for measuring delay.
    arrived_at: int
    #: Largest contributors to this counter, ``{label: nanodollars}``; a hint for people, not money.
    contributors: dict[str, int] = {}
    #: From this instant on it counts everything, and before it perhaps not all, microseconds; left out where it holds
    #: the whole period.
    since: int | msgspec.UnsetType = msgspec.UNSET
    #: The part of ``cost_nanos`` that stands on gateways' own figures; left out where there is none.
    estimated_nanos: int | msgspec.UnsetType = msgspec.UNSET
    #: How long the calls in it took that were answered, added up; left out where nobody said.
    duration_ms: int | msgspec.UnsetType = msgspec.UNSET
    #: The squares of those times in hundredths of a second, each of ten minutes at most, added up: how far they differ.
    squared_cs: int | msgspec.UnsetType = msgspec.UNSET
    #: How many of ``requests`` failed or were refused; left out where none was.
    failures: int | msgspec.UnsetType = msgspec.UNSET


class Figures(msgspec.Struct, array_like=True, frozen=True):
    """Sums of an hour. Every field adds; money in nanodollars."""

    requests: int = 0
    errors: int = 0
    cache_hits: int = 0
    #: With those that were read from a prompt cache.
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    gpu_milliseconds: int = 0

    def numbers(self) -> tuple[int, ...]:
        """The fields in order."""
        return msgspec.structs.astuple(self)

    def plus(self, other: "Figures") -> "Figures":
        """The sum of both."""
        return Figures(*map(add, self.numbers(), other.numbers()))


class HourStatement(msgspec.Struct, kw_only=True, frozen=True):
    """What the cells of one partition of ``spend.cells`` add up to in one UTC hour of a detectors' scope, so far.

    Cumulative: a statement of a higher rank replaces it. An hour is the sum over all parts.
    """

    v: int = 1
    #: ``org:<id>``, ``team:<id>``, ``feature:<id>``, ``team_feature:<team>/<feature>`` (``%`` and ``/`` in names are
    #: percent-encoded) or ``model:<id>``.
    scope: str
    #: Start of the UTC hour, microseconds since 1970.
    hour: int
    #: The partition of ``spend.cells``.
    part: int
    #: Grows with every newer statement of a cell that is in it.
    rank: int
    #: How far each source slot that has cells in it had come in event time, microseconds since 1970: of this and all
    #: earlier hours of the scope, everything up to there is stated.
    reach: dict[str, int]
    #: Whether all sources of the partition had passed the hour by five minutes; said once more then.
    is_over: bool = False
    figures: Figures
    #: By model; the cheapest beyond so many are one. They add up to ``figures``.
    models: dict[str, Figures] = {}
    #: Nanodollars by kind (``org``, ``team``, ``feature``, ``key``) and name, the largest of each: a hint for people.
    by: dict[str, dict[str, int]] = {}


class CallerWindow(msgspec.Struct, kw_only=True, frozen=True):
    """What one caller did in a window so far, estimated from a sample of its calls."""

    kind: Literal["task", "session", "key"]
    id: str
    #: Start and end of the window in event time, microseconds since 1970.
    start: int
    end: int
    requests: int
    errors: int
    input_tokens: int
    cost_nanos: int


class GpuStanding(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How one GPU stands with its owner; of a GPU the largest revision holds."""

    gpu: str
    revision: int
    #: strict: no sample of the trailing hour reached the bar. low: its mean did not, but it works in bursts. Empty:
    #: neither, or it is not this owner's any more.
    kind: Literal["", "strict", "low"]
    #: Since when that is so, microseconds since 1970.
    since: int = 0
    mean_millionths: int = 0
    #: None where the rate card has no price for the model.
    nanos_per_hour: int | None = None
    #: What people know it by: the pod that holds it, else the GPU's own id.
    name: str = ""
    model: str = ""
    node: str = ""
    deployment: str = ""
    pool: str = ""


class Signal(msgspec.Struct, kw_only=True):
    """A single event that a per-event detector must see, or what a sample of events adds up to."""

    v: int = 1
    #: ``request_sample`` is an ordinary request that stands for ``times`` of them; ``busy_caller`` has a ``caller``.
    kind: Literal["runaway_request", "request_sample", "busy_caller", "gpu_standing"]
    scope: str
    event_id: str
    event_source: str
    event_time: int
    source: Source
    offset: int
    team_id: str
    feature: str
    model: str
    tokens: int
    cost_nanos: int
    key_id: str = ""
    session_id: str = ""
    times: int | msgspec.UnsetType = msgspec.UNSET
    caller: CallerWindow | msgspec.UnsetType = msgspec.UNSET
    #: Only of a ``gpu_standing``.
    gpu: GpuStanding | msgspec.UnsetType = msgspec.UNSET
