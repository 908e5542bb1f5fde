"""What people say about spend, and what a scope learns from it.

``no``: this is normal here. It enters the history in full, and the same again stays quiet. ``yes``: this was an
incident. Its hours stay out of the history, and the same again is found again, whatever was answered ``no`` before.
``planned``: so much more than usual is declared for hours to come, or for hours that have just been found. They are
quiet until 1.5 times as much is spent, and stay out of the history.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from detectors.spend_spike import Answer
from schemas.alerts import Alert
from schemas.instants import HOUR
from streams.core.detect_spike_alert import answered
from streams.core.detect_spike_memory import Memory, SiblingsOf
from streams.core.detect_spike_policy import SpikePolicy, goes_on
from streams.core.detect_spike_state import SpikeState

Kind = Literal["yes", "no", "planned"]


class Feedback(msgspec.Struct, frozen=True):
    """One answer about the hours ``[start, end)``, microseconds since 1970."""

    kind: Kind
    start: int
    end: int
    #: Of ``planned``: the nanodollars above the usual that are declared for all of these hours together.
    nanos: int = 0
    #: Event time at which it is learned. Of the hour that runs then, ``no`` is about as much as it will have at this
    #: pace: who answers at ten past does not mean a sixth of an hour. 0: hours count as they stand.
    at: int = 0


def answer_spike(
    state: SpikeState, feedback: Feedback, now: int, policy: SpikePolicy, siblings: SiblingsOf | None = None
) -> tuple[SpikeState, list[Alert]]:
    """Take in an answer; an open incident that it explains is resolved. The same answer again changes nothing more.

    Raises:
        ValueError: the hours are none, or ``planned`` declares no amount.
    """
    start, end = feedback.start - feedback.start % HOUR, -(-feedback.end // HOUR) * HOUR
    if start >= end:
        raise ValueError("feedback is about the hours from start to end: end must be later than start")
    if feedback.kind == "planned" and feedback.nanos <= 0:
        raise ValueError("planned spend needs the amount that is declared, above zero")
    memory = Memory(state, policy, siblings)
    nanos = feedback.nanos if feedback.kind == "planned" else 0
    memory.answer(Answer(feedback.kind, start, end, nanos), feedback.at if feedback.kind == "no" else 0)
    said: list[Alert] = []
    if feedback.kind != "yes":
        state, said = _explained(state, memory, feedback.kind, (start, end), now, policy)
    return memory.kept(state), said


def plan_spike(
    state: SpikeState,
    plans: tuple[Answer, ...],
    now: int,
    policy: SpikePolicy,
    siblings: SiblingsOf | None = None,
    instead: Sequence[int] = (),
) -> tuple[SpikeState, list[Alert]]:
    """Take the plans that hold in place of those before; an open incident that they explain is resolved.

    ``instead``: the hours from which on something was answered that turned out to be planned.
    """
    memory = Memory(state, policy, siblings)
    for start in instead:
        memory.forget(start - start % HOUR)
    memory.plan(plans)
    said: list[Alert] = []
    for plan in plans:
        if plan not in state.plans:
            state, new = _explained(state, memory, "planned", (plan.start, plan.end), now, policy)
            said += new
    return memory.kept(replace(state, plans=plans)), said


def _explained(
    state: SpikeState, memory: Memory, kind: Kind, hours: tuple[int, int], now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """End an incident of these hours where none of them is above the bar any more."""
    incident, (start, end) = state.incident, hours
    if incident is None or incident.hour >= end or start > incident.last_hot:
        return state, []
    if any(hour >= incident.hour and goes_on(memory.score(hour), incident.peak, policy) for hour in state.hours):
        return state, []
    said = answered(state.scope, incident, kind, now, policy)
    return replace(state, incident=None, last=said), [said]
