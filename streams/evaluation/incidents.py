"""From scores to pages: the bar that every detector is held to, and one page for each incident."""

import numpy as np
from numpy.typing import NDArray

from streams.evaluation.injections import usual
from streams.evaluation.traces import Amounts

#: Above this multiple of what is usual, and by more than the floor: or no score pages.
RATIO = 1.5
#: An incident is over after so many hours below the bar.
QUIET_HOURS = 3
NEVER = -np.inf

Flags = NDArray[np.bool_]


def running(amounts: Amounts, per_hour: int) -> Amounts:
    """What the hour of each row has come to with it.

    >>> running(np.array([1.0, 2.0, 3.0, 4.0]), 2).tolist()
    [1.0, 3.0, 3.0, 7.0]
    """
    return np.cumsum(amounts.reshape(-1, per_hour), axis=1).ravel()


def passes(amounts: Amounts, per_hour: int, floor: float) -> Flags:
    """For each row, whether its hour so far is above the ratio of its usual hour and above the floor."""
    so_far = running(amounts, per_hour)
    expected = np.repeat(usual(amounts.reshape(-1, per_hour).sum(axis=1)), per_hour)
    return (so_far > RATIO * expected) & (so_far - expected > floor)


def opens(hot: Flags, per_hour: int) -> Flags:
    """The rows at which a page is sent: hot, and no other hot row in its hour or the three before.

    The last axis is the rows, from the beginning of an hour.

    >>> opens(np.array([True, True, False, False, True, False, False, False, True]), 1).astype(int).tolist()
    [1, 0, 0, 0, 0, 0, 0, 0, 1]
    """
    hours = np.arange(hot.shape[-1]) // per_hour
    far = -QUIET_HOURS - 1
    last = np.maximum.accumulate(np.where(hot, hours, far), axis=-1)
    before = np.concatenate([np.full((*hot.shape[:-1], 1), far), last[..., :-1]], axis=-1)
    return hot & (hours - before > QUIET_HOURS)


def over(scores: Amounts, bars: Amounts) -> Flags:
    """One line for each bar: the rows whose score is above it.

    >>> over(np.array([1.0, 5.0]), np.array([0.0, 3.0])).astype(int).tolist()
    [[1, 1], [0, 1]]
    """
    return scores[None, :] > bars[:, None]
