"""How well gates obey: acknowledgements, the delay until they come, and money that is spent all the same.

Acknowledgements may come in any order and any number of times: of each gateway the highest revision counts, with its
earliest instant and its largest count.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from schemas.alerts import Alert
from schemas.commands import ThrottleAck
from schemas.instants import MINUTE, SECOND, InstantError, parse_instant
from schemas.keys import alert_dedup_key
from schemas.money import display_usd
from streams.core.budget_account import Answer, BudgetState, Crossing, Standing
from streams.core.budget_ladder import Told, alert, where
from streams.core.budget_measures import blocking_percent, closes_all
from streams.core.budget_terms import FOREVER, Terms

GAP: Literal["enforcement_gap"] = "enforcement_gap"
#: A gateway owes an answer for so long after it was last heard.
LIVE_US = 5 * MINUTE
#: No delay counts for more, and who has not answered by then is a gap.
DELAY_MAX_US = 10 * SECOND
#: Until any gateway was seen.
DELAY_UNKNOWN_US = SECOND
#: A gap in usage is alerted above one part in so many of the amount.
GAP_SHARE = 100
#: Gateways remembered of one budget: names are other people's, and may be drawn at random.
GATEWAYS_MAX = 256


def acknowledged(state: BudgetState, ack: ThrottleAck, now: int) -> bool:
    """Take an answer in; whether it was news. One whose instant cannot be read is none."""
    try:
        applied = parse_instant(ack.applied_at)
    except (InstantError, OverflowError):
        return False
    found = Answer(ack.revision, applied, now, ack.rejected_count)
    known = state.answers.get(ack.gateway)
    if known is not None:
        if ack.revision < known.revision:
            found = known
        elif ack.revision == known.revision:
            found.applied_at = min(applied, known.applied_at)
            found.rejected = max(found.rejected, known.rejected)
        # It is alive whatever it says.
        found = Answer(found.revision, found.applied_at, max(now, known.heard_at), found.rejected)
    elif len(state.answers) >= GATEWAYS_MAX:
        oldest = min(state.answers, key=lambda name: (state.answers[name].heard_at, name))
        del state.answers[oldest]
    state.answers[ack.gateway] = found
    return found != known


def live_gateways(states: Iterable[BudgetState], now: int) -> dict[str, int]:
    """The gateways that were heard in the last five minutes, and when, as these budgets know."""
    found: dict[str, int] = {}
    for state in states:
        for name, said in state.answers.items():
            if now - said.heard_at < LIVE_US:
                found[name] = max(found.get(name, 0), said.heard_at)
    return found


def delay_of(state: BudgetState, said: Answer) -> int | None:
    """From the crossing to a gateway's obeying, at most ten seconds; None where it answered something else."""
    if said.revision != state.revision or state.commanded == "allow":
        return None
    return max(0, min(said.applied_at - state.issued_at + state.lag_us, DELAY_MAX_US))


def percentile95(delays: Iterable[int]) -> int:
    """The 95th percentile; what is assumed where there is none.

    >>> percentile95(range(1, 101)), percentile95([7]), percentile95([])
    (95, 7, 1000000)
    """
    ranked = sorted(delays)
    return ranked[-(-len(ranked) * 95 // 100) - 1] if ranked else DELAY_UNKNOWN_US


def last_delay(state: BudgetState, live: Mapping[str, int]) -> int | None:
    """From the crossing to the last live gateway's answer; None while any has not answered, or none is live."""
    delays = [delay_of(state, state.answers[name]) if name in state.answers else None for name in live]
    return None if not delays or None in delays else max(delay for delay in delays if delay is not None)


def watch(told: Told, live: Mapping[str, int], delay_us: int) -> list[Alert]:
    """Measure overshoot and gap, and open or resolve ``enforcement_gap``."""
    state, terms, standing, now = told.state, told.terms, told.standing, told.now
    state.overshoot_nanos = max(state.overshoot_nanos, overshoot_of(terms, standing))
    asks = state.commanded != "allow" and not state.dry_run
    late = []
    if asks and now - state.issued_at > DELAY_MAX_US:
        late = sorted(name for name in live if not _has_answered(state, name))
    _measure_gap(state, standing, asks, live, delay_us)
    nanos = gap_of(state, standing)
    is_gap = bool(late) or nanos * GAP_SHARE > standing.limit
    crossing = state.findings.get(GAP)
    key = alert_dedup_key(GAP, state.scope, str(state.period_start))
    if is_gap and not (crossing and crossing.is_open):
        episode = crossing.episode + 1 if crossing else 1
        crossing = state.findings[GAP] = Crossing("critical", episode, True, state.stream_time, "ticket", False)
        if late:
            told_of = f"no acknowledgement from {', '.join(late[:5])}" + (" and others" if len(late) > 5 else "")
        else:
            told_of = f"{display_usd(nanos)} were spent after every gateway had acknowledged"
        summary = f"Budget {terms.budget_id}: {where(terms)} is {_verb(state)}, and {told_of}"
        return [alert(told, GAP, key, crossing, "opened", summary)]
    if crossing and crossing.is_open and not is_gap and (standing.is_whole or standing.is_over):
        crossing.is_open = False
        summary = f"Budget {terms.budget_id}: every live gateway obeys again, or nothing is asked of them any more"
        return [alert(told, GAP, key, crossing, "resolved", summary)]
    return []


def wakes_at(state: BudgetState) -> int:
    """When an answer that has not come becomes a gap."""
    if state.commanded == "allow" or state.dry_run:
        return FOREVER
    return state.issued_at + DELAY_MAX_US + 1


def overshoot_of(terms: Terms, standing: Standing) -> int:
    """What is spent beyond the rung that blocks, while it is due."""
    block = blocking_percent(terms)
    if block is None or terms.lifted or standing.is_over or standing.is_historic:
        return 0
    return max(0, standing.spent - block * standing.limit // 100)


def gap_of(state: BudgetState, standing: Standing) -> int:
    """What was spent since every gateway had obeyed and calls from before were over."""
    return max(0, standing.spent - state.obeyed_nanos) if state.obeyed_nanos >= 0 else 0


def _measure_gap(state: BudgetState, standing: Standing, asks: bool, live: Mapping[str, int], delay_us: int) -> None:
    """Only where no call may go is any call a gap: else what is spent may be what was let through."""
    if not asks or not closes_all(state.asked) or state.exempt_models:
        state.obeyed_nanos = -1
        return
    if state.obeyed_nanos >= 0 or not live or not all(_has_answered(state, name) for name in live):
        return
    obeyed_at = max(state.answers[name].applied_at for name in live)
    # Calls that began before are let through: their money comes when they end.
    if state.stream_time >= obeyed_at + delay_us + 3 * (standing.took_us or SECOND):
        state.obeyed_nanos = standing.spent


def _has_answered(state: BudgetState, name: str) -> bool:
    said = state.answers.get(name)
    return said is not None and said.revision >= state.revision


def _verb(state: BudgetState) -> str:
    return "blocked" if state.commanded == "block" else "throttled"
