"""Idle GPUs of one owner: one incident with all of them in it, in money per day.

Each GPU says how it stands (``detect_gpu``); here all of one owner's meet, and two findings are told. *Strictly idle*
GPUs can be taken back: a ticket, and a page once they have cost ``page_nanos`` since they fell idle. GPUs that *work
only in bursts* are reported for right-sizing, as a note. Ten pods that fall idle together are one ticket with ten
names, about the narrowest of deployment, pool and owner that holds them all.

Told again only where the money per day doubles or the tier rises. An incident ends when no GPU has idled for a while;
one that is above the bar but below the exit bar still idles.
"""

from typing import NamedTuple

from msgspec import UnsetType
from msgspec.structs import replace

from schemas import keys
from schemas.alerts import Alert, Contributor, Rule, Severity, Status, Tier
from schemas.instants import HOUR, format_instant, hour_of
from schemas.money import display_usd, format_usd
from schemas.statements import GpuStanding, Signal
from streams.core import detect_words as words
from streams.core.answers import NO_LESSONS, QUIET, Lessons, Word
from streams.core.detect_gpu import duration
from streams.core.detect_idle_state import (
    FINDINGS,
    IDLE_STATES,
    LEFT_KEPT_US,
    MEMBERS_MAX,
    SILENT_US,
    Finding,
    IdleIncident,
    IdlePolicy,
    IdleState,
    Member,
)

__all__ = ["IDLE_STATES", "IdlePolicy", "IdleState", "step_idle", "tick_idle"]

_RULES: dict[Finding, Rule] = {"strict": "gpu_idle", "low": "gpu_bursty"}
_TIERS: tuple[Tier, ...] = ("note", "ticket", "page")
_SEVERITIES: dict[Tier, Severity] = {"note": "info", "ticket": "warning", "page": "critical"}
_NAMED = 10


class Group(NamedTuple):
    """The members of a finding, the dearest first, and the narrowest scope that holds them all."""

    members: list[tuple[str, Member]]
    scope_type: str
    scope_id: str
    nanos_per_day: int
    unpriced: int


def step_idle(
    state: IdleState | None, signal: Signal, now: int, policy: IdlePolicy, lessons: Lessons = NO_LESSONS
) -> tuple[IdleState, list[Alert]]:
    """Take in how one GPU stands; what was due before it is told first. An older word changes nothing.

    Raises:
        ValueError: the signal is of another scope, or no GPU's standing.
    """
    state = state if state is not None else IdleState(scope=signal.scope)
    if state.scope != signal.scope or isinstance(signal.gpu, UnsetType):
        raise ValueError(f"signal {signal.kind} of {signal.scope!r} given to the idle GPUs of {state.scope!r}")
    gpu, at = signal.gpu, signal.event_time
    known = state.members.get(gpu.gpu)
    if known is not None and gpu.revision <= known.revision:
        return state, []
    # In a replay hours pass between two ticks: what became due in between is told under its own time.
    state, alerts = _look(state, now, at, policy, lessons)
    known = state.members.get(gpu.gpu)
    if known is None and (not gpu.kind or len(state.members) >= MEMBERS_MAX):
        return state, alerts
    state = _left(state, known, gpu, at)
    is_same = known is not None and known.kind == gpu.kind
    member = Member(
        revision=gpu.revision,
        kind=gpu.kind,
        was_strict=bool(gpu.kind) and (gpu.kind == "strict" or (known is not None and known.was_strict)),
        since=gpu.since,
        mean_millionths=gpu.mean_millionths,
        nanos_per_hour=gpu.nanos_per_hour,
        name=gpu.name,
        model=gpu.model,
        node=gpu.node,
        deployment=gpu.deployment,
        pool=gpu.pool,
        said_at=at,
        joined_at=known.joined_at if known is not None and is_same else at,
        heard_at=now,
    )
    team = signal.scope.partition("/")[2]
    state = replace(
        state,
        team_id="" if team == words.UNATTRIBUTED else team,
        members={**state.members, gpu.gpu: member},
    )
    return state, alerts


def tick_idle(
    state: IdleState, now: int, policy: IdlePolicy, lessons: Lessons = NO_LESSONS
) -> tuple[IdleState | None, list[Alert]]:
    """Tell what is due; forget GPUs that left long ago, and an owner without any. The same state: nothing changed."""
    kept = {name: member for name, member in state.members.items() if now - member.heard_at < LEFT_KEPT_US}
    for name, member in kept.items():
        if member.kind and now - member.heard_at >= SILENT_US:
            kept[name] = replace(member, kind="", was_strict=False)
    if kept != state.members:
        state = replace(state, members=kept)
    state, alerts = _look(state, now, None, policy, lessons)
    if not state.members and not state.incidents and not alerts:
        return None, []
    return state, alerts


def _look(
    state: IdleState, now: int, at: int | None, policy: IdlePolicy, lessons: Lessons
) -> tuple[IdleState, list[Alert]]:
    """Open, change and end incidents as of ``now``, or as of the event time ``at`` that was just read."""
    alerts: list[Alert] = []
    for finding in FINDINGS:
        incident = state.incidents.get(finding)
        if incident is None:
            state, said = _open(state, finding, now, at, policy, lessons)
        else:
            state, said = _go_on(state, finding, incident, now, at, policy, lessons)
        alerts += said
    return state, alerts


def _open(
    state: IdleState, finding: Finding, now: int, at: int | None, policy: IdlePolicy, lessons: Lessons
) -> tuple[IdleState, list[Alert]]:
    found = _group(state, finding)
    if not found.members or _word_on(state, finding, found, now, lessons) in QUIET:
        return state, []
    members = [member for _, member in found.members]
    first = min(member.joined_at for member in members)
    is_due = any(now - member.heard_at >= policy.gather_us for member in members)
    if not is_due and (at is None or at - first < policy.gather_us):
        return state, []
    hour = hour_of(first)
    last_hour, last_episode = state.last_named.get(finding, (0, 0))
    historic = _is_historic(members, now, policy)
    incident = IdleIncident(
        hour=hour,
        episode=last_episode + 1 if hour == last_hour else 1,
        occurred_at=first,
        since=min(member.since for member in members),
        updates=0,
        tier="note" if historic else _tier(finding, found, _wasted(found, now), policy),
        historic=historic,
        scope_type=found.scope_type,
        scope_id=found.scope_id,
        nanos_per_day=found.nanos_per_day,
    )
    state = replace(state, last_named={**state.last_named, finding: (hour, incident.episode)})
    return _say(state, finding, incident, "opened", found, now, policy)


def _go_on(
    state: IdleState,
    finding: Finding,
    incident: IdleIncident,
    now: int,
    at: int | None,
    policy: IdlePolicy,
    lessons: Lessons,
) -> tuple[IdleState, list[Alert]]:
    found = _group(state, finding)
    if found.members and _word_on(state, finding, found, now, lessons) in QUIET:
        return _say(state, finding, incident, "resolved", found, now, policy, is_normal=True)
    if not _is_held(state, finding):
        left = [member.said_at for member in state.members.values() if not member.kind]
        since = incident.empty_since or max(left, default=now)
        if max(now, at or 0) - since >= policy.quiet_us:
            return _say(state, finding, incident, "resolved", found, now, policy)
        if incident.empty_since:
            return state, []
        return _kept(state, finding, replace(incident, empty_since=since)), []
    changed = replace(incident, empty_since=0) if incident.empty_since else incident
    members = [member for _, member in found.members]
    historic = incident.historic and (not members or _is_historic(members, now, policy))
    tier = "note" if historic else _tier(finding, found, incident.lost_nanos + _wasted(found, now), policy)
    is_dearer = found.nanos_per_day >= 2 * max(1, incident.nanos_per_day)
    if not is_dearer and _TIERS.index(tier) <= _TIERS.index(incident.tier):
        return (_kept(state, finding, changed) if changed is not incident else state), []
    changed = replace(
        changed,
        updates=incident.updates + 1,
        tier=max(tier, incident.tier, key=_TIERS.index),
        historic=historic,
        scope_type=found.scope_type,
        scope_id=found.scope_id,
        nanos_per_day=found.nanos_per_day,
    )
    return _say(state, finding, changed, "updated", found, now, policy)


def _word_on(state: IdleState, finding: Finding, found: Group, now: int, lessons: Lessons) -> Word:
    """What people said of as many idle dollars a day of these GPUs."""
    return lessons.verdict(_teaches(state, finding, found), (found.nanos_per_day,), _wasted(found, now), now)


def _teaches(state: IdleState, finding: Finding, found: Group) -> str:
    """Of one GPU its deployment, where it has one: its next pod has another name."""
    where = f"{found.scope_type}:{found.scope_id}"
    if found.scope_type == "gpu" and found.members and found.members[0][1].deployment:
        where = f"deployment:{found.members[0][1].deployment}"
    return f"{_RULES[finding]}|{state.scope}|{where}"


def _kept(state: IdleState, finding: Finding, incident: IdleIncident) -> IdleState:
    return replace(state, incidents={**state.incidents, finding: incident})


def _is_held(state: IdleState, finding: Finding) -> bool:
    members = state.members.values()
    if finding == "strict":
        return any(member.kind and member.was_strict for member in members)
    return any(member.kind == "low" for member in members)


def _left(state: IdleState, known: Member | None, gpu: GpuStanding, at: int) -> IdleState:
    """Count what a GPU cost while it idled, once it does not any more."""
    incident = state.incidents.get(known.kind) if known is not None else None
    if known is None or incident is None or known.kind == gpu.kind or not known.nanos_per_hour:
        return state
    lost = known.nanos_per_hour * max(0, at - known.since) // HOUR
    finding: Finding = "strict" if known.kind == "strict" else "low"
    return _kept(state, finding, replace(incident, lost_nanos=incident.lost_nanos + lost))


def _is_historic(members: list[Member], now: int, policy: IdlePolicy) -> bool:
    return now - max(member.said_at for member in members) > policy.live_within_us


def _wasted(found: Group, now: int) -> int:
    """What the members have cost since they fell idle."""
    return sum((member.nanos_per_hour or 0) * max(0, now - member.since) // HOUR for _, member in found.members)


def _tier(finding: Finding, found: Group, wasted: int, policy: IdlePolicy) -> Tier:
    if finding == "low":
        return "note"
    if wasted >= policy.page_nanos:
        return "page"
    # What it costs is not known: that it idles is.
    return "ticket" if found.unpriced or found.nanos_per_day >= policy.ticket_nanos_per_day else "note"


def _group(state: IdleState, finding: Finding) -> Group:
    found = [(name, member) for name, member in state.members.items() if member.kind == finding]
    found.sort(key=lambda each: (-(each[1].nanos_per_hour or 0), each[1].name, each[0]))
    hourly = sum(member.nanos_per_hour or 0 for _, member in found)
    unpriced = sum(member.nanos_per_hour is None for _, member in found)
    deployments, pools = {m.deployment for _, m in found}, {m.pool for _, m in found}
    scope = "owner", state.team_id or words.UNATTRIBUTED
    if len(found) == 1:
        scope = "gpu", found[0][0]
    elif len(deployments) == 1 and "" not in deployments:
        scope = "deployment", next(iter(deployments))
    elif len(pools) == 1 and "" not in pools:
        scope = "pool", next(iter(pools))
    return Group(found, *scope, hourly * 24, unpriced)


def _say(
    state: IdleState,
    finding: Finding,
    incident: IdleIncident,
    status: Status,
    found: Group,
    now: int,
    policy: IdlePolicy,
    is_normal: bool = False,
) -> tuple[IdleState, list[Alert]]:
    # Who answers once it is over means what it was.
    before = state.last.get(finding) if status == "resolved" else None
    finding_words = _summary(state, finding, incident, "updated" if is_normal else status, found, policy)
    dedup_key = keys.alert_dedup_key(_RULES[finding], state.scope, format_instant(incident.hour))
    alert = Alert(
        alert_id=keys.alert_id(dedup_key, incident.episode, status, incident.updates if status == "updated" else 0),
        dedup_key=dedup_key,
        episode=incident.episode,
        status=status,
        severity=_SEVERITIES[incident.tier],
        tier=incident.tier,
        rule=_RULES[finding],
        scope_type=incident.scope_type,
        scope_id=incident.scope_id,
        summary=words.explained(finding_words) if is_normal else finding_words[: words.SUMMARY_MAX],
        occurred_at=format_instant(incident.occurred_at),
        stated_at=format_instant(now),
        period_start=format_instant(incident.since),
        team_id=state.team_id,
        owner="",
        observed=format_usd(found.nanos_per_day),
        threshold=f"{policy.enter_percent} % over {duration(policy.idle_us)}",
        unit="USD",
        top_contributors=[
            Contributor(member.name, format_usd((member.nanos_per_hour or 0) * 24))
            for _, member in found.members[:_NAMED]
        ],
        runbook=policy.runbook,
        historic=incident.historic,
        teaches=before.teaches if before is not None else _teaches(state, finding, found),
        figures=before.figures if before is not None else (found.nanos_per_day,),
    )
    incidents = dict(state.incidents)
    members = state.members
    if status == "resolved":
        del incidents[finding]
        if finding == "strict":
            members = {name: replace(m, was_strict=m.kind == "strict") for name, m in members.items()}
    else:
        incidents[finding] = incident
    return replace(state, incidents=incidents, members=members, last={**state.last, finding: alert}), [alert]


def _summary(
    state: IdleState, finding: Finding, incident: IdleIncident, status: Status, found: Group, policy: IdlePolicy
) -> str:
    owner = f"team {words.clip(state.team_id)}" if state.team_id else "no team"
    if status == "resolved":
        lost = f", after {display_usd(incident.lost_nanos)}" if incident.lost_nanos else ""
        idle = "idle" if finding == "strict" else "work in bursts below the bar"
        return f"The GPUs of {owner} {idle} no more{lost}"
    count, first = len(found.members), found.members[0][1]
    if count == 1:
        place = " ".join(part for part in (first.model, f"on {first.node}" if first.node else "") if part)
        subject = f"GPU {first.name}{f' ({place})' if place else ''} of {owner}"
    else:
        within = f"{found.scope_type} {words.clip(found.scope_id)} ({owner})"
        subject = f"{count} GPUs of {owner if found.scope_type == 'owner' else within}"
    verb = "idles" if count == 1 else "idle"
    if finding == "low":
        mean = sum(member.mean_millionths for _, member in found.members) // count
        verb = f"{'works' if count == 1 else 'work'} only in bursts at {words.percent_words(mean)} % on average"
    costs = "costs" if count == 1 else "cost"
    cost = f", and {costs} {display_usd(found.nanos_per_day)} a day" if found.nanos_per_day else ""
    unknown = f" ({found.unpriced} without a price)" if found.unpriced else ""
    named = [member.name for _, member in found.members[:_NAMED]]
    rest = f" and {count - _NAMED} more" if count > _NAMED else ""
    listed = f": {', '.join(named)}{rest}" if count > 1 else ""
    return f"{subject} {verb}{cost}{unknown}{listed}"
