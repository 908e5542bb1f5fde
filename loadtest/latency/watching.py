"""Those who see a probe arrive: the ledger's rows, the alerts topic, and a gateway's real gate."""

import asyncio
from types import TracebackType
from typing import Self

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer

from gateway.gate import ThrottleGate
from gateway.publisher import UsagePublisher
from schemas.alerts import Alert
from schemas.commands import ThrottleCommand
from schemas.instants import SECOND
from schemas.topics import ALERTS
from streams.clock import WallClock, elapsed_s

#: How often the ledger is asked; a figure of the ledger is too high by half of this on average.
LEDGER_POLL_S = 0.02
KINDS = ("ledger", "alert", "gateway")
_decode_alert = msgspec.json.Decoder(Alert).decode


class Watchers:
    """``async with Watchers(…)`` watches in the background; ``publisher`` is what probes are sent with."""

    def __init__(self, bootstrap: str, database_url: str) -> None:
        connection = {"bootstrap_servers": bootstrap}
        self.publisher = UsagePublisher(connection, source="//gateway/probe")
        self._gate = ThrottleGate(connection, gateway="probe", on_command=self._commanded)
        self._alerts = AIOKafkaConsumer(ALERTS, bootstrap_servers=bootstrap, auto_offset_reset="latest")
        self._database_url = database_url
        self._clock = WallClock()
        #: Intended send times by team, microseconds since 1970.
        self._sent: dict[str, int] = {}
        #: By kind and team: when it was seen.
        self._seen: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self._tasks: list[asyncio.Task[None]] = []
        #: Probes that the ledger had not seen when the last one was sent.
        self.backlog = 0

    async def __aenter__(self) -> Self:
        await self._alerts.start()
        await self._gate.start(ready_within_s=30.0)
        await self.publisher.start()
        self._tasks = [asyncio.create_task(self._watch_alerts()), asyncio.create_task(self._watch_ledger())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.publisher.stop()
        await self._gate.stop()
        await self._alerts.stop()

    def expect(self, sent: dict[str, int]) -> None:
        """Which probes will be sent, and when."""
        self._sent = sent

    async def answered(self, within_s: float) -> None:
        """Wait until every probe was seen by all, at most so long."""
        self.backlog = len(self._sent) - len(self._seen["ledger"])
        until = elapsed_s() + within_s
        while any(self.missing().values()) and elapsed_s() < until:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)

    def missing(self) -> dict[str, int]:
        """How many probes each watcher has not seen."""
        return {kind: len(self._sent) - len(seen) for kind, seen in self._seen.items()}

    def latencies_ms(self) -> dict[str, list[float]]:
        """Of the probes seen, by watcher."""
        return {
            kind: [(at - self._sent[team]) / 1_000 for team, at in seen.items()] for kind, seen in self._seen.items()
        }

    def probes(self) -> tuple[dict[str, int], dict[str, int]]:
        """When each probe was to be sent, and when a gateway refused its team, microseconds since 1970."""
        return dict(self._sent), dict(self._seen["gateway"])

    def _note(self, kind: str, team: str) -> None:
        if team in self._sent:
            self._seen[kind].setdefault(team, self._clock.now())

    def _commanded(self, key: str, command: ThrottleCommand | None) -> None:
        """Called by the gate once the command is in its book; what counts is that calls are refused now."""
        if command is None or self._gate.check(team=command.target.scope_id).allowed:
            return
        self._note("gateway", command.target.scope_id)

    async def _watch_alerts(self) -> None:
        async for record in self._alerts:
            if record.value is not None:
                alert = _decode_alert(record.value)
                if alert.rule == "budget_threshold" and alert.status == "opened":
                    self._note("alert", alert.team_id)

    async def _watch_ledger(self) -> None:
        database = await asyncpg.connect(self._database_url)
        try:
            while True:
                now, seen = self._clock.now(), self._seen["ledger"]
                waiting = [team for team, sent in self._sent.items() if sent <= now + SECOND and team not in seen]
                if waiting:
                    rows = await database.fetch(
                        "select distinct team_id from ledger_cells where team_id = any($1) and cost_nanos > 0", waiting
                    )
                    for row in rows:
                        self._note("ledger", row["team_id"])
                await asyncio.sleep(LEDGER_POLL_S)
        finally:
            await database.close()
