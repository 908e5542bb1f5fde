"""Budgets that change while a service runs: a new one counts what was spent before, a changed one holds at once."""

from uuid import uuid4

from gateway.gate import ThrottleGate
from schemas.budgets import Budget, Period, Rung
from schemas.commands import Measure, Target
from streams.clock import WallClock, elapsed_s
from streams.sinks.definitions import KafkaDefinitions
from tests.e2e.conftest import run_service

LADDER = (Rung(50, "info"), Rung(100, "emergency", (Measure("block"),)))
WITHIN_S = 5.0


def _budget(dollars: int) -> Budget:
    return Budget(
        id="search-daily", match=(("team", "search"),), target=Target("team", "search"), mode="enforce",
        amount_nanos=dollars * 10**9, period=Period("day"), thresholds=LADDER,
    )  # fmt: skip


async def _spend(service, dollars: float) -> None:
    tokens = round(dollars / 2.5 * 1_000_000)
    for part in range(0, tokens, 40_000):
        data = {
            "provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "chat",
            "input_tokens": min(40_000, tokens - part),
        }  # fmt: skip
        await service.send(data, id=uuid4().hex, key=uuid4().hex)


async def test_a_budget_defined_in_flight_counts_what_was_spent_holds_changes_and_lets_go(
    fresh_kafka, postgres, tmp_path
):
    database = await postgres.create_database(f"e2e_{uuid4().hex[:12]}")
    async with run_service(fresh_kafka, database, tmp_path / "state", workers=2) as service:
        store = KafkaDefinitions(
            {"bootstrap_servers": fresh_kafka.bootstrap}, service.pool, WallClock().now,
            service.running.settings.partitions, idempotence=fresh_kafka.is_real_kafka,
        )  # fmt: skip
        gate = ThrottleGate({"bootstrap_servers": fresh_kafka.bootstrap}, gateway="gw-1", ack_interval_s=0.2)
        await gate.start()

        async def gate_is(allowed: bool) -> bool:
            return gate.check(team="search", feature="chat").allowed is allowed

        async def takes(wanted: bool, what: str) -> None:
            began = elapsed_s()
            await service.until(lambda: gate_is(wanted), what)
            took = elapsed_s() - began
            print(f"{what}: {took:.2f} s")
            assert took < WITHIN_S

        try:
            await _spend(service, 3.0)
            await service.caught_up("usage.events.v1")
            assert gate.check(team="search").allowed
            # Nothing more is sent: what was spent before is all there is to know.
            await store.publish([_budget(2)], by="ops@example.test", reason="too late, and yet in time")
            await takes(False, "a new budget that is overspent already closes the gate")

            async def all_of_it() -> bool:
                return await service.pool.fetchval("select spent_nanos from budget_status") == 3 * 10**9

            # The gate may close on the first source partition's opening, with what is under way.
            await service.until(all_of_it, "what was spent before to be counted whole")
            await store.publish([_budget(10)], by="ops@example.test", reason="raised")
            await takes(True, "a raised amount reaches running workers")
            await _spend(service, 8.0)
            await takes(False, "what is spent before and after adds up")
            assert await store.withdraw("budget|search-daily", by="ops@example.test", reason="enough")
            await takes(True, "a withdrawn budget lets go")

            async def history():
                rows = await store.history("budget|search-daily")
                return len(rows) == 3 and rows

            rows = await service.until(history, "the ledger to know every version")
            assert [(row.version, row.reason, row.definition is None) for row in rows] == [
                (3, "enough", True), (2, "raised", False), (1, "too late, and yet in time", False),
            ]  # fmt: skip
        finally:
            await gate.stop()
