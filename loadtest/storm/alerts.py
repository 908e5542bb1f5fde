"""The storm's alerts: of many groups, opened all at once and in disorder, later ended. Pure."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from schemas import keys
from schemas.alerts import Alert, Severity, Status
from schemas.instants import SECOND, format_instant

PERIOD = "2026-11-21T00:00:00Z"
SEVERITIES: tuple[Severity, ...] = ("warning", "critical", "emergency")


class Said(NamedTuple):
    """One statement, and when it is made, in seconds from the beginning."""

    at_s: float
    alert: Alert


def team(number: int) -> str:
    """The name of a group."""
    return f"storm-{number:03d}"


def storm(groups: int, alerts: int, rage_s: float, calm_s: float, start: int, seed: int = 1) -> Sequence[Said]:
    """Every alert opens within ``rage_s`` and ends within ``calm_s`` after that, at random; ``start``: microseconds."""
    random, said = Random(seed), []
    for number in range(alerts):
        opens, ends = random.random() * rage_s, rage_s + random.random() * calm_s
        severity = random.choice(SEVERITIES)
        for status, at_s in (("opened", opens), ("resolved", ends)):
            said.append(Said(at_s, _statement(number, team(number % groups), severity, status, start, at_s)))
    return sorted(said, key=lambda one: one.at_s)


def _statement(number: int, of: str, severity: Severity, status: Status, start: int, at_s: float) -> Alert:
    key = keys.alert_dedup_key("spend_spike", f"feature:{of}/{number}", PERIOD)
    now = format_instant(start + round(at_s * SECOND))
    return Alert(
        alert_id=keys.alert_id(key, 1, status),
        dedup_key=key,
        episode=1,
        status=status,
        severity=severity,
        tier="page",
        rule="spend_spike",
        scope_type="feature",
        scope_id=f"{of}/{number}",
        summary=f"feature {number} of {of} spends $12.50 an hour where $4.00 are expected",
        occurred_at=now,
        stated_at=now,
        team_id=of,
        feature=str(number),
        observed="12.5",
        expected="4",
    )
