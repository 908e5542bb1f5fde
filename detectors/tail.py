"""How large things usually are: a bounded histogram that forgets, from which high quantiles are read.

River's quantiles do not fit here: ``Quantile`` (P2) never forgets, and the 99.9th percentile of a ``RollingQuantile``
needs thousands of values a key. Buckets are an eighth of a power of two wide, so that a bound is at most an eighth too
high; all numbers are integers, the same on every path.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

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


class Acceptance(NamedTuple):
    """When the strange becomes the usual: so much of it over at least so long; and after how long it is forgotten."""

    weight: int
    after_us: int
    forget_us: int


class Held(NamedTuple):
    """What is learned, and what is held back because it was strange, from when until when."""

    weights: dict[int, int]
    held: dict[int, int]
    held_from: int
    held_until: int

    def hold(self, bucket: int, weight: int, instant: int, acceptance: Acceptance) -> "Held":
        """Hold one more back, or learn all that is held back.

        >>> held = Held({1: 9}, {}, 0, 0)
        >>> for instant in (10, 20, 30):
        ...     held = held.hold(5, 1, instant, Acceptance(3, 20, 100))
        >>> held
        Held(weights={1: 9, 5: 3}, held={}, held_from=0, held_until=0)
        """
        held = dict(self.held) if instant - self.held_until < acceptance.forget_us else {}
        held_from = self.held_from if held else instant
        held = with_weight(held, bucket, weight)
        if sum(held.values()) < acceptance.weight or instant - held_from < acceptance.after_us:
            return Held(self.weights, held, held_from, max(self.held_until, instant))
        weights = dict(self.weights)
        for each, more in held.items():
            weights = with_weight(weights, each, more)
        return Held(weights, {}, 0, 0)
