"""Calls that share everything but their numbers, summed apart from the totals until something is stated.

A lane is one set of attributes within an interval of event time in which the hour, the period of every budget and the
price stay the same. So a call on a known lane is a handful of integer additions; its cell, and the counters that it
counts in, are looked up once a lane and brought up to date once a statement (``settle``) instead of once a call.
"""

from collections.abc import Sequence

from schemas.events import UsageEvent
from schemas.statements import CellStatement, ScopeStatement
from streams.core.batch_reading import Plan
from streams.core.rates import FlatTerms

#: A counter names this many contributors; the rest share one label.
CONTRIBUTORS_MAX = 24
OTHERS = "(others)"


class Lane:
    """The sums of a lane since it was last settled, and what they go to."""

    __slots__ = (
        "cached", "cell", "cost", "cost_histogram", "counters", "divisor", "end", "input", "is_hit", "late",
        "latency_histogram", "long_from", "offset", "output", "per_request", "rate_cached", "rate_in", "rate_out",
        "rate_written", "reported", "requests", "start", "written",
    )  # fmt: skip

    def __init__(
        self,
        start: int,
        end: int,
        cell: CellStatement,
        counters: Sequence[tuple[ScopeStatement, str]],
        terms: FlatTerms,
        is_hit: bool,
    ) -> None:
        self.start, self.end = start, end
        self.cell, self.counters = cell, tuple(counters)
        # Buckets are counted in place: whoever states the cell settles the rest first.
        self.cost_histogram = cell.totals.cost_histogram
        self.latency_histogram = cell.totals.latency_histogram
        rates = terms.rates
        self.long_from, self.divisor, self.per_request = terms.long_from, rates.divisor, rates.per_request
        self.rate_in, self.rate_out = rates.input, rates.output
        self.rate_cached, self.rate_written = rates.cache_read_more, rates.cache_creation_more
        self.is_hit = is_hit
        self._clear()

    def _clear(self) -> None:
        self.requests = self.input = self.output = self.cached = self.written = 0
        self.cost = self.reported = self.late = 0
        self.offset = -1

    def count_special(self, event: UsageEvent) -> None:
        """Reasoning and audio tokens, which few calls have."""
        totals = self.cell.totals
        totals.reasoning_output_tokens += event.reasoning_output_tokens
        totals.audio_tokens += event.audio_input_tokens + event.audio_output_tokens

    def settle(self, stream_time: int, arrived_at: int) -> None:
        """Carry the sums to the cell and the counters; lanes are of successful calls only."""
        cell, totals, calls, cost = self.cell, self.cell.totals, self.requests, self.cost
        totals.requests += calls
        totals.successes += calls
        if self.is_hit:
            totals.cache_hits += calls
        totals.input_tokens += self.input
        totals.output_tokens += self.output
        totals.cache_read_input_tokens += self.cached
        totals.cache_creation_input_tokens += self.written
        totals.cost_nanos += cost
        totals.reported_cost_nanos += self.reported
        totals.unverified_late += self.late
        cell.offset = max(cell.offset, self.offset)
        tokens = self.input + self.output
        for counter, label in self.counters:
            counter.offset = max(counter.offset, self.offset)
            counter.cost_nanos += cost
            counter.requests += calls
            counter.tokens += tokens
            counter.stream_time = stream_time
            counter.arrived_at = arrived_at
            if cost:
                contribute(counter.contributors, label, cost)
        self._clear()


def lane_at(plan: Plan, event_time: int) -> Lane | None:
    """The lane of a plan's call at a time, which becomes its present one; None where there is none yet."""
    for lane in plan.lanes:
        if lane.start <= event_time < lane.end:
            plan.lane = lane
            return lane  # type: ignore[no-any-return]
    return None


def contribute(contributors: dict[str, int], label: str, nanos: int) -> None:
    """Add to a contributor; those that come after the table is full share one label."""
    if label not in contributors and len(contributors) >= CONTRIBUTORS_MAX:
        label = OTHERS
    contributors[label] = contributors.get(label, 0) + nanos
