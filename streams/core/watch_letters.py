"""Dead letters by the ten minutes, against what is usual: what a source has always sent in vain pages nobody."""

import msgspec

from schemas.instants import HOUR, MINUTE
from streams.core.watch_episodes import Symptom
from streams.core.watch_look import LettersLook, WatchPolicy

WINDOW = 10
#: More letters than so many times the usual are growth.
FACTOR = 5
HOURS_KEPT = 168
#: Fewer letters than so many times the floor wake nobody, whatever share of a topic they are.
PAGE_FACTOR = 10


class LettersMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one input's letters: the last minutes, and the hours of a week."""

    letters: int
    arrived: int
    #: When it was looked at, in microseconds.
    at: int
    #: (minute since 1970, letters, records) of the last ten minutes.
    minutes: tuple[tuple[int, int, int], ...] = ()
    hour: int = 0
    #: Letters of the present hour, and of each whole one before it, the newest last.
    of_hour: int = 0
    hours: tuple[int, ...] = ()

    @property
    def recent(self) -> tuple[int, int]:
        """Letters, and all records, of the last ten minutes."""
        return sum(each[1] for each in self.minutes), sum(each[2] for each in self.minutes)

    @property
    def usual(self) -> int:
        """Letters in ten minutes of all but the worst tenth of the hours."""
        ranked = sorted(self.hours)
        return -(-ranked[len(ranked) * 9 // 10] // 6) if ranked else 0


def remember(known: LettersMemory | None, look: LettersLook, now: int) -> LettersMemory:
    """Take one look in. What came while nobody looked is spread over that time."""
    minute, hour = now // MINUTE, now // HOUR
    if known is None or look.letters < known.letters or look.arrived < known.arrived:
        # The first look, or a topic that was made anew: growth is told from here on.
        return LettersMemory(letters=look.letters, arrived=look.arrived, at=now, hour=hour)
    unseen_us = max(1, now - known.at)
    share_us = min(unseen_us, WINDOW * MINUTE)
    letters = look.letters - known.letters
    recent = letters * share_us // unseen_us
    arrived = (look.arrived - known.arrived) * share_us // unseen_us
    minutes = {at: (lost, came) for at, lost, came in known.minutes}
    was = minutes.get(minute, (0, 0))
    minutes[minute] = was[0] + recent, was[1] + arrived
    hours, of_hour = known.hours, known.of_hour
    if hour > known.hour:
        idle = min(hour - known.hour - 1, HOURS_KEPT)
        hours, of_hour = (*hours, of_hour, *[0] * idle)[-HOURS_KEPT:], 0
    return LettersMemory(
        letters=look.letters, arrived=look.arrived, at=now,
        minutes=tuple((at, *each) for at, each in sorted(minutes.items()) if minute - at < WINDOW),
        hour=hour, of_hour=of_hour + letters, hours=hours,
    )  # fmt: skip


def symptom(topic: str, memory: LettersMemory, policy: WatchPolicy) -> Symptom:
    """Whether this input's dead letters grow."""
    letters, arrived = memory.recent
    bound = max(policy.letters_min, FACTOR * memory.usual)
    most = letters * 2 >= arrived and letters >= PAGE_FACTOR * policy.letters_min
    usual = f"usual are {memory.usual:,}" if memory.usual else "none are usual"
    share = f", {letters * 100 // arrived} % of what arrived" if arrived else ""
    return Symptom(
        rule="dead_letters",
        scope_type="topic",
        scope_id=topic,
        is_bad=letters >= bound,
        is_well=letters * 2 < bound,
        summary=f"{letters:,} records of {topic} were dead-lettered in {WINDOW} minutes{share}; {usual}",
        ended=f"Dead letters of {topic} are as usual again: {letters:,} in {WINDOW} minutes",
        tier="page" if most else "ticket",
        severity="emergency" if most else "critical",
        observed=str(letters),
        expected=str(memory.usual),
        threshold=str(bound),
        unit=f"letters in {WINDOW} min",
        action="They are kept untouched for 30 days, and are in no total and no budget until they are replayed.",
        labels={"topic": topic},
        settle_us=policy.settle_us,
    )
