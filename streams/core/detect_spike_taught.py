"""A spend scope takes in what people said about it: each answer once, in event order, and the plans that hold.

What stands is compared with what was taken, so it does not matter how often, or in how many pieces, it is heard: a
state that has taken all of it is given back as it is. Answers about hours that the detector has forgotten say nothing.
"""

from functools import lru_cache

from msgspec.structs import replace

from detectors.hour_ring import HOURS_KEPT
from schemas.alerts import Alert
from schemas.answers import AlertAnswer
from schemas.instants import HOUR
from schemas.keys import digest
from streams.core.answers import Lessons
from streams.core.detect_reach import furthest
from streams.core.detect_spike_feedback import Feedback, answer_spike, plan_spike
from streams.core.detect_spike_memory import SiblingsOf
from streams.core.detect_spike_policy import SpikePolicy
from streams.core.detect_spike_state import SpikeState


def take_spike(
    state: SpikeState,
    lessons: Lessons,
    now: int,
    policy: SpikePolicy,
    come: int = 0,
    siblings: SiblingsOf | None = None,
) -> tuple[SpikeState, list[Alert]]:
    """Take in what was said and not yet taken; an open incident that it explains is resolved.

    ``come`` is the stream time of a statement that is about to be taken in: a scope that was silent while its source
    caught up does not know how far it is. Returns the very state given where nothing is new. Cheap to ask of every
    scope at every step: most have nothing.
    """
    answers = lessons.of(state.scope)
    if not answers and not state.plans and not lessons.plans(state.scope):
        return state, []
    at = max(furthest(state.reaches, now), min(come, now), state.taught_at)
    said: list[Alert] = []
    recent = {_name(each): each for each in answers if each.until > at - HOURS_KEPT * HOUR}
    due = {
        name: each for name, each in recent.items() if each.known_from <= at and state.taken.get(name) != each.version
    }
    plans = lessons.windows(state.scope, at)
    if not due and plans == state.plans:
        return state, []
    # Planned after all: what was answered before does not hold any more.
    instead = [each.starts for name, each in due.items() if each.answer == "planned" and name in state.taken]
    if instead or plans != state.plans:
        state, said = plan_spike(state, plans, now, policy, siblings, instead)
    for each in due.values():
        if each.answer != "planned":
            state, new = answer_spike(state, _feedback(state, each, at), now, policy, siblings)
            said += new
    taken = {name: version for name, version in state.taken.items() if name in recent}
    taken |= {name: each.version for name, each in due.items()}
    return replace(state, taken=taken, taught_at=at), said


def _feedback(state: SpikeState, answer: AlertAnswer, at: int) -> Feedback:
    """The answer about all hours of its incident, also those that have come since the alert was last said."""
    end, incident = answer.until, state.incident
    if incident is not None and answer.starts <= incident.hour < answer.until:
        end = max(end, incident.last_hot + HOUR)
    return Feedback(answer.answer, answer.starts, end, at=at)


def _name(answer: AlertAnswer) -> str:
    return _short(answer.alert)


@lru_cache(4_096)
def _short(alert: str) -> str:
    return digest(alert)[:16]
