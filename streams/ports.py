"""What the agents ask of the outside: protocols only. ``streams/sinks`` implements them, ``streams/app.py`` binds
them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.alerts import Alert
from schemas.budgets import Definition
from schemas.commands import JobAck, JobCommand, ThrottleAck, ThrottleCommand
from schemas.statements import CellStatement, Dimensions, SpenderStatement, Watermark
from streams.core.notifying import Notification


class DeliveryError(Exception):
    """A receiver did not take a message."""


class RetryableError(DeliveryError):
    """Trying again may help; ``retry_after_s`` is what the receiver asked for, if it did."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermanentError(DeliveryError):
    """Trying again cannot help: the message or the address is wrong."""


class ConflictError(Exception):
    """Somebody else changed a definition in the meantime; nothing was written. ``found`` is 0 where there is none."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        was = f"is at version {found}" if found else "is not defined"
        super().__init__(f"{key} {was}, and the change was made against version {expected}: read it anew and repeat")
        self.key = key
        self.expected = expected
        self.found = found


class Placed(NamedTuple):
    """A definition as it was written; ``definition`` is None where it was withdrawn."""

    key: str
    version: int
    definition: Definition | None


class Version(NamedTuple):
    """One version of a definition, with who made it and why; ``definition`` is None where it was withdrawn."""

    key: str
    version: int
    definition: Definition | None
    changed_by: str
    reason: str
    changed_at: int


class BudgetStatus(msgspec.Struct, kw_only=True):
    """Where one budget stands in one period; a row of the dashboard. Higher (period_start, sequence) wins."""

    budget_id: str
    scope_type: str
    scope_id: str
    period: str
    period_start: int
    period_end: int
    amount_nanos: int
    spent_nanos: int
    #: The highest threshold (percent) that is crossed now; 0 for none.
    crossed_percent: int
    #: The strictest action that was last commanded; ``allow`` for none.
    commanded: str
    mode: str
    #: Sum of the source offsets included: grows with every statement.
    sequence: int
    stated_at: int
    #: Of a ``per`` budget the value that this row is about; empty for all others.
    value: str = ""
    #: In ``amount_nanos`` already: what rolled over, and what overrides add. In ``spent_nanos``: the opening balance,
    #: and what stands on gateways' own figures.
    carried_nanos: int = 0
    override_nanos: int = 0
    opening_nanos: int = 0
    estimated_nanos: int = 0
    #: Over the last ten minutes.
    burn_nanos_per_hour: int = 0
    #: When the amount was, or at this rate will be, spent; None where it will not be in this period.
    exhausted_at: int | None = None
    #: Spent beyond the rung that blocks; spent after every gateway had obeyed.
    overshoot_nanos: int = 0
    gap_nanos: int = 0
    #: From the crossing to the last live gateway's acknowledgement; None until all have answered.
    ack_delay_ms: int | None = None
    #: Of a pooled budget, who took how much, in nanodollars.
    takers: dict[str, int] = {}


class Change(NamedTuple):
    """One record of the definitions' topic; the body is None where it withdraws."""

    key: str
    version: int
    body: Any
    changed_by: str
    reason: str
    changed_at: int
    #: What a file said last under this key, if one did.
    file_digest: str = ""


class Standing(NamedTuple):
    """What is under a key now; ``definition`` is None where it was withdrawn."""

    definition: Definition | None
    version: int
    changed_by: str
    file_digest: str


#: Dimensions, the end of the hour of rows that lie only partly in the period (else 0), nanodollars, those of them that
#: stand on gateways' own figures, requests, tokens.
SpentRow = tuple[Dimensions, int, int, int, int, int]


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


class Ledger(Protocol):
    """The system of record (PostgreSQL)."""

    async def write_cells(
        self,
        cells: Sequence[CellStatement],
        watermarks: Sequence[Watermark],
        spenders: Sequence[SpenderStatement] = (),
    ) -> None:
        """Upsert totals and watermarks in one transaction; a statement that is not newer changes nothing."""
        ...

    async def durable_offsets(self) -> Mapping[str, int]:
        """``{slot: next offset}`` up to which the ledger holds everything."""
        ...

    async def spent_before(
        self, slot: str, start: int, end: int, below: int, live: Sequence[tuple[str, int]], teams: Sequence[str]
    ) -> tuple[int, Sequence[SpentRow]]:
        """How far the ledger is with a slot, and sums of its rows in a period that end below an offset.

        Args:
            live: cell ids and segments that are left out.
            teams: only these; empty: all.
        """
        ...

    async def write_definitions(self, changes: Sequence[Change]) -> None:
        """Keep every version of every definition; one that is there already stays as it is."""
        ...

    async def write_budget_status(self, rows: Sequence[BudgetStatus]) -> None:
        """Keep the newest status of each budget and period."""
        ...

    async def write_commands(self, commands: Sequence[ThrottleCommand]) -> None:
        """Record commands; a lower revision never replaces a higher one."""
        ...

    async def write_acks(self, acks: Sequence[ThrottleAck]) -> None:
        """Record what gateways answered."""
        ...

    async def write_jobs(self, said: Sequence[JobCommand | JobAck]) -> None:
        """Record what was asked of training runs, and what executors answered."""
        ...


class Invitation(NamedTuple):
    """Whom an alert asks for an approval: ``to`` are mail addresses; ``url`` is empty where no link may be sent."""

    to: tuple[str, ...]
    url: str = ""
    #: When the link ends, for people.
    until: str = ""


class Inviting(Protocol):
    """Makes the link of an alert that asks for an approval; None for every other alert."""

    def by_mail(self, alert: Alert, others: Sequence[str]) -> Invitation | None:
        """For the team's lead, or for ``others`` where none is known."""
        ...

    def by_slack(self, alert: Alert) -> Invitation | None:
        """For a channel."""
        ...


class Receiver(Protocol):
    """One way to reach people. One destination, one file, one shape."""

    name: str
    #: Whether the receiver itself knows that two messages of one ``thread_key`` are one incident: nothing is doubled.
    keeps_incidents: bool

    async def send(self, notification: Notification, thread: str | None) -> str:
        """Deliver one message and return the receiver's receipt.

        Args:
            thread: the receipt of the first message that this receiver took with the same ``thread_key``; None where
                there is none, or where it is not known any more.

        Raises:
            RetryableError: trying again may help.
            PermanentError: it cannot.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class DefinitionStore(Protocol):
    """What people defined, on the compacted topic ``budgets.v1``; every version of it in the ledger."""

    async def current(self) -> Mapping[str, Definition]:
        """What holds now, by record key, read to the topic's present end.

        Raises:
            DeliveryError: the broker cannot be read now.
        """
        ...

    async def publish(
        self,
        changes: Sequence[Definition],
        *,
        by: str,
        reason: str,
        expected: Mapping[str, int] | None = None,
    ) -> Sequence[Placed]:
        """Write new versions, all or none; says who and why in each, and counts the version on.

        Args:
            expected: the version that has to stand under each record key; 0 where none may stand.

        Raises:
            ConflictError: another version stands.
            DeliveryError: the broker did not take it.
        """
        ...

    async def withdraw(self, key: str, *, by: str, reason: str, expected: int | None = None) -> bool:
        """End a definition; False where there is none. Raises as ``publish`` does."""
        ...

    async def history(self, key_prefix: str) -> Sequence[Version]:
        """Every version of the keys with this prefix, newest first, from the ledger."""
        ...


class ReleaseSwitch(Protocol):
    """The one command that opens every gate at once, straight on the gates' topic."""

    async def current(self) -> ThrottleCommand | None:
        """The last release or its end; None where there never was one.

        Raises:
            DeliveryError: the broker cannot be read now.
        """
        ...

    async def say(self, command: ThrottleCommand) -> None:
        """Write it; it is with the gates once this returns.

        Raises:
            DeliveryError: the broker did not take it.
        """
        ...
