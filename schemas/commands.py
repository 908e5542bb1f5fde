"""What Sluice asks of gateways, and what they answer."""

from typing import Literal

import msgspec

THROTTLE_TYPE = "ai.throttle.commanded.v1"
APPLIED_TYPE = "ai.throttle.applied.v1"

ScopeType = Literal[
    "org", "cost_center", "team", "project", "feature", "model", "provider", "environment", "request_type",
    "experiment", "run", "key", "user", "task", "session",
]  # fmt: skip
#: ``release`` opens a gate altogether; it lies under the key ``RELEASE_KEY`` alone and outranks every other command.
Action = Literal["allow", "rate_limit", "cap_tokens", "downgrade", "block", "release"]
RELEASE_KEY = "*|release"
#: What a gate does with a command whose renewal did not come (Sluice is gone): obey it until ``holds_until``, let go of
#: it, or refuse the scope until ``holds_until``.
OnStale = Literal["keep", "open", "close"]


class Measure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that gateways do to a part of a scope's calls. Empty tuples: to all of them."""

    action: Literal["rate_limit", "cap_tokens", "downgrade", "block"]
    #: A name that begins with ``!`` is left out: ``("!prod", "!production")`` is every other environment.
    request_types: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    #: Requests and tokens per minute, of each gateway process.
    rpm: int | None = None
    tpm: int | None = None
    #: How many of ``rpm`` may go at once; left out: all of them.
    burst: int | None = None
    #: The most output tokens of one call.
    max_tokens: int | None = None
    #: What is asked for -> what is used instead; ``*`` stands for every model that is not named.
    models: dict[str, str] = {}


class Target(msgspec.Struct, frozen=True):
    """Whom a command is about."""

    scope_type: ScopeType
    #: ``*`` is every call, whatever it names.
    scope_id: str

    def key(self) -> str:
        """``team:search``: the first half of a command's key."""
        return f"{self.scope_type}:{self.scope_id}"


class ThrottleCommand(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one budget wants of one scope; a gate applies the strictest live command of each scope."""

    v: int = 1
    command_id: str
    budget_id: str
    target: Target
    action: Action
    #: Only grows for one (target, budget); a gate ignores what is lower than what it has.
    revision: int
    #: What a refused caller may read.
    reason: str
    issued_at: str
    effective_at: str
    #: After this instant the command is void, even if Sluice is gone.
    expires_at: str
    alert_id: str = ""
    rpm_limit: int | None = None
    tpm_limit: int | None = None
    model_fallback: str | None = None
    retry_after_s: int = 60
    http_status: int = 429
    #: True in ``mode: observe``: say what would have been done, and do nothing.
    dry_run: bool = False
    #: What to do, in any order; the strictest of those that apply to a call holds. Empty: ``action`` and the fields
    #: above are the only measure, for all calls (as earlier releases say it).
    measures: tuple[Measure, ...] = ()
    #: ``expires_at`` moves on with every renewal, under the same id and revision; this is when the command is over.
    holds_until: str = ""
    on_stale: OnStale = "open"
    #: Models, or patterns with ``*``, that it never touches.
    exempt_models: tuple[str, ...] = ()
    #: What a call must have besides the target, as (attribute, value) pairs; of one attribute twice, one of its values.
    #: A value after ``!`` is left out; a model may be a pattern with ``*``.
    match: tuple[tuple[ScopeType, str], ...] = ()
    #: Calls that began before this instant are let through to their end; empty: ``effective_at``.
    spares_before: str = ""

    def key(self) -> str:
        """The record key: ``team:search|search-daily``."""
        return f"{self.target.key()}|{self.budget_id}"


class ThrottleAck(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A gateway's answer to one command."""

    v: int = 1
    command_id: str
    command_key: str
    revision: int
    gateway: str
    applied_at: str
    #: Calls this gateway has refused because of this command so far.
    rejected_count: int = 0
    #: From ``issued_at`` of the command to ``applied_at``, milliseconds; left out where the gate came later than the
    #: command.
    delay_ms: int | None = None


JOB_COMMAND_TYPE = "ai.job.commanded.v1"
JOB_APPLIED_TYPE = "ai.job.applied.v1"


class JobCommand(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is asked of whoever runs a training run or a scaled deployment. It obeys only where the job allows it."""

    v: int = 1
    command_id: str
    #: ``run`` of the events that the job sends.
    run_id: str
    action: Literal["stop_job", "scale_cap"]
    revision: int
    reason: str
    issued_at: str
    expires_at: str
    alert_id: str = ""
    #: Seconds between SIGTERM and SIGKILL: time for a checkpoint.
    grace_s: int = 120
    #: Only for ``scale_cap``.
    replicas_max: int | None = None
    dry_run: bool = False

    def key(self) -> str:
        """The record key: the run's id."""
        return self.run_id


class JobAck(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of a job command."""

    v: int = 1
    command_id: str
    run_id: str
    revision: int
    executor: str
    outcome: Literal["stopped", "killed", "capped", "refused", "gone"]
    applied_at: str
    detail: str = ""
