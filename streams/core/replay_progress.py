"""Which dead letters were brought back, and what becomes of those that a crash in the middle left open. Pure."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from streams.core.letters import Letter

Standing = Literal["waiting", "replayed", "in doubt"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One letter's progress. ``sending`` is written before the record is, ``replayed`` in one transaction with it."""

    v: int = 1
    state: Literal["sending", "replayed"]
    #: The letter, as ``topic[partition]@offset``.
    letter: str
    topic: str
    partition: int
    #: Where the record can lie: at or above this offset of ``topic[partition]``.
    searched_from: int
    #: Microseconds since 1970.
    at: int


class Found(NamedTuple):
    """What a search of a target partition gave: the letters that lie there, and whether all of it could be read."""

    letters: frozenset[str]
    begin: int


class Settled(NamedTuple):
    """What became of letters whose replay was cut short."""

    #: Their record lies on the topic: they were brought back.
    arrived: Mapping[str, Progress]
    #: Their record does not: they wait as if never touched.
    absent: Mapping[str, Progress]
    #: The part of the log where it would lie is gone: nobody can tell.
    unknown: Mapping[str, Progress]


def open_ends(progress: Mapping[str, Progress]) -> dict[str, Progress]:
    """By identity: what was about to be sent when a replay ended."""
    return {identity: known for identity, known in progress.items() if known.state == "sending"}


def settle(open_: Mapping[str, Progress], found: Mapping[tuple[str, int], Found]) -> Settled:
    """Decide what was cut short by what lies on the target partitions. ``found`` holds every partition in question."""
    arrived, absent, unknown = {}, {}, {}
    for identity, known in open_.items():
        seen = found[(known.topic, known.partition)]
        if known.letter in seen.letters:
            arrived[identity] = known
        elif known.searched_from < seen.begin:
            unknown[identity] = known
        else:
            absent[identity] = known
    return Settled(arrived, absent, unknown)


class Pile(msgspec.Struct):
    """The letters of one topic and reason. Instants are microseconds since 1970."""

    topic: str
    reason: str
    oldest: int
    newest: int
    waiting: int = 0
    replayed: int = 0
    in_doubt: int = 0
    #: Of those that wait, how many were brought back before and refused again.
    refused_again: int = 0
    #: The most times that one of those was brought back.
    replays_max: int = 0

    @property
    def count(self) -> int:
        """All letters of the pile."""
        return self.waiting + self.replayed + self.in_doubt


class Survey:
    """Counts letters by topic and reason, each once."""

    def __init__(self, progress: Mapping[str, Progress]) -> None:
        self._progress = progress
        self._seen: set[str] = set()
        self._piles: dict[tuple[str, str], Pile] = {}
        #: The newest letter that waits, by topic.
        self.newest_waiting: dict[str, Letter] = {}

    def add(self, letter: Letter) -> Standing | None:
        """Count a letter and say where it stands; None for a copy of one that was counted."""
        identity = letter.identity()
        if identity in self._seen:
            return None
        self._seen.add(identity)
        where = standing(self._progress.get(identity))
        pile = self._piles.get((letter.topic, letter.reason))
        if pile is None:
            at = letter.written_at
            pile = self._piles[(letter.topic, letter.reason)] = Pile(letter.topic, letter.reason, at, at)
        pile.oldest, pile.newest = min(pile.oldest, letter.written_at), max(pile.newest, letter.written_at)
        if where == "replayed":
            pile.replayed += 1
            return where
        if where == "in doubt":
            pile.in_doubt += 1
        else:
            pile.waiting += 1
        if letter.replays:
            pile.refused_again += 1
            pile.replays_max = max(pile.replays_max, letter.replays)
        last = self.newest_waiting.get(letter.topic)
        if last is None or letter.written_at >= last.written_at:
            self.newest_waiting[letter.topic] = letter
        return where

    def piles(self) -> list[Pile]:
        """All piles, by topic and reason."""
        return [self._piles[key] for key in sorted(self._piles)]


def standing(known: Progress | None) -> Standing:
    """Where a letter stands. One that was being sent is in doubt until a replay has looked."""
    if known is None:
        return "waiting"
    return "replayed" if known.state == "replayed" else "in doubt"
