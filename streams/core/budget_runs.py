"""Training runs: what they announced, who approved it, and what happens when they pass it."""

from typing import Literal

import msgspec

from schemas import keys
from schemas.alerts import Alert, Status
from schemas.budgets import Run
from schemas.commands import JobAck, JobCommand
from schemas.instants import DAY, MINUTE, format_instant
from schemas.money import display_usd, format_usd
from streams.core.budget_account import BudgetState, Crossing
from streams.core.budget_ladder import Told, alert
from streams.core.budget_terms import FOREVER, RUN
from streams.core.budget_watch import GAP

APPROVAL: Literal["approval_wanted"] = "approval_wanted"
_ENOUGH = {"recorded": ("recorded", "approved"), "approved": ("approved",)}
#: The finding of a command that was not answered.
ASKED = "stop_job"
#: An executor answers when the process has ended: after the time for its checkpoint at the latest, and a little more.
ANSWER_US = 3 * MINUTE
#: A run that is announced anew that often is not asked about again: what is known of it has to stay small.
ASKED_MAX = 32


def approval(told: Told) -> list[Alert]:
    """Open a ticket while a run lacks the approval that its estimate needs; resolve it when somebody decided.

    An estimate that grew is another question: who was asked before would decide on what nobody wants any more.
    """
    state, run = told.state, told.terms.run
    asked = {name: found for name, found in state.findings.items() if name.partition("=")[0] == APPROVAL}
    if run is None and not asked:
        return []
    still = {name for name, found in asked.items() if found.is_open}
    wants, alerts = "" if run is None else _wants(told, run), []
    keeps = max(still, key=_estimate_of, default="") if wants else ""
    if run is not None and wants and run.estimate_nanos > _estimate_of(keeps) and len(asked) < ASKED_MAX:
        keeps = f"{APPROVAL}={run.estimate_nanos}"
        known = asked.get(keeps)
        episode = known.episode + 1 if known else 1
        state.findings[keeps] = Crossing("warning", episode, True, told.now, "ticket", False)
        who = "needs the team lead's approval" if wants == "approved" else "has to be put on record"
        summary = f"Training run {run.id} of team {run.team_id} announced {display_usd(run.estimate_nanos)}: it {who}"
        alerts.append(_asking(told, keeps, "opened", summary))
    for name in sorted(still - {keeps}):
        state.findings[name].is_open = False
        why = "it now asks for more" if keeps else "decided, or not wanted any more"
        alerts.append(_asking(told, name, "resolved", f"{told.terms.budget_id}: {why}"))
    return alerts


def _wants(told: Told, run: Run) -> str:
    """The state that a run has to be in and is not; empty where nothing is missing."""
    policy, wants = told.policy, ""
    if run.estimate_nanos > policy.record_above:
        wants = "approved" if run.estimate_nanos > policy.approve_above else "recorded"
    # What was refused, or is over, waits for nobody.
    is_settled = run.state in ("refused", "ended", *_ENOUGH.get(wants, ()))
    return "" if is_settled else wants


def _estimate_of(name: str) -> int:
    """What was asked about under a name; one without an estimate is of an earlier release."""
    return int(name.partition("=")[2] or -1)


def _asking(told: Told, name: str, status: Status, summary: str) -> Alert:
    key = keys.alert_dedup_key(APPROVAL, told.state.scope, name.partition("=")[2])
    run = told.terms.run
    observed = format_usd(run.estimate_nanos) if run else ""
    found = alert(told, APPROVAL, key, told.state.findings[name], status, summary, observed=observed)
    return msgspec.structs.replace(found, expected="", team_id=run.team_id if run else "")


def unanswered(told: Told, command: JobCommand | None) -> list[Alert]:
    """Wait for the answer to a command from the step on in which it is given; a ticket where none comes in time."""
    findings, known = told.state.findings, told.state.findings.get(ASKED)
    if command is not None and (known is None or known.episode < command.revision):
        # Not told yet: ``historic`` marks since when it has been waiting.
        known = findings[ASKED] = Crossing("critical", command.revision, False, told.now, "ticket", True)
    if known is None:
        return []
    run = told.terms.run
    if known.historic and told.now - known.opened_at > ANSWER_US and run is not None:
        return [_open(told, known, f"and nobody has answered within {ANSWER_US // MINUTE} minutes")]
    if run is None and (known.historic or known.is_open):
        return _close(told, known, "is over")
    return []


def answered(told: Told, ack: JobAck) -> list[Alert]:
    """Take an executor's word in: what it did ends the wait, and what it refused is told at once.

    Several executors may speak, in any order and more than once; one that has done it is enough.
    """
    known = told.state.findings.get(ASKED)
    if known is None or ack.revision != known.episode or not (known.historic or known.is_open):
        return []
    if ack.outcome != "refused":
        return _close(told, known, f"{ack.executor} answered: {ack.outcome}")
    if known.is_open:
        return []
    return [_open(told, known, f"and {ack.executor} refused: {ack.detail or 'it did not say why'}")]


def waits_until(state: BudgetState) -> int:
    """When an answer that has not come is missed."""
    known = state.findings.get(ASKED)
    return known.opened_at + ANSWER_US + 1 if known is not None and known.historic else FOREVER


def _open(told: Told, known: Crossing, what: str) -> Alert:
    known.historic, known.is_open = False, True
    return _of_job(told, known, "opened", f"Run {_run_id(told)} was told to stop, {what}: it may go on spending")


def _close(told: Told, known: Crossing, why: str) -> list[Alert]:
    was_told, known.historic, known.is_open = known.is_open, False, False
    return [_of_job(told, known, "resolved", f"Run {_run_id(told)}: {why}")] if was_told else []


def _of_job(told: Told, known: Crossing, status: Status, summary: str) -> Alert:
    key = keys.alert_dedup_key(GAP, told.state.scope, "stop_job")
    return alert(told, GAP, key, known, status, summary)


def _run_id(told: Told) -> str:
    return told.terms.budget_id.removeprefix(RUN)


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
