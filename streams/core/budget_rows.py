"""The entries of ``budgets.yaml`` as people write them; each becomes a definition."""

import re
from datetime import date
from functools import cache
from typing import Annotated, get_args
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from schemas.budgets import ATTRIBUTES, Budget, Grant, Limit, Mode, Model, Period, PeriodKind
from schemas.commands import OnStale, ScopeType, Target
from schemas.instants import InstantError, parse_instant
from streams.core.budget_rungs import (
    DEFAULT_LADDER,
    Count,
    RequestTypes,
    RungRow,
    Text,
    Texts,
    listed,
    nanos_of,
    permille_of,
)
from streams.core.matching import is_attribute
from streams.core.periods import ENDLESS, day_start

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
#: Budgets of these are many and small: they open tickets, and page only where asked.
PERSONAL = frozenset({"key", "user", "task", "session", "run"})
ROLLING_HOURS_MAX = 400 * 24

_ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
_ROLLING = re.compile(r"^([1-9]\d{0,5})\s*(h|d)$")
_EARLIEST = parse_instant("2000-01-01T00:00:00Z")


def rolling_hours(text: str) -> int:
    """The hours of ``72h`` or ``30d``.

    Raises:
        ValueError: it is neither, or more than 400 days.
    """
    found = _ROLLING.match(text.strip())
    if found is None:
        raise ValueError("say how far it looks back, in hours or days, such as 72h or 30d")
    hours = int(found[1]) * (24 if found[2] == "d" else 1)
    if hours > ROLLING_HOURS_MAX:
        raise ValueError("a rolling budget looks back over 400 days (400d) at most")
    return hours


def instant_of(text: str, timezone: str) -> int:
    """Microseconds of a date (its first instant in that zone) or of an instant with an offset; 0 of nothing.

    Raises:
        ValueError: it is neither, or beyond belief.
    """
    if not text:
        return 0
    try:
        found = day_start(timezone, date.fromisoformat(text)) if len(text) == 10 else parse_instant(text)
    except (InstantError, ValueError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is neither a date (2026-12-31) nor an instant with an offset") from error
    if not _EARLIEST <= found < ENDLESS:
        raise ValueError("lies between the years 2000 and 2200")
    return found


def _is_slug(value: str) -> str:
    if not _ID.match(value):
        raise ValueError("an id has 1 to 64 of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit")
    return value


@cache
def _zones() -> frozenset[str]:
    """Found by walking through folders: 20 ms."""
    return frozenset(available_timezones())


def _is_zone(value: str) -> str:
    if value not in _zones():
        raise ValueError(f"{value!r} is no IANA time zone, such as Europe/Berlin")
    return value


def _is_instant(value: str) -> str:
    instant_of(value, "UTC")
    return value


def _is_attribute(value: str) -> str:
    if not is_attribute(value):
        raise ValueError("no attribute; there are " + ", ".join(ATTRIBUTES) + ", and tag:<name>")
    return value


def _is_one(value: dict[str, str]) -> dict[str, str]:
    if len(value) != 1 or not all(value.values()):
        raise ValueError("a scope is exactly one of " + ", ".join(get_args(ScopeType)) + ", with its value")
    _bounded(next(iter(value.values())))
    return value


def _bounded(value: str, length: int = 256) -> str:
    """A text of people: it stands in alerts, mails and tables."""
    if len(value) > length:
        raise ValueError(f"has {len(value)} characters; at most {length}")
    if not value.isprintable():
        raise ValueError("has line breaks or other characters that cannot be printed")
    return value


def _weekday(value: object) -> int:
    names = [name for name in WEEKDAYS if str(value).strip().lower() in (name, name[:3])]
    if not names:
        raise ValueError("a week starts on one of " + ", ".join(WEEKDAYS))
    return WEEKDAYS.index(names[0])


Slug = Annotated[str, AfterValidator(_is_slug)]
Zone = Annotated[str, AfterValidator(_is_zone)]
When = Annotated[str, AfterValidator(_is_instant)]
Scope = Annotated[dict[ScopeType, str], AfterValidator(_is_one)]
ExpensiveModel = Text
Note = Annotated[str, AfterValidator(_bounded)]
Why = Annotated[str, AfterValidator(lambda value: _bounded(value, 1_000))]


class BudgetRow(BaseModel):
    """One budget."""

    model_config = ConfigDict(extra="forbid")

    id: Slug
    #: Whom gateways throttle; not needed where the amount is ``per`` something.
    scope: Scope | None = None
    #: Further attributes that an event must have, besides the scope that is throttled: a value, or one of a list.
    match: dict[
        Annotated[str, AfterValidator(_is_attribute)],
        Annotated[list[Annotated[str, Field(max_length=256)]], BeforeValidator(listed), Field(min_length=1)],
    ] = {}
    per: ScopeType | None = None
    amount_usd: Annotated[int, BeforeValidator(nanos_of)]
    period: PeriodKind | None = None
    week_start: Annotated[int, BeforeValidator(_weekday)] = 0
    rolling: Annotated[int, BeforeValidator(lambda value: rolling_hours(str(value)))] = 0
    timezone: Zone = "UTC"
    starts: When = ""
    ends: When = ""
    rollover: bool = False
    model: Model = "fixed"
    parent: Note = ""
    thresholds: list[RungRow] | None = Field(None, min_length=1, max_length=16)
    mode: Mode = "observe"
    hard: bool = False
    on_stale: OnStale = "open"
    exempt_models: Texts | None = None
    pages: bool | None = None
    growth: Annotated[int, BeforeValidator(permille_of)] = 1_000
    owner: Note = ""

    def budget(self) -> Budget:
        """As it is published."""
        ((scope_type, scope_id),) = [(self.per, "*")] if self.per else (self.scope or {}).items()
        pairs = {(attribute, value) for attribute, values in self.match.items() for value in values}
        if not self.per:
            pairs.add((scope_type, scope_id))
        rungs = self.thresholds
        return Budget(
            id=self.id,
            match=tuple(sorted(pairs)),
            target=Target(scope_type, scope_id),
            amount_nanos=self.amount_usd,
            period=Period(self.period or "rolling", self.timezone, self.week_start, self.rolling),
            per=self.per or "",
            parent=self.parent,
            model=self.model,
            rollover=self.rollover,
            starts=instant_of(self.starts, self.timezone),
            ends=instant_of(self.ends, self.timezone),
            thresholds=tuple(row.rung() for row in rungs) if rungs else DEFAULT_LADDER,
            mode=self.mode,
            hard=self.hard,
            on_stale=self.on_stale,
            exempt_models=tuple(self.exempt_models or ()),
            pages=scope_type not in PERSONAL if self.pages is None else self.pages,
            growth_permille=self.growth,
            owner=self.owner,
        )


class LimitRow(BaseModel):
    """One standing limit."""

    model_config = ConfigDict(extra="forbid")

    id: Slug
    scope: Scope
    rpm: Count | None = None
    tpm: Count | None = None
    usd_per_minute: Annotated[int, BeforeValidator(nanos_of)] | None = None
    request_types: RequestTypes = None
    environments: Texts | None = None
    mode: Mode = "observe"
    owner: Note = ""

    def limit(self) -> Limit:
        """As it is published."""
        ((scope_type, scope_id),) = self.scope.items()
        return Limit(
            id=self.id,
            target=Target(scope_type, scope_id),
            rpm=self.rpm,
            tpm=self.tpm,
            nanos_per_minute=self.usd_per_minute,
            request_types=tuple(self.request_types or ()),
            environments=tuple(self.environments or ()),
            mode=self.mode,
            owner=self.owner,
        )


class GrantRow(BaseModel):
    """A team that may use an expensive model."""

    model_config = ConfigDict(extra="forbid")

    team: Text
    model: Text
    until: When = ""
    reason: Why = ""

    @field_validator("team")
    @classmethod
    def _is_named(cls, value: str) -> str:
        if "|" in value or value == "*":
            raise ValueError("is the name of one team; to open a model to all, take it out of expensive_models")
        return value

    def grant(self) -> Grant:
        """As it is published."""
        return Grant(team_id=self.team, model=self.model, until=instant_of(self.until, "UTC"), reason=self.reason)
