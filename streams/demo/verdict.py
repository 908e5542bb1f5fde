"""What was injected against what was found, paged, throttled, released and resolved. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.commands import Measure
from schemas.instants import HOUR, format_instant
from streams.demo import company
from streams.demo.budgeting import ORG
from streams.demo.scenario import RETRIES, Incident, Scenario

#: A finding belongs to an incident up to this long after its end: an hour is judged until it closes.
BELONGS_FOR = 2 * HOUR
LADDER = ("50 %", "75 %", "90 %", "95 %", "100 %")


class Finding(NamedTuple):
    """An alert as the ledger has it. Instants are simulated, microseconds since 1970."""

    dedup_key: str
    rule: str
    scope_id: str
    threshold: str
    tier: str
    status: str
    summary: str
    opened_at: int
    resolved_at: int | None


class Page(NamedTuple):
    """An incident at PagerDuty."""

    dedup_key: str
    summary: str
    opened_at: int
    resolved_at: int | None


class Order(NamedTuple):
    """A throttle command that the gate took."""

    budget_id: str
    action: str
    at: int
    command_id: str = ""
    #: All that it asks for.
    measures: tuple[Measure, ...] = ()
    #: When the gate took it, in real seconds (``elapsed_s``).
    real_s: float = 0.0


class Story(NamedTuple):
    """What became of one incident; None where it did not come, or cannot come to this kind."""

    incident: Incident
    detected: int | None
    paged: int | None
    throttled: int | None
    released: int | None
    resolved: int | None

    @property
    def owed(self) -> tuple[str, ...]:
        """The steps that this kind of incident must take."""
        always = ("detected", "paged", "resolved")
        return (*always, "throttled", "released") if self.incident.kind == "budget_overrun" else always

    @property
    def missing(self) -> list[str]:
        """The steps that it did not take."""
        return [step for step in self.owed if getattr(self, step) is None]

    def report(self) -> dict[str, Any]:
        """For the summary's JSON; instants are those of the played day, null where a step did not come."""
        steps = ("detected", "paged", "throttled", "released", "resolved")
        times = {step: _instant(getattr(self, step)) for step in steps}
        incident = self.incident
        return {
            "kind": incident.kind,
            "team": incident.team,
            "feature": incident.feature,
            "subject": incident.subject,
            "story": incident.story,
            "began": format_instant(incident.begins),
            "ended": format_instant(incident.ends),
            **times,
        }


def incident_of(finding: Finding, incidents: Iterable[Incident]) -> Incident | None:
    """The incident that a finding is about; None for a finding about nothing that was injected."""
    for incident in incidents:
        if not incident.begins <= finding.opened_at <= incident.ends + BELONGS_FOR:
            continue
        rule, scope = finding.rule, finding.scope_id
        if (
            (incident.kind == "spend_spike" and rule == "spend_spike" and scope in holding(incident))
            or (incident.kind == "runaway_request" and rule == "runaway_request" and scope == incident.feature)
            or (incident.kind == "gpu_idle" and rule == "gpu_idle" and incident.subject in scope)
            or (incident.kind == "budget_overrun" and rule == "budget_threshold" and scope == incident.subject)
            # It overruns because one session retries.
            or (incident.kind == "budget_overrun" and rule in ("retry_storm", "runaway_loop") and scope == RETRIES)
        ):
            return incident
    return None


def holding(incident: Incident) -> tuple[str, ...]:
    """The ids of all scopes that hold a spike's money; its model is as large as all that it is used for."""
    model = next(each.model.name for each in company.FEATURES if each.name == incident.feature)
    return ORG, incident.team, incident.feature, f"{incident.team}/{incident.feature}", model


def stories(
    scenario: Scenario, findings: Sequence[Finding], pages: Sequence[Page], orders: Sequence[Order]
) -> list[Story]:
    """What became of each incident."""
    by_key = {finding.dedup_key: incident_of(finding, scenario.incidents) for finding in findings}
    told = []
    for incident in scenario.incidents:
        own = [finding for finding in findings if by_key[finding.dedup_key] is incident]
        own_pages = [page for page in pages if by_key.get(page.dedup_key) is incident]
        is_throttled = incident.kind == "budget_overrun"
        own_orders = [o for o in orders if is_throttled and o.budget_id == incident.subject]
        blocked = _first(order.at for order in own_orders if order.action == "block")
        ends = [page.resolved_at for page in own_pages]
        told.append(
            Story(
                incident,
                detected=_first(finding.opened_at for finding in own),
                paged=_first(page.opened_at for page in own_pages),
                throttled=_first(order.at for order in own_orders if order.action != "allow"),
                released=_first(o.at for o in own_orders if o.action == "allow" and blocked and o.at >= blocked),
                resolved=max((end for end in ends if end), default=None) if ends and None not in ends else None,
            )
        )
    return told


def strangers(scenario: Scenario, findings: Sequence[Finding], pages: Sequence[Page]) -> list[Page]:
    """Pages about nothing that was injected."""
    by_key = {finding.dedup_key: finding for finding in findings}
    return [
        page
        for page in pages
        if page.dedup_key not in by_key or incident_of(by_key[page.dedup_key], scenario.incidents) is None
    ]


def failures_of_incidents(
    scenario: Scenario, findings: Sequence[Finding], pages: Sequence[Page], orders: Sequence[Order]
) -> list[str]:
    """What DETECT, BUDGET, NOTIFY or the gate did not do, or did too much; one sentence each."""
    found = []
    for story in stories(scenario, findings, pages, orders):
        incident = story.incident
        found += [f"{incident.kind} of {incident.subject} was never {step}" for step in story.missing]
        if incident.kind == "spend_spike" and not _is_found(findings, incident, incident.feature):
            found.append(f"DETECT: no ticket for the feature {incident.feature} beside its team's page")
        if incident.kind == "budget_overrun":
            reached = {f.threshold for f in findings if incident_of(f, [incident])}
            found += [f"BUDGET: {incident.subject} never passed {rung}" for rung in LADDER if rung not in reached]
    found += [
        f"NOTIFY: a page for nothing that was injected: {page.summary}" for page in strangers(scenario, findings, pages)
    ]
    twice = [key for key, count in Counter(page.dedup_key for page in pages).items() if count > 1]
    found += [f"NOTIFY: paged more than once, resolved in between: {key}" for key in twice]
    throttled = {order.budget_id for order in orders if order.action != "allow"} - {scenario.overrun.subject}
    found += [f"BUDGET: throttled for nothing that was injected: {budget}" for budget in sorted(throttled)]
    flicker = Counter(order.action for order in orders if order.budget_id == scenario.overrun.subject)
    if flicker["block"] > 1:
        found.append(f"BUDGET: the block of {scenario.overrun.subject} came {flicker['block']} times")
    return found


def failures_of_money(
    ledger: Mapping[tuple[str, ...], tuple[int, int]], oracle: Mapping[tuple[str, ...], tuple[int, int]]
) -> list[str]:
    """Groups of (hour, team, feature, model, category) whose nanodollars or requests differ."""
    found = []
    for group in sorted(ledger.keys() | oracle.keys()):
        has, should = ledger.get(group, (0, 0)), oracle.get(group, (0, 0))
        if has != should:
            name = " / ".join(group)
            found.append(f"LEDGER: {name} has {has[0]} nanodollars in {has[1]} requests, the oracle {should}")
    return found


def _is_found(findings: Sequence[Finding], incident: Incident, scope: str) -> bool:
    return any(f.scope_id == scope and incident_of(f, [incident]) for f in findings)


def _first(instants: Iterable[int]) -> int | None:
    return min(instants, default=None)


def _instant(at: int | None) -> str | None:
    return None if at is None else format_instant(at)
