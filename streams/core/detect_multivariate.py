"""Unusual hours: a scope whose habits, taken together, are unlike all that it has done, told as a ticket.

Hours are judged once each, when every partition that has a part in them has passed them, as of regime changes
(detect_regime.py). A scope has at most one open alert. It is a ticket and never a page, until its precision earns more
(docs/detection-multivariate.md), and ends after quiet hours, or when the hours have been like that for a day.
"""

from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from detectors.multivariate import Multivariate, MultivariateScore, MultivariateState
from schemas import keys
from schemas.alerts import Alert, Drivers, Rule, Status, Tier
from schemas.instants import DAY, HOUR, MINUTE, format_instant
from schemas.money import NANOS, format_usd
from schemas.statements import HourStatement
from schemas.versions import Versioned
from streams.core import detect_words as words
from streams.core.answers import NO_LESSONS, QUIET, Lessons, Word, wholes
from streams.core.at_stake import by_month_end
from streams.core.composition import Composition
from streams.core.detect_multivariate_words import COST, HABITS, direction, said_of, sizes, vector_of
from streams.core.detect_reach import Reach, advance, furthest, reached
from streams.core.detect_regime import OPEN_HOURS_MAX
from streams.core.detect_regime_ratios import HourTotals, plain, summed, totals_of

RULE: Rule = "unusual_hour"
#: Strangeness from which an alert opens; above it hours are not quiet. What was answered with yes is known by now, and
#: no longer as strange: it is told from here on where it is as large as it was.
OPEN, AGAIN = 1_000, 500
#: An hour that is so much stranger than what was told is told again: about four times as far off.
STRANGER = 500
_TO_NANOS = NANOS // 10**6


@dataclass(frozen=True, slots=True)
class UnusualPolicy:
    """Money is nanodollars an hour, times are microseconds."""

    #: An hour that costs less, and usually does, is a note.
    floor_nanos: int = 500_000_000
    quiet_hours: int = 3
    #: A scope that says nothing for so long has no open alert.
    silent_us: int = DAY
    live_within_us: int = 3 * HOUR
    #: How long after its end an hour stays open for what is still under way, as of regime changes.
    grace_us: int = 10 * MINUTE
    runbook: str = ""


class UnusualIncident(msgspec.Struct, frozen=True):
    """An open alert, named by its first hour."""

    hour: int
    tier: Tier
    historic: bool
    #: Of the hour that it tells of, which is the strangest.
    score: MultivariateScore
    told: int
    #: What that hour cost more than was expected.
    excess_nanos: int
    updates: int = 0
    #: Hours in a row that were not strange.
    quiet: int = 0
    #: To whom most of its money belongs, where anybody says.
    org: str = ""
    drivers: Drivers | None = None
    last: Alert | None = None


class UnusualState(msgspec.Struct, frozen=True):
    """All of one scope."""

    scope: str
    v: int = 1
    #: Hours before this one were judged.
    next_hour: int = 0
    reaches: dict[str, Reach] = {}
    detector: MultivariateState = MultivariateState()
    incident: UnusualIncident | None = None
    resolved: Alert | None = None
    #: Of the last hours that were judged, those that an alert is about: they say nothing of what is usual.
    odd: list[int] = []


UNUSUAL_STATES = Versioned("what is unusual of a scope", UnusualState)


def step_unusual(
    state: UnusualState,
    statement: HourStatement,
    made_of: Composition,
    now: int,
    policy: UnusualPolicy,
    lessons: Lessons = NO_LESSONS,
) -> tuple[UnusualState, list[Alert]]:
    """Hear what a partition says of an hour that is over there, which is in ``made_of``; returns the new state and what
    there is to say of the oldest of too many hours. ``tick_unusual`` judges the others."""
    reaches = state.reaches
    for slot, come in statement.reach.items():
        reaches = advance(reaches, slot, come, now)
    if reaches != state.reaches:
        state = replace(state, reaches=reaches)
    return _closed(state, 0, now, policy, made_of, lessons)


def tick_unusual(
    state: UnusualState, now: int, policy: UnusualPolicy, made_of: Composition, lessons: Lessons = NO_LESSONS
) -> tuple[UnusualState, list[Alert]]:
    """Judge hours that are over, and resolve what a scope that says nothing more has left open, or people explained.
    Returns the very state given where nothing is due.
    """
    if state.incident is not None:
        word = _word_on(state.scope, state.incident, furthest(state.reaches, now), lessons)
        if word in QUIET:
            return _explained(state, state.incident, word, now, policy)
    if made_of.hours and max(made_of.hours) >= state.next_hour:
        return _closed(state, reached(state.reaches, now), now, policy, made_of, lessons)
    if state.incident is None or now - state.next_hour < policy.silent_us:
        return state, []
    _, alert = _told(state.scope, state.incident, "resolved", now, policy)
    return replace(state, incident=None, resolved=alert), [alert]


def judge_hour(
    state: UnusualState,
    hour: int,
    totals: HourTotals,
    made_of: Composition,
    now: int,
    policy: UnusualPolicy,
    lessons: Lessons = NO_LESSONS,
) -> tuple[UnusualState, list[Alert]]:
    """Take in one closed hour; returns the new state and what there is to say. One that was judged changes nothing.

    Raises:
        ValueError: it is not the start of a UTC hour.
    """
    if hour % HOUR:
        raise ValueError(f"{state.scope}: habits are of a UTC hour")
    if hour < state.next_hour:
        return state, []
    detector, seen = Multivariate.from_state(state.detector), vector_of(hour, totals)
    score = detector.score_one(seen)
    detector.learn_one(seen)
    status: Status | None = None
    found = state.incident
    if found is not None:
        found, status = _continued(found, hour, score, made_of, policy)
    elif score is not None and score.strangeness >= AGAIN:
        found = _opened(hour, score, made_of, now, policy)
        word = _word_on(state.scope, found, hour + HOUR, lessons)
        if word in QUIET or (word != "yes" and score.strangeness < OPEN):
            found = None
        else:
            status = "opened"
    said: list[Alert] = []
    if found is not None and status is not None:
        found, alert = _told(state.scope, found, status, now, policy)
        said.append(alert)
    is_odd = found is not None and found.quiet == 0
    return replace(
        state,
        next_hour=hour + HOUR,
        detector=detector.state(),
        incident=None if status == "resolved" else found,
        resolved=said[0] if status == "resolved" else state.resolved,
        odd=[each for each in state.odd if each > hour - 2 * OPEN_HOURS_MAX * HOUR] + ([hour] if is_odd else []),
    ), said


def _closed(
    state: UnusualState, at: int, now: int, policy: UnusualPolicy, made_of: Composition, lessons: Lessons
) -> tuple[UnusualState, list[Alert]]:
    """Judge the hours that every partition has passed, which have all come to ``at``, and the oldest of too many."""
    said = list[Alert]()
    known = sorted(hour for hour in made_of.hours if hour >= state.next_hour)
    for place, hour in enumerate(known):
        if hour + HOUR + policy.grace_us > at and len(known) - place <= OPEN_HOURS_MAX:
            break
        totals = summed(totals_of(part) for part in made_of.hours[hour].values())
        state, new = judge_hour(state, hour, totals, made_of, now, policy, lessons)
        said += new
    return state, said


def _opened(
    hour: int, score: MultivariateScore, made_of: Composition, now: int, policy: UnusualPolicy
) -> UnusualIncident:
    historic = now - (hour + HOUR) > policy.live_within_us
    cost, usual = _money(score)
    is_small = max(cost, usual) < policy.floor_nanos
    return UnusualIncident(
        hour=hour,
        tier="note" if historic or is_small else "ticket",
        historic=historic,
        score=score,
        told=hour,
        excess_nanos=max(0, cost - usual),
        org=made_of.organisation(hour),
        drivers=made_of.drivers(hour, usual) if usual > 0 else None,
    )


def _continued(
    known: UnusualIncident, hour: int, score: MultivariateScore | None, made_of: Composition, policy: UnusualPolicy
) -> tuple[UnusualIncident, Status | None]:
    """An open alert after another hour, and what is to be said of it."""
    if score is None or score.strangeness < OPEN:
        quiet = known.quiet + 1
        return replace(known, quiet=quiet), "resolved" if quiet >= policy.quiet_hours else None
    if score.strangeness < known.score.strangeness + STRANGER:
        return replace(known, quiet=0), None
    cost, usual = _money(score)
    is_large = max(cost, usual) >= policy.floor_nanos
    return replace(
        known,
        score=score,
        told=hour,
        quiet=0,
        excess_nanos=max(0, cost - usual),
        updates=known.updates + 1,
        tier="ticket" if is_large and not known.historic else known.tier,
        drivers=made_of.drivers(hour, usual) if usual > 0 else None,
    ), "updated"


def _explained(
    state: UnusualState, known: UnusualIncident, word: Word, now: int, policy: UnusualPolicy
) -> tuple[UnusualState, list[Alert]]:
    """Resolve what people explained; what is normal is the usual from then on."""
    detector = Multivariate.from_state(state.detector)
    if word == "no":
        detector.accept()
    _, alert = _told(state.scope, known, "resolved", now, policy)
    alert = replace(alert, summary=words.explained(_summary(state.scope, known, "updated")))
    return replace(state, detector=detector.state(), incident=None, resolved=alert), [alert]


def _word_on(scope: str, incident: UnusualIncident, at: int, lessons: Lessons) -> Word:
    """What people said of hours as far off as this one, or planned for a scope that it is a part of."""
    around = dict.fromkeys((scope, *wholes(scope), *words.scopes_above(scope, incident.org)))
    return lessons.verdict(_teaches(scope, incident), sizes(incident.score.parts[0]), incident.excess_nanos, at, around)


def _teaches(scope: str, incident: UnusualIncident) -> str:
    leading = incident.score.parts[0]
    return f"{RULE}|{scope}|{HABITS[leading.place].name}|{direction(leading)}"


def _money(score: MultivariateScore) -> tuple[int, int]:
    """What the hour cost, and was expected to, in nanodollars; zeros where nobody knows."""
    for part in score.parts:
        if part.place == COST:
            return part.observed * _TO_NANOS, part.expected * _TO_NANOS
    return 0, 0


def _told(
    scope: str, incident: UnusualIncident, status: Status, now: int, policy: UnusualPolicy
) -> tuple[UnusualIncident, Alert]:
    scope_type, _, scope_id = scope.partition(":")
    began, leading = format_instant(incident.hour), incident.score.parts[0]
    dedup_key = keys.alert_dedup_key(RULE, scope, began)
    team, feature = words.team_and_feature(scope)
    is_over, excess = status == "resolved", incident.excess_nanos
    is_dear = excess > 0 and not is_over
    alert = Alert(
        alert_id=keys.alert_id(dedup_key, 1, status, incident.updates if status == "updated" else 0),
        dedup_key=dedup_key,
        episode=1,
        status=status,
        severity="warning" if incident.tier == "ticket" else "info",
        tier=incident.tier,
        rule=RULE,
        scope_type=scope_type,
        scope_id=scope_id,
        summary=_summary(scope, incident, status),
        occurred_at=began,
        stated_at=format_instant(now),
        period_start=began,
        period_end=format_instant(incident.told + HOUR),
        team_id=team,
        feature=feature,
        observed=plain(leading.observed),
        expected=plain(leading.expected),
        unit=HABITS[leading.place].unit,
        drivers=None if is_over else incident.drivers,
        at_stake_per_hour=format_usd(excess) if is_dear else "",
        at_stake_by_month_end=format_usd(by_month_end(incident.told, excess)) if is_dear else "",
        ancestors=words.scopes_above(scope, incident.org),
        runbook=policy.runbook,
        historic=incident.historic,
        teaches=_teaches(scope, incident),
        figures=sizes(leading),
    )
    return replace(incident, last=alert), alert


def _summary(scope: str, incident: UnusualIncident, status: Status) -> str:
    scope_type, _, scope_id = scope.partition(":")
    subject, numbers = words.scope_words(scope_type, scope_id), said_of(incident.score)
    if status == "resolved":
        return f"{subject} is as usual again, or this is usual by now: {numbers}"[: words.SUMMARY_MAX]
    at = words.hour_words(incident.told)
    return f"{subject} is unlike itself {at}: {numbers}"[: words.SUMMARY_MAX]
