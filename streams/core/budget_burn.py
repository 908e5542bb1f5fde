"""How fast a budget is spent: its totals at instants of the last ten minutes of stream time.

Totals are kept and not what was added, so that hearing one twice changes nothing. What a source has stated for the
first time says what it holds, and not how fast it came: those who call here shift what is kept by it.
"""

from itertools import pairwise
from math import sqrt

from schemas.instants import HOUR, MINUTE, SECOND

#: How far apart samples are, and up to which age: fine where it counts, coarse for the long rate.
_GRADES = ((10 * SECOND, SECOND), (MINUTE, 5 * SECOND), (10 * MINUTE, MINUTE))
#: A rate over less is no rate.
_SPAN_MIN = 10 * SECOND
_BURST, _BURST_MIN = 5 * SECOND, SECOND
#: How far back is looked for how long calls take.
_TOOK = 20 * SECOND
#: 95 in 100 of what is spread normally lie below its mean and so many standard deviations.
_P95 = 1.645

#: ``(stream time, total)``, oldest first.
Samples = list[tuple[int, int]]
#: ``(stream time, calls answered, the milliseconds that they took, squares in hundredths of a second)``, oldest first.
Calls = list[tuple[int, int, int, int]]


def sampled(samples: Samples, at: int, total: int) -> Samples:
    """The samples with this one, thinned; at most some thirty are kept."""
    if samples and at - samples[-1][0] < SECOND:
        return samples
    kept: Samples = [(at, total)]
    for when, amount in reversed(samples):
        age = at - when
        step = next((step for until, step in _GRADES if age <= until), None)
        if step is None:
            break
        if kept[-1][0] - when >= step:
            kept.append((when, amount))
    kept.reverse()
    return kept


def shifted(samples: Samples, nanos: int) -> Samples:
    """The samples as if so much had been there all along."""
    return [(when, amount + nanos) for when, amount in samples]


def burn_per_second(samples: Samples, at: int, total: int) -> int:
    """Nanodollars a second: over the last minute, or over the last seconds where they are steadily faster.

    The largest step of each is left out, with its time: a bill, or a backlog, comes in one, and is no flood.

    >>> steady = [(second * SECOND, second * 10) for second in range(0, 60, 5)]
    >>> burn_per_second(steady, 60 * SECOND, 600), burn_per_second([(0, 0), (SECOND, 0)], 30 * SECOND, 600)
    (10, 0)
    """
    return max(0, _steady(samples, at, total, MINUTE, _SPAN_MIN), _steady(samples, at, total, _BURST, _BURST_MIN))


def recent_burn_per_second(samples: Samples, at: int, total: int) -> int:
    """Nanodollars a second over the last five seconds, with everything in it."""
    first = _within(samples, at, _BURST)
    return max(0, (total - first[0][1]) * SECOND // max(at - first[0][0], _BURST_MIN)) if first else 0


def calls_sampled(calls: Calls, at: int, answered: int, ms: int, squared: int) -> Calls:
    """The calls with these, at most one sample a second, and one from before the window."""
    if calls and at - calls[-1][0] < SECOND:
        return calls
    before = [kept for kept in calls if at - kept[0] > _TOOK][-1:]
    return [*before, *(kept for kept in calls if at - kept[0] <= _TOOK), (at, answered, ms, squared)]


def took_us(calls: Calls, answered: int, ms: int, squared: int) -> tuple[int, int]:
    """How long the last calls took, microseconds: their mean, and the 95th percentile as it is where they are spread
    normally.

    >>> took_us([(0, 10, 50_000, 2_500_000)], 14, 52_000, 2_510_400)  # 400, 600, 400, and 600 ms
    (500000, 664500)
    """
    if calls and answered > calls[0][1]:
        _, some, their_ms, their_squares = calls[0]
        answered, ms, squared = answered - some, ms - their_ms, squared - their_squares
    if answered <= 0 or ms <= 0:
        return 0, 0
    mean = ms / answered
    deviation = sqrt(max(0.0, squared * 100 / answered - mean * mean))
    return round(mean * 1_000), round((mean + _P95 * deviation) * 1_000)


def burn_per_hour(samples: Samples, at: int, total: int) -> int:
    """Nanodollars an hour, over the last ten minutes, with everything in it."""
    first = _within(samples, at, 10 * MINUTE)
    return max(0, (total - first[0][1]) * HOUR // max(at - first[0][0], MINUTE)) if first else 0


def _within(samples: Samples, at: int, window: int) -> Samples:
    return [(when, amount) for when, amount in samples if at - when <= window]


def _steady(samples: Samples, at: int, total: int, window: int, least: int) -> int:
    steps = [
        (after[1] - before[1], after[0] - before[0])
        for before, after in pairwise([*_within(samples, at, window), (at, total)])
    ]
    if not steps:
        return 0
    steps.remove(max(steps))
    return sum(nanos for nanos, _ in steps) * SECOND // max(sum(took for _, took in steps), least)
