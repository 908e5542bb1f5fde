"""Runaway requests: a single request above the token limit, said within one event.

One alert per feature and UTC hour: the first request opens it, it is updated when the count has doubled, and
it is resolved an hour after the last one. Every request is counted. METER signals each request once, in the
order of its source partition, so what is not above a partition's highest offset has been counted before.
"""

from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from detectors.base import Observation, Score
from detectors.runaway_request import RunawayRequest, RunawayRequestState
from schemas import keys
from schemas.alerts import Alert, Contributor, Rule, Status, Tier
from schemas.instants import DAY, HOUR, format_instant, hour_of
from schemas.money import display_usd, format_usd
from schemas.statements import Signal
from schemas.versions import Versioned
from streams.core import detect_words as words
from streams.core.detect_reach import Reach, advance, reached

RULE: Rule = "runaway_request"
#: Requests that an alert names, the largest first.
LARGEST_KEPT = 5
#: Hours of one feature that may have an open alert at once; the oldest is resolved to make room.
OPEN_MAX = 24


@dataclass(frozen=True, slots=True)
class RunawayPolicy:
    """A request of more than ``limit`` tokens is a runaway; exactly the limit is not."""

    limit: int = 50_000
    #: A finding whose hour ended longer ago is history: a note, never a page.
    live_within_us: int = 3 * HOUR
    #: How long after the last request an alert is resolved.
    quiet_us: int = HOUR
    runbook: str = ""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What an alert tells of one request."""

    tokens: int
    cost_nanos: int
    model: str
    team_id: str
    feature: str
    event_id: str
    key_id: str
    #: Median tokens of the oversized requests before it; 0 while there are too few.
    usual: int


class RunawayIncident(msgspec.Struct, frozen=True):
    """The requests of one hour."""

    episode: int
    occurred_at: int
    newest: int
    count: int
    cost_nanos: int
    largest: list[Request]
    said_count: int
    updates: int
    tier: Tier
    historic: bool
    last: Alert | None = None


class RunawayState(msgspec.Struct, frozen=True):
    """All of one feature: open alerts by hour, and the highest offset of each source partition."""

    scope: str
    v: int = 1
    offsets: dict[str, int] = {}
    reaches: dict[str, Reach] = {}
    incidents: dict[int, RunawayIncident] = {}
    #: How often the alert of an hour has opened, for two days.
    episodes: dict[int, int] = {}
    detector: RunawayRequestState = RunawayRequestState()
    #: What was resolved last, to be said again under the same ids after a restart.
    resolved: list[Alert] = []


RUNAWAY_STATES = Versioned("a feature's runaways", RunawayState)


def step_runaway(
    state: RunawayState | None, signal: Signal, now: int, policy: RunawayPolicy
) -> tuple[RunawayState, list[Alert]]:
    """Take in one signal; returns the new state and what there is to say.

    A signal that was counted before returns the very state given. One that is not above the limit is not
    counted.

    Raises:
        ValueError: the signal is of another kind or scope.
    """
    if state is None:
        state = RunawayState(scope=signal.scope, detector=RunawayRequest(policy.limit).state())
    if signal.kind != RULE or signal.scope != state.scope:
        raise ValueError(f"signal {signal.kind} of {signal.scope!r} given to the runaways of {state.scope!r}")
    slot = signal.source.slot()
    if signal.offset <= state.offsets.get(slot, -1):
        return state, []
    # The limit is the operator's and may have changed since the state was written; what was learned stays.
    detector = RunawayRequest.from_state(replace(state.detector, limit=policy.limit))
    seen = Observation(signal.event_time, signal.event_time, signal.tokens)
    score = detector.score_one(seen)
    state = replace(state, offsets={**state.offsets, slot: signal.offset})
    if score is None or score.excess <= 0:
        return state, []
    detector.learn_one(seen)
    state = replace(
        state,
        reaches=advance(state.reaches, slot, signal.event_time, now),
        detector=detector.state(),
    )
    state, said = _count(state, signal, score, now, policy)
    state, resolved = tick_runaway(state, now, policy)
    return state, said + resolved


def tick_runaway(state: RunawayState, now: int, policy: RunawayPolicy) -> tuple[RunawayState, list[Alert]]:
    """Resolve the alerts whose last request is ``quiet_us`` ago; returns the very state given where none is."""
    at = reached(state.reaches, now)
    over = [hour for hour, found in state.incidents.items() if at - found.newest >= policy.quiet_us]
    excess = len(state.incidents) - OPEN_MAX
    over = sorted({*over, *sorted(state.incidents)[: max(0, excess)]})
    if not over:
        return state, []
    said = [_alert(state.scope, hour, state.incidents[hour], "resolved", now, policy) for hour in over]
    return replace(
        state,
        incidents={hour: found for hour, found in state.incidents.items() if hour not in over},
        episodes={hour: n for hour, n in state.episodes.items() if hour >= hour_of(at) - 2 * DAY},
        resolved=said,
    ), said


def _count(
    state: RunawayState, signal: Signal, score: Score, now: int, policy: RunawayPolicy
) -> tuple[RunawayState, list[Alert]]:
    hour = hour_of(signal.event_time)
    request = Request(
        tokens=signal.tokens,
        cost_nanos=signal.cost_nanos,
        model=words.clip(signal.model),
        team_id=signal.team_id,
        feature=signal.feature,
        event_id=words.clip(signal.event_id),
        key_id=words.clip(signal.key_id),
        usual=score.expected or 0,
    )
    known = state.incidents.get(hour)
    if known is None:
        historic = now - (hour + HOUR) > policy.live_within_us
        incident = RunawayIncident(
            episode=state.episodes.get(hour, 0) + 1,
            occurred_at=signal.event_time,
            newest=signal.event_time,
            count=1,
            cost_nanos=signal.cost_nanos,
            largest=[request],
            said_count=1,
            updates=0,
            tier="note" if historic else "page",
            historic=historic,
        )
    else:
        count = known.count + 1
        speaks = count >= 2 * known.said_count
        largest = sorted([*known.largest, request], key=lambda each: (-each.tokens, each.event_id))
        incident = replace(
            known,
            newest=max(known.newest, signal.event_time),
            count=count,
            cost_nanos=known.cost_nanos + signal.cost_nanos,
            largest=largest[:LARGEST_KEPT],
            said_count=count if speaks else known.said_count,
            updates=known.updates + speaks,
        )
    said: list[Alert] = []
    if known is None or incident.updates > known.updates:
        status: Status = "opened" if known is None else "updated"
        said = [_alert(state.scope, hour, incident, status, now, policy)]
        incident = replace(incident, last=said[0])
    return replace(
        state,
        incidents={**state.incidents, hour: incident},
        episodes={**state.episodes, hour: incident.episode},
    ), said


def _alert(scope: str, hour: int, incident: RunawayIncident, status: Status, now: int, policy: RunawayPolicy) -> Alert:
    scope_type, _, scope_id = scope.partition(":")
    opened_in = format_instant(hour)
    dedup_key = keys.alert_dedup_key(RULE, scope, opened_in)
    largest = incident.largest[0]
    step = incident.updates if status == "updated" else 0
    return Alert(
        alert_id=keys.alert_id(dedup_key, incident.episode, status, step),
        dedup_key=dedup_key,
        episode=incident.episode,
        status=status,
        severity="critical",
        tier=incident.tier,
        rule=RULE,
        scope_type=scope_type,
        scope_id=scope_id,
        summary=_summary(scope_type, scope_id, incident, status, policy)[: words.SUMMARY_MAX],
        occurred_at=format_instant(incident.occurred_at),
        stated_at=format_instant(now),
        period_start=opened_in,
        period_end=format_instant(hour + HOUR),
        team_id=largest.team_id,
        feature=largest.feature,
        observed=str(largest.tokens),
        expected=str(largest.usual) if largest.usual else "",
        threshold=str(policy.limit),
        unit="tokens",
        top_contributors=[
            Contributor(words.clip(_name(each)), format_usd(each.cost_nanos)) for each in incident.largest
        ],
        runbook=policy.runbook,
        labels={name: value for name, value in (("key", largest.key_id), ("model", largest.model)) if value},
        historic=incident.historic,
    )


def _name(request: Request) -> str:
    by = f" by key {request.key_id}" if request.key_id else ""
    return f"{request.tokens:,} tokens on {request.model}{by}: {request.event_id}"


def _summary(scope_type: str, scope_id: str, incident: RunawayIncident, status: Status, policy: RunawayPolicy) -> str:
    largest, subject = incident.largest[0], words.scope_words(scope_type, scope_id)
    if status == "resolved":
        times = "once" if incident.count == 1 else f"{incident.count:,} times"
        return (
            f"{subject} sends no more runaway requests: above {policy.limit:,} tokens {times}, "
            f"{display_usd(incident.cost_nanos)} in all"
        )
    if incident.count == 1:
        usual = f", usually {largest.usual:,} when it is above" if largest.usual else ""
        return (
            f"{subject} sent one request of {largest.tokens:,} tokens (limit {policy.limit:,}{usual}): "
            f"{display_usd(largest.cost_nanos)} on {largest.model}"
        )
    return (
        f"{subject} sent {incident.count:,} requests above {policy.limit:,} tokens this hour, "
        f"{display_usd(incident.cost_nanos)} in all; the largest had {largest.tokens:,} on {largest.model}"
    )
