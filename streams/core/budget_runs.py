"""Training runs: what they announced, who approved it, and what happens when they pass it."""

from typing import Literal

from schemas import keys
from schemas.alerts import Alert, Severity, Tier
from schemas.commands import JobCommand
from schemas.instants import DAY, HOUR, format_instant
from schemas.money import NANOS, display_usd
from streams.core.budget_account import Crossing
from streams.core.budget_ladder import Told, alert

APPROVAL: Literal["approval_wanted"] = "approval_wanted"
OVERDUE: Literal["run_overdue"] = "run_overdue"
#: No alert: when the run's first money was seen.
_BEGAN = "run_began"
_LATE: tuple[Severity, Tier] = ("warning", "ticket")
_GRAVE: tuple[Severity, Tier] = ("critical", "ticket")
#: Above this an estimate has to be on record; above the second, the team lead has to approve it.
RECORD_ABOVE = 50 * NANOS
APPROVE_ABOVE = 200 * NANOS
_ENOUGH = {"recorded": ("recorded", "approved"), "approved": ("approved",)}


def approval(told: Told) -> list[Alert]:
    """Open a ticket while a run lacks the approval that its estimate needs; resolve it when somebody decided."""
    state, run = told.state, told.terms.run
    known = state.findings.get(APPROVAL)
    if run is None and known is None:
        return []
    wants = ""
    if run is not None and run.estimate_nanos > RECORD_ABOVE:
        wants = "approved" if run.estimate_nanos > APPROVE_ABOVE else "recorded"
    is_wanted = bool(run is not None and wants and run.state not in _ENOUGH[wants])
    key = keys.alert_dedup_key(APPROVAL, state.scope, "")
    if is_wanted and run is not None and not (known and known.is_open):
        episode = known.episode + 1 if known else 1
        found = state.findings[APPROVAL] = Crossing("warning", episode, True, told.now, "ticket", False)
        who = "needs the team lead's approval" if wants == "approved" else "has to be put on record"
        summary = f"Training run {run.id} of team {run.team_id} announced {display_usd(run.estimate_nanos)}: it {who}"
        return [alert(told, APPROVAL, key, found, "opened", summary)]
    if known and known.is_open and not is_wanted:
        known.is_open = False
        return [
            alert(told, APPROVAL, key, known, "resolved", f"{told.terms.budget_id}: decided, or not wanted any more")
        ]
    return []


def overdue(told: Told) -> list[Alert]:
    """Open a ticket while a run that still spends is beyond the hours it announced, graver past its factor.

    It is measured from its first money to its newest, in event time: a run that has ended but was not said to have, and
    one that waits in a queue, spend nothing.
    """
    state, run, known = told.state, told.terms.run, told.state.findings.get(OVERDUE)
    began = state.findings.get(_BEGAN)
    if run is not None and began is None and told.standing.spent > 0 and state.stream_time:
        began = state.findings[_BEGAN] = Crossing("info", 0, False, state.stream_time, "note", False)
    took = state.stream_time - began.opened_at if began else 0
    estimate = run.estimate_hours * HOUR if run is not None and run.state not in ("refused", "ended") else 0
    is_late = 0 < estimate < took
    key = keys.alert_dedup_key(OVERDUE, state.scope, "")
    if not is_late or run is None:
        if known is None or not known.is_open:
            return []
        known.is_open = False
        summary = f"{told.terms.budget_id}: over, or given more time"
        return [alert(told, OVERDUE, key, known, "resolved", summary, unit="h")]
    is_grave = took * 100 >= estimate * run.stop_at_percent
    is_open = known is not None and known.is_open and (told.standing.is_historic or not known.historic)
    if known is not None and is_open and (known.severity == "critical" or not is_grave):
        return []
    historic = told.standing.is_historic
    episode = known.episode if known is not None and is_open else known.episode + 1 if known else 1
    severity, tier = _GRAVE if is_grave else _LATE
    found = state.findings[OVERDUE] = Crossing(
        severity, episode, True, state.stream_time, "note" if historic else tier, historic
    )
    spent, limit = display_usd(told.standing.spent), display_usd(told.standing.limit)
    summary = (
        f"Training run {run.id} of team {run.team_id} has run for {took // HOUR} h"
        f" and announced {run.estimate_hours} h: {spent} of {limit} are spent"
    )
    figures = {"observed": str(took // HOUR), "expected": str(run.estimate_hours), "unit": "h"}
    return [alert(told, OVERDUE, key, found, "updated" if is_open else "opened", summary, **figures)]


def stop(told: Told, before: Crossing | None) -> JobCommand | None:
    """The command to stop a run, in the step in which it passes its estimate by its factor, where it allows that."""
    run = told.terms.run
    if run is None:
        return None
    crossing = told.state.crossings.get(run.stop_at_percent)
    if crossing is None or not crossing.is_open or crossing.historic or not run.auto_shutdown:
        return None
    if before is crossing:
        return None
    spent, estimate = display_usd(told.standing.spent), display_usd(told.standing.limit)
    return JobCommand(
        command_id=keys.digest("job", run.id, "stop_job", str(crossing.episode)),
        run_id=run.id,
        action="stop_job",
        revision=crossing.episode,
        reason=f"Run {run.id} was estimated at {estimate} and has spent {spent}: it stops at {run.stop_at_percent} %.",
        issued_at=format_instant(told.now),
        expires_at=format_instant(told.now + DAY),
    )
