"""Answers of gateways in a replay: the stream's hours pass in seconds, a gateway's answer takes as long as ever.

Between a command and its acknowledgement lie real milliseconds, which are minutes of the stream. Who is late is told by
the machine's clock, and nobody is blamed for the pace of a replay.
"""

from collections.abc import Callable, Mapping

from schemas.instants import SECOND
from streams.clock import elapsed_s
from streams.core.budget_account import BudgetState
from streams.core.budget_watch import DELAY_MAX_US


class AnswersInRealTime:
    """When this process gave each command, on a clock that does not follow the stream."""

    def __init__(self, elapsed: Callable[[], float] = elapsed_s) -> None:
        self._elapsed = elapsed
        #: ``{(scope, period start): (revision, when it was first seen here)}``.
        self._given: dict[tuple[str, int], tuple[int, float]] = {}

    def owing(self, state: BudgetState, live: Mapping[str, int]) -> Mapping[str, int]:
        """Of the live gateways those that have answered the command that stands, or should have by now."""
        place = state.scope, state.period_start
        if state.commanded == "allow":
            self._given.pop(place, None)
            return live
        given = self._given.get(place)
        if given is None or given[0] != state.revision:
            given = self._given[place] = state.revision, self._elapsed()
        if (self._elapsed() - given[1]) * SECOND > DELAY_MAX_US:
            return live
        said = state.answers
        return {name: at for name, at in live.items() if name in said and said[name].revision >= state.revision}
