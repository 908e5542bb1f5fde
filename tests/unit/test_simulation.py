"""What proposed budgets would have done to recorded usage: traces that are computed by hand, and a real one."""

import json
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from schemas.commands import Target, ThrottleCommand
from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.instants import HOUR, SECOND, format_instant, parse_instant
from streams.commands.simulate import proposed_of
from streams.commands.simulate import run as simulate_command
from streams.core.budget_terms import counted_budgets
from streams.core.charging import Charging
from streams.core.pricing import PriceBook
from streams.core.rate_card import load_rate_card
from streams.core.reading import Limits
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, watched_of
from streams.settings import Settings
from streams.simulation.calls import Call, SimulationError, from_trace, in_order, of_record
from streams.simulation.deciding import Said
from streams.simulation.gate import Gate
from streams.simulation.report import as_json, show
from streams.simulation.run import Plan, Simulation
from streams.sources.intake import billing_record, gpu_record, usage_record
from streams.sources.traces import TeamMap
from tests.unit.records import RawRecord

USD = 1_000_000_000
START = parse_instant("2026-03-10T10:00:00Z")
TRACE = Path(__file__).parents[2].parent / "shared" / "data" / "azure-llm-2023" / "AzureLLMInferenceTrace_code.csv"
CARD = """
models:
  - {provider: acme, model: big, input: 1, output: 1}
  - {provider: acme, model: small, input: 0.25, output: 0.25}
gpus:
  - {model: H100, usd_per_hour: 3600}
"""
CHAT = """
budgets:
  - {id: chat, scope: {feature: chat}, amount_usd: 5, period: hour, mode: enforce}
"""
CHAT_AND_TEAM = CHAT + "  - {id: search, scope: {team: search}, amount_usd: 8, period: hour, mode: enforce}\n"


def plan(budgets: str, delay_s: float = 10) -> Plan:
    definitions = proposed_of(budgets, as_written=True)
    rules = Rules(
        limits=Limits(),
        pricing=Charging(PriceBook(load_rate_card(CARD), frozenset()), frozenset()),
        watchlist=ScopeWatchlist([watched_of(budget) for budget in counted_budgets(definitions).values()]),
        org_id="acme",
    )
    return Plan(definitions, rules, round(delay_s * SECOND))


def event(usd: float = 1, **more) -> UsageEvent:
    given = {"provider": "acme", "request_model": "big", "team_id": "search", "feature": "chat"} | more
    return UsageEvent(input_tokens=round(usd * 1_000_000), **given)


def call(second: float, usage: UsageEvent | None = None, id: str = "") -> Call:
    at = START + round(second * SECOND)
    usage = usage or event()
    record = usage_record(usage, id=id or f"{second}", source="//gw", time=format_instant(at))
    return Call(at, "//gw", id or f"{second}", usage, record.value, record.headers, record.key)


def outcome_of(budgets: str, calls: list[Call], delay_s: float = 10):
    return Simulation(plan(budgets, delay_s)).run(calls)


EVERY_5_S = [call(5 * n) for n in range(10)]


@pytest.mark.parametrize(
    ("delay_s", "passed", "glides_from", "held_from"),
    [(0, 5, None, 20), (4, 5, 19, 24), (10, 5, 20, 25), (11, 6, 21, 26), (60, 10, None, None)],
    ids=["at once", "before the next call", "in time, for it is given early", "a call later", "too late for all"],
)
def test_a_dollar_every_five_seconds_against_five_dollars(delay_s, passed, glides_from, held_from):
    # 0.20 USD a second times the delay, at most a quarter of the budget, is what BUDGET gives the command earlier by: with
    # ten seconds at the fourth dollar, fifteen seconds in. Calls are let go slowly from twice as much before it on.
    found = outcome_of(CHAT, EVERY_5_S, delay_s)
    assert (found.total.calls, found.total.recorded_nanos, found.total.nanos) == (10, 10 * USD, passed * USD)
    assert [account.spent_nanos for account in found.accounts] == [passed * USD]
    expected = [("rate_limit", glides_from), ("block", held_from)]
    found_held = [(held.action, (held.start - START) / SECOND) for held in found.held]
    assert found_held == [(action, start) for action, start in expected if start is not None]
    refused = found.by_budget.get("chat", {}).get("refused")
    assert (refused.calls if refused else 0) == 10 - passed


def test_the_command_that_is_given_early_pages_once_and_the_rungs_below_it_are_only_shown():
    found = outcome_of(CHAT, EVERY_5_S)
    opened = [(a.threshold, a.tier, a.stated_at) for a in found.alerts if a.status == "opened"]
    assert opened == [
        ("50 %", "note", format_instant(START + 10 * SECOND)),
        ("75 %", "note", format_instant(START + 15 * SECOND)),
        ("90 %", "note", format_instant(START + 15 * SECOND)),
        ("100 %", "page", format_instant(START + 15 * SECOND)),
    ]


def test_a_new_hour_opens_the_gate_by_itself():
    found = outcome_of(CHAT, [*EVERY_5_S, call(3599), call(3600), call(3601)])
    assert found.total.nanos == 7 * USD
    held = [(held.action, held.start - START, held.end - START) for held in found.held]
    assert held == [("rate_limit", 20 * SECOND, 25 * SECOND), ("block", 25 * SECOND, HOUR)]
    assert [account.spent_nanos for account in found.accounts] == [5 * USD, 2 * USD]


def test_what_is_refused_is_not_spent_so_the_team_never_reaches_its_own_budget():
    found = outcome_of(CHAT_AND_TEAM, EVERY_5_S)
    assert {a.budget_id: a.spent_nanos for a in found.accounts} == {"chat": 5 * USD, "search": 5 * USD}
    assert set(found.recorded.values()) == {10 * USD}
    assert found.by_budget.keys() == {"chat"}
    # Without the feature's budget it does: at the sixth dollar the command goes out, and from the eighth call on it holds;
    # of those before one came too soon for what was let go slowly.
    alone = outcome_of(CHAT_AND_TEAM.replace("{feature: chat}", "{feature: other}"), EVERY_5_S)
    assert alone.by_budget["search"]["refused"].calls == 4


def test_refusals_are_told_by_feature_and_others_pass():
    calls = in_order([*EVERY_5_S, *(call(5 * n + 1, event(feature="mail")) for n in range(10))], None, None)
    found = outcome_of(CHAT, calls)
    assert found.by_feature[("search", "chat")]["refused"].calls == 5
    assert found.by_feature[("search", "mail")].keys() == {"passed"}
    report = as_json(found, 10 * SECOND)
    assert report["by_feature"] == [
        {
            "team": "search", "feature": "chat", "refused": 5, "refused_saved": "5", "downgraded": 0,
            "downgraded_saved": "0", "downgraded_cost": "0", "capped": 0, "capped_saved": "0", "capped_cost": "0",
            "passed": 5, "saved_net": "5",
        }
    ]  # fmt: skip


class Commanding:
    """BUDGET that says what a test wants, as soon as anything is spent."""

    def __init__(self, **asked) -> None:
        self.asked = asked

    def take(self, statement, now) -> Said:
        said = ThrottleCommand(
            command_id="c", budget_id="chat", target=Target("feature", "chat"), revision=1, reason="test",
            issued_at=format_instant(now), effective_at=format_instant(now), expires_at=format_instant(now + HOUR),
            **self.asked,
        )  # fmt: skip
        return Said([], [said])

    def tick(self, now) -> Said:
        return Said([], [])

    def next_end(self):
        return None

    def is_holding(self) -> bool:
        return False

    def begin(self, now) -> Said:
        return Said([], [])

    def accounts(self, now):
        return []


def commanded(calls: list[Call], **asked):
    simulation = Simulation(plan(CHAT, 0))
    simulation._deciding = Commanding(**asked)
    return simulation.run(calls)


def test_downgraded_calls_are_paid_at_the_cheaper_price_and_that_is_taken_off_the_saving():
    found = commanded(EVERY_5_S, action="downgrade", model_fallback="small")
    tally = found.by_budget["chat"]["downgraded"]
    assert (tally.calls, tally.nanos, tally.saved_nanos) == (9, 9 * USD // 4, 9 * USD * 3 // 4)
    assert found.total.nanos == USD + 9 * USD // 4
    assert found.total.saved_nanos == tally.saved_nanos


def test_a_model_without_a_price_is_said_and_not_taken_for_free():
    found = commanded(EVERY_5_S, action="downgrade", model_fallback="mystery")
    assert found.unpriced == 9
    console = Console(record=True, width=200)
    show(found, SECOND, console)
    assert "9 downgraded calls have no price" in console.export_text()


def test_the_gateways_figure_for_the_first_model_is_not_the_price_of_the_second():
    calls = [call(5 * n, event(request_model="unlisted", reported_cost="7")) for n in range(2)]
    found = commanded(calls, action="downgrade", model_fallback="mystery")
    assert (found.total.recorded_nanos, found.total.nanos, found.unpriced) == (14 * USD, 7 * USD, 1)


def test_a_rate_limit_refuses_what_is_above_it():
    found = commanded([call(n) for n in range(60)], action="rate_limit", rpm_limit=6)
    # Six at once and one every ten seconds after.
    assert found.by_budget["chat"]["refused"].calls == 60 - 1 - 6 - 5


def test_the_saving_is_the_sum_of_its_parts():
    found = outcome_of(CHAT_AND_TEAM, EVERY_5_S)
    for parts in (found.by_budget, found.by_feature):
        assert sum(tally.saved_nanos for fates in parts.values() for tally in fates.values()) == found.total.saved_nanos


def test_the_same_calls_in_any_order_and_twice_give_the_same_report():
    calls = [*EVERY_5_S, *(call(5 * n + 1, event(feature="mail")) for n in range(10))]
    there = in_order(calls, None, None)
    back = in_order([*reversed(calls), *calls], None, None)
    first, second = (json.dumps(as_json(outcome_of(CHAT, each), SECOND)) for each in (there, back))
    assert first == second


def test_gpus_and_bills_count_and_nobody_can_refuse_them():
    gpu = GpuSample(
        gpu_uuid="GPU-1", window_start=format_instant(START), window_end=format_instant(START + 6 * SECOND),
        allocated_seconds=6, model="H100", team_id="search",
    )  # fmt: skip
    bill = BillingRecord(
        billing_account_id="a", charge_period_start=format_instant(START), charge_period_end=format_instant(START + HOUR),
        billed_cost=3, billing_currency="USD", service_provider_name="Vectors Inc", team_id="search",
    )  # fmt: skip
    records = [
        gpu_record(gpu, id="g", source="//dcgm"),
        billing_record(bill, id="b", source="//bill", time=format_instant(START + SECOND)),
    ]
    raw = [
        RawRecord(n, (START + (7 + n) * SECOND) // 1_000, record.value, record.headers, record.key)
        for n, record in enumerate(records)
    ]
    calls = in_order([c for c in (of_record(record, Limits()) for record in raw) if c] + EVERY_5_S, None, None)
    found = outcome_of(CHAT_AND_TEAM, calls, 0)
    # Two calls, and six dollars of GPU that are known six seconds in, close the team's gate; the bill comes all the same.
    assert {a.budget_id: a.spent_nanos for a in found.accounts} == {"chat": 2 * USD, "search": 11 * USD}
    assert found.by_budget["search"]["refused"].calls == 8


def test_what_meter_refuses_is_no_call():
    assert of_record(RawRecord(0, START // 1_000, b"{", []), Limits()) is None


def test_only_what_lies_between_the_two_times_is_simulated():
    kept = in_order(EVERY_5_S, START + 10 * SECOND, START + 20 * SECOND)
    assert [(each.at - START) // SECOND for each in kept] == [10, 15]


def test_a_gate_takes_each_command_when_its_delay_is_over():
    gate = Gate(2 * SECOND, "acme")
    command = Commanding(action="block").take(None, START).commands[0]
    gate.send(command, START)
    for second, fate in ((0, "passed"), (1, "passed"), (2, "refused")):
        gate.obey(START + second * SECOND)
        assert gate.let(event(), START + second * SECOND).fate == fate
    gate.finish(START + 2 * HOUR)
    assert [(held.start - START, held.end - START) for held in gate.held] == [(2 * SECOND, HOUR)]


def test_a_trace_that_counts_from_its_own_beginning_needs_to_be_told_when_that_was(tmp_path):
    with pytest.raises(SimulationError, match="--from"):
        from_trace(tmp_path / "x.csv", "burstgpt", TeamMap(), None, None)


async def test_without_a_trace_and_times_the_command_says_what_it_needs(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text(CHAT)
    console = Console(record=True, width=200)
    assert await simulate_command(Settings(), path, None, None, None, 1, False, False, console) == 1
    assert "--from and --to" in console.export_text()


@pytest.mark.skipif(not TRACE.exists(), reason="the recorded trace is not here")
async def test_a_real_trace_stops_at_its_budget_and_twice_gives_the_same_bytes(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text("budgets:\n  - {id: azure, scope: {team: azure-trace}, amount_usd: 20, period: day}\n")
    reports = []
    for _ in range(2):
        console = Console(record=True, width=200)
        given = (Settings(), path, (TRACE, "azure-llm", None), None, None, 1.0, False, True, console)
        assert await simulate_command(*given) == 0
        reports.append(console.export_text())
    assert reports[0] == reports[1]
    report = json.loads(reports[0])
    (budget,) = report["budgets"]
    assert report["calls"] == 8_819
    assert float(budget["recorded"]) > 40
    assert 19.6 <= float(budget["simulated"]) <= 20.4
    # It closes early enough that the last rung is not always reached.
    assert report["messages"]["pages"] <= 1
    # Concurrency is shed first, where that is worth it.
    assert [throttle["action"] for throttle in report["throttled"]] in (["block"], ["rate_limit", "block"])
    assert sum(each["refused"] for each in report["by_feature"]) == report["by_budget"][0]["refused"] > 1_000


async def test_budgets_that_observe_throttle_only_if_they_are_taken_to_enforce(tmp_path):
    path, trace = tmp_path / "b.yaml", tmp_path / "t.jsonl"
    path.write_text(CHAT.replace("enforce", "observe"))
    card = tmp_path / "card.yaml"
    card.write_text(CARD)
    lines = [
        msgspec.json.encode(
            {"specversion": "1.0", "id": c.id, "source": c.source, "type": "ai.usage.recorded.v1",
             "time": format_instant(c.at), "data": msgspec.to_builtins(c.event)}
        ).decode()
        for c in EVERY_5_S
    ]  # fmt: skip
    trace.write_text("\n".join(lines) + "\n")
    found = {}
    for as_written in (False, True):
        console = Console(record=True, width=200)
        given = (path, (trace, "cloudevents", None), None, None, 10.0, as_written, True, console)
        assert await simulate_command(Settings(rate_card=card), *given) == 0
        found[as_written] = json.loads(console.export_text())
    assert (found[False]["saved_net"], found[True]["saved_net"]) == ("5", "0")
    assert found[True]["throttled"] == []
    assert found[True]["messages"] == found[False]["messages"] | {"notes": found[True]["messages"]["notes"]}
