"""What the ledger says of a week, and which weekly reports were told: each once, however many workers there are."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any

import asyncpg

from schemas.instants import to_datetime, to_micros
from streams.core.notifying import Notification
from streams.sinks.owing import owe
from streams.sinks.postgres import storable, with_retries

#: Of one subject; a week with more open things than this is told by numbers anyway.
ROWS_MAX = 500
_FILTERS = {"team": " and team_id = $4", "model": " and model = $4", "all": " and $4 = ''"}
_SPENT = """
select team_id, feature, model, hour >= $2 as is_week, sum(requests)::numeric as requests,
    sum(cache_hits)::numeric as cache_hits, sum(input_tokens)::numeric as input_tokens,
    sum(cache_read_input_tokens)::numeric as cached_tokens, sum(output_tokens)::numeric as output_tokens,
    sum(cost_nanos)::numeric as cost_nanos, sum(gpu_milliseconds)::numeric as units
from ledger_cells where hour >= $1 and hour < $3{} group by 1, 2, 3, 4 order by 1, 2, 3, 4
"""
_USAGE = ("requests", "cache_hits", "input_tokens", "cached_tokens", "output_tokens", "cost_nanos", "units")
_MONTH = "select coalesce(sum(cost_nanos), 0)::numeric from ledger_cells where hour >= $1 and hour < $2{}"
#: The newest definition of each budget says what it matches, and who owns it.
_DEFINED = """
with defined as (
    select distinct on (key) key, body, withdrawn from definition_history where starts_with(key, 'budget|')
    order by key, version desc)
"""
_BUDGETS = f"""
{_DEFINED}
select s.budget_id, s.period, coalesce(f.timezone, 'UTC') as timezone, s.spent_nanos, s.amount_nanos,
    f.projected_nanos, f.exhausts_at
from (select distinct on (budget_id) * from budget_status where value = '' order by budget_id, period_start desc) s
left join defined d on d.key = 'budget|' || s.budget_id
left join lateral (
    select timezone, projected_nanos, exhausts_at from budget_forecasts
    where budget_id = s.budget_id and value = '' and period_start = s.period_start and is_best
    order by said_at desc limit 1) f on true
where s.period_end > $3 and not coalesce(d.withdrawn, false) and ($1 = 'all' or (s.scope_type = $1 and s.scope_id = $2)
    or d.body -> 'match' @> jsonb_build_array(jsonb_build_array($1::text, $2::text)))
order by s.spent_nanos / greatest(s.amount_nanos, 1) desc, s.budget_id limit {ROWS_MAX}
"""
_OWNER = f"""
{_DEFINED}
select body ->> 'owner' from defined where not withdrawn and body ->> 'owner' like '%@%'
    and body -> 'match' = jsonb_build_array(jsonb_build_array('team', $1::text)) order by key limit 1
"""
_RANK = "case h.severity when 'emergency' then 0 when 'critical' then 1 when 'warning' then 2 else 3 end"
_ALERTS = f"""
select distinct on (h.dedup_key, h.episode) h.severity, h.summary, h.stated_at
from alert_history h join alerts a on a.dedup_key = h.dedup_key
where h.stated_at >= $1 and h.stated_at < $2 and h.status <> 'resolved' and not h.historic
    and ($3 = 'all' or ($3 = 'team' and a.team_id = $4) or ($3 = 'model' and a.body -> 'labels' ->> 'model' = $4))
order by h.dedup_key, h.episode, {_RANK}, h.stated_at limit {ROWS_MAX * 20}
"""
_REVIEWS = f"""
select summary, owner, due_at from reviews where closed_at is null and ($1 = 'all' or ($1 = 'team' and team_id = $2))
order by due_at limit {ROWS_MAX}
"""
_TEAMS = "select distinct team_id from ledger_cells where hour >= $1 and hour < $2"
_TOLD = "select subject, name from weekly_reports where week = $1"
_TELL = """
insert into weekly_reports (subject, name, week, decided_at, body) values ($1, $2, $3, $4, $5)
on conflict do nothing returning subject
"""


class WeeklyReports:
    """Reads weeks from the ledger, and keeps which of them were told."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def week(
        self, subject: str, name: str, bounds: tuple[int, int, int], month: tuple[int, int], now: int
    ) -> Mapping[str, Any]:
        """The rows of one subject's week, as ``streams.core.weekly.facts_of`` takes them.

        Args:
            bounds: where the week before starts, where the week starts, and where it ends, in microseconds.
            month: from when until when the month is summed.
        """
        name = storable(name)
        where = _FILTERS[subject]
        async with (
            self._pool.acquire() as connection,
            connection.transaction(readonly=True, isolation="repeatable_read"),
        ):
            spent = await connection.fetch(_SPENT.format(where), *map(to_datetime, bounds), name)
            month_sql = _MONTH.format(where.replace("$4", "$3"))
            in_month = await connection.fetchval(month_sql, *map(to_datetime, month), name)
            budgets = await connection.fetch(_BUDGETS, subject, name, to_datetime(now))
            alerts = await connection.fetch(_ALERTS, *map(to_datetime, bounds[1:]), subject, name)
            reviews = await connection.fetch(_REVIEWS, subject, name)
        return {
            "spent": [
                (row["team_id"], row["feature"], row["model"], row["is_week"], tuple(int(row[each]) for each in _USAGE))
                for row in spent
            ],
            "month_nanos": int(in_month),
            "budgets": [_budget(row) for row in budgets],
            "alerts": [(row["severity"], row["summary"], to_micros(row["stated_at"])) for row in alerts],
            "reviews": [(row["summary"], row["owner"], to_micros(row["due_at"])) for row in reviews],
        }

    async def teams(self, start: int, end: int) -> list[str]:
        """Who spent anything between two instants."""
        rows = await self._pool.fetch(_TEAMS, to_datetime(start), to_datetime(end))
        return sorted(row["team_id"] for row in rows)

    async def owner(self, team: str) -> str:
        """The mail address of whoever owns the team's own budget; empty where none is known."""
        return await self._pool.fetchval(_OWNER, storable(team)) or ""

    async def told(self, week: date) -> Collection[tuple[str, str]]:
        """Subjects and names whose report of a week was told already."""
        return {(row["subject"], row["name"]) for row in await self._pool.fetch(_TOLD, week)}

    async def tell(
        self, subject: str, name: str, week: date, body: Mapping[str, Any], said: Sequence[Notification], now: int
    ) -> bool:
        """Keep a report and owe its messages, in one transaction; False where somebody else did before."""

        async def attempt() -> bool:
            async with self._pool.acquire() as connection, connection.transaction():
                row = (subject, storable(name), week, to_datetime(now), dict(body))
                if await connection.fetchval(_TELL, *row) is None:
                    return False
                await owe(connection, said)
                return True

        return await with_retries(attempt)


def _budget(row: asyncpg.Record) -> tuple[str, str, str, int, int, int | None, int | None]:
    projected, exhausts = row["projected_nanos"], row["exhausts_at"]
    return (
        row["budget_id"], row["period"], row["timezone"], int(row["spent_nanos"]), int(row["amount_nanos"]),
        None if projected is None else int(projected), None if exhausts is None else to_micros(exhausts),
    )  # fmt: skip
