"""The demo's last stage: every stage's work is checked, against the oracle where it is money, and summed up."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from schemas.instants import HOUR, format_instant
from schemas.money import format_usd, parse_nanos
from streams.demo import verdict
from streams.demo.ladder import RUNGS, Ladder, failures_of_ladder
from streams.demo.scenario import Scenario
from streams.demo.tape import Tape
from streams.demo.verdict import Order, Page
from streams.demo.watch import View, Watch

ORACLE = Path(__file__).parents[2] / "loadtest" / "oracle.py"
ORACLE_DEADLINE_S = 60.0
API_DEADLINE_S = 10.0


class Evidence(NamedTuple):
    """What is judged."""

    scenario: Scenario
    tape: Tape
    view: View
    pages: list[Page]
    orders: list[Order]
    ladder: Ladder
    #: What the stand-ins refused, in words.
    refusals: list[str]
    #: Slack messages and mails that arrived.
    messages: int
    mails: int
    restarts: int


class Judgement(NamedTuple):
    """The summary, and what failed; no failures is success."""

    summary: dict[str, Any]
    failures: list[str]


class OracleError(Exception):
    """The oracle did not do its sums."""


async def ask_oracle(raw: Path) -> dict[str, Any]:
    """What an independent program makes of the raw input.

    Raises:
        OracleError: it failed; the text quotes it.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(ORACLE), str(raw),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ORACLE_DEADLINE_S):
            out, errors = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise OracleError(f"the oracle did not finish within {ORACLE_DEADLINE_S:g} s") from error
    if process.returncode:
        raise OracleError(f"the oracle failed: {errors.decode(errors='replace').strip()[-2_000:]}")
    found: dict[str, Any] = json.loads(out)
    return found


async def judge(evidence: Evidence, watch: Watch, raw: Path, api_url: str) -> Judgement:
    """Compare everything that was injected and published with what the service made of it."""
    oracle, totals, groups = await asyncio.gather(ask_oracle(raw), watch.totals(), watch.groups())
    scenario, view = evidence.scenario, evidence.view
    summed = {tuple(row[:5]): (row[5]["nanos"], row[5]["requests"]) for row in oracle["by_group"]}
    money = verdict.failures_of_money(groups, summed)
    failures = [
        *verdict.failures_of_incidents(scenario, view.findings, evidence.pages, evidence.orders),
        *failures_of_ladder(evidence.ladder),
        *_of_meter(evidence, oracle, totals),
        *money[:5],
        *([f"LEDGER: {len(money) - 5} more groups differ"] if len(money) > 5 else []),
        *_of_notify(evidence),
        *_of_gateway(evidence, totals),
        *await _of_api(scenario, totals["nanos"], api_url),
    ]
    stories = verdict.stories(scenario, view.findings, evidence.pages, evidence.orders)
    actions = Counter(order.action for order in evidence.orders)
    summary = {
        "seed": scenario.seed,
        "events": evidence.tape.published,
        "cells": totals["cells"],
        "spend_usd": _number(totals["nanos"]),
        "alerts": dict(sorted(Counter(finding.rule for finding in view.findings).items())),
        "pages": len(evidence.pages),
        "pages_resolved": sum(page.resolved_at is not None for page in evidence.pages),
        "throttles": actions["block"],
        "releases": actions["allow"],
        **evidence.ladder.report(),
        "calls_refused": sum(evidence.tape.refused.values()),
        "calls_throttled": dict(sorted(evidence.tape.throttled.items())),
        "slack_messages": evidence.messages,
        "mails": evidence.mails,
        "duplicates": view.duplicates,
        "dead_letters": view.dead_letters,
        "unpriced": totals["unpriced"],
        "incidents": [story.report() for story in stories],
        "ledger_matches_oracle": not money and totals["nanos"] == oracle["total_nanos"],
    }
    wanted = ("events", "cells", "spend_usd", "pages", "pages_resolved", "throttles", "releases")
    failures += [f"the summary's {name} is not above 0" for name in wanted if not summary[name] > 0]
    rules = {"spend_spike", "runaway_request", "gpu_idle", "budget_threshold"} - set(summary["alerts"])
    failures += [f"DETECT: no alert of the rule {rule}" for rule in sorted(rules)]
    return Judgement(summary, failures)


def _number(nanos: int) -> float:
    """Dollars as a JSON number, only to be read: below a million dollars a double shows every nanodollar."""
    return float(format_usd(nanos))


def _of_meter(evidence: Evidence, oracle: dict[str, Any], totals: dict[str, int]) -> list[str]:
    view = evidence.view
    pairs = [
        ("dead letters", view.dead_letters, oracle["refused"]),
        ("duplicates", view.duplicates, oracle["duplicates"]),
        ("unpriced requests", totals["unpriced"], oracle["unpriced"]),
        ("reconciled nanodollars", totals["reconciled"], parse_nanos(oracle["reconciled_usd"])),
        ("records published", evidence.tape.published, oracle["records"]),
    ]
    return [f"METER: {has} {what}, the oracle counts {should}" for what, has, should in pairs if has != should]


def _of_notify(evidence: Evidence) -> list[str]:
    found = [f"NOTIFY: a receiver refused a message: {refusal}" for refusal in evidence.refusals]
    if evidence.view.given_up:
        found.append(f"NOTIFY: {evidence.view.given_up} messages were given up")
    if evidence.view.owed:
        found.append(f"NOTIFY: {evidence.view.owed} messages are still owed")
    if not evidence.messages:
        found.append("NOTIFY: Slack heard nothing")
    if not evidence.mails:
        found.append("NOTIFY: no mail came to a budget's owner")
    if evidence.restarts:
        found.append(f"a worker or the API crashed and was started again, {evidence.restarts} times")
    return found


def _of_gateway(evidence: Evidence, totals: dict[str, int]) -> list[str]:
    team, tape = evidence.scenario.overrun.team, evidence.tape
    found = []
    if not tape.refused[team]:
        found.append(f"GATEWAY: no call of {team} was refused")
    if not tape.let_through_again[team]:
        found.append(f"GATEWAY: no call of {team} went through after the release")
    found += [f"GATEWAY: no call met a {action}" for action in RUNGS if not tape.throttled[action]]
    found += [f"GATEWAY: calls of {other} were refused" for other in sorted(tape.refused) if other != team]
    if not totals["acks"]:
        found.append("GATEWAY: no command was acknowledged")
    if tape.failed:
        found.append(f"GATEWAY: the broker did not take {tape.failed} records")
    return found


async def _of_api(scenario: Scenario, nanos: int, api_url: str) -> list[str]:
    """The API must say what the ledger has, and the dashboard must be there."""
    span = {"from": format_instant(scenario.calendar.history), "to": format_instant(scenario.calendar.end + HOUR)}
    try:
        async with httpx.AsyncClient(base_url=api_url, timeout=API_DEADLINE_S, trust_env=False) as client:
            spend = (await client.get("/v1/spend", params=span)).raise_for_status().json()
            page = (await client.get("/")).raise_for_status().text
            samples = (await client.get("/metrics")).raise_for_status().text
    except (httpx.HTTPError, ValueError) as error:
        return [f"API: {error!r}"]
    found = []
    if parse_nanos(spend["total"]["cost"]) != nanos:
        found.append(f"API: says {spend['total']['cost']} USD, the ledger has {format_usd(nanos)}")
    if "<html" not in page.lower():
        found.append("API: there is no dashboard at /")
    if "sluice_" not in samples:
        found.append("API: /metrics has no metric of Sluice")
    return found
