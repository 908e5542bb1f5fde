"""What the watcher looks at, and by what it judges. Values only; microseconds where nothing else is said."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.instants import MINUTE, SECOND
from schemas.statements import Source
from schemas.topics import INPUTS
from streams.core.facts import Facts, SlotFact
from streams.watch_ports import ReceiverOwed, SourceHeard, UnpricedCalls


class TopicLag(NamedTuple):
    """What a consumer group has not read of one topic: how much, and for how long the oldest of it has waited."""

    group: str
    topic: str
    unread: int
    oldest_us: int


class SlotMark(NamedTuple):
    """How far METER has committed a partition of an input, and how far the ledger is with it."""

    slot: str
    committed: int
    ledger_next: int


class LettersLook(NamedTuple):
    """Of one input: letters and records that were ever written, as the ends of both logs say."""

    topic: str
    letters: int
    arrived: int


class Look(NamedTuple):
    """One look at a deployment. None: that part could not be looked at, and is as it was."""

    lags: Sequence[TopicLag] | None = None
    #: How long ago the ledger heard of METER; None also where it never did.
    ledger_silent_us: int | None = None
    marks: Sequence[SlotMark] | None = None
    letters: Sequence[LettersLook] | None = None
    sources: Sequence[SourceHeard] | None = None
    unpriced: Sequence[UnpricedCalls] | None = None
    #: All calls by UTC hour; goes with ``unpriced``.
    requests: Mapping[int, int] = {}
    receivers: Sequence[ReceiverOwed] | None = None


class KafkaStanding(NamedTuple):
    """One look at Kafka: the facts for the doctor's judges, and what of them the watcher's own checks need."""

    facts: Facts
    lags: Sequence[TopicLag] | None = None
    letters: Sequence[LettersLook] | None = None


class WatchPolicy(NamedTuple):
    """Where an alert begins. It ends below half of that, and only after ``settle_us`` of it."""

    app_id: str = "sluice"
    #: So long a thing has to be beyond its bound: one look may be unlucky.
    hold_us: int = 20 * SECOND
    settle_us: int = MINUTE
    lag_us: int = MINUTE
    #: From here on a lag is a page: budgets act so much too late.
    lag_page_us: int = 5 * MINUTE
    ledger_us: int = 2 * MINUTE
    #: Letters in ten minutes below which nothing is said.
    letters_min: int = 10
    #: Nobody is missed who was silent for less.
    silence_us: int = 15 * MINUTE
    unpriced_percent: int = 1
    unpriced_min: int = 20
    delivery_us: int = 5 * MINUTE
    #: Hours that ended longer ago are history: shown, never told.
    live_within_us: int = 3 * 3600 * SECOND


def slots_of(facts: Facts, ledger: Mapping[str, int], epoch: int) -> list[SlotFact] | None:
    """How far the ledger (``{slot: next offset}``) is on each partition that METER reads; None where Kafka is away."""
    if facts.reaches is None:
        return None
    metering = {group.name for group in facts.groups or () if "meter" in group.stages}
    inputs = {topic.name for topic in INPUTS}
    return [
        SlotFact(
            each.topic, each.partition, ledger.get(Source(each.topic, epoch, each.partition).slot(), 0),
            each.begin, each.end, each.committed,
        )
        for each in facts.reaches
        if each.topic in inputs and each.group in metering
    ]  # fmt: skip


def marks_of(slots: Sequence[SlotFact] | None) -> list[SlotMark] | None:
    """The same for the watcher's own check; what retention took is not waited for."""
    if slots is None:
        return None
    return [
        SlotMark(f"{each.topic}-{each.partition}", each.committed, max(each.ledger_next, each.begin))
        for each in slots
        if each.committed is not None
    ]
