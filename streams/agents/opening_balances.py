"""METER's side of definitions that change: it watches what is defined, and asks the ledger what was spent before."""

import asyncio
import logging
from collections.abc import Callable

from streams.core.meter import PartitionState
from streams.core.openings import Question, answered, follow
from streams.core.scopes import ScopeWatchlist
from streams.core.spent_before import Past
from streams.ports import Ledger

logger = logging.getLogger("sluice.meter")

#: So many openings read the ledger at once, and again after so long where it does not answer.
ASKED_AT_ONCE = 2
ASK_AGAIN_S = 1.0


class OpeningBalances:
    """For all source partitions of a worker. ``watchlist`` gives what is to be watched now, the same until it changes;
    without it nothing ever changes.
    """

    def __init__(self, ledger: Ledger, watchlist: Callable[[], ScopeWatchlist] | None) -> None:
        self._ledger = ledger
        self._watchlist = watchlist
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._asking: set[asyncio.Task[None]] = set()

    def begin(self, state: PartitionState) -> None:
        """Before its first record is folded, a partition watches what is defined."""
        if self._watchlist is not None:
            follow(state, self._watchlist())

    def follow(self, state: PartitionState, is_ours: Callable[[], bool]) -> None:
        """Watch what is defined now; ask aside what openings have to know. Not while a flush is being written."""
        self.begin(state)
        for question in state.openings.take_questions():
            task = asyncio.create_task(self._ask(state, question, is_ours))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, state: PartitionState, question: Question, is_ours: Callable[[], bool]) -> None:
        """Until the ledger answers, the counters concerned are kept back."""
        slot = state.source.slot()
        while is_ours():
            try:
                async with self._turns:
                    reached, rows = await self._ledger.spent_before(
                        slot, question.start, question.end, question.below, question.live, question.teams
                    )
            except Exception as error:
                logger.warning("the ledger does not answer, so new budgets of %s wait: %r", slot, error)
            else:
                if reached >= question.at_least:
                    if is_ours():
                        answered(state, question, [Past(*row) for row in rows])
                    return
                logger.warning("the ledger has %s up to %d of %d: new budgets wait", slot, reached, question.at_least)
            await asyncio.sleep(ASK_AGAIN_S)
