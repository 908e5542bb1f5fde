"""What the loops over the ledger's history ask of the database: protocols only, as in ``streams.ports``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from schemas.alerts import Alert


class ForecastRow(msgspec.Struct, kw_only=True):
    """What one method said of one budget at one point of one period; a later word at the same point replaces it."""

    budget_id: str
    value: str
    #: 0: the budget has no periods.
    period_start: int
    method: str
    #: The point: ``said_at``, down to a few dozen points of a period.
    at: int
    said_at: int
    until: int
    timezone: str
    spent_nanos: int
    limit_nanos: int
    projected_nanos: int
    low_nanos: int
    #: None: no history yet, so no bound.
    high_nanos: int | None
    exhausts_at: int | None
    #: Whether this is the method that alerts go by.
    is_best: bool
    burn_nanos_per_hour: int
    known_us: int
    #: Of how many earlier statements the past error is, in thousandths of what came.
    judged: int
    error_permille: int
    bias_permille: int


class Outcome(msgspec.Struct, frozen=True):
    """What a period cost in the end: what was said of it can be judged."""

    budget_id: str
    value: str
    period_start: int
    nanos: int
    #: Gateways were throttled in it: it says nothing about who was wrong.
    was_held: bool


class StoredForecast(msgspec.Struct, frozen=True):
    """What FORECAST remembers of one budget, encoded; a later one replaces an earlier one."""

    budget_id: str
    value: str
    at: int
    state: bytes


class StoreError(Exception):
    """What can wait could not be read or stored now."""


class Forecasts(Protocol):
    """Where FORECAST keeps what it learned and said (PostgreSQL). All methods raise StoreError where they cannot."""

    async def load(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], bytes]:
        """The states of these (budget, value) pairs, as far as there are any."""
        ...

    async def keep(
        self, states: Sequence[StoredForecast], rows: Sequence[ForecastRow], outcomes: Sequence[Outcome]
    ) -> None:
        """Store all of it in one transaction."""
        ...

    async def forget(self, now: int) -> int:
        """Delete what was said too long ago; returns how many rows went."""
        ...

    async def hourly_spend(self, match: Sequence[tuple[str, str]], since: int, until: int) -> Mapping[int, int] | None:
        """Nanodollars by UTC hour of every cell that matches; None where cells do not have what is matched."""
        ...


class ResourceRow(NamedTuple):
    """One resource of the inventory; days count from 1970, each ``(day, nanodollars, requests, interactive ones,
    nanodollars of jobs, a bit for each hour of jobs)``."""

    #: Organisation, team, project, feature, category, provider, model, environment.
    names: tuple[str, str, str, str, str, str, str, str]
    first_day: int
    last_use: int | None
    days: Sequence[tuple[int, int, int, int, int, int]]


class Resources(Protocol):
    """The inventory in the ledger's database. All methods raise StoreError where the database does not answer."""

    async def take_turn(self, now: int, hold_us: int) -> bool:
        """Whether this hour was not looked at yet and nobody else is at it; then it is held for so long."""
        ...

    async def end_turn(self, now: int) -> None:
        """This hour was looked at."""
        ...

    async def heard_until(self) -> int | None:
        """The newest event time of any source; None before any was heard."""
        ...

    async def refresh(self, since_day: int) -> None:
        """Make the days from ``since_day`` on anew from the cells, and the inventory of them."""
        ...

    async def read(self, since_day: int) -> Sequence[ResourceRow]:
        """Every resource, with its days from ``since_day`` on."""
        ...

    async def told(self, rules: Sequence[str], since: int) -> Sequence[tuple[Alert, int]]:
        """Alerts of these rules that are open, or were stated since, each with when it was."""
        ...
