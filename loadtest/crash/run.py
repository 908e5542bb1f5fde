"""One seed from its plan to its verdict."""

import asyncio
import logging
import shutil
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from loadtest.crash.budgeting import BUDGETS, REFUNDED, amounts, budgets_file, period_start, planned_nanos
from loadtest.crash.compare import Check, compare
from loadtest.crash.expected import Expected
from loadtest.crash.faults import carry_out
from loadtest.crash.load import EVENTS, bill, load_of
from loadtest.crash.parts import DATABASE, Parts
from loadtest.crash.plan import Plan
from loadtest.crash.reading import INPUTS, Topics, raw_of, read_found
from loadtest.crash.sender import Sender
from loadtest.oracle import Prices, dollars
from streams.clock import elapsed_s

logger = logging.getLogger("crash-rig")

#: From the end of load and faults until every record was acknowledged by every stage.
SETTLE_DEADLINE_S = 120.0
#: For timers, receivers (a page waits for its dead worker's lease), burn that is forgotten after a minute of silence,
#: and the last commit after that.
AGREE_DEADLINE_S = 90.0
POLL_S = 0.5
#: Of its amount; the refund takes the blocked budget from 120 % to about 40 %.
REFUND_PERCENT = 80
_REACHED = "select slot, next_offset from ledger_sources where slot like $1"


class Verdict(NamedTuple):
    """What came out of a seed."""

    seed: int
    checks: list[Check]
    #: What went wrong before anything could be compared; empty if nothing did.
    broken: str
    #: Figures for people.
    facts: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether everything is as it must be."""
        return not self.broken and bool(self.checks) and not any(check.differences for check in self.checks)


class Run:
    """One seed on parts of its own in ``folder``."""

    def __init__(
        self, plan: Plan, folder: Path, say: Callable[[str], None], *, small_disk: bool, keep: bool = False
    ) -> None:
        self.plan = plan
        self.facts: dict[str, Any] = {}
        self._folder = folder
        self._print = say
        self._small_disk = small_disk
        self._keep = keep
        self._anchor = datetime.now(UTC)
        self._sends = load_of(plan)
        self._amounts = amounts(planned_nanos(self._sends, Prices()))
        start = period_start(self._anchor)
        self._expected = Expected(Prices(), self._amounts, (start, start + timedelta(days=1)))
        self._ids = {send.id for send in self._sends if send.enveloped}
        self._told: dict[str, list[Any]] = {}
        self._begun = elapsed_s()
        self._silence_s = 0.0

    async def verdict(self) -> Verdict:
        """Do it all; never raises for what the service did."""
        checks: list[Check] = []
        broken = ""
        entered = elapsed_s()
        budgets = budgets_file(self._anchor, self._amounts)
        try:
            async with Parts(self._folder, budgets, self._say, self._small_disk) as parts:
                self.facts["started_s"] = round(elapsed_s() - entered, 1)
                checks = await self._carry_out(parts)
                self.facts["restarts"] = parts.running.restarts
                self._save_logs()
        except Exception as error:
            logger.exception("the run broke off")
            broken = "; ".join(_reasons(error))
        self.facts["took_s"] = round(elapsed_s() - entered, 1)
        found = Verdict(self.plan.seed, checks, broken, self.facts)
        if found.holds and not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)
        return found

    async def _carry_out(self, parts: Parts) -> list[Check]:
        # The direct ways: what the rig itself reads is not what is being tried out.
        topics = Topics(parts.kafka.bootstrap, parts.running.settings.partitions, parts.running.settings.app_id)
        self._anchor = datetime.now(UTC)
        sender = Sender(f"127.0.0.1:{parts.kafka_proxy.port}", parts.running.settings.partitions, self._anchor)
        try:
            self._ids |= set(await sender.start())
            self._begun = elapsed_s()
            watching = asyncio.create_task(self._watch(parts), name="watch the ledger")
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(sender.play(self._sends, self._begun))
                    tasks.create_task(carry_out(parts, self.plan.faults, self._begun))
                self._say(f"the load is over: {sender.confirmed:,} records confirmed, {sender.repeated:,} sent again")
                await parts.mend()
                checks = await self._judge(parts, topics)
            finally:
                watching.cancel()
            if not any(check.differences for check in checks):
                await self._refund(parts, sender)
                checks = await self._judge(parts, topics)
        except BaseException:
            self._save_logs()
            raise
        finally:
            await sender.stop()
        self.facts |= {"records": sender.confirmed, "events": self._expected.counted, "silence_s": self._silence_s}
        self.facts["usd"] = dollars(sum(cell["cost_nanos"] for cell in self._expected.cells.values()))
        return checks

    async def _refund(self, parts: Parts, sender: Sender) -> None:
        """A credit for a team that is blocked, and a kill at the same moment: it must be let go, once."""
        budget = next(budget for budget in BUDGETS if budget.scope_id == REFUNDED)
        amount = dollars(-self._amounts[budget.id] * REFUND_PERCENT // 100)
        self._say(f"a credit of {amount} USD for {REFUNDED}, and worker 0 is killed")
        self._ids.add("refund")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sender.play([bill("refund", 0.0, REFUNDED, amount)], elapsed_s()))
            await parts.running.kill_worker(0, signal.SIGKILL)
        await parts.bring_back(0)

    async def _judge(self, parts: Parts, topics: Topics) -> list[Check]:
        """Wait until everything was taken in, then compare, a few times: timers and receivers need a moment."""
        waited = elapsed_s()
        await self._settled(parts, topics)
        self.facts["settled_s"] = max(self.facts.get("settled_s", 0.0), round(elapsed_s() - waited, 1))
        fresh = [raw_of(record) for record in await topics.read(INPUTS)]
        await asyncio.to_thread(self._expected.take, fresh)
        self._expected.settle()
        until = elapsed_s() + AGREE_DEADLINE_S
        while True:
            incidents = [incident.dedup_key for incident in parts.people.pagerduty.incidents]
            found = await read_found(topics, parts.postgres.url(DATABASE), self._told, incidents)
            checks = await asyncio.to_thread(compare, self._expected, found, self._ids)
            if elapsed_s() > until or not any(check.differences for check in checks):
                return checks
            await asyncio.sleep(POLL_S)

    async def _settled(self, parts: Parts, topics: Topics) -> None:
        lag: Mapping[str, int] = {"nothing is known yet": 1}
        try:
            async with asyncio.timeout(SETTLE_DEADLINE_S):
                quiet = 0
                # Twice in a row: between two stages there is a moment when neither has it.
                while quiet < 2:
                    lag = await topics.lag()
                    quiet = 0 if lag else quiet + 1
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            await parts.tell()
            raise TimeoutError(f"a stall: after {SETTLE_DEADLINE_S:.0f} s without faults these lag: {lag}") from None

    async def _watch(self, parts: Parts) -> None:
        """The longest time for which a partition of calls, which all move, stood still in the ledger."""
        at: dict[str, int] = {}
        moved: dict[str, float] = {}
        while True:
            await asyncio.sleep(POLL_S)
            try:
                connection = await asyncpg.connect(parts.postgres.url(DATABASE), timeout=2)
                try:
                    rows = await connection.fetch(_REACHED, f"{EVENTS}@%")
                finally:
                    await connection.close()
            except Exception as error:
                logger.info("the ledger cannot be watched now: %r", error)
                continue
            now = elapsed_s()
            for slot, reached in rows:
                if at.get(slot) != reached:
                    self._silence_s = max(self._silence_s, round(now - moved.get(slot, now), 1))
                    at[slot], moved[slot] = reached, now

    def _say(self, text: str) -> None:
        line = f"{elapsed_s() - self._begun:6.1f} s  {text}"
        logger.info(line)
        self._print(f"  {line}")

    def _save_logs(self) -> None:
        """What a disk in memory would take with it."""
        kept = self._folder / "disk" / "state" / "kept"
        if kept.exists():
            shutil.copytree(kept, self._folder / "logs", dirs_exist_ok=True)


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in _reasons(inner)]
    return [f"{type(error).__name__}: {error}"]
