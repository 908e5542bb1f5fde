"""What people define: budgets, limits, overrides, opening balances and training runs, as they lie on ``budgets.v1``.
Answers to alerts and planned events lie there too (``schemas.answers``).

The topic is compacted and is where workers learn definitions: each key's last value holds, a null withdraws it. The
ledger keeps every version with who and why. Amounts are nanodollars, instants are microseconds since 1970.
"""

from typing import Literal

import msgspec

from schemas.alerts import Severity
from schemas.answers import AlertAnswer, PlannedEvent
from schemas.commands import Measure, OnStale, Target

#: What a budget can match on besides ``tag:<name>``. The second line are attributes of a call that no cell has.
CELL_ATTRIBUTES = (
    "org", "cost_center", "team", "project", "feature", "model", "provider", "environment", "request_type",
    "user_tier", "category",
)  # fmt: skip
CALL_ATTRIBUTES = ("experiment", "run", "key", "user", "task", "session")
ATTRIBUTES = CELL_ATTRIBUTES + CALL_ATTRIBUTES
TAG = "tag:"

Mode = Literal["observe", "enforce"]
PeriodKind = Literal["hour", "day", "week", "month", "quarter", "total", "rolling"]
#: fixed: the amount, whatever is used. usage_cap: billed by use, and this is its cap. pooled: shared by many, first
#: come, tracked by who took how much; it closes as a fixed one does.
Model = Literal["fixed", "usage_cap", "pooled"]


class Period(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a budget begins anew. ``total`` never does, ``rolling`` looks back ``hours`` at every instant."""

    kind: PeriodKind
    timezone: str = "UTC"
    #: 0 is Monday; only for weeks.
    week_start: int = 0
    #: Only for rolling ones.
    hours: int = 0


class Rung(msgspec.Struct, frozen=True, omit_defaults=True):
    """One threshold: at ``percent`` of the amount, tell and do this."""

    percent: int
    severity: Severity
    #: What gateways are to do from here on; what higher rungs ask for is added, the strictest holds.
    measures: tuple[Measure, ...] = ()
    #: spent: what was spent reaches it. forecast: what will be spent by the period's end (a ticket, never a measure).
    on: Literal["spent", "forecast"] = "spent"


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="budget"):
    """One budget. An event counts in it if it has every attribute of ``match``."""

    v: int = 1
    id: str
    #: Every (attribute, value) pair that an event must have; of one attribute twice, one of its values.
    match: tuple[tuple[str, str], ...]
    #: Whom gateways throttle. Of a ``per`` budget its value is ``*`` and stands for each.
    target: Target
    amount_nanos: int
    period: Period
    #: The amount is for each value of this attribute, such as ``session`` or ``key``; empty: for all
    per: str = ""
    #: The budget above it in the tree; empty: the closest one whose match is part of this one's.
    parent: str = ""
    model: Model = "fixed"
    rollover: bool = False
    #: It counts and holds within [starts, ends); 0: no bound.
    starts: int = 0
    ends: int = 0
    thresholds: tuple[Rung, ...]
    mode: Mode = "observe"
    #: Production is blocked only where this is true, and rate-limited otherwise.
    hard: bool = False
    on_stale: OnStale = "open"
    #: Models, or patterns with ``*``, that measures never touch: free and self-hosted ones.
    exempt_models: tuple[str, ...] = ()
    #: Whether its last rung may page; budgets of keys, users, tasks, sessions and runs open tickets unless asked.
    pages: bool = True
    #: Expected growth that the forecast multiplies with, in thousandths.
    growth_permille: int = 1_000
    owner: str = ""
    #: Grows with every change; who made it, why, and when.
    version: int = 1
    changed_by: str = ""
    reason: str = ""
    changed_at: int = 0

    def key(self) -> str:
        """The record key: ``budget|search-daily``."""
        return f"budget|{self.id}"


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="limit"):
    """A standing limit against bursts, apart from budgets: per minute, always in force."""

    v: int = 1
    id: str
    target: Target
    rpm: int | None = None
    tpm: int | None = None
    nanos_per_minute: int | None = None
    request_types: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    mode: Mode = "observe"
    owner: str = ""
    version: int = 1
    changed_by: str = ""
    reason: str = ""
    changed_at: int = 0

    def key(self) -> str:
        """The record key: ``limit|search-burst``."""
        return f"limit|{self.id}"


class Override(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="override"):
    """More money, or no throttling at all, for one budget until a time."""

    v: int = 1
    id: str
    budget_id: str
    #: Only this value of a ``per`` budget; empty: all of it.
    value: str = ""
    #: Added to the amount while it holds.
    extra_nanos: int = 0
    #: Whether measures are lifted altogether while it holds.
    lifts: bool = False
    starts: int
    until: int
    changed_by: str = ""
    reason: str = ""

    def key(self) -> str:
        """The record key: ``override|<id>``."""
        return f"override|{self.id}"


class OpeningBalance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="balance"):
    """What was spent in a period before Sluice was there to see it. The last one of a budget and period holds."""

    v: int = 1
    budget_id: str
    #: Only this value of a ``per`` budget; empty: the budget itself.
    value: str = ""
    period_start: int
    nanos: int
    changed_by: str = ""
    reason: str = ""

    def key(self) -> str:
        """The record key: ``balance|<budget>|<value>|<period start>``."""
        return f"balance|{self.budget_id}|{self.value}|{self.period_start}"


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="run"):
    """A training run that announced what it will cost; its spend is what carries its id in ``run``."""

    v: int = 1
    id: str
    team_id: str
    estimate_nanos: int
    estimate_hours: int = 0
    state: Literal["announced", "recorded", "approved", "refused", "ended"] = "announced"
    #: Whether it may be stopped (SIGTERM, time for a checkpoint, SIGKILL) when it passes its estimate by a factor.
    auto_shutdown: bool = False
    #: In percent of the estimate: 150 is half as much again.
    stop_at_percent: int = 150
    announced_at: int = 0
    decided_by: str = ""
    decided_at: int = 0
    outcome: str = ""
    owner: str = ""

    def key(self) -> str:
        """The record key: ``run|<id>``."""
        return f"run|{self.id}"


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="grant"):
    """A team may use a model that is marked expensive. Without a grant its gateways are told to refuse it."""

    v: int = 1
    #: Empty: this is the mark itself, and the model (or pattern with ``*``) is expensive.
    team_id: str
    model: str
    until: int = 0
    changed_by: str = ""
    reason: str = ""

    def key(self) -> str:
        """The record key: ``grant|search|gpt-5-pro``."""
        return f"grant|{self.team_id}|{self.model}"


Definition = Budget | Limit | Override | OpeningBalance | Run | Grant | AlertAnswer | PlannedEvent
