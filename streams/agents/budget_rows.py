"""The dashboard's row of one budget, as BUDGET sees it, and what of a state changes without anything being said."""

from collections.abc import Mapping
from typing import Any

from schemas.instants import HOUR
from streams.core import slots as stated
from streams.core.budget_account import BudgetState, Standing, ends_at, hourly_burn_of
from streams.core.budget_terms import Terms
from streams.core.budget_watch import gap_of, last_delay
from streams.ports import BudgetStatus


def row_of(state: BudgetState, terms: Terms, standing: Standing, live: Mapping[str, int], now: int) -> BudgetStatus:
    """Where a budget stands."""
    delay = last_delay(state, live) if state.commanded != "allow" else None
    start = now - terms.window_us if terms.window_us else state.period_start
    burn = hourly_burn_of(state, now)
    return BudgetStatus(
        budget_id=state.budget_id,
        scope_type=terms.target.scope_type,
        scope_id=terms.target.scope_id,
        period=terms.period,
        # One row for what has no periods, however far it looks back.
        period_start=state.period_start if not terms.window_us else 0,
        period_end=ends_at(state, terms) if not terms.window_us else start + terms.window_us,
        amount_nanos=standing.limit,
        spent_nanos=standing.spent,
        crossed_percent=state.crossed_percent(),
        commanded=state.commanded,
        mode="enforce" if terms.enforced else "observe",
        # Statements taken in, with the commands given: a release at a period's end changes the row too.
        sequence=state.sequence + state.revision,
        stated_at=now,
        value=state.value,
        carried_nanos=state.carried_nanos if terms.rollover else 0,
        override_nanos=terms.amount_nanos - terms.defined_nanos,
        opening_nanos=terms.opening_nanos,
        estimated_nanos=standing.estimated,
        burn_nanos_per_hour=burn,
        exhausted_at=_exhausted_at(state, terms, standing, burn, now),
        overshoot_nanos=state.overshoot_nanos,
        gap_nanos=gap_of(state, standing),
        ack_delay_ms=None if delay is None else delay // 1_000,
        takers=dict(stated.contributors(state.slots())) if terms.model == "pooled" else {},
    )


def _exhausted_at(state: BudgetState, terms: Terms, standing: Standing, burn: int, now: int) -> int | None:
    full = state.crossings.get(100)
    if full is not None and full.is_open:
        return full.opened_at
    left = standing.limit - standing.spent
    if left <= 0:
        return state.stream_time
    if burn <= 0:
        return None
    at = now + left * HOUR // burn
    return at if at < ends_at(state, terms) else None


def remembered(state: BudgetState) -> tuple[Any, ...]:
    """What a tick may change without saying anything, and a successor has to know."""
    holds = [(percent, kept.reserve_nanos, kept.is_sure) for percent, kept in state.holds.items()]
    forecasts = [(percent, each.opened_at, each.historic, each.is_open) for percent, each in state.forecasts.items()]
    return state.asked, state.dry_run, state.renewed_at, state.carried_nanos, state.obeyed_nanos, holds, forecasts
