"""What the API answers. Amounts are exact decimal strings of US dollars; instants are RFC 3339 in UTC."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Amounts(BaseModel):
    """Sums over one group of calls, or over all of them."""

    currency: Literal["USD"] = "USD"
    cost: str = Field(description="What it cost: the only figure that counts as spend.")
    estimated_cost: str = Field(description="Part of cost that stands on the gateway's figure; no price is known.")
    reported_cost: str = Field(description="The gateway's own figure for the same calls: compared, never added.")
    reconciled_cost: str = Field(description="Billed for usage that is metered here already: never added.")
    requests: int
    successes: int
    errors: int
    cache_hits: int
    tokens: int = Field(description="Input and output tokens; the cached and the reasoning ones are among them.")
    input_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    output_tokens: int
    reasoning_output_tokens: int
    audio_tokens: int
    gpu_milliseconds: int
    unpriced_requests: int = Field(description="Requests without a price: their cost is not in cost.")
    unverified_late: int = Field(description="Counted, but too late to be certain that they are no duplicates.")


class SpendRow(Amounts):
    """One group; the names it was grouped by are members too, as strings."""

    model_config = ConfigDict(extra="allow")


class Spend(BaseModel):
    """Spend of whole UTC hours, ``from`` included and ``to`` not."""

    model_config = ConfigDict(populate_by_name=True)

    start: str = Field(serialization_alias="from")
    end: str = Field(serialization_alias="to")
    group_by: list[str]
    total: Amounts = Field(description="Of everything that matches, also of groups that `limit` cut off.")
    rows: list[SpendRow]
    truncated: bool = Field(description="True where there are more groups than `limit`.")


class OverrideNow(BaseModel):
    """More money for a budget, or no throttling, until a time."""

    id: str
    value: str = Field(description="Of a `per` budget the one that it is for; empty: all of it.")
    extra: str = Field(description="Added to the amount while it holds.")
    lifts: bool = Field(description="True: measures are lifted altogether while it holds.")
    starts: str
    until: str
    live: bool
    by: str
    reason: str


class PastError(BaseModel):
    """How wrong a method was at this point of earlier periods."""

    statements: int = Field(description="Of how many statements that is; 0: no history yet, and the rest is null.")
    mean_percent: str | None = Field(description="How far it was off, on average, in percent of what came.")
    bias_percent: str | None = Field(description="By how much it said too much (negative: too little), on average.")


class Estimate(BaseModel):
    """What one method says: an estimate, no amount that anybody owes."""

    method: str = Field(description="`run_rate`, `plain` or `seasonal`; docs/budgets.md has the formulas.")
    is_best: bool = Field(description="Whether forecast thresholds go by it.")
    said_at: str
    projected: str
    low: str
    high: str | None = Field(description="Null while there is no history to take a bound from.")
    projected_percent: str = Field(description="Of the limit.")
    exhausts_at: str | None = Field(description="When the limit is reached; null: not before `until`, or it was.")
    exhausts: str = Field(description="The same in words, in the budget's own zone.")
    past_error: PastError


class MeasureNow(BaseModel):
    """One thing that gateways are told to do to a part of a budget's calls; empty lists: to all of them."""

    action: str
    request_types: list[str] = []
    environments: list[str] = []
    rpm: int | None = None
    tpm: int | None = None
    max_tokens: int | None = None
    models: dict[str, str] = {}
    dry_run: bool = Field(False, description="The budget observes: it would be done, and is not.")


class Budget(BaseModel):
    """Where a budget stands in its newest period."""

    budget_id: str
    value: str = Field("", description="Of a `per` budget: which key, session, …")
    scope_type: str
    scope_id: str
    period: str
    period_start: str
    period_end: str
    period_over: bool = Field(description="True where nothing has been counted since that period ended.")
    currency: Literal["USD"] = "USD"
    amount: str = Field(description="What the period has, with what overrides and roll-over add.")
    spent: str
    remaining: str = Field(description="Negative where the budget is overspent.")
    used_percent: str = Field(description="With two decimals, rounded down.")
    crossed_percent: int = Field(description="The highest threshold that is crossed; 0 for none.")
    commanded: str = Field(description="What gateways were last told: allow, rate_limit, downgrade or block.")
    mode: str
    stated_at: str
    version: int | None = Field(None, description="Of its definition; null where the definition is not known now.")
    owner: str = ""
    overrides: list[OverrideNow] = Field([], description="Those that hold now.")
    forecasts: list[Estimate] = Field([], description="Of this period, by three methods, the best first.")
    measures: list[MeasureNow] = Field([], description="All that holds now, the strictest first.")
    details: dict[str, Any] = Field(
        {}, description="What BUDGET states besides: forecast, measures in force, overshoot, delay; amounts in dollars."
    )


class Budgets(BaseModel):
    """All budgets, the fullest first."""

    now: str
    budgets: list[Budget]
    defined: int | None = Field(None, description="How many are defined; null where the broker cannot be read now.")
    idle: list[str] = Field([], description="Ids of budgets that are defined and have counted nothing yet.")


class DefinedBudget(BaseModel):
    """A budget as it is defined, in the words of budgets.yaml, and where it stands."""

    budget: dict[str, Any] = Field(description="What PUT takes.")
    version: int
    changed_by: str
    changed_at: str
    reason: str
    standing: list[Budget] = Field(description="Its newest period; of a `per` budget one for each value.")
    overrides: list[OverrideNow]
    opening_balances: list[dict[str, Any]]


class Change(BaseModel):
    """What was written."""

    key: str
    version: int = Field(description="Also in the header ETag; send it as If-Match with the next change.")
    reason: str
    by: str


class HistoryEntry(BaseModel):
    """One version of a definition, override or opening balance."""

    key: str
    version: int
    at: str
    by: str
    reason: str
    withdrawn: bool
    definition: dict[str, Any] | None


class History(BaseModel):
    """Every version, newest first."""

    versions: list[HistoryEntry]


class Alerts(BaseModel):
    """Alerts as they stand, open ones first, then the newest: members as in the schema Alert v1, a short ``id``, and
    where each stands (``stage``, ``acknowledged``, ``silenced``, ``inhibited_by``, ``held_back``)."""

    alerts: list[dict[str, Any]]
    truncated: bool = Field(description="True where there are more alerts than `limit`.")


class Ack(BaseModel):
    """One gateway's answer to a command."""

    gateway: str
    applied_at: str
    rejected_count: int


class Throttles(BaseModel):
    """Restrictions that are live now; members as in the schema ThrottleCommand v1, and ``acks``."""

    now: str
    throttles: list[dict[str, Any]]


class Source(BaseModel):
    """How far the ledger is in one source partition."""

    slot: str = Field(description="topic@epoch-partition")
    topic: str
    partition: int
    next_offset: int = Field(description="Everything below it is in the ledger.")
    revision: int
    stream_time: str | None = Field(description="The newest believable event time; null before the first event.")
    lag_seconds: int | None = Field(description="From stream_time to now; it grows while a partition is idle.")
    updated_at: str
    silent_seconds: int = Field(description="Since a worker last wrote; it grows while nothing is sent.")
    dead_letters: int
    duplicates: int


class Sources(BaseModel):
    """All source partitions that the ledger has heard of."""

    now: str
    dead_letters: int
    duplicates: int
    sources: list[Source]


class Missing(BaseModel):
    """A part that is not there, and what to do about it."""

    part: str
    problem: str


class Readiness(BaseModel):
    """Whether the service can do its work."""

    ready: bool
    missing: list[Missing]
