"""Reads PostgreSQL several times a second: what the demo shows, waits for and judges. Only reads."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from schemas.instants import hour_of, to_datetime, to_micros
from streams.demo.scenario import Calendar
from streams.demo.verdict import Finding

POLL_S = 0.25

_SPEND = """
select team_id, feature, sum(cost_nanos)::bigint as day,
    coalesce(sum(cost_nanos) filter (where hour = $2), 0)::bigint as hour, sum(requests)::bigint as requests
from ledger_cells where hour >= $1 group by 1, 2
"""
_SOURCES = "select slot, next_offset, stream_time, dead_letters, duplicates from ledger_sources"
_BUDGETS = """
select distinct on (budget_id) budget_id, period, amount_nanos::bigint, spent_nanos::bigint, crossed_percent,
    commanded, mode, (max(overshoot_nanos) over (partition by budget_id))::bigint as overshoot_nanos
from budget_status order by budget_id, period_start desc
"""
_ALERTS = """
select dedup_key, episode, rule, scope_id, body->>'threshold' as threshold, tier, status, summary, opened_at,
    resolved_at, historic, severity from alerts order by opened_at, dedup_key
"""
_OUTBOX = "select state, count(*) as n from outbox group by 1"
_GROUPS = """
select to_char(hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24:00:00"Z"') as hour,
    team_id, feature, model, category, sum(cost_nanos)::text as nanos, sum(requests)::text as requests
from ledger_cells group by 1, 2, 3, 4, 5
"""
_TOTALS = """
select count(distinct cell_id) as cells, coalesce(sum(cost_nanos), 0)::text as nanos,
    coalesce(sum(reconciled_cost_nanos), 0)::text as reconciled,
    coalesce(sum(unpriced_requests), 0)::bigint as unpriced from ledger_cells
"""
_COMMANDS = "select action, count(*) as n from gateway_command_history group by 1"
_ACKS = "select count(*) from gateway_acks"
_TAKEN = "select command_id, gateway from gateway_acks order by command_id, gateway"


@dataclass
class Budget:
    """Where a budget stands."""

    budget_id: str
    period: str
    amount_nanos: int
    spent_nanos: int
    crossed_percent: int
    commanded: str
    mode: str
    #: What was spent beyond the rung that blocks while it was due, at its largest in any period.
    overshoot_nanos: int = 0


@dataclass
class Spend:
    """What a feature has cost: since the played day began, and in the running hour."""

    day_nanos: int
    hour_nanos: int
    requests: int


@dataclass
class View:
    """The newest that was read."""

    #: By (team, feature).
    spend: dict[tuple[str, str], Spend] = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    severities: dict[str, str] = field(default_factory=dict)
    #: ``{command id: gateways that acknowledged it}``.
    acks: dict[str, list[str]] = field(default_factory=dict)
    #: ``{slot: one past the last offset in the ledger}``.
    next_offsets: dict[str, int] = field(default_factory=dict)
    #: How far event time has come in each slot of calls and GPUs, microseconds since 1970.
    slot_times: dict[str, int] = field(default_factory=dict)
    #: And in the one that is furthest.
    stream_time: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    owed: int = 0
    given_up: int = 0


class Watch:
    """``async with`` polls in the background; ``view`` is the newest state, ``check`` raises what ended it."""

    def __init__(self, pool: asyncpg.Pool, calendar: Calendar) -> None:
        self._pool = pool
        self._calendar = calendar
        self._task: asyncio.Task[None] | None = None
        self.view = View()

    async def __aenter__(self) -> "Watch":
        await self.look()
        self._task = asyncio.create_task(self._poll(), name="demo-watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, asyncpg.PostgresError):
                await self._task

    def check(self) -> None:
        """Raise what ended the polling, if anything did."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def _poll(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Read everything once."""
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            view = View()
            sources = await connection.fetch(_SOURCES)
            # A bill's partition says nothing about how far the day has come.
            metered = [row for row in sources if not row["slot"].startswith("usage.billing")]
            view.slot_times = {row["slot"]: to_micros(row["stream_time"]) for row in metered}
            view.stream_time = max(view.slot_times.values(), default=0)
            view.next_offsets = {row["slot"]: row["next_offset"] for row in sources}
            view.dead_letters = sum(row["dead_letters"] for row in sources)
            view.duplicates = sum(row["duplicates"] for row in sources)
            hour = to_datetime(hour_of(max(view.stream_time, self._calendar.day)))
            for row in await connection.fetch(_SPEND, to_datetime(self._calendar.day), hour):
                view.spend[row["team_id"], row["feature"]] = Spend(row["day"], row["hour"], row["requests"])
            for row in await connection.fetch(_BUDGETS):
                view.budgets.append(Budget(**{name: row[name] for name in Budget.__dataclass_fields__}))
            for row in await connection.fetch(_ALERTS):
                view.findings.append(_finding(row))
                view.severities[row["dedup_key"]] = row["severity"]
            for row in await connection.fetch(_TAKEN):
                view.acks.setdefault(row["command_id"], []).append(row["gateway"])
            counts = {row["state"]: row["n"] for row in await connection.fetch(_OUTBOX)}
            view.owed, view.given_up = counts.get("owed", 0), counts.get("given_up", 0)
        self.view = view

    async def groups(self) -> dict[tuple[str, ...], tuple[int, int]]:
        """Nanodollars and requests per (hour, team, feature, model, category), as the ledger has them."""
        rows = await self._pool.fetch(_GROUPS)
        return {
            (row["hour"], row["team_id"], row["feature"], row["model"], row["category"]): (
                int(row["nanos"]),
                int(row["requests"]),
            )
            for row in rows
        }

    async def totals(self) -> dict[str, int]:
        """Cells, nanodollars, reconciled nanodollars, unpriced requests, commands by action, acks."""
        row = await self._pool.fetchrow(_TOTALS)
        found = {name: int(row[name]) for name in ("cells", "nanos", "reconciled", "unpriced")}
        for command in await self._pool.fetch(_COMMANDS):
            found[command["action"]] = command["n"]
        found["acks"] = await self._pool.fetchval(_ACKS)
        return found


def _finding(row: Any) -> Finding:
    return Finding(
        dedup_key=row["dedup_key"],
        rule=row["rule"],
        scope_id=row["scope_id"],
        threshold=row["threshold"] or "",
        tier=row["tier"],
        status=row["status"],
        summary=row["summary"],
        opened_at=to_micros(row["opened_at"]),
        resolved_at=to_micros(row["resolved_at"]) if row["resolved_at"] else None,
    )
