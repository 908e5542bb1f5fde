"""Training runs that take longer than they announced."""

from typing import Literal

from schemas import keys
from schemas.alerts import Alert, Severity, Tier
from schemas.instants import HOUR
from schemas.money import display_usd
from streams.core.budget_account import Crossing
from streams.core.budget_ladder import Told, alert

OVERDUE: Literal["run_overdue"] = "run_overdue"
#: No alert: when the run's first money was seen.
_BEGAN = "run_began"
_LATE: tuple[Severity, Tier] = ("warning", "ticket")
_GRAVE: tuple[Severity, Tier] = ("critical", "ticket")


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
    # What gets worse has been late since it was late first.
    since = known.opened_at if known is not None and is_open else state.stream_time
    found = state.findings[OVERDUE] = Crossing(severity, episode, True, since, "note" if historic else tier, historic)
    spent, limit = display_usd(told.standing.spent), display_usd(told.standing.limit)
    summary = (
        f"Training run {run.id} of team {run.team_id} has run for {took // HOUR} h"
        f" and announced {run.estimate_hours} h: {spent} of {limit} are spent"
    )
    figures = {"observed": str(took // HOUR), "expected": str(run.estimate_hours), "unit": "h"}
    return [alert(told, OVERDUE, key, found, "updated" if is_open else "opened", summary, **figures)]
