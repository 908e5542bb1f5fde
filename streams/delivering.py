"""What the stages of a delivery hand to each other: values and protocols. Times are microseconds.

``streams/sinks`` implements them in PostgreSQL, ``streams/core/delivery.py`` decides, ``streams/agents`` drives.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.alerts import Alert
from streams.core.notifying import Acknowledgement, Notification, Silence, Told


class Batch(NamedTuple):
    """Alert statements with their offsets, of one source partition; everything below ``end`` is read."""

    source: str
    end: int
    alerts: Sequence[tuple[int, Alert]]


class Placing(Protocol):
    """Where alerts belong, as the routes have it (``streams.core.placing``)."""

    def placements(self, alert: Alert) -> Sequence[Any]:
        """The groups of a firing alert, each with ``group``, ``receivers`` and ``interval_us``."""
        ...

    def due_at(self, placement: Any, alert: Alert, flushed_at: int | None, now: int) -> int:
        """When the group has to speak for it."""
        ...

    def may_inhibit(self, alert: Alert) -> bool:
        """Whether it may silence others."""
        ...


class MemberRow(NamedTuple):
    """One alert of a group as it is stored."""

    alert: Alert
    since: int
    receivers: tuple[str, ...]
    departed: bool


class DueGroup(NamedTuple):
    """A group that has to speak, with all that it is decided from. ``body`` is the group as its placement had it."""

    key: str
    body: Any
    members: Sequence[MemberRow]
    told: Sequence[Told]
    acknowledgements: Sequence[Acknowledgement]


class Round(NamedTuple):
    """The groups of one round, and what is looked up once for all of them."""

    groups: Sequence[DueGroup]
    #: Alerts that may silence others, with when their end was recorded (None: they fire).
    sources: Sequence[tuple[Alert, int | None]]
    silences: Sequence[Silence]
    now: int


class Decided(NamedTuple):
    """What a group says now, what it has told by then, and when it is to be asked again (None: by no timer)."""

    notifications: Sequence[Notification]
    told: Sequence[Told]
    due: int | None
    #: What was held back and by what, for people.
    mutes: Sequence[Mapping[str, Any]] = ()


class Groups(Protocol):
    """Alerts as they stand, and the groups that they are told in."""

    async def record(self, batch: Batch, placing: Placing) -> int:
        """Store the statements, place their alerts, and write the offset, in one transaction; what lies below the
        offset that is written already is passed over. Returns how many statements were new."""
        ...

    async def place_again(self, placing: Placing) -> int:
        """Place every open alert as the routes have it now; returns how many there are."""
        ...

    async def flush(self, limit: int, decide: Callable[[Round], Mapping[str, Decided]]) -> Sequence[Notification]:
        """Let up to ``limit`` due groups speak, in one transaction; nobody else flushes them meanwhile. A group that
        ``decide`` does not answer for is asked again later."""
        ...


class Delivery(msgspec.Struct, kw_only=True):
    """One message to one receiver, leased from the outbox."""

    notification: Notification
    #: The receipt of the first message of its thread; None where there was none.
    thread: str | None
    #: Which attempt this is, from 1.
    attempt: int
    owed_at: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one receiver stands, for all workers."""

    #: In a row, of those that say something about the receiver and not about one message.
    failures: int = 0
    #: Nothing is sent before; None: it may be.
    open_until: int | None = None
    #: Since when it does not work; None: it does.
    opened_at: int | None = None
    #: What the rate limit has left, and as of when; None: it was never used.
    tokens: float | None = None
    refilled_at: int | None = None
    #: Since when messages are held back by the rate limit; None: none are.
    held_since: int | None = None


class Turn(NamedTuple):
    """How many messages a receiver is sent now, whether what is held back is told in one, and how it stands then."""

    sends: int
    digests: bool
    standing: Standing


class Waiting(NamedTuple):
    """A message that a receiver has not taken, as far as its fallback is concerned."""

    notification_id: str
    attempts: int
    owed_at: int
    is_given_up: bool


class Policy(Protocol):
    """What is decided for one receiver (``streams.core.delivery``)."""

    def turn(self, standing: Standing, due: int, room: int, now: int) -> Turn:
        """What to send, of ``due`` messages, where ``room`` can be sent at once."""
        ...

    def digest(self, held: Sequence[Notification], now: int) -> Notification:
        """One message instead of those that were held back."""
        ...

    def falls_back(self, waiting: Waiting, standing: Standing, now: int) -> bool:
        """Whether the fallback is to be told."""
        ...


class Failure(NamedTuple):
    """Why an attempt did not get through."""

    error: str
    #: Whether trying again may help, and how long the receiver asked to be left alone (seconds).
    is_permanent: bool = False
    asked_s: float | None = None


class Outbox(Protocol):
    """The messages that are owed to receivers."""

    async def lease(self, receiver: str, room: int, lease_s: float, policy: Policy) -> Sequence[Delivery]:
        """Take messages that are due; of one thread only the oldest owed one is, so that a resolve never overtakes its
        trigger. A lease that runs out makes its message due again."""
        ...

    async def sent(self, delivery: Delivery, receipt: str, took_s: float) -> None:
        """The receiver took it; its receipt is the thread's where it is the first."""
        ...

    async def failed(
        self,
        delivery: Delivery,
        failure: Failure,
        took_s: float,
        retry_in_s: float | None,
        judge: Callable[[Standing, int], Standing],
    ) -> None:
        """The receiver did not take it; None gives up. What another worker has sent meanwhile stays sent."""
        ...

    async def fall_back(self, receiver: str, fallbacks: Sequence[str], policy: Policy) -> int:
        """Owe the fallbacks what the receiver could not be told, and what became of it; returns how many messages."""
        ...

    async def give_up_on_strangers(self, receivers: Sequence[str], after_s: float) -> Sequence[str]:
        """Give up what is owed to none of these for so long; returns to whom it was owed."""
        ...


class Forgot(NamedTuple):
    """What a batch removed, and where the next one begins (None: nothing is left that is old enough)."""

    removed: int
    next: tuple[Any, ...] | None


class History(Protocol):
    """What was delivered, as long as it is kept."""

    #: In the order in which they are to be forgotten.
    tables: tuple[str, ...]

    async def forget(self, table: str, before: datetime, after: tuple[Any, ...] | None, limit: int) -> Forgot | None:
        """Look at up to ``limit`` rows from before that moment, and behind ``after``, and remove those that no message
        to come may need. None: another worker is doing it."""
        ...
