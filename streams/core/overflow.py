"""The alert of a team whose money is kept under ``__other__`` because it has more cells than it may have.

Nothing is lost: the team's total and its budgets are right, only what it is spent on cannot be told apart. There is one
alert a team and hour; it is resolved when that hour's cells leave memory.
"""

from typing import NamedTuple

from schemas import keys
from schemas.alerts import Alert, Rule, Status
from schemas.instants import HOUR, format_instant

RULE: Rule = "cells_overflow"


class Overflow(NamedTuple):
    """A team with more cells than it may have in one hour of one source partition."""

    org_id: str
    team_id: str
    #: Start of the UTC hour, microseconds since 1970.
    hour: int


def overflow_alert(overflow: Overflow, status: Status, limit: int, stated_at: int) -> Alert:
    """What is said of it; ``stated_at`` in microseconds since 1970."""
    team, start = overflow.team_id, format_instant(overflow.hour)
    scope = f"team:{overflow.org_id}/{team}" if overflow.org_id else f"team:{team}"
    dedup_key = keys.alert_dedup_key(RULE, scope, start)
    said = (
        f"{team} has more than {limit:,} live combinations of feature, model, project and the like: the rest of its"
        " money is kept under __other__"
        if status == "opened"
        else f"{team} is below its limit of {limit:,} cells again"
    )
    return Alert(
        alert_id=keys.alert_id(dedup_key, 1, status),
        dedup_key=dedup_key,
        episode=1,
        status=status,
        severity="warning",
        tier="ticket",
        rule=RULE,
        scope_type="team",
        scope_id=team,
        summary=said,
        occurred_at=start,
        stated_at=format_instant(stated_at),
        period_start=start,
        period_end=format_instant(overflow.hour + HOUR),
        team_id=team,
        threshold=str(limit),
        unit="cells",
        action="The money counts in the team's total and in its budgets; it is shown under __other__.",
    )
