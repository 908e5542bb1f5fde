"""How large things usually are: a bounded histogram that forgets, from which high quantiles are read.

River's quantiles do not fit here: ``Quantile`` (P2) never forgets, and the 99.9th percentile of a ``RollingQuantile``
needs thousands of values a key. Buckets are an eighth of a power of two wide, so that a bound is at most an eighth too
high; all numbers are integers, the same on every path.
"""

import math
from collections.abc import Mapping

#: Numbers from here on share the last bucket.
NUMBER_MAX = (1 << 31) - 1
#: What is forgotten of every weight from a day to the next: half of it in a week.
_KEPT, _OF = 9, 10
#: More weight than this is halved, so that a number stays a number.
_TOTAL_MAX = 1 << 33


def bucket_of(number: int) -> int:
    """The bucket of a number; larger numbers have larger buckets.

    >>> [bucket_of(n) for n in (-3, 0, 1, 15, 16, 17, 18, 50_000, 10**12)]
    [0, 0, 1, 15, 16, 16, 17, 108, 231]
    """
    number = max(0, min(NUMBER_MAX, number))
    shift = max(0, number.bit_length() - 4)
    return (shift << 3) + (number >> shift)


def edge_of(bucket: int) -> int:
    """The largest number in a bucket.

    >>> [edge_of(bucket_of(n)) for n in (0, 15, 16, 50_000)]
    [0, 15, 17, 53247]
    """
    if bucket < 16:
        return bucket
    shift = (bucket >> 3) - 1
    return (((bucket & 7) + 9) << shift) - 1


def faded(weights: Mapping[int, int], days: int) -> dict[int, int]:
    """What is left of weights after so many days."""
    found = dict(weights)
    for _ in range(min(days, 400)):
        if not found:
            break
        found = {bucket: weight * _KEPT // _OF for bucket, weight in found.items() if weight * _KEPT >= _OF}
    return found


def with_weight(weights: dict[int, int], bucket: int, weight: int) -> dict[int, int]:
    """The weights with more on one bucket; the given ones are changed."""
    weights[bucket] = weights.get(bucket, 0) + weight
    if sum(weights.values()) > _TOTAL_MAX:
        return {each: halved for each, held in weights.items() if (halved := held // 2)}
    return weights


def upper_quantile(weights: Mapping[int, int], one: int, above: float) -> int | None:
    """A number that at most this share (``above``) is larger than, surely and not just by chance; None: nothing known.

    ``one`` is the weight of one number. Of few numbers it is the largest: two standard errors are left out of what may
    lie above.

    >>> upper_quantile({1: 999, 100: 1}, 1, 0.01), upper_quantile({1: 99, 100: 1}, 1, 0.01), upper_quantile({}, 1, 0.01)
    (1, 26623, None)
    """
    if not weights:
        return None
    allowed = sum(weights.values()) / one * above
    left = (allowed - 2 * math.sqrt(allowed)) * one
    for bucket in sorted(weights, reverse=True):
        left -= weights[bucket]
        if left < 0:
            return edge_of(bucket)
    return edge_of(min(weights))
