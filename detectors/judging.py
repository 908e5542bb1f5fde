"""What a judge is: one series in, row by row, and for each row what was expected, how strange it is, and what is sent.

A judge is a detector with the policy that the service puts on top of it (bars, floors, incidents), without the
service: pure, no clock, deterministic. `sluice eval` judges the judges; `detectors/judges.py` makes them.
"""

from typing import Literal, NamedTuple, Protocol

#: What the values of a series are: an amount per step, a utilisation (0..1), or the tokens of single requests.
Kind = Literal["spend", "gpu", "requests"]


class Verdict(NamedTuple):
    """What a judge says of one row."""

    #: What this row was expected to be, in the unit of ``value``; None while nothing is known.
    expected: float | None
    #: How abnormal the row is, continuous, higher is stranger, and comparable between series: one threshold for all.
    #: None while not ready, or where the value is missing.
    score: float | None
    #: True only on the row at which a page is sent: an incident opened, or stepped up.
    page: bool
    #: True only on the row at which a ticket is sent.
    ticket: bool


#: What is said of a row of which nothing can be said.
UNKNOWN = Verdict(None, None, False, False)


class Judge(Protocol):
    """One series, judged as it comes.

    A judge of spend is made with the length of a step and a floor: ``Class(step_us, floor)``. Rows may be shorter than
    an hour: they are added up to the running hour, whose sum so far is a lower bound, and each row is judged by it.
    ``floor`` is the excess in the unit of ``value`` below which nothing is sent; None where the unit is not known to be
    money: the floor must then come from the series itself.
    """

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one row, then learn it.

        ``timestamp_us`` is the start of the row, microseconds since 1970, above that of the row before; rows may be
        missing. ``value`` covers ``[timestamp_us, timestamp_us + step_us)``; None, NaN and infinities are missing, and
        that is not zero. Never raises for a value.
        """
        ...
