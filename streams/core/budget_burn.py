"""How fast a budget is spent: its totals at instants of the last ten minutes of stream time.

Totals are kept and not what was added, so that hearing one twice changes nothing. What a source has stated for the
first time says what it holds, and not how fast it came: those who call here shift what is kept by it.
"""

from itertools import pairwise

from schemas.instants import HOUR, MINUTE, SECOND

#: How far apart samples are, and up to which age: fine where it counts, coarse for the long rate.
_GRADES = ((10 * SECOND, SECOND), (MINUTE, 5 * SECOND), (10 * MINUTE, MINUTE))
#: A rate over less is no rate: one lump would be taken for a flood.
_SPAN_MIN = 10 * SECOND
_BURST = 5 * SECOND

#: ``(stream time, total)``, oldest first.
Samples = list[tuple[int, int]]


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

    >>> burn_per_second([(0, 0), (30 * SECOND, 300)], 60 * SECOND, 600)
    10
    """
    return max(0, _over(samples, at, total, MINUTE), _burst(samples, at, total))


def burn_per_hour(samples: Samples, at: int, total: int) -> int:
    """Nanodollars an hour, over the last ten minutes."""
    return max(0, _over(samples, at, total, 10 * MINUTE, HOUR))


def _over(samples: Samples, at: int, total: int, window: int, unit: int = SECOND) -> int:
    first = next(((when, amount) for when, amount in samples if at - when <= window), None)
    if first is None:
        return 0
    return (total - first[1]) * unit // max(at - first[0], _SPAN_MIN)


def _burst(samples: Samples, at: int, total: int) -> int:
    """The rate of the last seconds without their largest step: a bill, or a backlog, comes in one."""
    recent = [(when, amount) for when, amount in samples if at - when <= _BURST]
    if not recent or at - recent[0][0] < 2 * SECOND:
        return 0
    amounts = [amount for _, amount in recent] + [total]
    steps = [after - before for before, after in pairwise(amounts)]
    span = at - recent[0][0] - SECOND
    return (amounts[-1] - amounts[0] - max(steps)) * SECOND // max(span, SECOND)
