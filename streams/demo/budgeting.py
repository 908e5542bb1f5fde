"""The budgets of the demo's company, as the ``budgets.yaml`` that the worker reads. Pure."""

from typing import Any

import yaml

from schemas.money import NANOS
from streams.core.budget_measures import PRODUCTION
from streams.demo import company
from streams.demo.scenario import Scenario, daily_budget

ORG = "acme"
GPU_CENTS_PER_HOUR = 109
#: A normal day takes this percent of a daily budget: room for a spike, not for a leak that runs all day.
NORMAL_PERCENT = 40
SMALL_TEAM_PERCENT = 46
OWNER = "{}-lead@example.test"
#: Calls a minute of batch and background work from the first measure on.
BACKGROUND_RPM = 1
#: The ladder of the budget that the day overruns: less background work, then a cheaper model, then nothing.
LADDER: tuple[dict[str, Any], ...] = (
    {"percent": 50, "severity": "info"},
    {"percent": 75, "severity": "warning"},
    {
        "percent": 90, "severity": "critical",
        "measures": [{"action": "rate_limit", "request_types": ["batch", "background"], "rpm": BACKGROUND_RPM}],
    },
    {"percent": 95, "severity": "critical", "measures": [{"action": "downgrade", "models": dict(company.CHEAPER)}]},
    {"percent": 100, "severity": "emergency", "action": "block"},
)  # fmt: skip


def budgets_of(scenario: Scenario) -> list[dict[str, Any]]:
    """A daily budget for every team, a feature's and the organisation's month, all in the day's own zone."""
    zone = scenario.calendar.zone
    days = [_daily(team, zone) for team in company.TEAMS]
    # A played quarter of an hour passes in a third of a second: no renewal comes in time, so gates keep what they know.
    graded = {
        "thresholds": [dict(rung) for rung in LADDER], "hard": company.ENVIRONMENT in PRODUCTION, "on_stale": "keep",
    }  # fmt: skip
    days = [day | graded if day["id"] == scenario.overrun.subject else day for day in days]
    feature = scenario.runaway.feature
    month = sum(_day_nanos(team) for team in company.TEAMS) * 31 * 100 // 80
    return [
        *days,
        {
            "id": f"{feature}-monthly", "scope": {"feature": feature}, "amount_usd": "500",
            "period": "month", "timezone": zone, "mode": "observe", "owner": OWNER.format(scenario.runaway.team),
        },
        {
            "id": "acme-monthly", "scope": {"org": ORG}, "amount_usd": _dollars(month),
            "period": "month", "timezone": zone, "mode": "observe", "owner": "finance@example.test",
        },
    ]  # fmt: skip


def budgets_yaml(scenario: Scenario) -> str:
    """The budgets file: the default ladder of 50, 75, 90 and 100 percent, and ``LADDER`` for what is overrun."""
    return yaml.safe_dump({"budgets": budgets_of(scenario)}, sort_keys=False)


def _daily(team: str, zone: str) -> dict[str, Any]:
    percent = SMALL_TEAM_PERCENT if team in company.SMALL_TEAMS else NORMAL_PERCENT
    return {
        "id": daily_budget(team), "scope": {"team": team}, "amount_usd": _dollars(_day_nanos(team) * 100 // percent),
        "period": "day", "timezone": zone, "mode": "enforce", "owner": OWNER.format(team),
    }  # fmt: skip


def _day_nanos(team: str) -> int:
    """Models and GPUs of a team on a normal day."""
    gpus = sum(1 for gpu in company.GPUS if gpu.team == team)
    return company.day_nanos(team) + gpus * 24 * GPU_CENTS_PER_HOUR * NANOS // 100


def _dollars(nanos: int) -> str:
    """Whole dollars, rounded up."""
    return str(-(-nanos // NANOS))
