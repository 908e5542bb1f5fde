"""Money that buys nothing, or more of it every week: slow findings over the ledger's days, each a ticket.

Decided once an hour over what the ledger has, never on the way of an event. Each finding has a derived name, and the
alerts that stand in the ledger say what was told before, so a restart, or two workers at once, tell nothing twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schemas import keys
from schemas.alerts import Alert, Rule, Severity, Status
from schemas.instants import DAY, format_instant
from schemas.money import NANOS, display_usd, format_usd
from streams.core import detect_words as words
from streams.core.resources import PRODUCTION, History, Resource, day_of, last_uses, resource_words, team_words

WEEK = 7
MONTH = 30
RULES: tuple[Rule, ...] = ("week_over_week", "resource_unused", "nonprod_spend", "recurring_job", "ci_growth")


@dataclass(frozen=True, slots=True)
class WastePolicy:
    """From when on each finding is worth a ticket; money is what it comes to in a month."""

    floor_nanos_per_month: int = 50 * NANOS
    week_percent: int = 150
    unused_days: int = 30
    stop_days: int = 60
    #: So long before a stop is proposed, its owner is warned of it.
    warning_days: int = 7
    nonprod_days: int = 14
    #: A job that ran in the same hour on so many of the last fourteen days, and in no more hours a day.
    job_days: int = 12
    job_hours: int = 6
    ci_percent: int = 125
    runbook: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.unused_days <= self.stop_days - self.warning_days:
            raise ValueError("a resource is unused for a while, then its owner is warned, and then a stop is proposed")


class Found(NamedTuple):
    """One finding as it stands now."""

    rule: Rule
    scope_type: str
    scope_id: str
    team_id: str
    #: When it began, microseconds: part of its name.
    began: int
    #: Grows where it becomes more serious, and is told again then.
    stage: int
    summary: str
    month_nanos: int
    severity: Severity = "warning"
    action: str = ""


class Told(NamedTuple):
    """The newest alert of a rule and scope, as the ledger has it."""

    alert: Alert
    stage: int
    stated_at: int


def find(
    histories: Sequence[History], told: Mapping[tuple[str, str], Told], now: int, policy: WastePolicy
) -> list[Found]:
    """Everything that is found as of ``now``; the day that is not over yet is left out of all sums."""
    today = day_of(now)
    uses = last_uses(histories)
    found: list[Found | None] = []
    for history in histories:
        found.append(_week(history, today, policy))
        found.append(_unused(history, uses[history.resource], told, now, policy))
        found.append(_job(history, today, policy))
    found += _nonprod(histories, today, policy)
    found += _ci(histories, today, policy)
    return sorted((each for each in found if each is not None), key=lambda each: (each.rule, each.scope_id))


def week_of(history: History, now: int, policy: WastePolicy) -> tuple[int, int, bool]:
    """The last seven whole days, the seven before, and the fixed rule: more than half as much again.

    What is not known for two weeks has no week before, and does not meet the rule.
    """
    today = day_of(now)
    last, before = history.spent(today - WEEK, today), history.spent(today - 2 * WEEK, today - WEEK)
    is_known = history.first_day <= today - 2 * WEEK
    return last, before, is_known and last * 100 > before * policy.week_percent


def stated(found: Sequence[Found], told: Mapping[tuple[str, str], Told], now: int, policy: WastePolicy) -> list[Alert]:
    """What there is to say: opened, more serious, or over. What stands as it was told is not said again."""
    alerts = []
    standing: dict[tuple[str, str], Found] = {(each.rule, each.scope_id): each for each in found}
    for name, each in standing.items():
        known = told.get(name)
        if known is None or known.alert.status == "resolved":
            key = keys.alert_dedup_key(each.rule, f"{each.scope_type}:{each.scope_id}", format_instant(each.began))
            is_again = known is not None and known.alert.dedup_key == key
            episode = known.alert.episode + 1 if known is not None and is_again else 1
            alerts.append(_alert(each, key, episode, "opened", now, policy))
        elif each.stage > known.stage:
            alerts.append(_alert(each, known.alert.dedup_key, known.alert.episode, "updated", now, policy))
    for name, known in sorted(told.items()):
        if name not in standing and known.alert.status != "resolved":
            alerts.append(_over(known.alert, now))
    return alerts


def of_alerts(alerts: Iterable[tuple[Alert, int]]) -> dict[tuple[str, str], Told]:
    """The newest alert of each rule and scope, from the ledger's, each with when it was stated (microseconds)."""
    found: dict[tuple[str, str], Told] = {}
    for alert, at in sorted(alerts, key=lambda each: each[1]):
        found[alert.rule, alert.scope_id] = Told(alert, int(alert.threshold.partition(" ")[0] or 0), at)
    return found


def _week(history: History, today: int, policy: WastePolicy) -> Found | None:
    last, before, is_above = week_of(history, today * DAY, policy)
    month = (last - before) * MONTH // WEEK
    earlier = [history.spent(today - (n + 1) * WEEK, today - n * WEEK) for n in (2, 3)]
    # A week as dear as one of the month before is its rhythm, and no news.
    if not is_above or month < policy.floor_nanos_per_month or last <= max(earlier):
        return None
    times = f"{words.times_words(last * 100 // before)} the week before" if before else "nothing the week before"
    resource = history.resource
    summary = (
        f"{resource_words(resource)}, cost {display_usd(last)} in the last seven days, {times}: "
        f"{display_usd(month)} more a month"
    )
    monday = today - (today + 3) % WEEK
    return Found("week_over_week", "resource", resource.key(), _team(resource), monday * DAY, 0, summary, month)


def _unused(
    history: History, used: int | None, told: Mapping[tuple[str, str], Told], now: int, policy: WastePolicy
) -> Found | None:
    resource, today = history.resource, day_of(now)
    month = history.spent(today - MONTH, today)
    since = history.first_day * DAY if used is None else used
    days = (now - since) // DAY
    if days < policy.unused_days or month < policy.floor_nanos_per_month:
        return None
    known = told.get(("resource_unused", resource.key()))
    is_open = known is not None and known.alert.status != "resolved"
    warned_at = policy.stop_days - policy.warning_days
    stage = policy.unused_days if days < warned_at else warned_at
    if known is not None and is_open and known.stage >= warned_at:
        is_warned = now - known.stated_at >= policy.warning_days * DAY
        stage = policy.stop_days if days >= policy.stop_days and (is_warned or known.stage > warned_at) else known.stage
    how = "was never used" if used is None else "has not been used"
    summary = f"{resource_words(resource)}, {how} for {days} days, and cost {display_usd(month)} in the last thirty"
    action = ""
    if stage == warned_at:
        summary += f": unless somebody uses it, its stop is proposed {policy.warning_days} days after this warning"
    elif stage >= policy.stop_days:
        summary += ": its owner was warned, stop it"
        action = "A stop is proposed; Sluice stops nothing by itself"
    severity: Severity = "critical" if stage >= policy.stop_days else "warning"
    return Found(
        "resource_unused", "resource", resource.key(), _team(resource), since, stage, summary, month, severity, action
    )


def _job(history: History, today: int, policy: WastePolicy) -> Found | None:
    days = [day for day in history.days if today - 2 * WEEK <= day.day < today and day.job_hours]
    month = sum(day.job_nanos for day in days) * MONTH // (2 * WEEK)
    if len(days) < policy.job_days or month < policy.floor_nanos_per_month:
        return None
    hours = [hour for hour in range(24) if sum(day.job_hours >> hour & 1 for day in days) >= policy.job_days]
    busy = sum(day.job_hours.bit_count() for day in days)
    if not hours or busy > policy.job_hours * len(days):
        return None
    at = ", ".join(f"{hour:02}:00" for hour in hours)
    resource = history.resource
    summary = f"A job runs every day at {at} UTC on {resource_words(resource)}, and costs {display_usd(month)} a month"
    return Found("recurring_job", "resource", resource.key(), _team(resource), min(days).day * DAY, 0, summary, month)


def _nonprod(histories: Sequence[History], today: int, policy: WastePolicy) -> list[Found]:
    found = []
    groups: dict[tuple[str, str, str], list[History]] = {}
    for history in histories:
        resource = history.resource
        if resource.environment.lower() not in PRODUCTION:
            groups.setdefault((resource.org_id, resource.team_id, resource.environment), []).append(history)
    begin = today - policy.nonprod_days
    for (org, team, environment), members in sorted(groups.items()):
        days = [day for history in members for day in history.days if begin <= day.day]
        month = sum(day.nanos for day in days if day.day < today) * MONTH // policy.nonprod_days
        is_known = min(history.first_day for history in members) <= begin
        if not is_known or month < policy.floor_nanos_per_month or any(day.interactive for day in days):
            continue
        summary = (
            f"Environment {environment} of {team_words(team)} has had no interactive request for "
            f"{policy.nonprod_days} days, and costs {display_usd(month)} a month"
        )
        # The last one that is known, else the first day: as long as nobody asks anything, the name stays.
        asked = [day.day + 1 for history in members for day in history.days if day.interactive]
        since = max(asked, default=min(history.first_day for history in members))
        scope = "/".join((org, team, environment)).strip("/")
        found.append(Found("nonprod_spend", "environment", scope, _named(team), since * DAY, 0, summary, month))
    return found


def _ci(histories: Sequence[History], today: int, policy: WastePolicy) -> list[Found]:
    found = []
    groups: dict[tuple[str, str], list[History]] = {}
    for history in histories:
        if history.resource.is_ci:
            groups.setdefault((history.resource.org_id, history.resource.team_id), []).append(history)
    for (org, team), members in sorted(groups.items()):
        first = min(history.first_day for history in members)
        weeks = min(3, (today - first) // WEEK - 1)
        if weeks < 1:
            continue
        last = sum(history.spent(today - WEEK, today) for history in members)
        before = sum(history.spent(today - (weeks + 1) * WEEK, today - WEEK) for history in members) // weeks
        month = (last - before) * MONTH // WEEK
        if last * 100 <= before * policy.ci_percent or month < policy.floor_nanos_per_month:
            continue
        times = f"{words.times_words(last * 100 // before)} a week before" if before else "nothing before"
        summary = (
            f"CI of {team_words(team)} cost {display_usd(last)} in the last seven days, {times}: "
            f"{display_usd(month)} more a month"
        )
        monday = today - (today + 3) % WEEK
        scope = "/".join((org, team)).strip("/")
        found.append(Found("ci_growth", "ci", scope, _named(team), monday * DAY, 0, summary, month))
    return found


def _named(team_id: str) -> str:
    return "" if team_words(team_id) == "no team" else team_id


def _team(resource: Resource) -> str:
    return _named(resource.team_id)


def _alert(found: Found, key: str, episode: int, status: Status, now: int, policy: WastePolicy) -> Alert:
    return Alert(
        alert_id=keys.alert_id(key, episode, status, found.stage if status == "updated" else 0),
        dedup_key=key,
        episode=episode,
        status=status,
        severity=found.severity,
        tier="ticket",
        rule=found.rule,
        scope_type=found.scope_type,
        scope_id=found.scope_id,
        summary=found.summary[:1024],
        occurred_at=format_instant(now),
        stated_at=format_instant(now),
        period_start=format_instant(found.began),
        period_end=format_instant(now),
        team_id=found.team_id,
        observed=format_usd(found.month_nanos),
        threshold=f"{found.stage} days" if found.stage else "",
        unit="USD",
        action=found.action,
        runbook=policy.runbook,
    )


def _over(alert: Alert, now: int) -> Alert:
    return Alert(
        alert_id=keys.alert_id(alert.dedup_key, alert.episode, "resolved"),
        dedup_key=alert.dedup_key,
        episode=alert.episode,
        status="resolved",
        severity=alert.severity,
        tier=alert.tier,
        rule=alert.rule,
        scope_type=alert.scope_type,
        scope_id=alert.scope_id,
        summary=f"Over: {alert.summary}"[:1024],
        occurred_at=alert.occurred_at,
        stated_at=format_instant(now),
        period_start=alert.period_start,
        period_end=format_instant(now),
        team_id=alert.team_id,
        observed=alert.observed,
        threshold=alert.threshold,
        unit=alert.unit,
        runbook=alert.runbook,
    )
