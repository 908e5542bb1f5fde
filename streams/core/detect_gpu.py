"""One GPU: the fixed rule exactly, and how it stands with its owner.

The *fixed rule* is a trailing hour whose mean is below the bar, until it is above the exit bar. On real traces that is
nearly every GPU (96 % of pod-hours), so it is recorded and shown (``gpu_below``, a note), and wakes nobody. What people
are told is the owner's matter (``detect_idle``), and this file only says how each GPU stands: *strict*, when no sample
of the hour reached the bar, so that the GPU can be taken back; *low*, when the mean has been below the bar for an hour
and the GPU works in bursts, so that a smaller one would do.

A GPU that stops reporting is unknown, not idle: the run restarts behind a gap, and nothing opens. What is open outlives
a short gap (an exporter that restarts must not resolve and tell again), and ends as *gone quiet* when the GPU has said
nothing for ``gone_us``: nobody can act on a GPU that is no longer there. A GPU that changes hands begins its hour anew:
its new owner did not let it idle.
"""

from functools import lru_cache
from typing import Literal, NamedTuple, cast

from msgspec.structs import replace

from detectors.base import Observation
from detectors.gpu_utilisation import FULL, GpuUtilisation, GpuUtilisationState, IdleScore
from schemas import keys, topics
from schemas.alerts import Alert, Rule, Severity, Status
from schemas.events import UNATTRIBUTED, GpuSample
from schemas.instants import HOUR, MINUTE, format_instant, hour_of, parse_instant
from schemas.money import display_usd
from schemas.statements import GpuStanding, Signal, Source
from streams.core import detect_words as words
from streams.core.detect_gpu_state import GPU_STATES, GpuIncident, GpuPolicy, GpuState, ToldOwner, deployment_of

__all__ = ["GPU_STATES", "GpuPolicy", "GpuState", "GpuStep", "gpu_scope_id", "owner_scope", "step_gpu", "tick_gpu"]

RULE: Rule = "gpu_below"
Kind = Literal["", "strict", "low"]
#: Where a GPU is heard of more rarely, the sample closest to the full hour decides: the next one would come too late.
_RARE_US = 2 * MINUTE
#: A standing is said again this often, so that one found in a backlog is heard of live.
AGAIN_US = HOUR


class GpuStep(NamedTuple):
    """What a window or the passing of time leaves behind."""

    state: GpuState
    alerts: list[Alert]
    #: For the scopes that group owners' GPUs.
    standings: list[Signal]


def gpu_scope_id(sample: GpuSample) -> str:
    """What is watched: the GPU, or one instance of a GPU that is cut up by MIG. Key the state by it.

    >>> from decimal import Decimal
    >>> gpu_scope_id(
    ...     GpuSample(gpu_uuid="GPU-1", mig_id="3", window_start="", window_end="", allocated_seconds=Decimal(0))
    ... )
    'GPU-1/3'
    """
    return f"{sample.gpu_uuid}/{sample.mig_id}" if sample.mig_id else sample.gpu_uuid


@lru_cache(maxsize=8_192)
def owner_scope(org_id: str, team_id: str) -> str:
    """The scope in which an owner's GPUs meet.

    >>> owner_scope("", "search"), owner_scope("acme", "")
    ('gpus:/search', 'gpus:acme/__unattributed__')
    """
    return f"gpus:{words.clip(org_id)}/{words.clip(team_id) or UNATTRIBUTED}"


def step_gpu(state: GpuState | None, sample: GpuSample, event_time: int, now: int, policy: GpuPolicy) -> GpuStep:
    """Take in one window of one GPU.

    ``event_time`` is when it was measured (the envelope's time), and becomes the alert's. A window that ends
    at or before the newest one seen returns the very state given, and so does each further pod of a shared
    GPU.

    Raises:
        InstantError: the window's bounds are no instants.
        ValueError: the sample is of another GPU.
    """
    scope_id = gpu_scope_id(sample)
    if state is None:
        state = GpuState(scope_id=scope_id)
    if state.scope_id != scope_id:
        raise ValueError(f"sample of GPU {scope_id!r} given to the state of {state.scope_id!r}")
    start, end = parse_instant(sample.window_start), parse_instant(sample.window_end)
    if end <= state.newest_end or start >= end:
        return GpuStep(state, [], [])
    seen = Observation(start, end, sample.util_ratio if sample.scrape_ok else None)
    detector = _detector(state, policy)
    waited = end - detector.state().end
    score = detector.score_one(seen)
    detector.learn_one(seen)
    learned = detector.state()
    is_known = learned.end == end
    state = _placed(state, learned, sample, start, end)
    if not is_known:
        return GpuStep(state, [], [])
    busy = round(cast(float, seen.value) * FULL) >= policy.enter
    state = replace(state, seen_at=now, busy_until=end if busy else state.busy_until)
    recent = detector.recent()
    is_over = _is_over(recent, policy)
    if state.incident is None:
        state, alerts = _open(state, score, event_time, now, policy)
    else:
        state, alerts = _resolve(state, recent, now, policy) if is_over else (state, [])
    state, standings = _tell(state, "" if is_over else _kind(state, waited, policy), recent, policy)
    return GpuStep(state, alerts, standings)


def tick_gpu(state: GpuState, now: int, policy: GpuPolicy) -> GpuStep:
    """End what is open of a GPU that has said nothing for ``gone_us``; returns the very state given otherwise."""
    # The distance to its last word, not to event time: in a backlog event time is far behind and nobody is
    # gone.
    if (state.incident is None and not state.told.kind) or now - state.seen_at < policy.gone_us:
        return GpuStep(state, [], [])
    alerts: list[Alert] = []
    if state.incident is not None:
        state, alerts = _resolve(state, None, now, policy)
    state, standings = _tell(state, "", None, policy)
    return GpuStep(state, alerts, standings)


class _Place(NamedTuple):
    """Where a GPU is, with every name on one line and bounded."""

    model: str
    mig_profile: str
    node: str
    pod: str
    deployment: str
    pool: str


@lru_cache(maxsize=8_192)
def _place(model: str, mig_profile: str, node: str, namespace: str, pod: str, deployment: str, pool: str) -> _Place:
    # The same in every window of a GPU: cleaned once.
    name = deployment or deployment_of(pod)
    name = f"{namespace}/{name}" if namespace and name else name
    return _Place(*map(words.clip, (model, mig_profile, node, pod, name, pool or model)))


def _placed(state: GpuState, learned: GpuUtilisationState, sample: GpuSample, start: int, end: int) -> GpuState:
    """With the window in it, where it is and who has it now: what was handed back has no team, whoever had it."""
    owner = (sample.org_id, sample.team_id, sample.feature)
    # The first of those who share it speaks for all, and may be another one in each window.
    is_same = owner[:2] == (state.org_id, state.team_id) or sample.shared_by > 1
    since = state.owned_since
    if not is_same or not since:
        since = start
    elif sample.shared_by > 1:
        owner = (state.org_id, state.team_id, state.feature)
    place = _place(
        sample.model, sample.mig_profile, sample.node, sample.namespace, sample.pod, sample.deployment, sample.pool
    )
    return replace(
        state,
        detector=learned,
        newest_end=end,
        model=place.model or state.model,
        mig_profile=place.mig_profile or state.mig_profile,
        node=place.node or state.node,
        pod=place.pod,
        deployment=place.deployment,
        pool=place.pool or state.pool,
        org_id=owner[0],
        team_id=owner[1],
        feature=owner[2],
        owned_since=since,
    )


def _detector(state: GpuState, policy: GpuPolicy) -> GpuUtilisation:
    stored = state.detector
    if stored.idle_us == policy.idle_us and stored.gap_us == policy.gap_us:
        return GpuUtilisation.from_state(stored)
    # The operator has changed the window: buckets of another width cannot be used, and the run begins anew.
    return GpuUtilisation(policy.idle_us, policy.gap_us)


def _is_over(recent: IdleScore | None, policy: GpuPolicy) -> bool:
    is_settled = recent is not None and recent.known_us >= min(policy.settle_us, policy.idle_us)
    return recent is not None and is_settled and recent.observed > policy.exit


def _idle_since(state: GpuState) -> int:
    """Since when no sample reached the bar, without a gap, with this owner."""
    return max(state.detector.since, state.busy_until, state.owned_since)


def _kind(state: GpuState, waited: int, policy: GpuPolicy) -> Kind:
    end, told = state.detector.end, state.told
    if state.incident is not None and state.incident.rule != RULE:
        return ""  # an earlier release told of it already
    early = waited // 2 if _RARE_US < waited <= policy.gap_us else 0
    if end - _idle_since(state) + early >= policy.idle_us:
        return "strict"
    is_same = told.kind and told.scope == owner_scope(state.org_id, state.team_id)
    if is_same and told.kind == "strict" and state.busy_until <= told.since:
        return "strict"  # a gap, behind which it goes on to idle
    is_low = state.low_since and end - max(state.low_since, state.owned_since) >= policy.idle_us
    return "low" if is_same or is_low else ""


def _open(
    state: GpuState, score: IdleScore | None, event_time: int, now: int, policy: GpuPolicy
) -> tuple[GpuState, list[Alert]]:
    if score is None or score.observed >= policy.enter:
        return (replace(state, low_since=0) if state.low_since else state), []
    end = state.detector.end
    hour = hour_of(end)
    incident = GpuIncident(
        hour=hour,
        episode=state.last_episode + 1 if hour == state.last_hour else 1,
        opened_at=now,
        occurred_at=event_time,
        idle_since=end - policy.idle_us,
        is_strict=False,
        updates=0,
        tier="note",
        historic=now - end > policy.live_within_us,
        rule=RULE,
    )
    state = replace(state, incident=incident, low_since=end, last_hour=hour, last_episode=incident.episode)
    return _say(state, incident, "opened", score, now, policy)


def _resolve(state: GpuState, recent: IdleScore | None, now: int, policy: GpuPolicy) -> tuple[GpuState, list[Alert]]:
    incident = cast(GpuIncident, state.incident)
    return _say(replace(state, incident=None, low_since=0), incident, "resolved", recent, now, policy)


def _rate(state: GpuState, policy: GpuPolicy) -> int | None:
    name = f"{state.model}|{state.mig_profile}" if state.mig_profile else state.model
    return policy.nanos_per_hour.get(name)


def _tell(state: GpuState, kind: Kind, recent: IdleScore | None, policy: GpuPolicy) -> tuple[GpuState, list[Signal]]:
    """Say how it stands where that is news, or was said an hour ago; a former owner hears that it is gone."""
    scope, told, end = owner_scope(state.org_id, state.team_id), state.told, state.detector.end
    said: list[Signal] = []
    if told.kind and told.scope != scope:
        told = ToldOwner(told.scope, "", told.revision + 1, end, end)
        said.append(_standing(state, told, None, policy))
    if kind != told.kind or (kind and end - told.at >= AGAIN_US):
        since = _idle_since(state) if kind == "strict" else state.low_since
        since = told.since if kind == told.kind and told.since else since
        told = ToldOwner(scope, kind, told.revision + 1, since or end, end)
        said.append(_standing(state, told, recent, policy))
    return (replace(state, told=told) if said else state), said


def _standing(state: GpuState, told: ToldOwner, recent: IdleScore | None, policy: GpuPolicy) -> Signal:
    return Signal(
        kind="gpu_standing",
        scope=told.scope,
        event_id=keys.digest("gpu_standing", state.scope_id, str(told.revision)),
        event_source="//sluice",
        event_time=told.at,
        source=Source(topics.USAGE_GPU, 0, 0),
        offset=told.revision,
        team_id=state.team_id,
        feature=state.feature,
        model=state.model,
        tokens=0,
        cost_nanos=0,
        gpu=GpuStanding(
            gpu=state.scope_id,
            revision=told.revision,
            kind=cast(Kind, told.kind),
            since=told.since,
            mean_millionths=recent.observed if recent else 0,
            nanos_per_hour=_rate(state, policy) if told.kind else None,
            name=state.pod or state.scope_id,
            model=state.model,
            node=state.node,
            deployment=state.deployment,
            pool=state.pool,
        ),
    )


def _say(
    state: GpuState, incident: GpuIncident, status: Status, score: IdleScore | None, now: int, policy: GpuPolicy
) -> tuple[GpuState, list[Alert]]:
    opened_in = format_instant(incident.hour)
    dedup_key = keys.alert_dedup_key(incident.rule, f"gpu:{state.scope_id}", opened_in)
    told_as: Severity = "critical" if incident.is_strict else "warning"
    alert = Alert(
        alert_id=keys.alert_id(dedup_key, incident.episode, status, incident.updates if status == "updated" else 0),
        dedup_key=dedup_key,
        episode=incident.episode,
        status=status,
        severity="info" if incident.rule == RULE else told_as,
        tier=incident.tier,
        rule=incident.rule,
        scope_type="gpu",
        scope_id=state.scope_id,
        summary=_summary(state, incident, status, score, policy)[: words.SUMMARY_MAX],
        occurred_at=format_instant(incident.occurred_at),
        stated_at=format_instant(now),
        period_start=format_instant(incident.idle_since),
        period_end=format_instant(state.detector.end),
        team_id=state.team_id,
        feature=state.feature,
        observed="" if score is None else words.percent_words(score.observed),
        threshold=str(policy.exit_percent if status == "resolved" else policy.enter_percent),
        unit="%",
        runbook=policy.runbook,
        labels={name: value for name, value in (("gpu_model", state.model), ("node", state.node)) if value},
        historic=incident.historic,
    )
    return replace(state, last=alert), [alert]


def _summary(state: GpuState, incident: GpuIncident, status: Status, score: IdleScore | None, policy: GpuPolicy) -> str:
    place = " ".join(part for part in (state.model, f"on {state.node}" if state.node else "") if part)
    owner = f" of team {words.clip(state.team_id)}" if state.team_id else ""
    subject = f"GPU {words.clip(state.scope_id)}{f' ({place})' if place else ''}{owner}"
    hours = _rate(state, policy)
    idle_us = state.detector.end - incident.idle_since
    if status == "resolved":
        lost = f", {display_usd(hours * idle_us // HOUR)} of it" if hours else ""
        ending = "reports no more: gone quiet" if score is None else f"works again at {_percent(score)} %"
        return f"{subject} {ending}, after {duration(idle_us)} below {policy.enter_percent} %{lost}"
    mean = "" if score is None else f" at {_percent(score)} % on average"
    cost = f", and costs {display_usd(hours * 24)} a day" if hours else ""
    return f"{subject} was below {policy.enter_percent} %{mean} over the last {duration(policy.idle_us)}{cost}"


def _percent(score: IdleScore) -> str:
    return words.percent_words(score.observed)


def duration(micros: int) -> str:
    """A stretch of time for people.

    >>> duration(90 * MINUTE), duration(59 * MINUTE), duration(2 * HOUR)
    ('1 h 30 min', '59 min', '2 h')
    """
    hours, minutes = divmod(micros // MINUTE, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
