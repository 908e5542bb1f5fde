"""``budgets.yaml``: who may spend how much in which period, and what happens on the way there.

Every error is reported at once, each with its line. Amounts are read from their text, so no digit is lost.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal
from zoneinfo import available_timezones

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from schemas.alerts import Severity
from schemas.commands import ScopeType
from schemas.money import MoneyError, parse_nanos
from streams.core.marked_yaml import Document, DocumentError, Problem
from streams.core.periods import Period

Mode = Literal["observe", "enforce"]
SCOPE_TYPES: tuple[ScopeType, ...] = (
    "org", "cost_center", "team", "project", "feature", "model", "environment", "key", "user",
)  # fmt: skip
_ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")


class BudgetFileError(DocumentError):
    """The budgets cannot be used; ``problems`` has one line for every error."""


class Rung(msgspec.Struct, frozen=True):
    """One threshold of a budget."""

    percent: int
    severity: Severity
    action: Literal["notify", "block"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """One budget. ``match`` holds every (attribute, value) pair that an event must have."""

    id: str
    scope_type: ScopeType
    scope_id: str
    match: tuple[tuple[str, str], ...]
    amount_nanos: int
    period: Period
    timezone: str
    thresholds: tuple[Rung, ...]
    mode: Mode
    owner: str = ""


DEFAULT_LADDER = (
    Rung(50, "info", "notify"),
    Rung(75, "warning", "notify"),
    Rung(90, "critical", "notify"),
    Rung(100, "emergency", "block"),
)


def _nanos(value: object) -> int:
    try:
        nanos = parse_nanos(str(value))
    except MoneyError as error:
        raise ValueError(str(error)) from error
    if nanos <= 0:
        raise ValueError("a budget is more than 0 dollars; to forbid all spending, revoke the key instead")
    if nanos > 9 * 10**18:
        raise ValueError("a budget of more than 9 billion dollars is surely a typing error")
    return nanos


class _Threshold(BaseModel):
    model_config = ConfigDict(extra="forbid")

    percent: int = Field(ge=1, le=1_000)
    severity: Severity
    action: Literal["notify", "block"] = "notify"


class _Budget(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    scope: dict[ScopeType, str]
    #: Further attributes that an event must have, besides the scope that is throttled.
    match: dict[ScopeType, str] = {}
    amount_usd: Annotated[int, BeforeValidator(_nanos)]
    period: Period
    timezone: str = "UTC"
    thresholds: list[_Threshold] | None = Field(None, min_length=1, max_length=16)
    mode: Mode = "observe"
    owner: str = ""

    @field_validator("id")
    @classmethod
    def _is_slug(cls, value: str) -> str:
        if not _ID.match(value):
            raise ValueError("an id has 1 to 64 of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit")
        return value

    @field_validator("scope")
    @classmethod
    def _is_one(cls, value: dict[ScopeType, str]) -> dict[ScopeType, str]:
        if len(value) != 1 or not all(value.values()):
            raise ValueError("a scope is exactly one of " + ", ".join(SCOPE_TYPES) + ", with its value")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is no IANA time zone, such as Europe/Berlin")
        return value

    @model_validator(mode="after")
    def _is_a_ladder(self) -> "_Budget":
        percents = [rung.percent for rung in self.thresholds or ()]
        if percents != sorted(set(percents)):
            raise ValueError("thresholds rise, each percent once")
        return self

    def budget(self) -> Budget:
        ((scope_type, scope_id),) = self.scope.items()
        rungs = self.thresholds
        return Budget(
            id=self.id,
            scope_type=scope_type,
            scope_id=scope_id,
            match=tuple(sorted((self.match | self.scope).items())),
            amount_nanos=self.amount_usd,
            period=self.period,
            timezone=self.timezone,
            thresholds=tuple(Rung(r.percent, r.severity, r.action) for r in rungs) if rungs else DEFAULT_LADDER,
            mode=self.mode,
            owner=self.owner,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    budgets: list[_Budget] = Field(default=[], max_length=10_000)


def load_budgets(text: str) -> tuple[Budget, ...]:
    """Read the budgets of a file.

    Raises:
        BudgetFileError: with every error found, one line each, each naming its line.
    """
    try:
        document = Document(text)
        loaded = document.validate(_File, _repeated(document))
    except DocumentError as error:
        raise BudgetFileError(error.problems) from error
    return tuple(budget.budget() for budget in loaded.budgets)


def _repeated(document: Document) -> Iterator[Problem]:
    seen: set[str] = set()
    for path, entry in document.items("budgets"):
        name = str(entry.get("id", ""))
        if name in seen:
            yield Problem(path, f"a second budget with the id {name}: an id names one budget")
        seen.add(name)
