"""What people say about spend, and what a scope learns from it.

``no``: this is normal here. It enters the history in full, and the same again stays quiet. ``yes``: this was an
incident. Its hours stay out of the history, and the same again is found again, whatever was answered ``no`` before.
``planned``: so much more than usual is declared for hours to come, or for hours that have just been found. They are
quiet until 1.5 times as much is spent, and stay out of the history.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from detectors.spend_spike import Answer
from schemas.alerts import Alert
from schemas.instants import HOUR
from streams.core.detect_spike_alert import answered
from streams.core.detect_spike_memory import Memory
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


def answer_spike(
    state: SpikeState, feedback: Feedback, now: int, policy: SpikePolicy
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
    memory = Memory(state, policy)
    memory.answer(Answer(feedback.kind, start, end, feedback.nanos if feedback.kind == "planned" else 0))
    said: list[Alert] = []
    incident = state.incident
    if incident is not None and feedback.kind != "yes" and incident.hour < end and start <= incident.last_hot:
        still = [
            hour for hour in state.hours if hour >= incident.hour and goes_on(memory.score(hour), incident.peak, policy)
        ]
        if not still:
            said = [answered(state.scope, incident, feedback.kind, now, policy)]
            state = replace(state, incident=None, last=said[0])
    return memory.kept(state), said
