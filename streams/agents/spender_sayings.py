"""When each partition states who spent: for people, and more rarely than totals: the ledger has a row for each."""

from streams.agents import entries
from streams.clock import elapsed_s
from streams.core.meter import PartitionState
from streams.transport import Outgoing

#: Of each partition's time, at most.
SHARE = 0.005
Where = tuple[str, int]


class SpenderSayings:
    """Knows when each partition said last who spent."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_at: dict[Where, float] = {}

    def is_due(self, where: Where, state: PartitionState) -> bool:
        """Whether there is something to say, and it is time to."""
        return self._due_at.get(where, 0.0) <= elapsed_s() and state.spenders.is_unsaid

    def said(self, where: Where, state: PartitionState, writer: str) -> list[Outgoing]:
        """What there is to say now; right after what it says was taken to be made durable."""
        if not self.is_due(where, state):
            return []
        began = elapsed_s()
        found = [entries.cell_record(rows, writer) for rows in state.spenders.say(state.revision)]
        if self._interval_s:  # else it is said with every flush
            self._due_at[where] = began + max(self._interval_s, (elapsed_s() - began) / SHARE)
        return found
