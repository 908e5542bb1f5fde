"""What every detector is: it scores first, learns after, and says None while it does not know enough.

A detector is pure: no clock, no randomness, no I/O. Its whole memory is a plain, versioned msgspec struct
(never a pickle), so a detector rebuilt from its state goes on exactly as the one that stated it would have.
"""

import math
from typing import Any, ClassVar, Protocol, Self

import msgspec

#: Nothing larger is believed or kept: a billion dollars in nanodollars, and a bound on the state's size.
SIZE_MAX = 10**18


class StateError(ValueError):
    """A stored state that this program cannot use; the message says what to do."""


class Observation(msgspec.Struct, frozen=True):
    """One number over ``[start, end)``, microseconds since 1970; a point in time has ``start == end``.

    What the number is depends on the detector. None says that the number is missing or must not be learned.
    """

    start: int
    end: int
    value: int | float | None


class Score(msgspec.Struct, frozen=True):
    """How an observation compares, in whole units of its detector; judging it is the caller's policy."""

    observed: int
    #: What was expected; None where the detector has a verdict without an expectation.
    expected: int | None
    #: How far ``observed`` is above what the detector compares it with; negative where it is below.
    excess: int
    #: ``observed`` in percent of ``expected``, rounded down; None where nothing above zero was expected.
    ratio_percent: int | None


class Detector(Protocol):
    """One model of one key. ``ready`` is apart from normality: "not ready" is not "normal"."""

    name: ClassVar[str]
    #: The largest state, encoded as JSON, in bytes.
    state_bytes_max: ClassVar[int]

    def ready(self, x: Observation) -> bool:
        """Whether enough is known to score this observation (its value does not matter)."""
        ...

    def score_one(self, x: Observation) -> Score | None:
        """Score without learning; None while not ready, or where the value is not a finite number."""
        ...

    def learn_one(self, x: Observation) -> None:
        """Take the observation into the expectation. What is not a finite number never becomes one."""
        ...

    def state(self) -> Any:
        """A snapshot of all that was learned: a msgspec struct with a version field ``v``."""
        ...

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """The detector as it was when it gave this state.

        Raises:
            StateError: the state was written by a later version.
        """
        ...


def whole(value: object) -> int | None:
    """The number as a bounded integer, or None where there is no finite number.

    River must never see anything else: NaN poisons its means for good and makes its rolling quantile panic in
    Rust, with an exception that ``except Exception`` does not catch.

    >>> whole(2.5), whole(-7), whole(10**30) == SIZE_MAX
    (2, -7, True)
    >>> whole(None), whole(float("nan")), whole(float("-inf")), whole("7"), whole(True)
    (None, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = round(value)
    return max(-SIZE_MAX, min(SIZE_MAX, value))


def check_version(name: str, found: int, known: int) -> None:
    """Refuse a state of a later version.

    Raises:
        StateError: ``found`` is not ``known``.
    """
    if found != known:
        raise StateError(
            f"state of {name} has version {found}, and this program reads {known}: "
            "run the version that wrote it, or delete the detector's table to learn anew"
        )


def compare(observed: int, expected: int) -> Score:
    """The score of a number against what was expected.

    >>> compare(300, 200)
    Score(observed=300, expected=200, excess=100, ratio_percent=150)
    """
    ratio = observed * 100 // expected if expected > 0 else None
    return Score(observed=observed, expected=expected, excess=observed - expected, ratio_percent=ratio)
