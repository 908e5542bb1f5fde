"""A budget runs out in a running service: people are told once, the gateway refuses, and both end when it is raised."""

import signal
from itertools import groupby
from uuid import uuid4

import pytest

from gateway.gate import ThrottleGate
from streams.standins.runner import StandIns
from tests.e2e.conftest import run_service

pytestmark = [pytest.mark.integration]

BUDGETS = """
budgets:
  - id: search-daily
    scope: {{team: search}}
    amount_usd: "{amount}"
    period: day
    mode: enforce
    owner: lead@example.test
"""


async def _spend(service, dollars: float) -> None:
    """One call of team search that costs so much (gpt-4o: 2.50 dollars per million input tokens)."""
    tokens = round(dollars / 2.5 * 1_000_000)
    for part in range(0, tokens, 40_000):
        data = {
            "provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "chat",
            "input_tokens": min(40_000, tokens - part),
        }  # fmt: skip
        await service.send(data, id=uuid4().hex, key="search")


async def test_a_budget_that_runs_out_tells_once_blocks_and_lets_go_when_raised(
    fresh_kafka, postgres, tmp_path, tmp_path_factory
):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text(BUDGETS.format(amount="10"))
    database = await postgres.create_database(f"e2e_{uuid4().hex[:12]}")
    async with StandIns(tmp_path / "standins") as people:
        changes = {name.removeprefix("SLUICE_").lower(): value for name, value in people.environment().items()}
        async with run_service(fresh_kafka, database, tmp_path / "state", budgets=budgets, **changes) as service:
            gate = ThrottleGate({"bootstrap_servers": fresh_kafka.bootstrap}, gateway="gw-1", ack_interval_s=0.2)
            await gate.start()
            try:
                await _crosses_each_rung(service, people, gate)
                await _is_let_go(service, people, gate, budgets)
            finally:
                await gate.stop()


async def _crosses_each_rung(service, people, gate) -> None:
    async def crossed(percent: int):
        return (await service.pool.fetchval("select crossed_percent from budget_status") or 0) >= percent

    for dollars, percent in ((6.0, 50), (2.0, 75), (1.5, 90)):
        await _spend(service, dollars)
        await service.until(lambda percent=percent: crossed(percent), f"{percent} % to be crossed")
        # From three quarters on it may close and page already, for the calls under way: it is spent as fast as this
        # test can send.
        assert percent > 50 or (gate.check(team="search").allowed and people.pagerduty.incidents == [])
    await _spend(service, 0.6)

    async def refused():
        return not gate.check(team="search", feature="chat").allowed

    await service.until(refused, "the gate to refuse")
    decision = gate.check(team="search")
    assert (decision.http_status, "search-daily" in decision.reason) == (429, True)
    assert gate.check(team="support").allowed

    async def paged():
        return len(people.pagerduty.incidents) == 1 and people.slack.messages and people.mail.messages

    await service.until(paged, "page, Slack and mail")

    async def recorded():
        return not await service.pool.fetchval("select count(*) from outbox where state = 'owed'")

    await service.until(recorded, "what was sent to be on record")
    # A worker that dies now and comes back says nothing twice. Between sending and recording it would have to: a
    # message that may have been taken is sent again, under the same key, which opens no second incident.
    await service.running.kill_worker(0, signal.SIGKILL)
    await service.running.start_worker(0)
    await _spend(service, 0.1)
    await service.until(lambda: crossed(100), "the restarted worker to know where the budget stands")

    async def acknowledged():
        return await service.pool.fetchval("select count(*) from gateway_acks")

    await service.until(acknowledged, "the gateway's acknowledgement")
    assert [(i.severity, i.resolved_at) for i in people.pagerduty.incidents] == [("critical", None)]
    assert 1 <= people.pagerduty.incidents[0].triggers <= await _tries(service, "pagerduty", "trigger")
    mails = [str(mail["To"]) for mail in people.mail.messages]
    assert set(mails) == {"lead@example.test"}
    assert 1 <= len(mails) <= await _tries(service, "email", "trigger")


async def _tries(service, receiver: str, action: str) -> int:
    """How often messages to a receiver were handed over: once each, and again only where no answer came in time."""
    sql = "select sum(greatest(attempts, 1))::int from outbox where receiver = $1 and action = $2"
    return await service.pool.fetchval(sql, receiver, action)


async def _is_let_go(service, people, gate, budgets) -> None:
    budgets.write_text(BUDGETS.format(amount="100"))
    await service.running.kill_worker(0, signal.SIGTERM)
    await service.running.start_worker(0)

    async def let_go():
        return gate.check(team="search").allowed

    await service.until(let_go, "the gate to let go")

    async def resolved():
        return people.pagerduty.incidents[0].resolved_at is not None

    await service.until(resolved, "the page to end")
    assert len(people.pagerduty.incidents) == 1
    # One trigger and then one resolve; what was repeated was repeated because no answer had come.
    said = [event["event_action"] for event in people.pagerduty.events]
    assert [word for word, _ in groupby(said)] == ["trigger", "resolve"]
    for word in ("trigger", "resolve"):
        assert said.count(word) <= await _tries(service, "pagerduty", word)
    assert len({event["dedup_key"] for event in people.pagerduty.events}) == 1
