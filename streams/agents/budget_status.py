"""Where budgets stand, written to the ledger beside the stream: what is shown never holds up a command."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from streams.agents.shell import fail_stop
from streams.core.budget_account import BURN_SHOWN_US, BudgetState, Standing
from streams.core.budget_terms import Terms
from streams.ports import BudgetStatus, Ledger

#: Changes that come closer together are one row.
PAUSE_S = 0.1

Place = tuple[str, int]


def place_of(state: BudgetState) -> Place:
    """A budget, as it is defined, in one period."""
    return state.scope, state.period_start


class BudgetStatuses:
    """Writes the newest status of every budget that changed. What was not written when a worker ends is written by
    whoever loads the budget next.
    """

    def __init__(self, ledger: Ledger, row_of: Callable[[BudgetState], BudgetStatus | None]) -> None:
        self._ledger, self._row_of = ledger, row_of
        self._changed: dict[Place, BudgetState] = {}
        self._any = asyncio.Event()
        self._shown: dict[Place, tuple[Any, ...]] = {}

    def keep(self, states: Iterable[BudgetState]) -> None:
        """Write these soon."""
        self._changed |= {place_of(state): state for state in states}
        if self._changed:
            self._any.set()

    def is_otherwise(self, state: BudgetState, terms: Terms, stands: Standing, now: int) -> bool:
        """Whether anything is to be shown otherwise than when this was asked last."""
        is_burning = now - state.stream_time < BURN_SHOWN_US
        shown = stands.limit, stands.spent, terms.enforced, terms.lifted, is_burning
        before = self._shown.setdefault(place_of(state), shown)
        self._shown[place_of(state)] = shown
        return before != shown

    def forget(self, state: BudgetState) -> None:
        """It is over."""
        self._shown.pop(place_of(state), None)

    def clear(self) -> None:
        """What was shown is another worker's now."""
        self._shown.clear()

    async def write(self) -> None:
        """Write what changed; waits for the database as long as it takes."""
        self._any.clear()
        changed, self._changed = self._changed, {}
        rows = [row for row in map(self._row_of, changed.values()) if row is not None]
        if rows:
            await self._ledger.write_budget_status(rows)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._any.wait()
            try:
                await self.write()
            except Exception as error:
                fail_stop("where budgets stand", error)
            await asyncio.sleep(PAUSE_S)
