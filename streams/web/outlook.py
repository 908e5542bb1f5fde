"""What lies ahead of budgets, and what holds of them now: the newest word of each method, and all measures in force."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import msgspec

from schemas.instants import HOUR, format_instant, to_datetime, to_micros
from schemas.money import format_usd
from schemas.readers import COMMANDS
from streams.core.forecast import words
from streams.web import queries
from streams.web.answers import Estimate, MeasureNow, PastError

#: FORECAST speaks once a minute: who has said nothing for so long has nothing to say of now.
SAID_WITHIN = 2 * HOUR


class Outlook(NamedTuple):
    """By budget and value."""

    estimates: dict[tuple[str, str], list[tuple[int, Estimate]]]
    measures: dict[tuple[str, str], list[MeasureNow]]

    def of(self, row: asyncpg.Record) -> dict[str, Any]:
        """What concerns one row of the ledger: forecasts of its own period alone, the best first."""
        key = row["budget_id"], row["value"]
        start = to_micros(row["period_start"])
        found = [estimate for period_start, estimate in self.estimates.get(key, ()) if period_start == start]
        return {"forecasts": found, "measures": self.measures.get(key, [])}


NOTHING_AHEAD = Outlook({}, {})


async def outlook(pool: asyncpg.Pool, rows: Sequence[asyncpg.Record], now: int) -> Outlook:
    """What lies ahead of these budgets."""
    values = {(row["budget_id"], row["scope_id"]): row["value"] for row in rows}
    ids = sorted({row["budget_id"] for row in rows})
    estimates: dict[tuple[str, str], list[tuple[int, Estimate]]] = {}
    for row in await queries.newest_forecasts(pool, ids, to_datetime(now - SAID_WITHIN)):
        said = to_micros(row["period_start"]), estimate_of(row, now)
        estimates.setdefault((row["budget_id"], row["value"]), []).append(said)
    measures: dict[tuple[str, str], list[MeasureNow]] = {}
    for row in await queries.measures(pool, ids, to_datetime(now)):
        value = values.get((row["budget_id"], row["scope_id"]))
        if value is not None:
            measures[row["budget_id"], value] = measures_of(row["body_text"].encode())
    return Outlook(estimates, measures)


def measures_of(body: bytes) -> list[MeasureNow]:
    """Everything that a command asks for. One of an earlier release names a single measure by its action."""
    command = COMMANDS.decode(body)
    held = [msgspec.to_builtins(measure) for measure in command.measures]
    if not held:
        held = [{"action": command.action, "rpm": command.rpm_limit, "tpm": command.tpm_limit}]
    ordered = sorted(held, key=lambda measure: _GRADES.index(measure["action"]) if measure["action"] in _GRADES else 9)
    return [MeasureNow(**measure, dry_run=command.dry_run) for measure in ordered]


#: The strictest first.
_GRADES = ("block", "downgrade", "cap_tokens", "rate_limit")


def estimate_of(row: asyncpg.Record, now: int) -> Estimate:
    """What one method says, from its newest row."""
    limit, projected = int(row["limit_nanos"]), int(row["projected_nanos"])
    exhausts = row["exhausts_at"]
    judged = row["judged"]
    return Estimate(
        method=row["method"],
        is_best=row["is_best"],
        said_at=text(row["said_at"]),
        projected=format_usd(projected),
        low=usd(row["low_nanos"]),
        high=None if row["high_nanos"] is None else usd(row["high_nanos"]),
        projected_percent=percent(projected * 1_000 // limit if limit > 0 else 0),
        exhausts_at=text(exhausts) if exhausts else None,
        exhausts=_in_words(row, limit, now),
        past_error=PastError(
            statements=judged,
            mean_percent=percent(row["error_permille"]) if judged else None,
            bias_percent=percent(row["bias_permille"]) if judged else None,
        ),
    )


def _in_words(row: asyncpg.Record, limit: int, now: int) -> str:
    if int(row["spent_nanos"]) >= limit:
        return "100 % is passed already"
    if row["exhausts_at"] is None:
        return "will not pass 100 %"
    return "will pass 100 % " + words(to_micros(row["exhausts_at"]), row["timezone"], now)


def percent(permille: int) -> str:
    """Thousandths as a percentage with one decimal."""
    sign = "-" if permille < 0 else ""
    return f"{sign}{abs(permille) // 10}.{abs(permille) % 10}"


def usd(nanos: Any) -> str:
    """An amount as a decimal text."""
    # numeric in PostgreSQL: integers here, since a Decimal would round what is longer than its context.
    return format_usd(int(nanos))


def text(moment: datetime) -> str:
    """A column's instant in RFC 3339."""
    return format_instant(to_micros(moment))
