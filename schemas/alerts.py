"""An alert: opened, updated or resolved, under a derived dedup key."""

from typing import Literal

import msgspec

OPENED_TYPE = "ai.alert.opened.v1"
UPDATED_TYPE = "ai.alert.updated.v1"
RESOLVED_TYPE = "ai.alert.resolved.v1"

Rule = Literal[
    "budget_threshold", "spend_spike", "runaway_request", "gpu_idle", "cells_overflow",
    "budget_forecast", "enforcement_gap", "run_estimate", "approval_wanted",
    "runaway_loop", "retry_storm", "token_cost", "regime_change", "unusual_hour",
    "gpu_below", "gpu_bursty", "run_overdue",
    "week_over_week", "resource_unused", "nonprod_spend", "recurring_job", "ci_growth",
    "pipeline_lag", "ledger_behind", "dead_letters", "source_silent", "unpriced_usage", "delivery_failing",
]  # fmt: skip
Severity = Literal["info", "warning", "critical", "emergency"]
Status = Literal["opened", "updated", "resolved"]
#: What the finding asks of people: wake somebody, work in hours, or only show it.
Tier = Literal["page", "ticket", "note"]


class Contributor(msgspec.Struct, frozen=True):
    """One driver of an alert."""

    name: str
    cost_usd: str


class Driver(msgspec.Struct, frozen=True):
    """Who is behind an excess: a ``team``, ``feature``, ``model`` or ``key``, and what it costs more than before."""

    kind: str
    name: str
    excess_usd: str


class Drivers(msgspec.Struct, frozen=True, kw_only=True):
    """What an excess is made of, in dollars: the five parts add up to it exactly, and each may be below zero."""

    #: More requests.
    volume: str
    #: Calls that went to dearer models.
    model_mix: str
    tokens_per_request: str
    #: Fewer answers and tokens from caches.
    cache: str
    #: What a token of the same kind costs.
    price: str
    #: Those that cost most more than before, largest first.
    by: list[Driver] = []


class Alert(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was found, where, how much, since when. Times are RFC 3339 UTC; money is decimal strings."""

    v: int = 1
    #: Derived: dedup key, episode and status name one statement (rule 5).
    alert_id: str
    dedup_key: str
    episode: int
    status: Status
    severity: Severity
    tier: Tier
    rule: Rule
    #: ``org``, ``team``, ``feature``, ``team_feature``, ``model``, ``budget``, ``resource``; of GPUs ``gpu``,
    #: ``deployment``, ``pool`` or ``owner``; of what Sluice says of itself ``pipeline``, ``topic``, ``source``,
    #: ``model`` or ``receiver``.
    scope_type: str
    scope_id: str
    #: One line with the cause in it; at most 1024 characters.
    summary: str
    #: When it happened (event time of the crossing), whatever the status, and when this statement was made: of what
    #: is resolved, when it ended.
    occurred_at: str
    stated_at: str
    period_start: str = ""
    period_end: str = ""
    team_id: str = ""
    feature: str = ""
    owner: str = ""
    observed: str = ""
    expected: str = ""
    threshold: str = ""
    #: What is usual lies between these, in ``unit``; empty where no range is known.
    expected_low: str = ""
    expected_high: str = ""
    #: Dollars, if it goes on like this: each hour, and from now until the UTC month ends.
    at_stake_per_hour: str = ""
    at_stake_by_month_end: str = ""
    unit: str = "USD"
    top_contributors: list[Contributor] = []
    #: Of an excess of spend: what it is made of.
    drivers: Drivers | None = None
    #: The fixed rules that the observed number breaks, by name; empty where a rule is not about such a number.
    rules: tuple[str, ...] = ()
    #: What Sluice did about it, in words; empty where it only told.
    action: str = ""
    runbook: str = ""
    #: What is above this one, the closest first: while one of them pages, this one does not. Of a budget the ids of
    #: budgets, of spend the scopes (``org:acme``).
    ancestors: tuple[str, ...] = ()
    #: What more is known of where it happened: ``environment``, ``cost_centre``, ``project``, ``model`` …
    labels: dict[str, str] = {}
    #: True where the finding is history (a replay, a backlog): shown, never paged or throttled (rule 6).
    historic: bool = False
    #: What learns from an answer to it, as its detector names it, and how large it was: what is compared with the next
    #: one. Empty: nothing learns from it.
    teaches: str = ""
    figures: tuple[int, ...] = ()
