"""What the watcher of Sluice itself asks of the outside: protocols only. ``StoreError`` is that of ``ports``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class SourceHeard(NamedTuple):
    """A source: in which minutes (UTC, of arrival) it was heard, a mask of 1440 bits by day since 1970."""

    name: str
    topic: str
    days: Mapping[int, int]


class UnpricedCalls(NamedTuple):
    """The calls of one model in one UTC hour that had no price, and what of them stands on gateways' own figures."""

    hour: int
    provider: str
    model: str
    requests: int
    estimated_nanos: int


class ReceiverOwed(NamedTuple):
    """What one receiver is owed: messages that are due, since when the oldest of them is, and how many are pages."""

    name: str
    waiting: int
    oldest_us: int
    pages: int
    #: Messages that it will not be sent any more, of the last hour.
    given_up: int
    last_error: str = ""


class Held(NamedTuple):
    """The watcher's lease: which holder this is, counted, and what the last one remembered (None: nothing)."""

    term: int
    state: Any


class HeardSources(Protocol):
    """Where METER keeps which sources it heard."""

    async def hear(self, heard: Mapping[tuple[str, str, int], int]) -> None:
        """Add minutes, a mask of 1440 bits by topic, source and day since 1970; raises StoreError."""
        ...


class WatchStore(Protocol):
    """The watcher's lease and memory, and what it looks at in the database. All methods raise StoreError."""

    async def take(self, holder: str, lease_s: float) -> Held | None:
        """Take or renew the lease; None while another holds it."""
        ...

    async def keep(self, holder: str, term: int, state: Any, lease_s: float) -> bool:
        """Keep the state and renew the lease; False where another holds it by now."""
        ...

    async def release(self, holder: str) -> None:
        """Let another take it at once."""
        ...

    async def ledger(self) -> tuple[Mapping[str, int], int | None]:
        """``{slot: next offset}``, and how long ago it heard of METER, in microseconds; None before it ever did."""
        ...

    async def sources(self, now: int, days: int, silent_us: int) -> Sequence[SourceHeard]:
        """The sources of the last so many days; forgets what is older.

        Of those that were heard less than ``silent_us`` ago only the last day is told, of the others all.
        """
        ...

    async def unpriced(self, now: int) -> tuple[Sequence[UnpricedCalls], Mapping[int, int]]:
        """Calls without a price by hour and model, and all calls by hour, of the last day."""
        ...

    async def owed(self) -> Sequence[ReceiverOwed]:
        """What each receiver is owed, or was given up."""
        ...


class HeartbeatError(Exception):
    """The heartbeat's address did not take it."""


class Heartbeat(Protocol):
    """The dead man's switch: somebody outside who misses us."""

    async def beat(self, is_well: bool, body: str) -> None:
        """Say that all is well; or that it is not, where that can be said, and else nothing.

        Raises:
            HeartbeatError: it was not taken.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
