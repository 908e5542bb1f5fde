"""What a budget does with each statement of its scope: rungs crossed and left, measures commanded and released.

Pure and level-triggered: the desired command follows from the state alone, so saying it again after a replay says the
same under the same id and revision. Spend is the sum of the newest total of every source slot (rule 2).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from schemas.alerts import Alert
from schemas.commands import JobAck, JobCommand, ThrottleCommand
from schemas.instants import DAY, MINUTE, SECOND
from streams.core import budget_commands as commands
from streams.core.budget_account import (
    BURN_SHOWN_US,
    BudgetState,
    Standing,
    carried_from,
    ends_at,
    first_revision,
    key_of,
    opened,
    standing,
    state_key,
    take_in,
)
from streams.core.budget_commands import answerer
from streams.core.budget_ladder import Told, cross, foresee, leave
from streams.core.budget_measures import glide, hold, pace, strictest, wanted
from streams.core.budget_overdue import overdue
from streams.core.budget_runs import answered, approval, stop, unanswered, waits_until
from streams.core.budget_terms import FOREVER, Policy, Terms
from streams.core.budget_watch import DELAY_UNKNOWN_US, watch

__all__ = [
    "Around",
    "BudgetState",
    "Decision",
    "Policy",
    "Terms",
    "answer",
    "answerer",
    "decide",
    "first_above",
    "is_forgotten",
    "is_idle",
    "job_answered",
    "key_of",
    "opened",
    "speak",
    "state_key",
    "take_in",
    "wakes_at",
    "withdrawn",
]

#: A period that has been over for this long is forgotten; what comes later is history of the ledger alone.
FORGET_AFTER = 2 * DAY
#: A value of a budget without end, such as a session, that was not heard of for so long.
IDLE_AFTER = 30 * DAY
_NO_GATEWAYS: Mapping[str, int] = {}


class Around(NamedTuple):
    """What a decision needs to know besides the budget itself."""

    #: When each live gateway was last heard.
    live: Mapping[str, int] = _NO_GATEWAYS
    #: From command to acknowledgement, at the 95th percentile.
    delay_us: int = DELAY_UNKNOWN_US
    #: The live gateways whose answer is due by now; None: time itself tells.
    owing: Mapping[str, int] | None = None
    #: What will have been spent by the period's end; None where nobody can say.
    projected: int | None = None
    #: The budgets above this one, the closest first.
    ancestors: tuple[str, ...] = ()
    #: How old the newest money was when it came here.
    lag_us: int = 0
    #: Whether the terms have just changed: what follows from that is news, however long ago the last money came.
    is_redefined: bool = False
    #: Whether the stream runs ahead of the clock: what came in many of its minutes is stated within few of its seconds.
    #: Nobody can say then what is under way, so measures hold where money has come to, and none before.
    is_replayed: bool = False


NOTHING_KNOWN = Around()


class Decision(NamedTuple):
    """What follows from a step."""

    alerts: list[Alert]
    command: ThrottleCommand | None
    #: Another period or definition of the budget that now has to say again what it wants of the same gates.
    stands: BudgetState | None = None
    #: What is asked of whoever runs a training run.
    job: JobCommand | None = None


def withdrawn(state: BudgetState) -> Terms:
    """The terms of a budget that is no longer defined so: it asks for nothing, so what it blocked is let go."""
    return Terms(state.budget_id, state.scope, state.target, 0, "period", (), enforced=not state.dry_run)


def decide(
    state: BudgetState,
    terms: Terms,
    now: int,
    policy: Policy,
    siblings: Iterable[BudgetState] = (),
    around: Around = NOTHING_KNOWN,
) -> Decision:
    """Compare the state with the ladder and say what changed; mutates ``state`` to remember what was said.

    ``siblings`` are all states of the same budget and value, in any period and definition: their commands lie under one
    key at the gates, where the highest revision counts.
    """
    others: list[BudgetState] | None = None
    if terms.rollover:
        others = [other for other in siblings if other is not state]
        carried = carried_from(state, terms, others, now)
        state.carried_nanos = state.carried_nanos if carried is None else carried
    stands = standing(state, terms, now, policy.live_within_us)
    if around.is_replayed:
        stands = msgspec.structs.replace(stands, burn=0, recent_burn=0)
    if is_idle(state, terms, now):
        # What it held is let go of, and what it told taken back, before it is forgotten.
        stands = msgspec.structs.replace(stands, is_over=True, is_historic=True)
    elif not stands.is_over and (around.is_redefined or _has_lost_an_override(state, terms, now, policy)):
        stands = msgspec.structs.replace(stands, is_historic=False)
    told = Told(state, terms, stands, now, policy, around.ancestors)
    before = state.crossings.get(terms.run.stop_at_percent) if terms.run else None
    # Money that is late here is late at the gates.
    delay_us = max(around.delay_us, around.lag_us)
    hold(state, terms, stands, delay_us)
    glide(state, terms, stands, delay_us, len(around.live))
    alerts = cross(told) + leave(told) + foresee(told, around.projected)
    job = stop(told, before)
    pace(state, terms, stands, len(around.live))
    command, again = _commanded(told, others if others is not None else siblings, around)
    alerts += (
        watch(told, around.live if around.owing is None else around.owing, around.delay_us)
        + approval(told)
        + overdue(told)
        + unanswered(told, job)
    )
    return Decision(alerts, command, again, job)


def _has_lost_an_override(state: BudgetState, terms: Terms, now: int, policy: Policy) -> bool:
    """Whether an override ended since the last money came, and not long ago."""
    return state.stream_time < terms.overridden_until and now - terms.overridden_until <= policy.live_within_us


def _commanded(
    told: Told, siblings: Iterable[BudgetState], around: Around
) -> tuple[ThrottleCommand | None, BudgetState | None]:
    state, terms, now = told.state, told.terms, told.now
    asked = wanted(state, terms, told.standing)
    form = (not terms.enforced, terms.match, terms.exempt_models, terms.on_stale)
    # An allow that was never preceded by anything is what gates do anyway; what is asked for changes with its mode.
    if asked == state.asked and (not asked or form == _form(state)):
        if now < commands.renews_at(state, told.policy.valid_us):
            return None, None
        # What another period or definition has said since is what stands, and renews itself.
        if any(other.revision > state.revision and _same_gates(other, state) for other in siblings):
            return None, None
        return commands.renewed(state, terms, told.standing, now, told.policy.valid_us), None
    state.asked, state.commanded = asked, strictest(asked)
    state.dry_run, state.match, state.exempt_models, state.on_stale = form
    state.obeyed_nanos, state.lag_us = -1, around.lag_us
    others = [other for other in siblings if other is not state]
    closing = [other for other in others if _same_gates(other, state)]
    if not asked and closing:
        # Letting go would open what another one has closed: it stands, and says so if it was not the last to speak.
        last = max(closing, key=lambda other: other.revision)
        return None, last if last.revision < state.revision else None
    return commands.speak(state, terms, told.standing, now, others, valid_us=told.policy.valid_us), None


def _form(state: BudgetState) -> tuple[object, ...]:
    return state.dry_run, state.match, state.exempt_models, state.on_stale


def _same_gates(other: BudgetState, state: BudgetState) -> bool:
    return other.commanded != "allow" and other.target == state.target


def speak(
    state: BudgetState, terms: Terms, now: int, policy: Policy, siblings: Iterable[BudgetState] = ()
) -> ThrottleCommand:
    """Say again what stands, above every revision that its budget is known to have given."""
    standing = _standing(state, terms, now, policy)
    return commands.speak(state, terms, standing, now, siblings, valid_us=policy.valid_us)


def answer(
    state: BudgetState,
    terms: Terms,
    heard: ThrottleCommand,
    now: int,
    policy: Policy,
    siblings: Iterable[BudgetState] = (),
) -> ThrottleCommand | None:
    """What ``state`` says to a command in its name that is not its own."""
    return commands.answer(state, terms, _standing(state, terms, now, policy), heard, now, siblings, policy.valid_us)


def job_answered(
    state: BudgetState, terms: Terms, ack: JobAck, now: int, policy: Policy, ancestors: tuple[str, ...] = ()
) -> list[Alert]:
    """What follows from an executor's answer to a command of this run."""
    return answered(Told(state, terms, _standing(state, terms, now, policy), now, policy, ancestors), ack)


def _standing(state: BudgetState, terms: Terms, now: int, policy: Policy) -> Standing:
    return standing(state, terms, now, policy.live_within_us)


def wakes_at(state: BudgetState, terms: Terms, now: int) -> int:
    """The next instant at which time alone may change what is decided; until then a state need not be looked at."""
    if state.commanded != "allow" or any(finding.is_open for finding in state.findings.values()):
        # Gateways come and go, and answers become due.
        return now + SECOND
    bounds = [terms.until, ends_at(state, terms), state.period_end + FORGET_AFTER]
    bounds.append(waits_until(state))
    if state.value:
        bounds.append(_idle_at(state, terms) + 1)
    if terms.window_us:
        bounds += [bucket.end + terms.window_us for bucket in state.buckets.values()]
    if any(rung.on == "forecast" for rung in terms.thresholds) or state.forecasts:
        bounds.append(now + MINUTE)
    if state.holds or terms.rollover:
        bounds.append(now + SECOND)
    if state.samples:
        bounds.append(state.stream_time + BURN_SHOWN_US)
    return min((bound for bound in bounds if bound > now), default=FOREVER)


def is_idle(state: BudgetState, terms: Terms, now: int) -> bool:
    """Whether this is one value of a budget, such as a session, that has not been heard of for thirty days."""
    return bool(state.value) and _idle_at(state, terms) < now


def _idle_at(state: BudgetState, terms: Terms) -> int:
    # What still lies in the window of a rolling budget counts.
    return max(state.stream_time, state.period_start) + max(IDLE_AFTER, terms.window_us)


def first_above(terms: Terms, is_of_value: bool, now: int) -> int:
    """A revision above all that was ever given for a value that may have been forgotten; 0 where none can have been."""
    return first_revision(now) if is_of_value and now > terms.defined_at + IDLE_AFTER // 2 else 0


def is_forgotten(state: BudgetState, terms: Terms | None, now: int, siblings: Iterable[BudgetState]) -> bool:
    """Whether nothing can follow from a state any more."""
    if state.commanded != "allow" or first_revision(now) <= state.revision:
        # The next one to speak has to know of its revision.
        return False
    if terms is None:
        return now > max(state.stream_time, state.issued_at) + FORGET_AFTER
    if terms.standing or terms.nanos_per_minute or terms.run:
        return False
    if is_idle(state, terms, now):
        return True
    if now <= ends_at(state, terms) + FORGET_AFTER:
        return False
    return not terms.rollover or any(
        other.scope == state.scope and other.period_start > state.period_start for other in siblings
    )
