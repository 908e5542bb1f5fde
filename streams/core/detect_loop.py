"""Runaway loops and retry storms: one caller of a feature that makes ever more calls, or dearer ones.

METER signals a caller whenever a sample of its calls in a window has doubled. A window's total so far is a lower bound,
so it is judged at once, against the usual of the feature's busy callers (detectors/runaway_loop.py). One alert per
caller: it is updated when its money has doubled or somebody must be woken, and resolved after half an hour without.
"""

from collections.abc import Set

from msgspec.structs import replace

from detectors.base import Observation
from detectors.runaway_loop import RunawayLoop
from schemas import keys
from schemas.alerts import Alert, Contributor, Rule, Status, Tier
from schemas.instants import HOUR, format_instant, hour_of
from schemas.money import display_usd, format_usd
from schemas.statements import CallerWindow, Signal
from streams.core import detect_words as words
from streams.core.answers import NO_LESSONS, QUIET, Lessons, Word
from streams.core.detect_loop_state import (
    CALLERS_KEPT,
    MICRO,
    Caller,
    LoopIncident,
    LoopPolicy,
    LoopState,
    Usual,
    has_grown,
    is_storm,
    total,
    usual_of,
    with_window,
)
from streams.core.detect_reach import advance, furthest, reached

KIND = "busy_caller"


def step_loop(
    state: LoopState | None, signal: Signal, now: int, policy: LoopPolicy, lessons: Lessons = NO_LESSONS
) -> tuple[LoopState, list[Alert]]:
    """Take in what was stated of one caller; returns the new state and what there is to say.

    A signal that was taken in before returns the very state given.

    Raises:
        ValueError: the signal is of another kind or scope.
    """
    state = state or LoopState(scope=signal.scope)
    window, slot = signal.caller, signal.source.slot()
    if signal.kind != KIND or not isinstance(window, CallerWindow) or signal.scope != state.scope:
        raise ValueError(f"signal {signal.kind} of {signal.scope!r} given to the callers of {state.scope!r}")
    if signal.offset <= state.offsets.get(slot, -1):
        return state, []
    state = replace(
        state,
        offsets={**state.offsets, slot: signal.offset},
        reaches=advance(state.reaches, slot, signal.event_time, now),
    )
    state = _learned(state, window.start, policy)
    name = f"{window.kind}:{window.id}"
    known = state.callers.get(name) or Caller(window.kind, window.id, signal.team_id, words.clip(signal.model))
    caller = with_window(known, slot, window)
    if caller is known or window.start < caller.newest:
        # What is late only counts.
        return replace(state, callers={**state.callers, name: caller}) if caller is not known else state, []
    caller, said = _judged(state, caller, window, now, policy, lessons)
    state, dropped = _bounded(replace(state, callers={**state.callers, name: caller}), name, now, policy)
    state, over = tick_loop(state, now, policy, lessons)
    return state, said + dropped + over


def tick_loop(
    state: LoopState, now: int, policy: LoopPolicy, lessons: Lessons = NO_LESSONS
) -> tuple[LoopState, list[Alert]]:
    """Resolve what has been quiet for long enough, or was explained; returns the very state given where nothing has."""
    open_ = {name: caller for name, caller in state.callers.items() if caller.incident is not None}
    if not open_:
        return state, []
    at, heard = reached(state.reaches, now), furthest(state.reaches, now)
    over = {name for name, each in open_.items() if each.incident and at - each.incident.last_hot >= policy.quiet_us}
    normal = {
        name
        for name, each in open_.items()
        if each.incident and _word_on(state.scope, each, each.incident.rule, heard, lessons) in QUIET
    }
    return _ended(state, sorted(over | normal), now, policy, normal)


def _ended(
    state: LoopState, over: list[str], now: int, policy: LoopPolicy, normal: Set[str] = frozenset()
) -> tuple[LoopState, list[Alert]]:
    if not over:
        return state, []
    callers, said = dict(state.callers), []
    for name in over:
        caller = callers[name]
        assert caller.incident is not None
        alert = _alert(state.scope, caller, caller.incident, "resolved", now, policy)
        if name in normal:
            finding = _summary(caller, caller.incident, "updated", state.scope.partition(":")[2])
            alert = replace(alert, summary=words.explained(finding))
        said.append(alert)
        callers[name] = replace(caller, incident=None)
    return replace(state, callers=callers, resolved=said), said


def _learned(state: LoopState, begun: int, policy: LoopPolicy) -> LoopState:
    """Learn the windows that were over before one began: by what was signalled, never by when it was read."""
    callers, usual = dict(state.callers), dict(state.usual)
    for name, caller in state.callers.items():
        due = [start for start in sorted(caller.windows) if caller.learned_until <= start < begun]
        if not due:
            continue
        known = usual_of(state, caller.kind, policy) if caller.kind not in usual else usual[caller.kind]
        calls, money = RunawayLoop.from_state(known.calls), RunawayLoop.from_state(known.money)
        for start in due:
            whole = total(caller.windows[start])
            calls.learn_one(Observation(start, start, whole.requests))
            money.learn_one(Observation(start, start, whole.cost_nanos // MICRO))
        usual[caller.kind] = Usual(calls.state(), money.state())
        callers[name] = replace(caller, learned_until=due[-1] + 1)
    return replace(state, callers=callers, usual=usual)


def _bounded(state: LoopState, kept: str, now: int, policy: LoopPolicy) -> tuple[LoopState, list[Alert]]:
    """Let go of callers that were silent for longest, those without an alert first."""
    excess = len(state.callers) - CALLERS_KEPT
    if excess <= 0:
        return state, []
    order = sorted(
        (caller.incident is not None, caller.newest, name) for name, caller in state.callers.items() if name != kept
    )
    gone = [name for _, _, name in order[:excess]]
    state, said = _ended(state, [name for name in gone if state.callers[name].incident], now, policy)
    return replace(state, callers={n: c for n, c in state.callers.items() if n not in gone}), said


def _judged(
    state: LoopState, caller: Caller, window: CallerWindow, now: int, policy: LoopPolicy, lessons: Lessons
) -> tuple[Caller, list[Alert]]:
    """Judge the newest window of a caller: open an alert, or make the open one larger."""
    whole, known = total(caller.windows[window.start]), caller.incident
    per_hour = whole.cost_nanos * (HOUR // (window.end - window.start))
    storm = is_storm(caller, policy)
    is_strange, is_sure = _strangeness(state, caller, window.start, policy)
    kind: Rule = known.rule if known is not None else "retry_storm" if storm else "runaway_loop"
    word = _word_on(state.scope, caller, kind, window.end, lessons)
    if word in QUIET:
        return caller, []
    is_strange, is_sure = is_strange or word == "yes", is_sure or word == "yes"
    if not (storm or (per_hour >= policy.floor_nanos and is_strange)):
        return caller, []
    historic = now - window.end > policy.live_within_us
    pages = per_hour >= policy.page_nanos and (storm or is_sure)
    tier: Tier = "note" if historic else "page" if pages else "ticket"
    spent = caller.cost_nanos
    if known is None:
        hour = hour_of(window.start)
        episode = caller.episode + 1 if caller.hour == hour else 1
        incident = LoopIncident(kind, hour, episode, window.start, window.end, spent, 0, tier, historic)
        speaks, status = True, "opened"
        caller = replace(caller, hour=hour, episode=episode)
    else:
        steps_up = tier == "page" and known.tier == "ticket"
        speaks, status = steps_up or spent >= 2 * max(1, known.said_nanos), "updated"
        incident = replace(
            known,
            last_hot=max(known.last_hot, window.end),
            said_nanos=spent if speaks else known.said_nanos,
            updates=known.updates + speaks,
            tier="page" if steps_up else known.tier,
        )
    said: list[Alert] = []
    if speaks:
        said = [_alert(state.scope, caller, incident, "opened" if status == "opened" else "updated", now, policy)]
        incident = replace(incident, last=said[0])
    return replace(caller, incident=incident), said


def _word_on(scope: str, caller: Caller, rule: Rule, at: int, lessons: Lessons) -> Word:
    """What people said of a caller as busy as this one."""
    scopes = [scope, *([f"team:{caller.team_id}"] if caller.team_id else [])]
    return lessons.verdict(_teaches(scope, caller, rule), _figures(caller), caller.cost_nanos, at, scopes)


def _teaches(scope: str, caller: Caller, rule: Rule) -> str:
    """Tasks and sessions have names for once, so all of the feature's learn; a key is meant by itself."""
    return f"{rule}|{scope}|{caller.kind}" + (f":{caller.id}" if caller.kind == "key" else "")


def _figures(caller: Caller) -> tuple[int, ...]:
    """The most that the windows kept have: money, calls, and input tokens a call."""
    found = [total(parts) for parts in caller.windows.values()]
    return (
        max(each.cost_nanos for each in found),
        max(each.requests for each in found),
        max(each.input_tokens // max(1, each.requests) for each in found),
    )


def _strangeness(state: LoopState, caller: Caller, start: int, policy: LoopPolicy) -> tuple[bool, bool]:
    """Whether a window is strange, and whether that is sure: of an unknown feature it is not."""
    whole, usual = total(caller.windows[start]), usual_of(state, caller.kind, policy)
    scores = (
        RunawayLoop.from_state(usual.calls).score_one(Observation(start, start, whole.requests)),
        RunawayLoop.from_state(usual.money).score_one(Observation(start, start, whole.cost_nanos // MICRO)),
    )
    above = [score for score in scores if score is not None and score.excess > 0]
    grows = has_grown(caller, policy)
    return bool(above) or grows, grows or any(score.expected is not None for score in above)


def _alert(scope: str, caller: Caller, incident: LoopIncident, status: Status, now: int, policy: LoopPolicy) -> Alert:
    feature = scope.partition(":")[2]
    opened_in = format_instant(incident.hour)
    dedup_key = keys.alert_dedup_key(incident.rule, f"{scope}|{caller.kind}:{caller.id}", opened_in)
    step = incident.updates if status == "updated" else 0
    newest = total(caller.windows[caller.newest])
    return Alert(
        alert_id=keys.alert_id(dedup_key, incident.episode, status, step),
        dedup_key=dedup_key,
        episode=incident.episode,
        status=status,
        severity="critical" if incident.tier == "page" else "warning",
        tier=incident.tier,
        rule=incident.rule,
        scope_type=caller.kind,
        scope_id=caller.id,
        summary=_summary(caller, incident, status, feature)[: words.SUMMARY_MAX],
        occurred_at=format_instant(incident.occurred_at),
        stated_at=format_instant(now),
        period_start=opened_in,
        period_end=format_instant(incident.last_hot),
        team_id=caller.team_id,
        feature=feature,
        observed=str(newest.requests),
        unit="calls in 5 minutes",
        top_contributors=[Contributor(words.clip(f"{caller.kind} {caller.id}"), format_usd(caller.cost_nanos))],
        runbook=policy.storm_runbook if incident.rule == "retry_storm" else policy.runbook,
        historic=incident.historic,
        teaches=_teaches(scope, caller, incident.rule),
        figures=_figures(caller),
    )


def _summary(caller: Caller, incident: LoopIncident, status: Status, feature: str) -> str:
    subject = f"{caller.kind.capitalize()} {words.clip(caller.id)} of feature {words.clip(feature)}"
    cost = display_usd(caller.cost_nanos)
    if status == "resolved":
        return f"{subject} is calm again; about {cost} since it was first busy"
    newest = total(caller.windows[caller.newest])
    tokens = newest.input_tokens // max(1, newest.requests)
    if incident.rule == "retry_storm":
        share = newest.errors * 100 // max(1, newest.requests)
        return f"{subject} retries: about {newest.requests:,} calls in 5 minutes, {share} % of them fail, {cost} so far"
    return (
        f"{subject} runs away: about {newest.requests:,} calls in 5 minutes of {tokens:,} input tokens each, "
        f"{cost} so far on {caller.model}"
    )
