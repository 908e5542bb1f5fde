#!/usr/bin/env python3
"""An independent sum of raw usage: literal prices, ``decimal``, standard library only, nothing of Sluice.

Reads the raw input as it was published, one JSON object a line::

    {"topic": "usage.events.v1", "id": "…", "source": "…", "type": "ai.usage.recorded.v1", "time": "…",
     "subject": "…", "value": "<the record's value, as text>"}

and adds it up per (hour, team, feature, model, category) and in total, in whole nanodollars, with one
rounding (half to even) per event. A pair of source and id counts once; what cannot be read is refused and counted.

    python loadtest/oracle.py RAW.jsonl [--prices PRICES.json]
"""

import argparse
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

EXACT = Context(prec=60)
NANOS = Decimal(10) ** 9
PER_MTOK = Decimal(10) ** 6
UNATTRIBUTED = "__unattributed__"
USAGE, GPU, BILL = "ai.usage.recorded.v1", "ai.gpu.sampled.v1", "ai.billing.recorded.v1"

#: Dollars per million tokens: input, cached input read, cached input written, output. None: not sold.
#: ``gpt-4o-mini`` has the contract rate of examples/demo/rate-card.yaml, all others are list prices.
LLM_USD_PER_MTOK: dict[str, tuple[str, str | None, str | None, str]] = {
    "gpt-4o": ("2.5", "1.25", None, "10"),
    "gpt-4o-mini": ("0.1275", "0.06375", None, "0.51"),
    "gpt-4.1": ("2", "0.5", None, "8"),
    "claude-sonnet-4-0": ("3", "0.3", "3.75", "15"),
    "claude-opus-4-1": ("15", "1.5", "18.75", "75"),
    "gemini-2.5-flash": ("0.3", "0.03", None, "2.5"),
}
#: Dollars per GPU hour.
GPU_USD_PER_HOUR: dict[str, str] = {"NVIDIA L40S": "1.09"}
#: Bill lines of these providers for generative AI state what is metered here: they add nothing.
METERED_PROVIDERS = {"openai", "anthropic", "azure", "google", "aws", "mistral"}

Group = tuple[str, str, str, str, str]


class Refused(ValueError):
    """A record that cannot be counted."""


class Prices:
    """Literal prices; ``llm`` and ``gpu`` may be replaced by a JSON file of the same shape."""

    def __init__(self, llm: dict[str, Any] | None = None, gpu: dict[str, str] | None = None) -> None:
        self.llm = {
            model: tuple(None if price is None else Decimal(price) for price in prices)
            for model, prices in (LLM_USD_PER_MTOK if llm is None else llm).items()
        }
        self.gpu = {model: Decimal(price) for model, price in (GPU_USD_PER_HOUR if gpu is None else gpu).items()}


class Oracle:
    """Adds raw records up, each exactly once."""

    def __init__(self, prices: Prices | None = None) -> None:
        self.prices = prices or Prices()
        self.nanos: dict[Group, int] = {}
        self.requests: dict[Group, int] = {}
        self.reconciled_nanos = 0
        self.read = self.counted = self.duplicates = self.refused = self.unpriced = 0
        self._seen: set[tuple[str, str]] = set()

    def add_lines(self, lines: Iterable[str]) -> None:
        """Add every line of a raw file; a line that is not ours raises ValueError."""
        for line in lines:
            if line.strip():
                self.add(json.loads(line))

    def add(self, record: dict[str, Any]) -> None:
        """Add one raw record: refused, a duplicate, or counted."""
        self.read += 1
        try:
            group, nanos, requests, reconciled, unpriced = self._weigh(record)
        except (Refused, KeyError, TypeError, ValueError, InvalidOperation):
            self.refused += 1
            return
        identity = (record["source"], record["id"])
        if identity in self._seen:
            self.duplicates += 1
            return
        self._seen.add(identity)
        self.counted += 1
        self.unpriced += unpriced
        self.reconciled_nanos += reconciled
        self.nanos[group] = self.nanos.get(group, 0) + nanos
        self.requests[group] = self.requests.get(group, 0) + requests

    @property
    def total_nanos(self) -> int:
        """All money, in nanodollars."""
        return sum(self.nanos.values())

    def report(self) -> dict[str, Any]:
        """What was added up, ready for JSON; money as decimal strings of dollars."""
        return {
            "records": self.read,
            "counted": self.counted,
            "duplicates": self.duplicates,
            "refused": self.refused,
            "unpriced": self.unpriced,
            "groups": len(self.nanos),
            "total_nanos": self.total_nanos,
            "total_usd": dollars(self.total_nanos),
            "reconciled_usd": dollars(self.reconciled_nanos),
            "by_group": [
                [*group, {"nanos": nanos, "requests": self.requests[group]}]
                for group, nanos in sorted(self.nanos.items())
            ],
        }

    def _weigh(self, record: dict[str, Any]) -> tuple[Group, int, int, int, int]:
        if not record["id"] or not record["source"]:
            raise Refused("no identity")
        data = json.loads(record["value"])
        if not isinstance(data, dict):
            raise Refused("the value is no object")
        kind = record["type"]
        if kind == USAGE:
            return self._usage(record, data)
        if kind == GPU:
            return self._gpu(data)
        if kind == BILL:
            return self._bill(data)
        raise Refused(f"unknown type {kind}")

    def _usage(self, record: dict[str, Any], data: dict[str, Any]) -> tuple[Group, int, int, int, int]:
        model = data.get("response_model") or data.get("request_model", "")
        team = data.get("team_id") or record.get("subject") or UNATTRIBUTED
        group = (
            hour_of(record["time"]), team, data.get("feature") or UNATTRIBUTED, model, "llm",
        )  # fmt: skip
        call = call_charge(self.prices, data)
        return group, call.nanos, 1, 0, call.unpriced

    def _gpu(self, data: dict[str, Any]) -> tuple[Group, int, int, int, int]:
        group = (
            hour_of(data["window_start"]), data.get("team_id") or UNATTRIBUTED,
            data.get("feature") or UNATTRIBUTED, data["model"], "gpu",
        )  # fmt: skip
        window = window_charge(self.prices, data)
        return group, window.nanos, 0, 0, window.unpriced

    def _bill(self, data: dict[str, Any]) -> tuple[Group, int, int, int, int]:
        if data["billing_currency"] != "USD":
            raise Refused("another currency than dollars")
        nanos = whole_nanos(Decimal(str(data.get("effective_cost") or data["billed_cost"])))
        covers = data.get("covers_metered_usage")
        generative = data.get("service_subcategory") == "Generative AI"
        provider = data["service_provider_name"].lower()
        if covers is None:
            covers = generative and provider in METERED_PROVIDERS
        group = (
            hour_of(data["charge_period_start"]), data.get("team_id") or UNATTRIBUTED,
            data.get("feature") or UNATTRIBUTED, data.get("service_name", ""),
            "llm" if generative else "vector",
        )  # fmt: skip
        return (group, 0, 0, nanos, 0) if covers else (group, nanos, 0, 0, 0)


class Charge(NamedTuple):
    """What one event costs in nanodollars, and on what ground (1 or 0 each)."""

    nanos: int
    #: No price is known, and the gateway's own figure stands in.
    estimated: int = 0
    #: No price is known at all.
    unpriced: int = 0


def call_charge(prices: Prices, data: dict[str, Any]) -> Charge:
    """What a call costs: nothing from a cache or for a failure without tokens, else every token at its price."""
    read, written = count(data, "cache_read_input_tokens"), count(data, "cache_creation_input_tokens")
    fresh, output = count(data, "input_tokens") - read - written, count(data, "output_tokens")
    if fresh < 0:
        raise Refused("more cached tokens than input")
    if data.get("cache_hit") or (data.get("status") == "failure" and not fresh + read + written + output):
        return Charge(0)
    model = data.get("response_model") or data.get("request_model", "")
    found = prices.llm.get(model)
    if found is None:
        reported = whole_nanos(Decimal(data.get("reported_cost") or "0"))
        return Charge(reported, estimated=1) if reported else Charge(0, unpriced=1)
    exact = Decimal(0)
    for tokens, price in zip((fresh, read, written, output), found, strict=True):
        if tokens and price is None:
            raise Refused(f"{model} does not sell such tokens")
        if tokens:
            exact = EXACT.add(exact, EXACT.multiply(Decimal(tokens), price))
    return Charge(whole_nanos(EXACT.divide(exact, PER_MTOK)))


def window_charge(prices: Prices, data: dict[str, Any]) -> Charge:
    """What one GPU's window costs: its share of the allocated time at the hourly price."""
    seconds = Decimal(str(data["allocated_seconds"]))
    start, end = instant(data["window_start"]), instant(data["window_end"])
    if not timedelta(0) < end - start <= timedelta(hours=1) or not 0 <= seconds <= Decimal((end - start).seconds):
        raise Refused("an impossible window")
    price = prices.gpu.get(data["model"])
    if price is None:
        return Charge(0, unpriced=1)
    hours = Decimal(3600 * int(data.get("shared_by", 1)))
    return Charge(whole_nanos(EXACT.divide(EXACT.multiply(price, seconds), hours)))


def count(data: dict[str, Any], name: str) -> int:
    """A count of tokens: a whole number of at least 0."""
    found = data.get(name, 0)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise Refused(f"{name} is no count: {found!r}")
    return found


def whole_nanos(usd: Decimal) -> int:
    """Dollars as whole nanodollars: the one rounding of an event, half to even."""
    return int(EXACT.multiply(usd, NANOS).to_integral_value(ROUND_HALF_EVEN))


def dollars(nanos: int) -> str:
    """Nanodollars as a plain decimal string of dollars, exactly."""
    return format(EXACT.divide(Decimal(nanos), NANOS), "f")


def instant(text: str) -> datetime:
    """An RFC 3339 instant in UTC."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise Refused(f"an instant without an offset: {text}")
    return moment.astimezone(UTC)


def hour_of(text: str) -> str:
    """The UTC hour that holds an instant, as ``2026-11-21T04:00:00Z``."""
    return instant(text).strftime("%Y-%m-%dT%H:00:00Z")


def main() -> int:
    """Print the sums of a raw file as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, help="raw input, JSON lines")
    parser.add_argument("--prices", type=Path, help='JSON: {"llm": {model: [in, read, write, out]}, "gpu": {…}}')
    given = parser.parse_args()
    loaded = json.loads(given.prices.read_text()) if given.prices else {}
    oracle = Oracle(Prices(loaded.get("llm"), loaded.get("gpu")))
    with given.raw.open(encoding="utf-8") as lines:
        oracle.add_lines(lines)
    json.dump(oracle.report(), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
