"""A single request with more tokens than the limit: exact from the first event on; and whether it is strange here.

The rule needs no model, and every request above the limit is recorded. But for one feature a request of 50 000 tokens
is unheard of, and another sends seven a minute (measured), so what wakes somebody is learned for each feature: a bar
over the size that 99.9 % of its requests stay within, and one over how many requests an hour are above the limit.

What is strange is not learned: it is held back, and becomes the usual when ten such have come over a day or more.
"""

from typing import ClassVar, Self

import msgspec

from detectors.base import Observation, Score, check_version, whole
from detectors.tail import Acceptance, Held, bucket_of, faded, upper_quantile, with_weight
from schemas.instants import DAY, HOUR, hour_of

#: Weight of one request, so that forgetting a tenth of it leaves something.
ONE = 100
#: The share of requests that may be larger than the usual.
ABOVE = 0.001
#: So many requests have to be known before their sizes mean anything.
KNOWN_MIN = 200
#: Above so many times the limit a request of an unknown feature is strange.
COLD_FACTOR = 3
#: Strange is what is so much larger than the usual, in percent, or an hour with so many times the most of a week.
BAR_PERCENT = 150
COUNT_FACTOR = 2
#: Fewer in an hour are never strange for their number.
COUNT_MIN = 10
#: So many strange requests, over at least so long, are the usual from then on; a week without one forgets them.
ACCEPTANCE = Acceptance(10 * ONE, DAY, 7 * DAY)
DAYS_KEPT = 8
#: After so long without a strange request the next one is news; before, where it is so much larger, in percent.
CALM, STEP_PERCENT = 3 * HOUR, 150
#: Requests of fewer tokens are all alike.
SMALL = bucket_of(256)


class RunawayRequestState(msgspec.Struct, frozen=True):
    """Sizes by bucket with their weights, what is held back, and the most of an hour above the limit by day."""

    v: int = 2
    limit: int = 50_000
    day: int = 0
    weights: dict[int, int] = {}
    held: dict[int, int] = {}
    held_from: int = 0
    held_until: int = 0
    #: The first request ever seen, microseconds: before a day of it, no number of requests is strange.
    since: int = 0
    hour: int = 0
    count: int = 0
    peaks: dict[int, int] = {}
    #: The bucket of the newest of a sample, which is learned with the next one; None where there is none.
    sampled: int | None = None


class RequestScore(Score, frozen=True):
    """``expected`` is what 99.9 % of the requests stay within; None while too few are known.

    ``excess`` is what is above the limit.
    """

    #: More tokens than this are strange.
    bar: int
    #: Requests above the limit in this hour, this one included; None of an hour that is over.
    count: int | None
    #: More of them than this are strange; None while no day is known.
    count_bar: int | None

    @property
    def is_strange(self) -> bool:
        """Whether the size is."""
        return self.excess > 0 and self.observed > self.bar

    @property
    def is_crowded(self) -> bool:
        """Whether the number in this hour is."""
        return self.excess > 0 and self.count_bar is not None and (self.count or 0) > self.count_bar

    @property
    def strangeness(self) -> float:
        """How far it is above its bars: above 1 it is strange."""
        size = max(0, self.observed) / max(1, self.bar)
        if not self.count_bar or self.excess <= 0:
            return size
        return max(size, (self.count or 0) / self.count_bar)


class Woken(msgspec.Struct, frozen=True):
    """What somebody was last woken for: the largest request, and how many there were in an hour."""

    #: The newest strange request.
    newest: int
    tokens: int
    count: int


def news(woken: Woken | None, at: int, score: RequestScore) -> tuple[Woken | None, bool]:
    """Whether a request is strange and nobody was woken for the like of it; and what is remembered of that.

    The like of it: within three hours, not larger by half, and not twice as many in an hour.
    """
    if not (score.is_strange or score.is_crowded):
        return woken, False
    count = score.count or 0
    if woken is None or at - woken.newest >= CALM:
        return Woken(at, score.observed, count), True
    is_larger = score.is_strange and score.observed * 100 > STEP_PERCENT * woken.tokens
    is_more = score.is_crowded and count >= 2 * max(woken.count, (score.count_bar or 0) // 2)
    remembered = Woken(
        newest=max(at, woken.newest),
        tokens=score.observed if is_larger else woken.tokens,
        count=count if is_more else woken.count,
    )
    return remembered, is_larger or is_more


class RunawayRequest:
    """Scores one request: ``value`` is its tokens, ``start`` when it was.

    Ordinary requests are to be learned too, or a sample of them by ``learn_many``: what is usual is known by them.

    >>> RunawayRequest(limit=50_000).score_one(Observation(0, 0, 61_000)).excess
    11000
    """

    name: ClassVar[str] = "runaway_request"
    state_bytes_max: ClassVar[int] = 4096

    def __init__(self, limit: int = 50_000) -> None:
        self._now = RunawayRequestState(limit=limit)

    def ready(self, x: Observation) -> bool:
        """Always: the rule is exact."""
        return True

    def score_one(self, x: Observation) -> RequestScore | None:
        """Compare the tokens with the limit and with the usual; None where there is no number."""
        tokens, now = whole(x.value), self._now
        if tokens is None:
            return None
        usual, bar = self._bar()
        count = None
        if hour_of(x.start) >= now.hour:
            count = (tokens > now.limit) + (now.count if hour_of(x.start) == now.hour else 0)
        return RequestScore(
            observed=tokens, expected=usual, excess=tokens - now.limit,
            ratio_percent=tokens * 100 // usual if usual else None,
            bar=bar, count=count, count_bar=self._count_bar(x.start),
        )  # fmt: skip

    def learn_one(self, x: Observation) -> None:
        """Learn one request."""
        self.learn_many(x, 1)

    def learn_many(self, x: Observation, times: int) -> None:
        """Learn a request that stands for so many; one above the limit stands for itself alone.

        What stands for many is learned when the next one comes: what was above the limit meanwhile is known by
        then, and is not found strange for being among the first.
        """
        tokens = whole(x.value)
        if tokens is None:
            return
        self._turn(x.start)
        now = self._now
        place = max(SMALL, bucket_of(tokens))
        if tokens <= now.limit:
            # What is just below the limit must not be taken for what is above it.
            bucket: int | None = min(place, bucket_of(now.limit) - 1)
            if times > 1:
                bucket, now = now.sampled, msgspec.structs.replace(now, sampled=bucket)
            if bucket is not None:
                now = msgspec.structs.replace(now, weights=with_weight(dict(now.weights), bucket, times * ONE))
            self._now = now
            return
        if hour_of(x.start) == now.hour:
            now = msgspec.structs.replace(now, count=now.count + 1)
        if tokens > self._bar()[1]:
            held = Held(now.weights, now.held, now.held_from, now.held_until).hold(place, ONE, x.start, ACCEPTANCE)
            self._now = msgspec.structs.replace(now, **held._asdict())
        else:
            self._now = msgspec.structs.replace(now, weights=with_weight(dict(now.weights), place, ONE))

    def state(self) -> RunawayRequestState:
        """All that was learned, at most 4 KiB as JSON."""
        return self._now

    @classmethod
    def from_state(cls, state: RunawayRequestState) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        check_version(cls.name, state.v, 2)
        detector = cls(state.limit)
        detector._now = state
        return detector

    def _bar(self) -> tuple[int | None, int]:
        now = self._now
        if sum(now.weights.values()) < KNOWN_MIN * ONE:
            return None, COLD_FACTOR * now.limit
        usual = upper_quantile(now.weights, ONE, ABOVE) or 0
        return usual, now.limit if usual <= now.limit else usual * BAR_PERCENT // 100

    def _count_bar(self, instant: int) -> int | None:
        now = self._now
        if not now.since or instant - now.since < DAY:
            return None
        return max(COUNT_MIN, COUNT_FACTOR * max(now.peaks.values(), default=0))

    def _turn(self, instant: int) -> None:
        """Let days and hours pass up to an instant; one of the past changes nothing."""
        now = self._now
        hour, day = hour_of(instant), instant // DAY
        if hour <= now.hour and now.since:
            return
        peaks = now.peaks
        if now.count:
            # An hour that was strange raises the bar for the next one, but never by more than the bar allows.
            count_bar = self._count_bar(now.hour)
            counted = now.count if count_bar is None else min(now.count, count_bar)
            of_day = now.hour // DAY
            peaks = {**peaks, of_day: max(counted, peaks.get(of_day, 0))}
        self._now = msgspec.structs.replace(
            now,
            day=day,
            weights=faded(now.weights, day - now.day) if now.day and day > now.day else now.weights,
            since=now.since or instant,
            hour=hour,
            count=0,
            peaks={each: most for each, most in peaks.items() if each > day - DAYS_KEPT},
        )


def of_recent(limit: int, recent: list[int]) -> RunawayRequestState:
    """What version 1 had learned, the newest requests above the limit, as this version keeps it."""
    weights: dict[int, int] = {}
    for tokens in recent:
        weights = with_weight(weights, bucket_of(tokens), ONE)
    return RunawayRequestState(limit=limit, weights=weights)
