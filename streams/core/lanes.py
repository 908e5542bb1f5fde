"""Calls that share everything but their numbers, summed apart from the totals until something is stated.

A lane is one set of attributes within an interval of event time in which the hour, the period of every budget and the
price stay the same. So a call on a known lane is a handful of integer additions; its cell, and the counters that it
counts in, are looked up once a lane and brought up to date once a statement (``settle``) instead of once a call.
"""

from collections.abc import Mapping, Sequence

from schemas.events import UsageEvent
from schemas.statements import CellStatement, ScopeStatement
from streams.core.batch_reading import Plan, Row
from streams.core.cells import Charge, reported_nanos
from streams.core.rates import FlatTerms
from streams.core.spenders import NOWHERE, Who

#: A counter names this many contributors; the rest share one label.
CONTRIBUTORS_MAX = 24
OTHERS = "(others)"
#: Longer calls count as so long where it is asked how far they differ: sums of squares stay small.
LONG_MS = 600_000


class Lane:
    """The sums of a lane since it was last settled, and what they go to."""

    __slots__ = (
        "by_id", "cached", "cell", "cost", "cost_histogram", "counters", "divisor", "duration", "end", "input",
        "is_hit", "is_plain", "is_success", "late", "latency_histogram", "long_from", "number", "offset", "output",
        "per_request", "rate_cached", "rate_in", "rate_out", "rate_written", "reported", "requests", "squared",
        "start", "written",
    )  # fmt: skip

    def __init__(
        self,
        start: int,
        end: int,
        cell: CellStatement,
        counters: Sequence[tuple[ScopeStatement, str]],
        terms: FlatTerms,
        event: UsageEvent,
        number: int,
    ) -> None:
        self.start, self.end = start, end
        self.cell, self.counters = cell, tuple(counters)
        self.by_id = {id(counter): counter for counter, _ in counters}
        # Buckets are counted in place: whoever states the cell settles the rest first.
        self.cost_histogram = cell.totals.cost_histogram
        self.latency_histogram = cell.totals.latency_histogram
        #: The cell's, for its spenders.
        self.number = number
        rates = terms.rates
        self.long_from, self.divisor, self.per_request = terms.long_from, rates.divisor, rates.per_request
        self.rate_in, self.rate_out = rates.input, rates.output
        #: Whether reasoning and audio tokens cost what all tokens do.
        self.is_plain = rates.is_plain
        self.rate_cached, self.rate_written = rates.cache_read_more, rates.cache_creation_more
        self.is_success, self.is_hit = event.status == "success", event.cache_hit
        self._clear()

    def _clear(self) -> None:
        self.requests = self.input = self.output = self.cached = self.written = 0
        self.cost = self.reported = self.late = self.duration = self.squared = 0
        self.offset = -1

    def count_special(self, reasoning_tokens: int, audio_tokens: int) -> None:
        """What few calls have is added to the cell at once."""
        self.cell.totals.reasoning_output_tokens += reasoning_tokens
        self.cell.totals.audio_tokens += audio_tokens

    def settle(self) -> None:
        """Carry the sums to the cell and the counters."""
        cell, totals, calls, cost = self.cell, self.cell.totals, self.requests, self.cost
        totals.requests += calls
        if self.is_success:
            totals.successes += calls
        else:
            totals.errors += calls
        if self.is_hit:
            totals.cache_hits += calls
        totals.input_tokens += self.input
        totals.output_tokens += self.output
        totals.cost_nanos += cost
        if self.cached or self.written:
            totals.cache_read_input_tokens += self.cached
            totals.cache_creation_input_tokens += self.written
        if self.reported:
            totals.reported_cost_nanos += self.reported
        if self.late:
            totals.unverified_late += self.late
        offset, tokens = self.offset, self.input + self.output
        if offset > cell.offset:
            cell.offset = offset
        for counter, label in self.counters:
            if offset > counter.offset:
                counter.offset = offset
            counter.cost_nanos += cost
            counter.requests += calls
            counter.tokens += tokens
            if not self.is_success:
                counter.failures = (counter.failures or 0) + calls
            elif self.duration:
                add_besides(counter, self.duration, self.squared, 0)
            shares = counter.contributors
            if label in shares:
                shares[label] += cost
            elif cost:
                contribute(shares, label, cost)
        self._clear()


#: A call on its way into a lane: digest, lane, offset, arrival, event time, input, output, cached and written tokens,
#: the gateway's own figure, duration, reasoning and audio tokens, the row of its spender or where there is none the
#: spender. Without a lane only the row at the end counts.
Call = tuple[
    bytes, Lane | None, int, int, int, int, int, int, int, int, int | None, tuple[int, int] | None, int | Who,
    Row | None,
]  # fmt: skip


def calls_of(
    rows: Sequence[Row], sure_from: int, runaway_tokens: int, spenders: Mapping[int, int] | None
) -> list[Call]:
    """What the fold needs of rows: numbers, where the lane is known, so that the texts need not be kept.

    ``spenders`` has the rows of those who spend, by their hash; None where they are not told apart.
    """
    calls: list[Call] = []
    for row in rows:
        record, digest, plan, event, event_time = row
        offset = record.offset
        if plan is not None and offset >= sure_from:
            lane = plan.lane
            if lane is None or not lane.start <= event_time < lane.end:
                lane = lane_at(plan, event_time)
            paid_in, paid_out = event.input_tokens, event.output_tokens
            if lane is not None and paid_in <= lane.long_from and paid_in + paid_out <= runaway_tokens:
                special = None
                if event.reasoning_output_tokens or event.audio_input_tokens or event.audio_output_tokens:
                    special = event.reasoning_output_tokens, event.audio_input_tokens + event.audio_output_tokens
                if special is None or lane.is_plain:
                    reported = 0 if event.reported_cost is None else reported_nanos(event)
                    spender: int | Who = NOWHERE
                    if spenders is not None:
                        who = lane.number, event.key_id, event.user_id
                        spender = spenders.get(hash(who)) or who
                    calls.append((
                        digest, lane, offset, record.timestamp * 1_000, event_time, paid_in, paid_out,
                        event.cache_read_input_tokens, event.cache_creation_input_tokens, reported,
                        event.duration_ms, special, spender, None,
                    ))  # fmt: skip
                    continue
        calls.append((digest, None, offset, 0, event_time, 0, 0, 0, 0, 0, None, None, NOWHERE, row))
    return calls


def lane_at(plan: Plan, event_time: int) -> Lane | None:
    """The lane of a plan at an instant; None where it has none (yet)."""
    for lane in plan.lanes:
        if lane.start <= event_time < lane.end:
            plan.lane = lane
            return lane  # type: ignore[no-any-return]
    return None


def squared_cs(duration_ms: int) -> int:
    """The square of a time in hundredths of a second; of what is longer than ten minutes, of ten minutes.

    >>> squared_cs(200), squared_cs(10**9)
    (400, 3600000000)
    """
    shown = duration_ms if duration_ms < LONG_MS else LONG_MS
    return shown * shown // 100


def add_besides(counter: ScopeStatement, duration_ms: int, squares: int, estimated_nanos: int) -> None:
    """Add to what a counter leaves out where there is none of it."""
    if duration_ms:
        counter.duration_ms = (counter.duration_ms or 0) + duration_ms
        counter.squared_cs = (counter.squared_cs or 0) + squares
    if estimated_nanos:
        counter.estimated_nanos = (counter.estimated_nanos or 0) + estimated_nanos


def count_one(counter: ScopeStatement, charge: Charge, tokens: int, duration_ms: int, failed: bool, label: str) -> None:
    """Add one event to a scope's total."""
    counter.cost_nanos += charge.nanos
    counter.requests += 1
    counter.tokens += tokens
    add_besides(counter, duration_ms, squared_cs(duration_ms), charge.nanos if charge.estimated else 0)
    if failed:
        counter.failures = (counter.failures or 0) + 1
    if charge.nanos:
        contribute(counter.contributors, label, charge.nanos)


def contribute(contributors: dict[str, int], label: str, nanos: int) -> None:
    """Add to a contributor; those that come after the table is full share one label."""
    if label not in contributors and len(contributors) >= CONTRIBUTORS_MAX:
        label = OTHERS
    contributors[label] = contributors.get(label, 0) + nanos
