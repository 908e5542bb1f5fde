"""What Sluice asks of gateways, and what they answer."""

from typing import Literal

import msgspec

THROTTLE_TYPE = "ai.throttle.commanded.v1"
APPLIED_TYPE = "ai.throttle.applied.v1"

ScopeType = Literal["org", "cost_center", "team", "project", "feature", "model", "environment", "key", "user"]
Action = Literal["allow", "rate_limit", "downgrade", "block"]


class Target(msgspec.Struct, frozen=True):
    """Whom a command is about."""

    scope_type: ScopeType
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
