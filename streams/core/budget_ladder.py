"""The ladder: which rungs are crossed and left, and how people are told.

Each rung fires once per period and episode. What was crossed in a backlog is recorded and shown, and speaks up once the
stream is live again within the same period.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from schemas import keys
from schemas.alerts import Alert, Contributor, Rule, Severity, Status, Tier
from schemas.budgets import Rung
from schemas.instants import HOUR, format_instant
from schemas.money import display_usd, format_usd
from streams.core import slots as stated
from streams.core.budget_account import BudgetState, Crossing, Standing, ends_at
from streams.core.budget_terms import FOREVER, Policy, Terms
from streams.core.notifying import LABEL_NAMES

RULE: Literal["budget_threshold"] = "budget_threshold"
ESTIMATE: Literal["run_estimate"] = "run_estimate"
FORECAST: Literal["budget_forecast"] = "budget_forecast"
_SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical", "emergency")
_TIERS: Mapping[Severity, Tier] = {"info": "note", "warning": "ticket", "critical": "ticket", "emergency": "page"}
#: A forecast has to stand above its rung for so long before it is told.
PERSISTS_US = 6 * HOUR
#: It is taken back below this part of its rung.
BACK_PERCENT = 95


class Told(NamedTuple):
    """What every alert of a step needs besides its rung."""

    state: BudgetState
    terms: Terms
    standing: Standing
    now: int
    policy: Policy
    ancestors: tuple[str, ...] = ()


def cross(told: Told) -> list[Alert]:
    """Open the rungs that spend has reached, and those up to the one whose measures hold: nobody is throttled untold.

    One statement can pass several: the gravest speaks (the highest of equals), the others are only shown.
    """
    state, terms, standing = told.state, told.terms, told.standing
    historic = standing.is_historic
    fresh = []
    for rung in _spent(terms):
        crossing = state.crossings.get(rung.percent)
        # What was crossed in a backlog speaks up once the stream is live again within the same period.
        is_told = crossing is not None and crossing.is_open and (historic or not crossing.historic)
        # A period that is over is told once: what was told while it ran is closed for good, not crossed anew.
        is_told = is_told or (crossing is not None and standing.is_over)
        reached = _is_reached(told, rung.percent)
        if terms.covers(told.now) and reached and not is_told:
            fresh.append((rung, crossing.episode + 1 if crossing else 1))
    alerts = []
    speaker = max((r for r, _ in fresh), key=lambda r: (_SEVERITIES.index(r.severity), r.percent), default=None)
    for rung, episode in fresh:
        spoken = rung is speaker and not historic
        tier = _tier(rung.severity, terms) if spoken else "note"
        state.crossings[rung.percent] = Crossing(rung.severity, episode, True, state.stream_time, tier, historic)
        alerts.append(_of_rung(told, rung, "opened"))
    return alerts


def leave(told: Told) -> list[Alert]:
    """Resolve the rungs that spend is below again; lowering needs the whole, but for the end of the period."""
    state, standing = told.state, told.standing
    known = {rung.percent: rung for rung in _spent(told.terms)}
    alerts = []
    for percent, crossing in sorted(state.crossings.items()):
        if not crossing.is_open:
            continue
        # A rung that was taken out of the ladder, or whose budget was, has nothing more to say.
        rung = known.get(percent) or Rung(percent, crossing.severity)
        below = standing.is_whole and not _is_reached(told, percent)
        if standing.is_over or below or percent not in known:
            crossing.is_open = False
            alerts.append(_of_rung(told, rung, "resolved"))
    return alerts


def foresee(told: Told, projected: int | None) -> list[Alert]:
    """Tickets for rungs that will be passed by the period's end, once the forecast has stood above them for six hours.

    ``projected`` is what will have been spent by then; None where there is not enough to say.
    """
    state, standing, now = told.state, told.standing, told.now
    known = {rung.percent: rung for rung in told.terms.thresholds if rung.on == "forecast"}
    alerts = []
    for percent in sorted(state.forecasts.keys() | known.keys()):
        rung, crossing = known.get(percent), state.forecasts.get(percent)
        # Between the rung and a little below it nothing changes; what spend has reached is no forecast any more.
        bar = percent * standing.limit * (BACK_PERCENT if crossing and crossing.is_open else 100)
        above = projected is not None and projected * 100 * 100 >= bar
        above = above and rung is not None and not standing.is_over and not standing.reaches(percent)
        if rung is not None and above and not standing.is_historic and (crossing is None or not crossing.is_open):
            since = crossing.opened_at if crossing and crossing.historic else now
            episode = crossing.episode if crossing else 0
            if now - since >= PERSISTS_US:
                state.forecasts[percent] = Crossing(rung.severity, episode + 1, True, now, "ticket", False)
                alerts.append(_of_forecast(told, percent, "opened", projected or 0))
            else:
                # Not told yet: ``historic`` marks since when it has been waiting.
                state.forecasts[percent] = Crossing(rung.severity, episode, False, since, "note", True)
        elif crossing is not None and not above and (projected is not None or rung is None or standing.is_over):
            # What goes below begins to wait anew; without a forecast nothing is known either way.
            crossing.historic = False
            if crossing.is_open and (standing.is_whole or standing.is_over):
                crossing.is_open = False
                alerts.append(_of_forecast(told, percent, "resolved", projected or 0))
    return alerts


def _is_reached(told: Told, percent: int) -> bool:
    """Whether spend has passed the rung, or will have with the calls under way that closed this one or a higher one."""
    return told.standing.reaches(percent) or percent <= max(told.state.holds, default=0)


def _spent(terms: Terms) -> list[Rung]:
    return [rung for rung in terms.thresholds if rung.on == "spent"]


def _tier(severity: Severity, terms: Terms) -> Tier:
    return "ticket" if severity == "emergency" and not terms.pages else _TIERS[severity]


def dedup_key(state: BudgetState, percent: int, rule: Rule = RULE) -> str:
    """The dedup key of a rung's alert."""
    return keys.alert_dedup_key(rule, state.scope, format_instant(state.period_start), str(percent))


def where(terms: Terms) -> str:
    """Whom the budget is about, in words."""
    return f"{terms.target.scope_type} {terms.target.scope_id}"


def alert(told: Told, rule: Rule, key: str, crossing: Crossing, status: Status, summary: str, **more: str) -> Alert:
    """An alert of a budget with what all of them say."""
    state, terms, standing = told.state, told.terms, told.standing
    start = told.now - terms.window_us if terms.window_us else state.period_start
    end = ends_at(state, terms)
    target = terms.target
    return Alert(
        alert_id=keys.alert_id(key, crossing.episode, status),
        dedup_key=key,
        episode=crossing.episode,
        status=status,
        severity=crossing.severity,
        tier=crossing.tier,
        rule=rule,
        scope_type="budget",
        scope_id=f"{terms.budget_id}#{state.value}" if state.value else terms.budget_id,
        summary=summary[:1024],
        occurred_at=format_instant(crossing.opened_at),
        stated_at=format_instant(told.now),
        period_start=format_instant(start),
        period_end="" if end == FOREVER else format_instant(end),
        team_id=target.scope_id if target.scope_type == "team" else "",
        feature=target.scope_id if target.scope_type == "feature" else "",
        owner=terms.owner,
        observed=more.pop("observed", format_usd(standing.spent)),
        expected=more.pop("expected", format_usd(standing.limit)),
        threshold=more.pop("threshold", ""),
        unit=more.pop("unit", "USD"),
        top_contributors=_top(state),
        action=more.pop("action", ""),
        runbook=told.policy.runbook,
        ancestors=told.ancestors,
        labels=labels(terms),
        historic=crossing.historic,
    )


def labels(terms: Terms) -> dict[str, str]:
    """What is known of where a budget's money is spent, besides team and feature: its target and its match.

    Of several values of one attribute all are there, in order, with commas between.
    """
    found: dict[str, set[str]] = {}
    for attribute, value in ((terms.target.scope_type, terms.target.scope_id), *terms.match):
        if attribute not in ("team", "feature") and value != "*" and not value.startswith("!"):
            found.setdefault(LABEL_NAMES.get(attribute, attribute), set()).add(value)
    return {name: ",".join(sorted(values)) for name, values in sorted(found.items())}


def _of_rung(told: Told, rung: Rung, status: Status) -> Alert:
    state, terms, standing = told.state, told.terms, told.standing
    crossing = state.crossings[rung.percent]
    spent, limit = display_usd(standing.spent), display_usd(standing.limit)
    name = f"Budget {terms.budget_id} ({where(terms)})"
    if status == "resolved":
        why = f"the {terms.period} is over" if standing.is_over else "its spend or its terms have changed"
        if standing.is_over and told.now < ends_at(state, terms):
            why = "it does not hold any more" if not state.value else "nothing was heard of it for a long time"
        summary = f"{name} is below {rung.percent} % again: {why}"
    elif standing.reaches(rung.percent):
        summary = f"{name} passed {rung.percent} %: {spent} of {limit} {terms.within()}"
    else:
        summary = f"{name} passes {rung.percent} % with the calls under way: {spent} of {limit} {terms.within()}"
    rule: Rule = ESTIMATE if terms.run else RULE
    key = dedup_key(state, rung.percent, rule)
    action = _action(told, rung, status, crossing)
    return alert(told, rule, key, crossing, status, summary, threshold=f"{rung.percent} %", action=action)


def _of_forecast(told: Told, percent: int, status: Status, projected: int) -> Alert:
    terms, crossing = told.terms, told.state.forecasts[percent]
    name = f"Budget {terms.budget_id} ({where(terms)})"
    will, limit = display_usd(projected), display_usd(told.standing.limit)
    if status == "resolved":
        summary = f"{name} is not expected to pass {percent} % any more: {will} of {limit} by the end of the period"
    else:
        summary = f"{name} will pass {percent} %: {will} of {limit} are expected by the end of the period"
    key = dedup_key(told.state, percent, FORECAST)
    threshold = f"{percent} % (forecast)"
    observed = format_usd(projected)
    return alert(told, FORECAST, key, crossing, status, summary, threshold=threshold, observed=observed)


def _action(told: Told, rung: Rung, status: Status, crossing: Crossing) -> str:
    terms = told.terms
    if not rung.measures or crossing.historic:
        return ""
    if status == "resolved":
        return f"{where(terms)} may call again" if terms.enforced else ""
    blocks = any(measure.action == "block" for measure in rung.measures)
    verb = "blocked" if blocks else "throttled"
    if not terms.enforced:
        return f"{where(terms)} would have been {verb} (the budget only observes)"
    if terms.lifted:
        return f"{where(terms)} is not {verb}: an override lifts all measures"
    spared = blocks and not terms.hard
    until = "until the budget is raised" if terms.period in ("total", "rolling") else f"until the {terms.period} ends"
    return f"{where(terms)} is {verb} at the gateways {until}" + (", production rate-limited" if spared else "")


def _top(state: BudgetState, count: int = 5) -> list[Contributor]:
    ranked = stated.contributors(state.slots())[:count]
    return [Contributor(name, format_usd(nanos)) for name, nanos in ranked]
