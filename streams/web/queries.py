"""What the API asks of PostgreSQL. Sums run over slots and segments: a cell is the sum of its rows."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from schemas.instants import to_micros
from streams.sinks.alert_records import SHORT_ID

#: What spend can be grouped and filtered by, and how the ledger has it.
DIMENSIONS: Mapping[str, str] = {
    "team": "team_id",
    "feature": "feature",
    "model": "model",
    "provider": "provider",
    "org": "org_id",
    "cost_center": "cost_center",
    "project": "project_id",
    "environment": "environment",
    "request_type": "request_type",
    "user_tier": "user_tier",
    "category": "category",
}
#: What spend can be grouped by besides: both in UTC.
TIMES: Mapping[str, str] = {
    "hour": "to_char(hour at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    "day": "to_char(hour at time zone 'UTC', 'YYYY-MM-DD')",
}
#: What only the rows of spenders know.
SPENDERS: Mapping[str, str] = {"key": "key_id", "user": "user_id"}
#: Bills of models have the category of calls, and no requests.
_OF_CALLS = "category = 'llm' and requests > 0"
MONEY = ("cost_nanos", "reported_cost_nanos", "reconciled_cost_nanos", "estimated_cost_nanos")
COUNTS = (
    "requests",
    "successes",
    "errors",
    "cache_hits",
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "audio_tokens",
    "gpu_milliseconds",
    "unpriced_requests",
    "unverified_late",
)
#: Rows in one answer: a ``per`` budget may have as many values as there are sessions.
BUDGETS_MAX = 2_000
_SUMS = ", ".join(f"coalesce(sum({column}), 0)::numeric as {column}" for column in (*MONEY, *COUNTS))


def _conditions(filters: Mapping[str, str]) -> tuple[str, list[Any]]:
    """SQL after ``where hour >= $1 and hour < $2`` for equality filters; names come from ``DIMENSIONS`` only."""
    parts, values = [], []
    for name, value in filters.items():
        values.append(value)
        parts.append(f" and {DIMENSIONS[name]} = ${len(values) + 2}")
    return "".join(parts), values


async def spend(
    pool: asyncpg.Pool,
    bounds: tuple[datetime, datetime],
    group_by: Sequence[str],
    filters: Mapping[str, str],
    limit: int,
) -> tuple[asyncpg.Record, list[asyncpg.Record]]:
    """The total of a span, and up to ``limit`` groups of it: the dearest first, or in order of time.

    Both come from one statement, so the groups always add up to the total they are shown with.
    """
    where, values = _conditions(filters)
    expressions = [f"{(DIMENSIONS | TIMES)[name]} as {_quoted(name)}" for name in group_by]
    positions = ", ".join(_quoted(name) for name in group_by)
    times = [_quoted(name) for name in group_by if name in TIMES]
    inner = ", ".join([*expressions, *MONEY, *COUNTS])
    sets = f"grouping sets (({positions}), ())" if group_by else "()"
    is_total = f"grouping({positions})" if group_by else "1"
    order = ", ".join([f"{is_total} desc", *times, "cost_nanos desc", *map(_quoted, group_by)])
    sql = (
        f"with cells as (select {inner} from ledger_cells where hour >= $1 and hour < $2{where})"
        f" select {positions + ', ' if group_by else ''}{_SUMS}"
        f" from cells group by {sets} order by {order} limit {int(limit) + 1}"
    )
    total, *rows = await pool.fetch(sql, *bounds, *values)
    return total, rows


def _quoted(name: str) -> str:
    return f'"{name}"'


async def spend_by_day(
    pool: asyncpg.Pool, bounds: tuple[datetime, datetime], filters: Mapping[str, str]
) -> AsyncIterator[asyncpg.Record]:
    """Rows of (day, team, feature, model) with their sums, streamed from one snapshot, in that order."""
    where, values = _conditions(filters)
    keys = f"{TIMES['day']} as day, team_id as team, feature, model"
    sql = (
        f"select {keys}, {_SUMS} from ledger_cells where hour >= $1 and hour < $2{where}"
        " group by 1, 2, 3, 4 order by 1, 2, 3, 4"
    )
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        async for row in connection.cursor(sql, *bounds, *values, prefetch=1_000):
            yield row


async def budgets(
    pool: asyncpg.Pool, team: str, ids: Sequence[str] = (), *, only: str | None = None
) -> list[asyncpg.Record]:
    """The newest period of every budget (of a ``per`` budget of each value), the fullest first.

    Where ``team`` is set only those that throttle it, and those of ``ids``. ``only`` names one budget.
    """
    return list(
        await pool.fetch(
            "select * from (select distinct on (budget_id, value) * from budget_status"
            "  where $3::text is null or budget_id = $3"
            "  order by budget_id, value, period_start desc) newest"
            " where $1 = '' or (scope_type = 'team' and scope_id = $1) or budget_id = any($2)"
            " order by spent_nanos::numeric / greatest(amount_nanos, 1) desc, budget_id, value limit $4",
            team,
            list(ids),
            only,
            BUDGETS_MAX,
        )
    )


async def budget_periods(
    pool: asyncpg.Pool, ids: Sequence[str], start: datetime, end: datetime
) -> list[asyncpg.Record]:
    """What budgets stated of the periods within these bounds; of a ``per`` budget a row for each value."""
    sql = "select * from budget_status where budget_id = any($1) and period_start >= $2 and period_start < $3"
    return list(await pool.fetch(sql, list(ids), start, end))


class Counted(NamedTuple):
    """The cells that a budget counts in some hours."""

    bounds: tuple[datetime, datetime]
    #: For each dimension the values that it may have.
    conditions: Mapping[str, Sequence[str]]
    #: A dimension, and its values that are not counted.
    nobody: tuple[str, Sequence[str]] | None = None
    #: LIKE patterns of models whose calls are not counted.
    exempt: Sequence[str] = ()

    def where(self) -> tuple[str, list[Any]]:
        """SQL after ``where``, of which ``$1`` and ``$2`` are the bounds."""
        values: list[Any] = [*self.bounds]
        where = "hour >= $1 and hour < $2"
        for name, allowed in self.conditions.items():
            values.append(list(allowed))
            where += f" and {DIMENSIONS[name]} = any(${len(values)})"
        if self.nobody is not None:
            values.append(list(self.nobody[1]))
            where += f" and {DIMENSIONS[self.nobody[0]]} <> all(${len(values)})"
        if self.exempt:
            values.append(list(self.exempt))
            where += f" and not (category = 'llm' and model like any(${len(values)}))"
        return where, values


async def showback(pool: asyncpg.Pool, by: str, counted: Counted) -> list[asyncpg.Record]:
    """Spend of the cells that a budget counts, the dearest first (in order of time by the hour)."""
    where, values = counted.where()
    order = "name" if by in TIMES else "nanos desc, name"
    sql = (
        f"select {(DIMENSIONS | TIMES)[by]} as name, sum(cost_nanos)::numeric as nanos from ledger_cells"
        f" where {where} group by 1 having sum(cost_nanos) <> 0 order by {order}"
    )
    return list(await pool.fetch(sql, *values))


async def spenders(
    pool: asyncpg.Pool, by: str, counted: Counted, who: Mapping[str, Sequence[str]], nobody: Sequence[str] = ()
) -> list[asyncpg.Record]:
    """The same by keys and users, or of some keys and users alone.

    What the cells of calls hold beyond the keys and users that are known is ``__other__``; GPUs and bills have none.

    Args:
        who: the values that ``key`` or ``user`` may have.
        nobody: ``key`` or ``user``, where it may not be empty.
    """
    where, values = counted.where()
    narrowed = "hour >= $1 and hour < $2"
    for name, allowed in who.items():
        values.append(list(allowed))
        narrowed += f" and {SPENDERS[name]} = any(${len(values)})"
    for name in nobody:
        narrowed += f" and {SPENDERS[name]} not in ('', '__unattributed__')"
    rest = ""
    if by in SPENDERS and not who and not nobody:
        rest = (
            f" union all select '__other__', coalesce((select sum(cost_nanos) from counted where {_OF_CALLS}), 0)"
            " - coalesce((select sum(nanos) from named), 0)"
            f" union all select '', cost_nanos from counted where not ({_OF_CALLS})"
        )
    order = "name" if by in TIMES else "nanos desc, name"
    sql = (
        f"with counted as (select * from ledger_cells where {where}), named as ("
        f"select {(DIMENSIONS | TIMES | SPENDERS)[by]} as name, nanos from counted join ("
        "select cell_id, slot, segment, revision, key_id, user_id, cost_nanos as nanos from ledger_spenders"
        f" where {narrowed}) as rows using (cell_id, slot, segment, revision)) "
        "select name, sum(nanos)::numeric as nanos from"
        f" (select name, nanos from named{rest}) as shares group by 1 having sum(nanos) <> 0 order by {order}"
    )
    return list(await pool.fetch(sql, *values))


OPEN_STATUSES = ("opened", "updated")


async def alerts(
    pool: asyncpg.Pool, statuses: Sequence[str], rule: str | None, team: str | None, limit: int
) -> list[asyncpg.Record]:
    """Alerts as they stand: open ones first, then what ended; of each the newest."""
    return list(
        await pool.fetch(
            f"select *, body::text as body_text, {SHORT_ID} as short_id from alerts"
            " where (cardinality($1::text[]) = 0 or status = any($1))"
            " and ($2::text is null or rule = $2) and ($3::text is null or team_id = $3)"
            " order by (status = 'resolved'), coalesce(resolved_at, occurred_at) desc, dedup_key limit $4",
            list(statuses),
            rule,
            team,
            limit,
        )
    )


async def count_open_alerts(pool: asyncpg.Pool) -> list[asyncpg.Record]:
    """Open alerts by rule and severity."""
    return list(
        await pool.fetch(
            "select rule, severity, count(*) as alerts from alerts where status = any($1) group by 1, 2",
            list(OPEN_STATUSES),
        )
    )


async def throttles(pool: asyncpg.Pool, now: datetime, team: str) -> list[asyncpg.Record]:
    """Commands that restrict somebody now, newest first, each with what gateways answered to that very command."""
    return list(
        await pool.fetch(
            "select c.*, c.body::text as body_text, coalesce(a.acks, '[]')::text as acks from gateway_commands c"
            " left join lateral (select json_agg(json_build_object('gateway', gateway,"
            "   'applied_at', to_char(applied_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),"
            "   'rejected_count', rejected_count) order by gateway) as acks"
            "  from gateway_acks where command_id = c.command_id) a on true"
            " where c.action <> 'allow' and c.expires_at > $1 and not c.dry_run"
            " and ($2 = '' or (c.scope_type = 'team' and c.scope_id = $2))"
            " order by c.issued_at desc, c.command_key",
            now,
            team,
        )
    )


async def newest_forecasts(pool: asyncpg.Pool, ids: Sequence[str], since: datetime) -> list[asyncpg.Record]:
    """Of each of these budgets and values what every method said last, the best first."""
    return list(
        await pool.fetch(
            "select * from (select distinct on (budget_id, value, method) * from budget_forecasts"
            "  where budget_id = any($1) and said_at >= $2 order by budget_id, value, method, said_at desc) newest"
            " order by budget_id, value, is_best desc, method",
            list(ids),
            since,
        )
    )


async def measures(pool: asyncpg.Pool, ids: Sequence[str], now: datetime) -> list[asyncpg.Record]:
    """What these budgets ask of gateways now, dry runs too."""
    return list(
        await pool.fetch(
            "select budget_id, scope_id, body::text as body_text from gateway_commands"
            " where budget_id = any($1) and action <> 'allow' and expires_at > $2",
            list(ids),
            now,
        )
    )


async def job_commands(pool: asyncpg.Pool, run_ids: Sequence[str]) -> list[asyncpg.Record]:
    """What was asked of these runs, the oldest first, each with what executors answered to that very command."""
    return list(
        await pool.fetch(
            "select c.*, coalesce(a.acks, '[]')::text as acks from job_commands c"
            " left join lateral (select json_agg(json_build_object('executor', executor, 'outcome', outcome,"
            "   'detail', detail,"
            "   'applied_at', to_char(applied_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))"
            "   order by applied_at, executor) as acks"
            "  from job_acks where command_id = c.command_id) a on true"
            " where c.run_id = any($1) order by c.issued_at, c.revision",
            list(run_ids),
        )
    )


async def count_unanswered_jobs(pool: asyncpg.Pool, now: datetime) -> int:
    """Commands to training runs that hold now and that nobody has answered."""
    found: int = await pool.fetchval(
        "select count(*) from job_commands c where not dry_run and expires_at > $1"
        " and not exists (select 1 from job_acks a where a.command_id = c.command_id)",
        now,
    )
    return found


async def sources(pool: asyncpg.Pool) -> list[asyncpg.Record]:
    """How far the ledger is in every source partition."""
    return list(await pool.fetch("select * from ledger_sources order by slot"))


async def newest_stream_time(pool: asyncpg.Pool) -> int | None:
    """How far event time has come anywhere, microseconds since 1970; None before the first watermark."""
    newest = await pool.fetchval("select max(stream_time) from ledger_sources")
    # A partition without events states the beginning of time.
    return (to_micros(newest) or None) if newest is not None else None


async def outbox_counts(pool: asyncpg.Pool) -> dict[str, int]:
    """Messages to receivers by state: owed, sent, given_up, superseded, digested."""
    rows = await pool.fetch("select state, count(*) as messages from outbox group by state")
    return {row["state"]: row["messages"] for row in rows}


_RECEIVERS = """
select receiver, coalesce(bool_and(opened_at is null), true) as up, coalesce(max(waits), 0)::float8 as oldest_s from (
    select receiver, opened_at, null as waits from notify_receivers
    union all
    select receiver, null, extract(epoch from now() - min(owed_at)) from outbox where state = 'owed' group by receiver
) found group by receiver order by receiver
"""


async def receivers(pool: asyncpg.Pool) -> list[asyncpg.Record]:
    """Whether each receiver works (``up``), and how long the oldest message waits that it is owed (``oldest_s``)."""
    return list(await pool.fetch(_RECEIVERS))
