"""The budgets of a run: amounts follow from the load's own money, so which rungs are crossed is known. Pure."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from loadtest.crash.load import Send, team_name
from loadtest.oracle import GPU, USAGE, Prices, call_charge, dollars, whole_nanos

RUNGS = (50, 75, 90, 100)
BLOCKS_AT = 100
OWNER = "lead@crash-rig.test"
#: The team whose blocked budget gets a credit once everything has settled.
REFUNDED = team_name(5)


class Budget(NamedTuple):
    """One budget. ``share_percent``: what the planned spend is of its amount at the end of the load."""

    id: str
    scope_type: str
    scope_id: str
    share_percent: int
    enforced: bool = True

    @property
    def command_key(self) -> str:
        """The key of its commands."""
        return f"{self.scope_type}:{self.scope_id}|{self.id}"

    def covers(self, dimensions: dict[str, str]) -> bool:
        """Whether an event of these attributes counts in it."""
        return dimensions[self.scope_type] == self.scope_id


BUDGETS = (
    Budget("busiest-daily", "team", team_name(0), 130),
    # Measures hold early by what is under way: at a rig's rate up to a quarter of the amount. Below that none may.
    Budget("nearly-daily", "team", team_name(1), 72),
    Budget("careful-daily", "team", team_name(2), 60),
    Budget("calm-daily", "team", team_name(3), 20),
    Budget("refunded-daily", "team", REFUNDED, 120),
    #: Many teams, so all source partitions meet in it.
    Budget("chat-daily", "feature", "chat", 110),
    Budget("mini-daily", "model", "gpt-4o-mini", 150, enforced=False),
    Budget("prod-daily", "environment", "prod", 60),
)


def dimensions_of(data: dict[str, Any]) -> dict[str, str]:
    """The attributes of an event that budgets of a run match."""
    return {
        "team": data.get("team_id", ""), "feature": data.get("feature", ""),
        "model": data.get("request_model") or data.get("model", ""), "environment": data.get("environment", ""),
    }  # fmt: skip


def planned_nanos(sends: Iterable[Send], prices: Prices) -> dict[str, int]:
    """``{budget id: nanodollars}`` that the load will spend."""
    spent = {budget.id: 0 for budget in BUDGETS}
    seen: set[str] = set()
    for send in sends:
        if send.refused or send.type not in CHARGES or send.id in seen or isinstance(send.value, bytes):
            continue
        seen.add(send.id)
        dimensions = dimensions_of(send.value)
        nanos = CHARGES[send.type](prices, send.value)
        for budget in BUDGETS:
            if budget.covers(dimensions):
                spent[budget.id] += nanos
    return spent


def _window(prices: Prices, data: dict[str, Any]) -> int:
    """As ``oracle.window_charge``, of a sample whose window has no instants yet."""
    hourly = prices.gpu.get(data["model"])
    seconds = Decimal(str(data["allocated_seconds"]))
    return whole_nanos(hourly * seconds / (3600 * data["shared_by"])) if hourly else 0


def _call(prices: Prices, data: dict[str, Any]) -> int:
    return call_charge(prices, data).nanos


CHARGES: dict[str, Callable[[Prices, dict[str, Any]], int]] = {USAGE: _call, GPU: _window}


def amounts(spent: dict[str, int]) -> dict[str, int]:
    """``{budget id: nanodollars}``: each budget's amount."""
    return {budget.id: max(1, spent[budget.id] * 100 // budget.share_percent) for budget in BUDGETS}


def noon_offset_h(anchor: datetime) -> int:
    """Hours ahead of UTC of a zone in which it is about noon, so that no budget day ends in a run."""
    return 12 - anchor.astimezone(UTC).hour


def period_start(anchor: datetime) -> datetime:
    """The start of the budgets' day: midnight where it is about noon now."""
    offset = timedelta(hours=noon_offset_h(anchor))
    local = anchor.astimezone(UTC) + offset
    return local.replace(hour=0, minute=0, second=0, microsecond=0) - offset


def budgets_file(anchor: datetime, amount: dict[str, int]) -> str:
    """The text of ``budgets.yaml``."""
    # Etc/GMT-3 is three hours ahead of UTC: POSIX counts the other way.
    zone = f"Etc/GMT{-noon_offset_h(anchor):+d}"
    lines = ["budgets:"]
    for budget in BUDGETS:
        lines += [
            f"  - id: {budget.id}",
            f"    scope: {{{budget.scope_type}: {budget.scope_id}}}",
            f'    amount_usd: "{dollars(amount[budget.id])}"',
            "    period: day",
            f"    timezone: {zone}",
            f"    mode: {'enforce' if budget.enforced else 'observe'}",
            f"    owner: {OWNER}",
        ]
    return "\n".join(lines) + "\n"
