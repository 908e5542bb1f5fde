"""What is known of a deployment, what is still well, and how an item stands. ``diagnosis.py`` judges. Pure."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from schemas.topics import Topic


class Level(StrEnum):
    """How an item stands."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    #: Not judged, for want of facts.
    SKIP = "SKIP"


class Finding(msgspec.Struct, frozen=True):
    """One item: how it stands, what was found, and what to do (empty when well)."""

    item: str
    level: Level
    found: str
    todo: str = ""
    details: tuple[str, ...] = ()


class Bounds(NamedTuple):
    """What is still well. ``_warn`` and ``_fail`` are where a warning and a failure begin."""

    partitions: int
    app_id: str
    servers: str
    lag_s_warn: float = 60.0
    lag_s_fail: float = 300.0
    skew_s_warn: float = 2.0
    skew_s_fail: float = 30.0
    dead_letters_max: int = 0
    restore_s_warn: float = 60.0
    silent_s_warn: float = 60.0
    silent_s_fail: float = 600.0


class Address(NamedTuple):
    """A broker's address and why it does not do; empty where it does."""

    name: str
    problem: str
    #: Not given in the settings, but named by the cluster.
    advertised: bool = False


class TopicFact(NamedTuple):
    """A topic as the broker has it. ``config`` is None where the broker does not tell."""

    partitions: int
    config: Mapping[str, str] | None
    #: Partitions without a leader, and with fewer copies in sync than there should be.
    leaderless: int = 0
    behind: int = 0


class GroupFact(NamedTuple):
    """A consumer group of workers, as its coordinator describes it."""

    state: str
    members: int
    #: How long it was watched, for want of a stable state.
    watched_s: float = 0.0
    name: str = ""
    #: What its members run.
    stages: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it has members and they have their partitions."""
        return self.state == "Stable" and self.members > 0


class Reach(NamedTuple):
    """How far a group is on one partition. ``committed`` is None before the first commit."""

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    #: Age of the first record that was not read, in microseconds; None where none is left but transaction markers.
    unread_us: int | None = None
    group: str = ""


class SlotFact(NamedTuple):
    """How far the ledger is on one partition of an input."""

    topic: str
    partition: int
    ledger_next: int
    begin: int
    end: int
    committed: int | None
    #: Age of the first committed record that the ledger lacks, in microseconds.
    lacking_us: int | None = None


class SchemaFact(NamedTuple):
    """The ledger's migrations against those of this version."""

    missing: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    #: The newest number in the database, where this version does not know it.
    newer: int | None = None


class LettersFact(NamedTuple):
    """What waits on one dead-letter topic."""

    topic: str
    waiting: int
    in_doubt: int
    newest_reason: str
    newest_detail: str


class ClockFact(NamedTuple):
    """How far this machine is ahead of another: between ``low_us`` and ``high_us``; or why that is not known."""

    name: str
    low_us: int = 0
    high_us: int = 0
    problem: str = ""

    @property
    def ahead_us(self) -> int:
        """The least that explains what was measured: negative when this machine is behind."""
        return self.low_us if self.low_us > 0 else self.high_us if self.high_us < 0 else 0


class Facts(msgspec.Struct, kw_only=True):
    """All that was gathered. None: could not be, since the broker or the database is away."""

    addresses: Sequence[Address]
    wanted: Sequence[Topic] = ()
    topics: Mapping[str, TopicFact] | None = None
    #: Those that have members, or where none has, all that there are.
    groups: Sequence[GroupFact] | None = None
    #: What workers run between them.
    stages: Sequence[str] = ()
    reaches: Sequence[Reach] | None = None
    changelogs: Mapping[str, int] | None = None
    database: str = ""
    database_problem: str = ""
    schema: SchemaFact | None = None
    slots: Sequence[SlotFact] | None = None
    #: How long ago the ledger heard of METER, in seconds; None before it ever did.
    ledger_silent_s: float | None = None
    letters: Sequence[LettersFact] | None = None
    clocks: Sequence[ClockFact] = ()


def skipped(item: str, needs: str) -> Finding:
    """An item that cannot be judged while something else is away."""
    return Finding(item, Level.SKIP, f"not checked: needs {needs}")


def worst(item: str, problems: Sequence[tuple[Level, str]], well: str, bad: str, todo: str) -> Finding:
    """As bad as the worst of its problems, which are its details; well without any."""
    if not problems:
        return Finding(item, Level.OK, well)
    level = Level.FAIL if any(found is Level.FAIL for found, _ in problems) else Level.WARN
    return Finding(item, level, bad, todo, tuple(line for _, line in problems))
