"""One budget in one period: what was stated of it, what it crossed, what it asks of gates and what they answered."""

from collections.abc import Iterable, Iterator

import msgspec

from schemas.alerts import Severity, Tier
from schemas.commands import Action, Measure, OnStale, ScopeType, Target
from schemas.instants import SECOND
from schemas.statements import ScopeStatement
from streams.core import slots as stated
from streams.core.budget_burn import (
    Calls,
    Samples,
    burn_per_hour,
    burn_per_second,
    calls_sampled,
    recent_burn_per_second,
    sampled,
    shifted,
    took_us,
)
from streams.core.budget_terms import FOREVER, Terms, value_of
from streams.core.slots import Slot, Spend

#: Measured no more: burn of a stream that has said nothing for so long.
STALE_BURN_US = 60 * SECOND
#: And shown no more.
BURN_SHOWN_US = 600 * SECOND


class Crossing(msgspec.Struct, array_like=True):
    """One rung: whether it is crossed now, in which episode, and as what it was told."""

    severity: Severity
    episode: int
    is_open: bool
    opened_at: int
    tier: Tier
    historic: bool


class Bucket(msgspec.Struct, array_like=True):
    """What the sources stated of one stretch of time: the period, or an hour or day of a rolling budget."""

    end: int
    slots: dict[str, Slot[Spend]]


class Hold(msgspec.Struct, array_like=True):
    """The measures of a rung that hold."""

    #: In flight, and until gates obey: with this much, spend reached the rung.
    reserve_nanos: int
    #: Whether what has a price is enough to reach it; estimates never block alone.
    is_sure: bool


class Answer(msgspec.Struct, array_like=True):
    """What one gateway acknowledged last of what this budget asks."""

    revision: int
    applied_at: int
    heard_at: int
    rejected: int


class BudgetState(msgspec.Struct, kw_only=True):
    """One budget in one period."""

    v: int = 3
    budget_id: str
    scope: str
    target: Target
    #: Of a rolling budget 0, and an end that never comes.
    period_start: int
    period_end: int
    #: By their start. Only rolling budgets have more than one.
    buckets: dict[int, Bucket] = {}
    crossings: dict[int, Crossing] = {}
    #: Forecast rungs by percent, and since when their forecast has stood above them.
    forecasts: dict[int, Crossing] = {}
    #: Other findings by their rule, such as ``enforcement_gap``.
    findings: dict[str, Crossing] = {}
    #: By the rung's percent.
    holds: dict[int, Hold] = {}
    #: What rolled over from the period before.
    carried_nanos: int = 0
    commanded: Action = "allow"
    #: What the command that stands asks for; empty where it allows.
    asked: tuple[Measure, ...] = ()
    #: Whether the command that stands is a dry run.
    dry_run: bool = False
    #: What else it says: what calls must have, which models it spares, and what gates do without renewal.
    match: tuple[tuple[ScopeType, str], ...] = ()
    exempt_models: tuple[str, ...] = ()
    on_stale: OnStale = "open"
    #: Whether any command was given.
    has_spoken: bool = False
    #: The revision of the last command; it starts above every earlier one of the same budget.
    revision: int = 0
    #: When the command that stands was given, and last renewed.
    issued_at: int = 0
    renewed_at: int = 0
    #: How old the newest money was when it was given: what METER and this stage took.
    lag_us: int = 0
    #: By gateway.
    answers: dict[str, Answer] = {}
    #: Spend when every live gateway had obeyed and calls before were over: what comes after is a gap. -1: not yet.
    obeyed_nanos: int = -1
    #: Spend over the rung that blocks while it was due, at its largest.
    overshoot_nanos: int = 0
    samples: Samples = []
    calls: Calls = []
    #: Calls a minute that each gateway may let go while the last of the money is spent slowly; 0: no such limit.
    glide_rpm: int = 0
    #: Calls a minute that a standing limit on money leaves each gateway; 0: it holds nothing back.
    paced_rpm: int = 0
    #: Grows with every statement taken in, and from one definition of a budget to the next.
    sequence: int = 0
    stream_time: int = 0

    @property
    def value(self) -> str:
        """The value of a ``per`` budget that this is for; empty for all others."""
        return value_of(self.scope)

    def slots(self) -> Iterator[Slot[Spend]]:
        """All slots of all buckets."""
        for bucket in self.buckets.values():
            yield from bucket.slots.values()

    @property
    def spent_nanos(self) -> int:
        """Spend over all source slots and buckets, without what the period opened with."""
        return stated.total(self.slots())

    @property
    def is_whole(self) -> bool:
        """Whether no slot is behind what was stated before: lowering needs the whole (rule 6)."""
        return all(slot.is_whole for slot in self.slots())

    def crossed_percent(self) -> int:
        """The highest rung that is open; 0 for none."""
        return max((percent for percent, crossing in self.crossings.items() if crossing.is_open), default=0)


class Standing(msgspec.Struct, frozen=True):
    """Where a budget stands at an instant; all amounts in nanodollars."""

    spent: int
    limit: int
    #: The part of what was spent that stands on gateways' own figures.
    estimated: int
    #: A second.
    burn: int
    #: The same of the last seconds alone.
    recent_burn: int
    #: How long calls take, microseconds: the 95th percentile.
    took_us: int
    #: The same at the mean.
    took_mean_us: int
    #: Calls that were answered.
    requests: int
    #: Whether the period, or the budget itself, is over or has not begun.
    is_over: bool
    is_historic: bool
    is_whole: bool

    @property
    def in_flight(self) -> int:
        """What the calls under way will cost."""
        return self.burn * self.took_us // SECOND

    def reaches(self, percent: int, reserve: int = 0) -> bool:
        """Whether spend with this reserve is at a rung or above it."""
        return (self.spent + reserve) * 100 >= percent * self.limit


def standing(state: BudgetState, terms: Terms, now: int, live_within_us: int) -> Standing:
    """Add up what was stated."""
    counted = list(_counted(state, terms, now))
    spent = terms.opening_nanos + sum(segment.cost_nanos for segment in counted)
    burn, recent = burn_of(state, now)
    took_mean, took = took_us(state.calls, *_answered(state))
    over = now >= ends_at(state, terms) or not terms.covers(now)
    return Standing(
        spent=spent,
        limit=terms.amount_nanos + (state.carried_nanos if terms.rollover else 0),
        estimated=sum(segment.estimated_nanos for segment in counted),
        burn=burn,
        recent_burn=recent,
        took_us=took,
        took_mean_us=took_mean,
        requests=sum(segment.requests for segment in counted),
        is_over=over,
        is_historic=over or now - state.stream_time > live_within_us,
        is_whole=state.is_whole,
    )


def _counted(state: BudgetState, terms: Terms, now: int) -> Iterator[Spend]:
    since = now - terms.window_us if terms.window_us else None
    for bucket in state.buckets.values():
        if since is None or bucket.end > since:
            for slot in bucket.slots.values():
                yield from slot.segments.values()


def burn_of(state: BudgetState, now: int) -> tuple[int, int]:
    """Nanodollars a second, and those of the last seconds alone; none where the stream was silent for a minute."""
    if now - state.stream_time > STALE_BURN_US or not state.samples:
        return 0, 0
    known = state.samples, state.stream_time, state.spent_nanos
    return burn_per_second(*known), recent_burn_per_second(*known)


def _answered(state: BudgetState) -> tuple[int, int, int]:
    """Calls, the milliseconds that they took, and their squares."""
    calls = ms = squared = 0
    for slot in state.slots():
        for spend in slot.segments.values():
            calls, ms, squared = calls + spend.requests, ms + spend.duration_ms, squared + spend.squared_cs
    return calls, ms, squared


def hourly_burn_of(state: BudgetState, now: int) -> int:
    """Nanodollars an hour over the last ten minutes; none where nothing was heard for so long."""
    if now - state.stream_time >= BURN_SHOWN_US or not state.samples:
        return 0
    return burn_per_hour(state.samples, state.stream_time, state.spent_nanos)


def ends_at(state: BudgetState, terms: Terms) -> int:
    """When the period is over: its end, or the budget's own if that is earlier."""
    ends = FOREVER if is_endless(terms) else state.period_end
    return min(ends, terms.ends or FOREVER, FOREVER)


def state_key(scope: str, period_start: int) -> str:
    """The table key of one budget, as it is defined, in one period."""
    return f"{scope}|{period_start}"


def key_of(terms: Terms, statement: ScopeStatement) -> str:
    """The state that a statement belongs to: all buckets of a rolling budget are one, and a total has one period."""
    return state_key(statement.scope, 0 if is_endless(terms) else statement.period_start)


def is_endless(terms: Terms) -> bool:
    """Whether the budget never begins anew."""
    return terms.period in ("rolling", "total")


def first_revision(period_start: int) -> int:
    """Where the revisions of a period begin: above those of the periods before it."""
    return period_start // SECOND * 1_000


def opened(terms: Terms, scope: str, period_start: int, period_end: int, above: int = 0) -> BudgetState:
    """A budget of which nothing was stated yet.

    ``above`` is the highest revision that this budget ever gave, in any period and definition: a gate ignores what is
    not above it.
    """
    return BudgetState(
        budget_id=terms.budget_id,
        scope=scope,
        target=terms.target,
        revision=max(above, first_revision(max(period_start, terms.defined_at))),
        period_start=period_start,
        period_end=period_end,
    )


def take_in(state: BudgetState | None, terms: Terms, statement: ScopeStatement, above: int = 0) -> BudgetState:
    """The state with this statement's slot replaced, if the statement is newer than what the slot holds."""
    if state is None:
        start, end = (0, FOREVER) if is_endless(terms) else (statement.period_start, statement.period_end)
        state = opened(terms, statement.scope, start, end, above)
    bucket = state.buckets.get(statement.period_start)
    if bucket is None:
        bucket = state.buckets[statement.period_start] = Bucket(statement.period_end, {})
    known = bucket.slots.get(statement.source.slot())
    is_first = known is None or statement.segment not in known.segments
    before = state.spent_nanos
    if stated.take_in(bucket.slots, statement):
        state.sequence = max(state.sequence + 1, stated.offsets(state.slots()))
        state.stream_time = max(state.stream_time, statement.stream_time)
        after = state.spent_nanos
        if is_first:
            state.samples = shifted(state.samples, after - before)
            state.calls = []
        state.samples = sampled(state.samples, state.stream_time, after)
        state.calls = calls_sampled(state.calls, state.stream_time, *_answered(state))
    return state


def pruned(state: BudgetState, terms: Terms, now: int, keep_us: int) -> bool:
    """Forget buckets that a rolling budget has long left behind; whether any was."""
    gone = [start for start, bucket in state.buckets.items() if bucket.end + terms.window_us + keep_us < now]
    if not terms.window_us or not gone:
        return False
    before = state.spent_nanos
    for start in gone:
        del state.buckets[start]
    state.calls = []
    state.samples = shifted(state.samples, state.spent_nanos - before)
    return True


def carried_from(state: BudgetState, terms: Terms, siblings: Iterable[BudgetState], now: int) -> int | None:
    """What the period before left unspent, at most one amount; None where no earlier period is known.

    A whole period in which nothing was spent leaves a whole amount.
    """
    earlier = [
        other
        for other in siblings
        if other.scope == state.scope and other.period_end <= state.period_start and other is not state
    ]
    if not earlier:
        return None
    last = max(earlier, key=lambda other: other.period_start)
    if last.period_end < state.period_start:
        return terms.defined_nanos
    left = terms.defined_nanos + last.carried_nanos - last.spent_nanos
    return max(0, min(left, terms.defined_nanos))
