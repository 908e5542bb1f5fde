"""Idle GPUs: a trailing hour of utilisation below the bar, in money.

Two findings, one alert. *Strictly idle*: no sample of the hour reached the bar; the GPU can be taken back, and this
pages. *Low mean*: the mean of the hour has been below the bar for an hour, but the GPU works in bursts; on real traces
that is nearly every GPU (96 % of pod-hours), so it is a ticket to right-size. A low mean that becomes strictly idle is
an update that pages. The low mean waits for its hour so that a busy GPU that falls idle, whose mean passes the bar
before the hour is full, is said once, as what it is.

A GPU that stops reporting is unknown, not idle: the run restarts behind a gap, and nothing opens. An open alert
outlives a short gap (an exporter that restarts must not resolve and page again), and is resolved as *gone quiet* when
the GPU has said nothing for ``gone_us``: nobody can act on a GPU that is no longer there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import msgspec
from msgspec.structs import replace

from detectors.base import Observation
from detectors.gpu_utilisation import FULL, GpuUtilisation, GpuUtilisationState, IdleScore
from schemas import keys
from schemas.alerts import Alert, Rule, Severity, Status, Tier
from schemas.events import GpuSample
from schemas.instants import HOUR, MINUTE, SECOND, format_instant, hour_of, parse_instant
from schemas.money import display_usd
from schemas.versions import Versioned
from streams.core import detect_words as words

RULE: Rule = "gpu_idle"
_PERCENT = FULL // 100


@dataclass(frozen=True, slots=True)
class GpuPolicy:
    """Idle is a mean below ``enter_percent`` over ``idle_us``; it ends above ``exit_percent``."""

    enter_percent: int = 20
    exit_percent: int = 30
    idle_us: int = HOUR
    #: A longer time without a sample is unknown: the run restarts.
    gap_us: int = 180 * SECOND
    #: After this long without a sample an open alert is resolved.
    gone_us: int = HOUR
    #: How much of the trailing window must be known before an alert may end: one busy sample is not work.
    settle_us: int = 10 * MINUTE
    #: A finding older than this is history: a note, never a page.
    live_within_us: int = 3 * HOUR
    #: Price of an hour by GPU model, in nanodollars; a model that is not there has no money in its alert.
    nanos_per_hour: Mapping[str, int] = field(default_factory=dict)
    runbook: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.enter_percent < self.exit_percent <= 100:
            raise ValueError("a GPU needs 0 < enter_percent < exit_percent <= 100, or alerts would flap")


class GpuIncident(msgspec.Struct, frozen=True):
    """An open alert; ``hour`` is the one in which it opened and gives it its name."""

    hour: int
    episode: int
    opened_at: int
    occurred_at: int
    #: Start of the trailing window that was found idle.
    idle_since: int
    is_strict: bool
    updates: int
    tier: Tier
    historic: bool


class GpuState(msgspec.Struct, frozen=True):
    """All of one GPU (or MIG instance)."""

    scope_id: str
    v: int = 1
    detector: GpuUtilisationState = GpuUtilisationState()
    #: End of the newest window seen, missing ones included, and what ``now`` was when the newest known one
    #: came.
    newest_end: int = 0
    seen_at: int = 0
    model: str = ""
    node: str = ""
    team_id: str = ""
    feature: str = ""
    #: The hour and episode of the newest incident, so that two in one hour have two names.
    last_hour: int = 0
    last_episode: int = 0
    #: Since when the trailing mean has been below the bar without a break; 0 while it is not.
    low_since: int = 0
    incident: GpuIncident | None = None
    #: The last thing said, to be said again under the same id after a restart.
    last: Alert | None = None


GPU_STATES = Versioned("a GPU's state", GpuState)


def gpu_scope_id(sample: GpuSample) -> str:
    """What is watched: the GPU, or one instance of a GPU that is cut up by MIG. Key the state by it.

    >>> from decimal import Decimal
    >>> gpu_scope_id(
    ...     GpuSample(gpu_uuid="GPU-1", mig_id="3", window_start="", window_end="", allocated_seconds=Decimal(0))
    ... )
    'GPU-1/3'
    """
    return f"{sample.gpu_uuid}/{sample.mig_id}" if sample.mig_id else sample.gpu_uuid


def step_gpu(
    state: GpuState | None, sample: GpuSample, event_time: int, now: int, policy: GpuPolicy
) -> tuple[GpuState, list[Alert]]:
    """Take in one window of one GPU; returns the new state and what there is to say.

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
        return state, []
    seen = Observation(start, end, sample.util_ratio if sample.scrape_ok else None)
    detector = _detector(state, policy)
    score = detector.score_one(seen)
    detector.learn_one(seen)
    learned = detector.state()
    is_known = learned.end == end
    state = replace(
        state,
        detector=learned,
        newest_end=end,
        seen_at=now if is_known else state.seen_at,
        model=words.clip(sample.model) or state.model,
        node=words.clip(sample.node) or state.node,
        # Who has it now: a GPU that was handed back has no team, whoever had it before.
        team_id=sample.team_id,
        feature=sample.feature,
    )
    if not is_known:
        return state, []
    if state.incident is None:
        return _open(state, score, event_time, now, policy)
    return _go_on(state, score, detector.recent(), now, policy)


def tick_gpu(state: GpuState, now: int, policy: GpuPolicy) -> tuple[GpuState, list[Alert]]:
    """Resolve the alert of a GPU that has said nothing for ``gone_us``; returns the very state given
    otherwise.
    """
    # The distance to its last word, not to event time: in a backlog event time is far behind and nobody is
    # gone.
    if state.incident is None or now - state.seen_at < policy.gone_us:
        return state, []
    return _resolve(state, None, now, policy)


def _detector(state: GpuState, policy: GpuPolicy) -> GpuUtilisation:
    stored = state.detector
    if stored.idle_us == policy.idle_us and stored.gap_us == policy.gap_us:
        return GpuUtilisation.from_state(stored)
    # The operator has changed the window: buckets of another width cannot be used, and the run begins anew.
    return GpuUtilisation(policy.idle_us, policy.gap_us)


def _open(
    state: GpuState, score: IdleScore | None, event_time: int, now: int, policy: GpuPolicy
) -> tuple[GpuState, list[Alert]]:
    if score is None or score.observed >= policy.enter_percent * _PERCENT:
        return (replace(state, low_since=0) if state.low_since else state), []
    end, is_strict = state.detector.end, _is_strict(score, policy)
    state = replace(state, low_since=state.low_since or end)
    if not is_strict and end - state.low_since < policy.idle_us:
        return state, []
    hour, historic = hour_of(end), now - end > policy.live_within_us
    incident = GpuIncident(
        hour=hour,
        episode=state.last_episode + 1 if hour == state.last_hour else 1,
        opened_at=now,
        occurred_at=event_time,
        idle_since=end - policy.idle_us,
        is_strict=is_strict,
        updates=0,
        tier="note" if historic else _tier(is_strict),
        historic=historic,
    )
    state = replace(state, incident=incident, last_hour=hour, last_episode=incident.episode)
    return _say(state, incident, "opened", score, now, policy)


def _go_on(
    state: GpuState, score: IdleScore | None, recent: IdleScore | None, now: int, policy: GpuPolicy
) -> tuple[GpuState, list[Alert]]:
    incident = cast(GpuIncident, state.incident)
    is_settled = recent is not None and recent.known_us >= min(policy.settle_us, policy.idle_us)
    if recent is not None and is_settled and recent.observed > policy.exit_percent * _PERCENT:
        return _resolve(state, recent, now, policy)
    if score is None or incident.is_strict or not _is_strict(score, policy):
        return state, []
    tier: Tier = "note" if incident.historic else _tier(True)
    incident = replace(incident, is_strict=True, updates=incident.updates + 1, tier=tier)
    return _say(replace(state, incident=incident), incident, "updated", score, now, policy)


def _resolve(state: GpuState, recent: IdleScore | None, now: int, policy: GpuPolicy) -> tuple[GpuState, list[Alert]]:
    incident = cast(GpuIncident, state.incident)
    return _say(replace(state, incident=None, low_since=0), incident, "resolved", recent, now, policy)


def _is_strict(score: IdleScore, policy: GpuPolicy) -> bool:
    return score.peak < policy.enter_percent * _PERCENT


def _tier(is_strict: bool) -> Tier:
    return "page" if is_strict else "ticket"


def _say(
    state: GpuState, incident: GpuIncident, status: Status, score: IdleScore | None, now: int, policy: GpuPolicy
) -> tuple[GpuState, list[Alert]]:
    opened_in = format_instant(incident.hour)
    dedup_key = keys.alert_dedup_key(RULE, f"gpu:{state.scope_id}", opened_in)
    severity: Severity = "critical" if incident.is_strict else "warning"
    step = incident.updates if status == "updated" else 0
    alert = Alert(
        alert_id=keys.alert_id(dedup_key, incident.episode, status, step),
        dedup_key=dedup_key,
        episode=incident.episode,
        status=status,
        severity=severity,
        tier=incident.tier,
        rule=RULE,
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
    hours = policy.nanos_per_hour.get(state.model)
    idle_us = state.detector.end - incident.idle_since
    if status == "resolved":
        lost = f", {display_usd(hours * idle_us // HOUR)} of it" if hours else ""
        ending = "reports no more: gone quiet" if score is None else f"works again at {_percent(score)} %"
        return f"{subject} {ending}, after {_duration(idle_us)} below {policy.enter_percent} %{lost}"
    how = "idles" if incident.is_strict else "works only in bursts"
    mean = "" if score is None else f" at {_percent(score)} % on average"
    cost = f", and costs {display_usd(hours * 24)} a day" if hours else ""
    return f"{subject} {how}{mean} over the last {_duration(policy.idle_us)}{cost}"


def _percent(score: IdleScore) -> str:
    return words.percent_words(score.observed)


def _duration(micros: int) -> str:
    hours, minutes = divmod(micros // MINUTE, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
