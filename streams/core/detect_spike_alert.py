"""What is said about a spend spike: the cause in the first line, and who drives it."""

from dataclasses import dataclass

from msgspec.structs import replace

from detectors.spend_spike import SpendScore
from schemas import keys
from schemas.alerts import Alert, Contributor, Drivers, Rule, Severity, Status
from schemas.instants import HOUR, format_instant
from schemas.money import display_usd, format_usd, parse_nanos
from streams.core import detect_words as words
from streams.core.at_stake import by_month_end
from streams.core.detect_spike_policy import SpikePolicy, bar, kind_of
from streams.core.detect_spike_state import SpikeIncident
from streams.core.lanes import OTHERS

RULE: Rule = "spend_spike"


@dataclass(frozen=True, slots=True)
class Finding:
    """One hour as it was judged: what it cost, against what, why, and who drives it."""

    hour: int
    score: SpendScore
    total: int
    by: tuple[tuple[str, int], ...]
    contributors: list[Contributor]
    drivers: Drivers | None
    #: Between which nanodollars such an hour usually ends.
    usual: tuple[int, int] | None
    #: Whose money it is, of a team's.
    org: str = ""


def rising(
    scope: str, incident: SpikeIncident, finding: Finding, is_running: bool, now: int, policy: SpikePolicy
) -> Alert:
    """``opened``, or ``updated`` once it is a step more severe, or asks more of people."""
    score = finding.score
    verb, when = ("spends", "this hour") if is_running else ("spent", words.hour_words(finding.hour))
    summary = (
        f"{_subject(scope)} {verb} {display_usd(score.observed)} {when}, "
        f"{words.against_words(score.expected or 0, score.ratio_percent)}{_driver(scope, finding)}"
    )
    status: Status = "updated" if incident.updates else "opened"
    told = _alert(scope, incident, status, summary, score, now, policy)
    low, high = finding.usual or (None, None)
    return replace(
        told,
        top_contributors=finding.contributors,
        drivers=finding.drivers,
        expected_low="" if low is None else format_usd(low),
        expected_high="" if high is None else format_usd(high),
        at_stake_per_hour=format_usd(max(0, score.excess)),
        at_stake_by_month_end=format_usd(by_month_end(finding.hour, score.excess)),
        ancestors=words.scopes_above(scope, finding.org),
    )


def falling(
    scope: str,
    incident: SpikeIncident,
    corrected: SpendScore | None,
    is_corrected: bool,
    above: tuple[str, ...],
    now: int,
    policy: SpikePolicy,
) -> Alert:
    """``resolved``: the scope is back, its higher level has been learned, or late corrections undid the
    finding. ``above`` are the scopes above it, as they were said.
    """
    subject, score = _subject(scope), incident.peak
    against = words.against_words(score.expected or 0, score.ratio_percent)
    if is_corrected:
        score = corrected or score
        summary = (
            f"{subject} is not above the bar after all: late corrections bring it to "
            f"{display_usd(score.observed)} {words.hour_words(incident.hour)}"
        )
    elif incident.last_hot - incident.hour >= policy.accept_after_us:
        hours = (incident.last_hot - incident.hour) // HOUR + 1
        summary = f"{subject} has stayed high for {hours} hours, and that is what is expected from now on"
    else:
        summary = (
            f"{subject} is back to what is expected; its peak was {display_usd(score.observed)} "
            f"{words.hour_words(incident.peak_hour)}, {against}"
        )
    return replace(_alert(scope, incident, "resolved", summary, score, now, policy), ancestors=above)


def answered(scope: str, incident: SpikeIncident, answer: str, now: int, policy: SpikePolicy) -> Alert:
    """``resolved``: people said that it is normal, or planned."""
    score, why = incident.peak, "is what was planned" if answer == "planned" else "is normal here, as was answered"
    summary = f"{_subject(scope)}: {display_usd(score.observed)} {words.hour_words(incident.peak_hour)} {why}"
    return _alert(scope, incident, "resolved", summary, score, now, policy)


def _alert(
    scope: str,
    incident: SpikeIncident,
    status: Status,
    summary: str,
    score: SpendScore,
    now: int,
    policy: SpikePolicy,
) -> Alert:
    scope_type, _, scope_id = scope.partition(":")
    opened_in = format_instant(incident.hour)
    dedup_key = keys.alert_dedup_key(RULE, scope, opened_in)
    severity: Severity = "critical" if incident.tier == "page" else "warning"
    team, feature = words.team_and_feature(scope)
    expected = score.expected or 0
    step = incident.updates if status == "updated" else 0
    return Alert(
        alert_id=keys.alert_id(dedup_key, incident.episode, status, step),
        dedup_key=dedup_key,
        episode=incident.episode,
        status=status,
        severity=severity,
        tier=incident.tier,
        rule=RULE,
        scope_type=scope_type,
        scope_id=scope_id,
        summary=summary[: words.SUMMARY_MAX],
        occurred_at=format_instant(incident.occurred_at),
        stated_at=format_instant(now),
        period_start=opened_in,
        period_end=format_instant(max(incident.last_hot, incident.hour) + HOUR),
        team_id=team,
        feature=feature,
        observed=format_usd(score.observed),
        expected=format_usd(expected),
        threshold=format_usd(bar(expected, policy)),
        rules=score.rules(policy.ratio_percent),
        runbook=policy.runbook,
        historic=incident.historic,
        teaches=scope,
    )


def _subject(scope: str) -> str:
    scope_type, _, scope_id = scope.partition(":")
    return words.scope_words(scope_type, scope_id)


def _driver(scope: str, finding: Finding) -> str:
    """Who drives the hour, by what its kind of scope is made of (streams/core/rollup.py)."""
    kind = kind_of(scope).parts
    for label, nanos in finding.by:
        if label == OTHERS or not 0 < nanos <= finding.total:
            continue
        name = f"{kind} {words.clip(label)}".lstrip() if label else f"what has no {kind or 'name'}"
        if _is_all(finding, kind, label):
            return f" (all of the excess is {name}'s)" if label else f" (all of the excess is {name})"
        return f" ({name} drives {nanos * 100 // finding.total} %)"
    return ""


def _is_all(finding: Finding, kind: str, name: str) -> bool:
    """Whether one of several alone made the excess: nineteen parts in twenty of it, and not of all there is."""
    if finding.drivers is None or len(finding.by) < 2:
        return False
    its = sum(parse_nanos(one.excess_usd) for one in finding.drivers.by if (one.kind, one.name) == (kind, name))
    return its * 20 >= finding.score.excess * 19 > 0
