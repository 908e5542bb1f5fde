"""Spend spikes: the running hour of a team or feature against the median of the same hour.

Pure steps over one scope. Statements carry cumulative totals, so the partial sum of an hour is a lower bound
of it: it is tested on every statement, and an incident opens as soon as the bar is passed. Statements of a
slot that are not newer change nothing; statements of an hour commute. A step that changes nothing returns the
very state it was given.
"""

from msgspec.structs import replace

from detectors.base import Observation, Score
from detectors.hourly_spend import HOURS_KEPT, HourlySpend
from schemas.alerts import Alert
from schemas.instants import HOUR, hour_of
from schemas.statements import ScopeStatement
from streams.core.detect_reach import advance
from streams.core.detect_spike_alert import Finding, falling, rising, tier_of
from streams.core.detect_spike_state import (
    SpikeIncident,
    SpikePolicy,
    SpikeState,
    contributors,
    is_hot,
    scope_time,
    score_hour,
    slot_with,
    total,
)


def step_spike(
    state: SpikeState | None, statement: ScopeStatement, now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """Take in one statement of a team's or feature's hour; returns the new state and what there is to say.

    A statement whose (revision, offset) is not above its slot's, or whose hour can no longer change, changes
    nothing.

    Raises:
        ValueError: the statement is of another scope, or its period is no UTC hour.
    """
    hour = statement.period_start
    if state is None:
        state = SpikeState(scope=statement.scope)
    if statement.scope != state.scope:
        raise ValueError(f"statement of {statement.scope!r} given to the state of {state.scope!r}")
    if hour % HOUR or statement.period_end != hour + HOUR:
        raise ValueError(f"{statement.scope}: a spike is found in UTC hours; leave budget periods to BUDGET")
    if hour < state.frozen_before:
        return state, []
    name, slots = statement.source.slot(), state.hours.get(hour, {})
    known = slots.get(name)
    slot = slot_with(known, statement)
    if slot is known:
        return state, []
    state = replace(
        state,
        hours={**state.hours, hour: {**slots, name: slot}},
        reaches=advance(state.reaches, name, statement.stream_time, now),
    )
    at = scope_time(state, now, policy)
    state, history = _close(state, hour, at, policy)
    score = score_hour(history, hour, total(state.hours[hour]))
    said: list[Alert] = []
    if score is not None and is_hot(score, policy):
        state, said = _raise(state, hour, score, statement.stream_time, now, policy)
    return _end(state, history, said, at, now, policy)


def tick_spike(state: SpikeState, now: int, policy: SpikePolicy) -> tuple[SpikeState, list[Alert]]:
    """Let time pass: close hours, learn them, end what is over. A scope that spends nothing sends nothing.

    Returns the very state given where nothing is due; cheap enough to call for every scope every second.
    """
    at = scope_time(state, now, policy)
    if not state.next_close or at < state.next_close + HOUR + policy.grace_us:
        return state, []
    if not state.hours and state.incident is None and not any(state.history.nanos):
        # A scope that has spent nothing for a week sleeps until its next statement.
        return state, []
    state, history = _close(state, None, at, policy)
    return _end(state, history, [], at, now, policy)


def _close(state: SpikeState, changed: int | None, at: int, policy: SpikePolicy) -> tuple[SpikeState, HourlySpend]:
    """Learn the hours that are over, and once more the one that a late statement has changed."""
    history = HourlySpend.from_state(state.history)
    next_close = state.next_close or min(state.hours)
    has_learned = False
    if changed is not None and changed < next_close:
        if state.history.nanos:
            _learn(state, history, changed, policy)
            has_learned = True
        else:
            next_close = changed
    # After a long silence only what fits into the detector's memory is worth a step; it fills the rest with
    # zeros.
    remembered = hour_of(at) - HOURS_KEPT * HOUR
    while next_close + HOUR + policy.grace_us <= at:
        if next_close >= remembered or next_close in state.hours:
            _learn(state, history, next_close, policy)
            has_learned = True
            next_close += HOUR
        else:
            next_close = min([remembered, *(hour for hour in state.hours if hour > next_close)])
    learned = history.state() if has_learned else state.history
    return replace(state, next_close=next_close, history=learned), history


def _learn(state: SpikeState, history: HourlySpend, hour: int, policy: SpikePolicy) -> None:
    """Score first, learn after, and never learn the anomaly: it would raise the bar for the next one."""
    nanos, incident = total(state.hours.get(hour, {})), state.incident
    is_new_level = incident is not None and hour - incident.hour >= policy.accept_after_us
    is_left_out = is_hot(score_hour(history, hour, nanos), policy) and not is_new_level
    history.learn_one(Observation(hour, hour + HOUR, None if is_left_out else nanos))


def _raise(
    state: SpikeState, hour: int, score: Score, stream_time: int, now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """An hour is above the bar: open an incident, or make the open one larger."""
    incident, told = state.incident, state.told.get(hour)
    if incident is None:
        if told is not None and score.excess < 2 * told:
            # A straggler in an hour of an incident that is over.
            return state, []
        incident = _open(state, hour, score, stream_time, now, policy)
        speaks = True
    else:
        speaks = score.excess >= 2 * incident.said_excess
        peaks = score.excess > incident.peak.excess
        incident = replace(
            incident,
            last_hot=max(incident.last_hot, hour),
            peak_hour=hour if peaks else incident.peak_hour,
            peak=score if peaks else incident.peak,
            said_excess=score.excess if speaks else incident.said_excess,
            updates=incident.updates + speaks,
        )
    state = replace(
        state,
        incident=incident,
        told={**state.told, hour: max(told or 0, score.excess)},
        episodes={**state.episodes, incident.hour: incident.episode},
    )
    if not speaks:
        return state, []
    slots = state.hours[hour]
    finding = Finding(hour, score, total(slots), tuple(contributors(slots)))
    is_running = hour >= state.next_close and not incident.historic
    return state, [rising(state.scope, incident, finding, is_running, now, policy)]


def _open(state: SpikeState, hour: int, score: Score, stream_time: int, now: int, policy: SpikePolicy) -> SpikeIncident:
    historic = now - (hour + HOUR) > policy.live_within_us
    return SpikeIncident(
        hour=hour,
        episode=state.episodes.get(hour, 0) + 1,
        opened_at=now,
        occurred_at=stream_time,
        last_hot=hour,
        peak_hour=hour,
        peak=score,
        said_excess=score.excess,
        updates=0,
        tier="note" if historic else tier_of(state.scope),
        historic=historic,
    )


def _end(
    state: SpikeState, history: HourlySpend, said: list[Alert], at: int, now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """Resolve what is over, freeze what is old, and remember what was said last."""
    incident = state.incident
    if incident is not None:
        last_hot, is_corrected = _last_hot(state, incident, history, policy)
        closed = state.next_close - HOUR
        if is_corrected or closed >= last_hot + policy.quiet_hours * HOUR:
            corrected = score_hour(history, incident.hour, total(state.hours.get(incident.hour, {})))
            said = [*said, falling(state.scope, incident, corrected, is_corrected, now, policy)]
            # An hour that was undone may become an incident again; one that was simply over may not.
            told = {h: n for h, n in state.told.items() if not (is_corrected and h >= incident.hour)}
            state = replace(state, incident=None, told=told)
        elif last_hot != incident.last_hot:
            state = replace(state, incident=replace(incident, last_hot=last_hot))
    frozen_before = max(state.frozen_before, min(hour_of(at - policy.keep_us), state.next_close))
    if frozen_before > state.frozen_before:
        state = replace(
            state,
            frozen_before=frozen_before,
            hours={hour: slots for hour, slots in state.hours.items() if hour >= frozen_before},
            episodes={hour: n for hour, n in state.episodes.items() if hour >= frozen_before},
            told={hour: n for hour, n in state.told.items() if hour >= frozen_before},
        )
    return (replace(state, last=said[-1]) if said else state), said


def _last_hot(
    state: SpikeState, incident: SpikeIncident, history: HourlySpend, policy: SpikePolicy
) -> tuple[int, bool]:
    """The newest hour of the incident above the bar, and whether corrections have left none at all."""
    hot = [
        hour
        for hour, slots in state.hours.items()
        if hour >= incident.hour and is_hot(score_hour(history, hour, total(slots)), policy)
    ]
    if hot:
        return max(hot), False
    if incident.last_hot < state.frozen_before:
        return incident.last_hot, False
    # The newest hot hour was corrected. Hours before the frozen line cannot be asked again: they stand.
    return state.frozen_before - HOUR, incident.hour >= state.frozen_before
