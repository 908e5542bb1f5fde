"""Regime changes: habits of a scope that change for good, told once, in money.

Hours are judged once each, when every partition that has a part in them has passed them; what is not newer than the
last one changes nothing, so any split of what led to the totals says the same. Each ratio has a detector
(detectors/regime_change.py) and at most one open alert. After a day the new level is the usual, and the alert says so.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from detectors.base import Observation
from detectors.regime_change import RegimeChange, RegimeChangeState, RegimeScore
from schemas import keys
from schemas.alerts import Alert, Drivers, Rule, Status, Tier
from schemas.instants import HOUR, MINUTE, format_instant
from schemas.money import display_usd, format_usd
from schemas.statements import HourStatement
from schemas.versions import Versioned
from streams.core import detect_words as words
from streams.core.answers import NO_LESSONS, QUIET, Lessons, Word
from streams.core.at_stake import by_month_end
from streams.core.composition import Composition
from streams.core.detect_reach import Reach, advance, furthest, reached
from streams.core.detect_regime_ratios import (
    RATIOS,
    REQUESTS_MIN,
    HourTotals,
    blended,
    figure,
    moved,
    plain,
    shares_of,
    sizes,
    summed,
    teaches,
    totals_of,
)
from streams.core.detect_spike_policy import kind_of

#: Strangeness from which an alert opens; at 0 it ends.
OPEN = 1_000
#: Hours that may be open at once, however far apart partitions are.
OPEN_HOURS_MAX = 6
#: How fast the usual shares of models follow.
_FOLLOW = 1 / 24
_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class RegimePolicy:
    """Money is nanodollars an hour that the change costs at the hour's spend."""

    #: Below it a change is a note, and nobody is woken below ``page_nanos``.
    floor_nanos: int = 500_000_000
    page_nanos: int = 25_000_000_000
    #: After so long the new level is the usual one.
    accept_after_us: int = 24 * HOUR
    live_within_us: int = 3 * HOUR
    #: How long after its end an hour stays open for what is still under way.
    #: Longer than ROLLUP waits (``rolling.OVER_US``), by the time that its word may take.
    grace_us: int = 10 * MINUTE
    runbook: str = ""


class RegimeIncident(msgspec.Struct, frozen=True):
    """An open alert about one ratio, named by the hour in which the change began."""

    hour: int
    opened: int
    tier: Tier
    historic: bool
    score: RegimeScore
    #: What it costs an hour, as it was last said.
    waste_nanos: int
    updates: int
    #: The model that gained most, where it is about models.
    model: str
    last: Alert | None = None


class RegimeState(msgspec.Struct, frozen=True):
    """All of one scope, by ratio."""

    scope: str
    v: int = 1
    #: Hours before this one are taken in; those that are not, by partition.
    next_hour: int = 0
    hours: dict[int, dict[int, HourTotals]] = {}
    reaches: dict[str, Reach] = {}
    detectors: dict[str, RegimeChangeState] = {}
    #: The usual shares of models.
    shares: dict[str, float] = {}
    incidents: dict[str, RegimeIncident] = {}
    resolved: list[Alert] = []
    #: Of the last hours that were judged, those that an alert is about: they say nothing of what is usual.
    odd: list[int] = []


REGIME_STATES = Versioned("a scope's habits", RegimeState)


def step_hour(
    state: RegimeState,
    statement: HourStatement,
    made_of: Composition,
    now: int,
    policy: RegimePolicy,
    lessons: Lessons = NO_LESSONS,
) -> tuple[RegimeState, list[Alert]]:
    """Take in what a partition says of an hour that is over there, which replaces what it had; returns the new state
    and what there is to say of the oldest of too many hours.

    ``made_of`` holds the statement where it is the newest of its part; what is not changes nothing, nor does what comes
    for an hour that was judged. ``tick_regime`` judges: partitions speak in turn, no hour may close before all have.
    """
    hour, part, reaches = statement.hour, statement.part, dict(state.reaches)
    for slot, come in statement.reach.items():
        reaches = advance(reaches, slot, come, now)
    if reaches != state.reaches:
        state = replace(state, reaches=reaches)
    if hour >= state.next_hour and made_of.hours.get(hour, {}).get(part) == statement:
        parts = {**state.hours.get(hour, {}), part: totals_of(statement)}
        state = replace(state, hours={**state.hours, hour: parts})
    return _closed(state, 0, now, policy, made_of, lessons)


def _closed(
    state: RegimeState, at: int, now: int, policy: RegimePolicy, made_of: Composition | None, lessons: Lessons
) -> tuple[RegimeState, list[Alert]]:
    """Judge the hours that every partition has passed, which have all come to ``at``, and the oldest of too many."""
    said = list[Alert]()
    for place, hour in enumerate(sorted(state.hours)):
        if hour + HOUR + policy.grace_us > at and len(state.hours) - place <= OPEN_HOURS_MAX:
            break
        totals = summed(state.hours[hour].values())
        state, new = step_regime(state, hour, totals, now, policy, made_of, lessons)
        said += new
        state = replace(state, hours={each: parts for each, parts in state.hours.items() if each != hour})
    return state, said


def step_regime(
    state: RegimeState,
    hour: int,
    totals: HourTotals,
    now: int,
    policy: RegimePolicy,
    made_of: Composition | None = None,
    lessons: Lessons = NO_LESSONS,
) -> tuple[RegimeState, list[Alert]]:
    """Take in one closed hour, made of ``made_of`` where that is known; returns the new state and what there is to say.

    An hour that is not above the last one returns the very state given.

    Raises:
        ValueError: it is not the start of a UTC hour.
    """
    if hour % HOUR:
        raise ValueError(f"{state.scope}: a ratio is of a UTC hour")
    if hour < state.next_hour:
        return state, []
    shares = shares_of(totals.models)
    gained, model = moved(shares, state.shares) if shares and state.shares else (None, "")
    said: list[Alert] = []
    detectors, incidents = dict(state.detectors), dict(state.incidents)
    enough = totals.requests >= REQUESTS_MIN
    for name, ratio in RATIOS.items():
        value = (gained if name == "model_mix" else ratio.of(totals)) if enough else None
        detector = RegimeChange.from_state(detectors.get(name, RegimeChangeState()))
        seen = Observation(hour, hour + HOUR, value)
        score = detector.score_one(seen)
        detector.learn_one(seen)
        known = incidents.pop(name, None)
        if known is None:
            found = _opened(state.scope, name, hour, score, totals, model, now, policy)
            status: Status | Literal[""] = "opened"
            if found is not None and _word_on(state.scope, name, found, hour + HOUR, lessons) in QUIET:
                found = None
        else:
            may_settle = _word_on(state.scope, name, known, hour + HOUR, lessons) != "yes"
            found, status = _continued(state.scope, name, known, hour, score, totals, policy, may_settle)
            if status == "resolved" and hour - known.opened >= policy.accept_after_us:
                detector.accept(known.hour)
        if found is not None and status:
            why = _Why() if status == "resolved" else _why(made_of, hour, totals)
            found, alert = _told(state.scope, name, found, status, now, policy, why)
            said.append(alert)
        if found is not None and status != "resolved":
            incidents[name] = found
        detectors[name] = detector.state()
    return replace(
        state,
        next_hour=hour + HOUR,
        detectors=detectors,
        shares=_shares(state, shares, incidents) if enough else state.shares,
        incidents=incidents,
        resolved=[alert for alert in said if alert.status == "resolved"] or state.resolved,
        odd=[each for each in state.odd if each > hour - 2 * OPEN_HOURS_MAX * HOUR]
        + ([hour] if state.incidents or incidents else []),
    ), said


def tick_regime(
    state: RegimeState,
    now: int,
    policy: RegimePolicy,
    made_of: Composition | None = None,
    lessons: Lessons = NO_LESSONS,
) -> tuple[RegimeState, list[Alert]]:
    """Judge hours that are over, and resolve what a scope that says nothing more has left open, or people explained.
    Returns the very state given where nothing is due.
    """
    if state.incidents:
        state, told = _settled(state, now, policy, lessons)
        if told:
            return state, told
    if state.hours:
        return _closed(state, reached(state.reaches, now), now, policy, made_of, lessons)
    silent = now - state.next_hour >= policy.accept_after_us
    if not state.incidents or not silent:
        return state, []
    said = [
        _told(state.scope, name, found, "resolved", now, policy, _Why())[1]
        for name, found in sorted(state.incidents.items())
    ]
    return replace(state, incidents={}, resolved=said), said


def _settled(state: RegimeState, now: int, policy: RegimePolicy, lessons: Lessons) -> tuple[RegimeState, list[Alert]]:
    """Resolve what people explained; what is normal is the usual from then on."""
    detectors, incidents, said = dict(state.detectors), dict(state.incidents), list[Alert]()
    for name, known in sorted(state.incidents.items()):
        word = _word_on(state.scope, name, known, furthest(state.reaches, now), lessons)
        if word not in QUIET:
            continue
        if word == "no":
            detector = RegimeChange.from_state(detectors.get(name, RegimeChangeState()))
            detector.accept(known.hour)
            detectors[name] = detector.state()
        alert = _told(state.scope, name, incidents.pop(name), "resolved", now, policy, _Why())[1]
        scope_type, _, scope_id = state.scope.partition(":")
        finding = _summary(scope_type, scope_id, name, known, "updated")
        said.append(replace(alert, summary=words.explained(finding)))
    return (replace(state, detectors=detectors, incidents=incidents, resolved=said) if said else state), said


def _word_on(scope: str, name: str, incident: RegimeIncident, at: int, lessons: Lessons) -> Word:
    """What people said of a change of this ratio as large and as dear as this one."""
    score, waste = incident.score, incident.waste_nanos
    return lessons.verdict(teaches(scope, name, score), sizes(score), waste, at)


def _shares(state: RegimeState, shares: dict[str, float], incidents: dict[str, RegimeIncident]) -> dict[str, float]:
    """The usual shares after an hour: they stand still while an alert says that they have moved, and follow at once."""
    if not shares or "model_mix" in incidents:
        return state.shares
    return shares if "model_mix" in state.incidents else blended(state.shares, shares, _FOLLOW)


def _continued(
    scope: str,
    name: str,
    known: RegimeIncident,
    hour: int,
    score: RegimeScore | None,
    totals: HourTotals,
    policy: RegimePolicy,
    may_settle: bool,
) -> tuple[RegimeIncident, Status | Literal[""]]:
    """An open alert after another hour, and what is to be said of it."""
    if (may_settle and hour - known.opened >= policy.accept_after_us) or (score is not None and not score.strangeness):
        return known, "resolved"
    waste = _waste(name, score, totals) if score is not None else 0
    if score is None or waste < 2 * max(known.waste_nanos, policy.floor_nanos):
        return known, ""
    tier = _higher(known.tier, _tier(scope, waste, known.historic, policy))
    return replace(known, score=score, waste_nanos=waste, updates=known.updates + 1, tier=tier), "updated"


def _opened(
    scope: str,
    name: str,
    hour: int,
    score: RegimeScore | None,
    totals: HourTotals,
    model: str,
    now: int,
    policy: RegimePolicy,
) -> RegimeIncident | None:
    if score is None or score.strangeness < OPEN:
        return None
    waste = _waste(name, score, totals)
    historic = now - (hour + HOUR) > policy.live_within_us
    return RegimeIncident(
        hour=score.since,
        opened=hour,
        tier=_tier(scope, waste, historic, policy),
        historic=historic,
        score=score,
        waste_nanos=waste,
        updates=0,
        model=words.clip(model) if name == "model_mix" else "",
    )


def _tier(scope: str, waste: int, historic: bool, policy: RegimePolicy) -> Tier:
    if historic or waste < policy.floor_nanos:
        return "note"
    return "page" if waste >= policy.page_nanos and kind_of(scope).may_page else "ticket"


def _higher(one: Tier, other: Tier) -> Tier:
    order: tuple[Tier, ...] = ("note", "ticket", "page")
    return max(one, other, key=order.index)


def _waste(name: str, score: RegimeScore, totals: HourTotals) -> int:
    """What the change costs an hour; 0 where it is for the better."""
    ratio = RATIOS[name]
    if score.direction != ratio.bad or score.expected is None:
        return 0
    return int(max(0, totals.cost_nanos) * ratio.waste(score.observed / _MILLION, score.expected / _MILLION))


class _Why(NamedTuple):
    """What an hour is made of, as far as anybody knows."""

    drivers: Drivers | None = None
    org: str = ""


def _why(made_of: Composition | None, hour: int, totals: HourTotals) -> _Why:
    """Against as many requests as usual ones: what habits add, without what more use adds."""
    if made_of is None:
        return _Why()
    usual = made_of.usual_cost(totals.requests)
    return _Why(made_of.drivers(hour, usual) if usual else None, made_of.organisation(hour))


def _told(
    scope: str,
    name: str,
    incident: RegimeIncident,
    status: Status,
    now: int,
    policy: RegimePolicy,
    why: _Why,
) -> tuple[RegimeIncident, Alert]:
    scope_type, _, scope_id = scope.partition(":")
    rule: Rule = "token_cost" if name == "tokens_per_success" else "regime_change"
    began = format_instant(incident.hour)
    dedup_key = keys.alert_dedup_key(rule, f"{scope}|{name}", began)
    ratio, score = RATIOS[name], incident.score
    team, feature = words.team_and_feature(scope)
    above = words.scopes_above(scope, why.org) if incident.last is None else incident.last.ancestors
    is_dear = incident.waste_nanos > 0 and status != "resolved"
    alert = Alert(
        alert_id=keys.alert_id(dedup_key, 1, status, incident.updates if status == "updated" else 0),
        dedup_key=dedup_key,
        episode=1,
        status=status,
        severity="critical" if incident.tier == "page" else "warning" if incident.tier == "ticket" else "info",
        tier=incident.tier,
        rule=rule,
        scope_type=scope_type,
        scope_id=scope_id,
        summary=_summary(scope_type, scope_id, name, incident, status)[: words.SUMMARY_MAX],
        occurred_at=began,
        stated_at=format_instant(now),
        period_start=began,
        period_end=format_instant(incident.opened + HOUR),
        team_id=team,
        feature=feature,
        observed=plain(score.observed),
        expected=plain(score.expected or 0),
        unit=ratio.unit,
        drivers=why.drivers,
        at_stake_per_hour=format_usd(incident.waste_nanos) if is_dear else "",
        at_stake_by_month_end=format_usd(by_month_end(incident.opened, incident.waste_nanos)) if is_dear else "",
        ancestors=above,
        runbook=policy.runbook,
        historic=incident.historic,
        teaches=teaches(scope, name, score),
        figures=sizes(score),
    )
    return replace(incident, last=alert), alert


def _summary(scope_type: str, scope_id: str, name: str, incident: RegimeIncident, status: Status) -> str:
    subject, habit = words.scope_words(scope_type, scope_id), RATIOS[name].words.lower()
    seen, usual = figure(name, incident.score.observed), figure(name, incident.score.expected or 0)
    if status == "resolved":
        return f"{subject}: {habit} is back to the usual {usual}, or {seen} is the usual from now on"
    since = format_instant(incident.hour)[:16].replace("T", " ")
    to = f" (to {incident.model})" if incident.model else ""
    cost = f", which costs about {display_usd(incident.waste_nanos)} an hour" if incident.waste_nanos else ""
    return f"{subject}: {habit} {seen}{to} and not {usual}, since {since} UTC{cost}"
