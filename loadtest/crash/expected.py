"""What the ledger, the dead letters, the alerts and the commands must be, from the usage records alone. Pure.

Independent of the code under test: arithmetic and prices are ``loadtest.oracle``'s, limits ``refusals``'.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

from loadtest.crash.budgeting import BLOCKS_AT, BUDGETS, RUNGS, dimensions_of
from loadtest.crash.refusals import Accepted, Raw, Unacceptable, accept
from loadtest.oracle import (
    BILL,
    GPU,
    METERED_PROVIDERS,
    UNATTRIBUTED,
    USAGE,
    Prices,
    call_charge,
    whole_nanos,
    window_charge,
)

#: What later records cannot be told from repetitions of earlier ones.
WINDOW = timedelta(hours=1)
COST_BOUNDS = [1_000 * 4**power for power in range(15)]
LATENCY_BOUNDS = [25 * 2**power for power in range(13)]
DIMENSIONS = (
    "org_id", "cost_center", "team_id", "project_id", "feature", "model", "provider", "environment", "request_type",
    "user_tier", "category",
)  # fmt: skip
TOTALS = (
    "requests", "successes", "errors", "cache_hits", "input_tokens", "cache_read_input_tokens",
    "cache_creation_input_tokens", "output_tokens", "reasoning_output_tokens", "audio_tokens", "gpu_milliseconds",
    "cost_nanos", "reported_cost_nanos", "reconciled_cost_nanos", "estimated_cost_nanos", "unpriced_requests",
    "unverified_late",
)  # fmt: skip
HISTOGRAMS = ("cost_histogram", "latency_histogram")

#: An hour and the values of ``DIMENSIONS``.
Cell = tuple[Any, ...]
#: Topic and partition.
Place = tuple[str, int]
#: Team, key and user.
Spender = tuple[str, str, str]


class Rung(NamedTuple):
    """A statement that must have been made about a budget's rung: it was passed, or left again."""

    budget_id: str
    percent: int
    status: str


class Command(NamedTuple):
    """What the last command of a key must say."""

    action: str
    dry_run: bool


class Expected:
    """Takes usage records in, partition by partition in the order of their offsets."""

    def __init__(self, prices: Prices, amount: Mapping[str, int], period: tuple[datetime, datetime]) -> None:
        self.cells: dict[Cell, Counter[str]] = {}
        #: Nanodollars and calls by team, key and user.
        self.spenders: dict[Spender, Counter[str]] = {}
        self.letters: dict[tuple[str, int, int], str] = {}
        self.duplicates: Counter[Place] = Counter()
        self.spent = {budget.id: 0 for budget in BUDGETS}
        self.ids: set[str] = set()
        self.counted = 0
        self._prices = prices
        self._amount = amount
        self._period = period
        self._seen: set[tuple[Place, str, str]] = set()
        self._stream_time: dict[Place, datetime] = {}
        self._passed: set[tuple[str, int]] = set()

    def take(self, records: Iterable[Raw]) -> None:
        """Add records that are newer than all before of their partition."""
        for raw in records:
            place = (raw.topic, raw.partition)
            if "ce_id" in raw.headers:
                self.ids.add(raw.headers["ce_id"].decode())
            try:
                event = accept(raw)
            except Unacceptable as refused:
                self.letters[(*place, raw.offset)] = str(refused)
                continue
            # A bill's period says nothing about now.
            believable = event.arrived if event.type == BILL else min(event.happened, event.arrived)
            now = self._stream_time[place] = max(believable, self._stream_time.get(place, believable))
            if (place, event.source, event.id) in self._seen:
                self.duplicates[place] += 1
                continue
            self._seen.add((place, event.source, event.id))
            self.counted += 1
            self._count(event, (event.arrived if event.type == BILL else event.happened) < now - WINDOW)

    def settle(self) -> None:
        """What is spent now has settled, so the service must have told of every rung below it."""
        self._passed |= {(budget_id, percent) for budget_id in self.spent for percent in self._rungs(budget_id)}

    def statements(self) -> set[Rung]:
        """Every rung that was passed whenever the load had settled, and those that were left since."""
        passed = self._passed
        left = {(budget_id, percent) for budget_id, percent in passed if percent not in self._rungs(budget_id)}
        return {Rung(*rung, "opened") for rung in passed} | {Rung(*rung, "resolved") for rung in left}

    def commands(self) -> dict[str, Command]:
        """The last command of every key; a budget that never blocked commands nothing."""
        return {
            budget.command_key: Command(
                "block" if BLOCKS_AT in self._rungs(budget.id) else "allow", not budget.enforced
            )
            for budget in BUDGETS
            if (budget.id, BLOCKS_AT) in self._passed
        }

    def _rungs(self, budget_id: str) -> list[int]:
        return [rung for rung in RUNGS if self.spent[budget_id] * 100 >= rung * self._amount[budget_id]]

    def _count(self, event: Accepted, late: bool) -> None:
        cell, totals, bounded = {USAGE: self._call, GPU: self._window, BILL: self._bill}[event.type](event.data)
        hour = event.happened.replace(minute=0, second=0, microsecond=0)
        found = self.cells.setdefault((hour, *cell), Counter())
        found.update(totals)
        found.update(bounded)
        found["unverified_late"] += late
        if event.type == USAGE:
            who = (cell[2], event.data.get("key_id", ""), event.data.get("user_id", ""))
            spent = {"cost_nanos": totals["cost_nanos"], "requests": 1}
            self.spenders.setdefault(who, Counter()).update(spent)
        if self._period[0] <= event.happened < self._period[1]:
            attributes = dimensions_of(event.data)
            for budget in BUDGETS:
                if budget.covers(attributes):
                    self.spent[budget.id] += totals["cost_nanos"]

    def _call(self, data: dict[str, Any]) -> tuple[Cell, dict[str, int], list[str]]:
        charge = call_charge(self._prices, data)
        model = data.get("response_model") or data.get("request_model", "")
        succeeded = data.get("status", "success") == "success"
        totals = {name: data.get(name, 0) for name in TOTALS if name.endswith("_tokens") and name != "audio_tokens"}
        totals |= {
            "requests": 1, "successes": int(succeeded), "errors": int(not succeeded),
            "cache_hits": int(data.get("cache_hit", False)), "cost_nanos": charge.nanos,
            "reported_cost_nanos": whole_nanos(Decimal(data.get("reported_cost", "0"))),
            "estimated_cost_nanos": charge.nanos * charge.estimated, "unpriced_requests": charge.unpriced,
        }  # fmt: skip
        bounded = [f"cost_histogram {bisect_right(COST_BOUNDS, charge.nanos)}"]
        if "duration_ms" in data:
            bounded.append(f"latency_histogram {bisect_right(LATENCY_BOUNDS, data['duration_ms'])}")
        kind = data.get("request_type", "interactive")
        return _cell(data, model, data["provider"], kind, data.get("user_tier", ""), "llm"), totals, bounded

    def _window(self, data: dict[str, Any]) -> tuple[Cell, dict[str, int], list[str]]:
        charge = window_charge(self._prices, data)
        share = Decimal(str(data["allocated_seconds"])) * 1000 / data.get("shared_by", 1)
        totals = {
            "gpu_milliseconds": int(share.to_integral_value(ROUND_HALF_EVEN)),
            "cost_nanos": charge.nanos,
            "unpriced_requests": charge.unpriced,
        }
        return _cell(data, data["model"], "gpu", "background", "", "gpu"), totals, []

    def _bill(self, data: dict[str, Any]) -> tuple[Cell, dict[str, int], list[str]]:
        nanos = whole_nanos(Decimal(data["billed_cost"]))
        provider, generative = data["service_provider_name"], data.get("service_subcategory") == "Generative AI"
        # A credit is the bill's own; a line for calls states what is metered here.
        metered = generative and provider.lower() in METERED_PROVIDERS and data["charge_category"] != "Credit"
        totals = {"cost_nanos": 0 if metered else nanos, "reconciled_cost_nanos": nanos if metered else 0}
        category = "llm" if generative else "vector"
        return _cell(data, data["service_name"], provider, "background", "", category), totals, []


def _cell(data: dict[str, Any], model: str, provider: str, kind: str, tier: str, category: str) -> Cell:
    given = [data.get(name, "") for name in DIMENSIONS[:5]]
    given[2] = given[2] or UNATTRIBUTED
    given[4] = given[4] or UNATTRIBUTED
    return (*given, model, provider, data.get("environment", ""), kind, tier, category)
