"""Spend spikes: the running hour of a scope against what its own history says, on every statement.

Pure steps over one scope. Statements carry cumulative totals, so the partial sum of an hour is a lower bound
of it: it is tested on every statement, and an incident opens as soon as the bars are passed. Statements of a
part that are not newer change nothing; statements of an hour commute. A step that changes nothing returns the
very state it was given.
"""

from msgspec.structs import replace

from detectors.hour_ring import HOURS_KEPT
from detectors.spend_spike import SpendScore
from schemas.alerts import Alert, Tier
from schemas.instants import HOUR, hour_of
from schemas.statements import HourStatement
from streams.core.composition import Composition, listed
from streams.core.detect_reach import advance, reached
from streams.core.detect_spike_alert import Finding, falling, rising
from streams.core.detect_spike_memory import Memory, SiblingsOf
from streams.core.detect_spike_policy import RANK, SpikePolicy, goes_on, is_strange, kind_of, step_of, tier_of
from streams.core.detect_spike_state import Part, SpikeIncident, SpikeState, total

#: An hour's excess counts in the twelve that end with it.
_REACH = 12 * HOUR


def step_spike(
    state: SpikeState | None,
    statement: HourStatement,
    now: int,
    policy: SpikePolicy,
    siblings: SiblingsOf | None = None,
    composition: Composition | None = None,
) -> tuple[SpikeState, list[Alert]]:
    """Take in one statement of a scope's hour; returns the new state and what there is to say.

    A statement whose rank is not above its part's moves time at most, and one whose hour can no longer change nothing.
    ``siblings`` says what scopes of its kind are like, for one that is too young to know for itself; ``composition``
    what the money is made of, this statement's included, for what alerts tell.

    Raises:
        ValueError: the statement is of another scope, or of no UTC hour.
    """
    hour = statement.hour
    if state is None:
        state = SpikeState(scope=statement.scope)
    if statement.scope != state.scope:
        raise ValueError(f"statement of {statement.scope!r} given to the state of {state.scope!r}")
    if hour % HOUR:
        raise ValueError(f"{statement.scope}: a spike is found in UTC hours")
    if hour < state.frozen_before:
        return state, []
    reaches = state.reaches
    for slot, come in statement.reach.items():
        reaches = advance(reaches, slot, come, now)
    parts = state.hours.get(hour, {})
    known = parts.get(statement.part)
    if known is not None and known.rank >= statement.rank:
        # The same totals again say how far their sources have come since.
        return (state if reaches == state.reaches else replace(state, reaches=dict(reaches))), []
    part = Part(statement.rank, statement.figures.cost_nanos)
    state = replace(state, hours={**state.hours, hour: {**parts, statement.part: part}}, reaches=dict(reaches))
    made_of = Composition() if composition is None else composition
    at = scope_time(state, now, policy)
    memory = Memory(state, policy, siblings)
    state = _close(state, memory, hour, at, policy)
    said: list[Alert] = []
    for each in sorted(other for other in state.hours if hour <= other < hour + _REACH):
        state, new = _judge(state, memory, each, made_of, now, policy)
        said += new
    return _end(state, memory, said, at, now, policy)


def tick_spike(
    state: SpikeState, now: int, policy: SpikePolicy, siblings: SiblingsOf | None = None
) -> tuple[SpikeState, list[Alert]]:
    """Let time pass: close hours, learn them, end what is over. A scope that spends nothing sends nothing.

    Returns the very state given where nothing is due; cheap enough to call for every scope every second.
    """
    # First what a glance tells: ten thousand scopes are asked every second.
    if not state.next_close or now < state.next_close + HOUR + policy.grace_us:
        return state, []
    at = scope_time(state, now, policy)
    if at < state.next_close + HOUR + policy.grace_us:
        return state, []
    if not state.hours and state.incident is None and state.history.is_quiet:
        # A scope that has spent nothing for as long as it remembers sleeps until its next statement.
        return state, []
    memory = Memory(state, policy, siblings)
    state = _close(state, memory, None, at, policy)
    return _end(state, memory, [], at, now, policy)


def scope_time(state: SpikeState, now: int, policy: SpikePolicy) -> int:
    """How far event time has come for this scope; no more than ``hours_max`` of its hours are after that and its
    newest.

    What counts is how many there are: where a source catches up, its past and the present are far apart.
    """
    at = reached(state.reaches, now)
    if len(state.hours) <= policy.hours_max:
        return at
    return max(at, sorted(state.hours)[-policy.hours_max - 1])


def _close(state: SpikeState, memory: Memory, changed: int | None, at: int, policy: SpikePolicy) -> SpikeState:
    """Learn the hours that are over, and once more those that a late statement has changed, or whose score it may
    have changed."""
    next_close = state.next_close or min(state.hours)
    if changed is not None and changed < next_close:
        if memory.is_empty:
            next_close = changed
        else:
            for hour in range(changed, next_close, HOUR):
                if hour >= state.frozen_before:
                    memory.learn(hour)
    # After a long silence only what fits into the detector's memory is worth a step; it fills the rest with
    # zeros.
    remembered = hour_of(at) - HOURS_KEPT * HOUR
    while next_close + HOUR + policy.grace_us <= at:
        if next_close >= remembered or next_close in state.hours:
            memory.learn(next_close)
            next_close += HOUR
        else:
            next_close = min([remembered, *(hour for hour in state.hours if hour > next_close)])
    return replace(state, next_close=next_close)


def _judge(
    state: SpikeState, memory: Memory, hour: int, made_of: Composition, now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """Score an hour, record the fixed rules that it breaks, and raise it where it is strange."""
    score = memory.score(hour)
    if score is None:
        return state, []
    broken = score.rules(policy.ratio_percent)
    if broken != state.broken.get(hour, ()):
        others = {other: rules for other, rules in state.broken.items() if other != hour}
        state = replace(state, broken={**others, hour: broken} if broken else others)
    if not _counts(state, score, policy):
        return state, []
    return _raise(state, memory, hour, score, made_of, now, policy)


def _counts(state: SpikeState, score: SpendScore, policy: SpikePolicy) -> bool:
    if is_strange(score, policy):
        return True
    return state.incident is not None and goes_on(score, state.incident.peak, policy)


def _raise(
    state: SpikeState, memory: Memory, hour: int, score: SpendScore, made_of: Composition, now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """An hour is strange: open an incident, or make the open one larger."""
    incident, told = state.incident, state.told.get(hour)
    if incident is None:
        if told is not None and score.excess < 2 * told:
            # A straggler in an hour of an incident that is over.
            return state, []
        incident = _open(state, hour, score, now, policy)
        speaks = True
    else:
        step, tier = step_of(score, policy), _tier(state, hour, score, now, policy)
        is_higher = RANK[tier] > RANK[incident.tier] and not incident.historic
        speaks = step > incident.step or is_higher
        peaks = score.excess > incident.peak.excess
        incident = replace(
            incident,
            last_hot=max(incident.last_hot, hour),
            peak_hour=hour if peaks else incident.peak_hour,
            peak=score if peaks else incident.peak,
            step=max(step, incident.step),
            updates=incident.updates + speaks,
            tier=tier if is_higher else incident.tier,
        )
    state = replace(
        state,
        incident=incident,
        told={**state.told, hour: max(told or 0, score.excess)},
        episodes={**state.episodes, incident.hour: incident.episode},
    )
    if not speaks:
        return state, []
    drivers = made_of.drivers(hour, score.expected or 0)
    by = made_of.contributors(kind_of(state.scope).parts, hour)
    finding = Finding(
        hour, score, total(state.hours[hour]), tuple(by), listed(by), drivers, memory.range(hour),
        made_of.organisation(hour),
    )  # fmt: skip
    is_running = hour >= state.next_close and not incident.historic
    return state, [rising(state.scope, incident, finding, is_running, now, policy)]


def _tier(state: SpikeState, hour: int, score: SpendScore, now: int, policy: SpikePolicy) -> Tier:
    is_historic = now - (hour + HOUR) > policy.live_within_us
    return "note" if is_historic else tier_of(state.scope, hour, score, policy)


def _open(state: SpikeState, hour: int, score: SpendScore, now: int, policy: SpikePolicy) -> SpikeIncident:
    return SpikeIncident(
        hour=hour,
        episode=state.episodes.get(hour, 0) + 1,
        opened_at=now,
        # As far as anybody has come: the totals that crossed the bar hold no later event.
        occurred_at=max((reach.stream_time for reach in state.reaches.values()), default=hour),
        last_hot=hour,
        peak_hour=hour,
        peak=score,
        step=step_of(score, policy),
        updates=0,
        tier=_tier(state, hour, score, now, policy),
        historic=now - (hour + HOUR) > policy.live_within_us,
    )


def _end(
    state: SpikeState, memory: Memory, said: list[Alert], at: int, now: int, policy: SpikePolicy
) -> tuple[SpikeState, list[Alert]]:
    """Resolve what is over, freeze what is old, and remember what was said last."""
    incident = state.incident
    if incident is not None:
        last_hot, is_corrected = _last_hot(state, memory, incident, policy)
        closed = state.next_close - HOUR
        is_accepted = not is_corrected and min(closed, last_hot) - incident.hour >= policy.accept_after_us
        if is_accepted:
            memory.accept(incident.hour, state.next_close)
        if is_corrected or is_accepted or closed >= last_hot + policy.quiet_hours * HOUR:
            corrected = memory.score(incident.hour) if is_corrected else None
            incident = replace(incident, last_hot=last_hot)
            above = () if state.last is None else state.last.ancestors
            said = [*said, falling(state.scope, incident, corrected, is_corrected, above, now, policy)]
            # An hour that was undone may become an incident again; one that was simply over may not.
            told = {h: n for h, n in state.told.items() if not (is_corrected and h >= incident.hour)}
            state = replace(state, incident=None, told=told)
        elif last_hot != incident.last_hot:
            state = replace(state, incident=replace(incident, last_hot=last_hot))
    # Before anything was learned the past of a source that catches up may still come.
    oldest = 0 if memory.is_empty else min(hour_of(at - policy.keep_us), state.next_close)
    frozen_before = max(state.frozen_before, oldest)
    if frozen_before > state.frozen_before:
        state = replace(
            state,
            frozen_before=frozen_before,
            hours={hour: slots for hour, slots in state.hours.items() if hour >= frozen_before},
            broken={hour: rules for hour, rules in state.broken.items() if hour >= frozen_before},
            episodes={hour: n for hour, n in state.episodes.items() if hour >= frozen_before},
            told={hour: n for hour, n in state.told.items() if hour >= frozen_before},
        )
    state = memory.kept(state)
    return (replace(state, last=said[-1]) if said else state), said


def _last_hot(state: SpikeState, memory: Memory, incident: SpikeIncident, policy: SpikePolicy) -> tuple[int, bool]:
    """The newest hour of the incident that is still above the bar, and whether corrections have left none at all."""
    hot = [hour for hour in state.hours if hour >= incident.hour and goes_on(memory.score(hour), incident.peak, policy)]
    if hot:
        return max(hot), False
    if incident.last_hot < state.frozen_before:
        return incident.last_hot, False
    # The newest hot hour was corrected. Hours before the frozen line cannot be asked again: they stand.
    return state.frozen_before - HOUR, incident.hour >= state.frozen_before
