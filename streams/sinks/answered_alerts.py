"""Alerts as they stand, found by what people type of them: for answers."""

import asyncpg
import msgspec

from schemas.alerts import Alert
from schemas.readers import ALERTS
from streams.sinks.postgres import storable

#: What people type instead of a dedup key: the beginning of its digest.
_SHORT_ID = "left(encode(sha256(convert_to(dedup_key, 'UTF8')), 'hex'), 8)"
_FIND = f"""
select dedup_key, body::text as body from alerts
where dedup_key = $1 or starts_with({_SHORT_ID}, $1) or starts_with(dedup_key, $1)
order by (dedup_key = $1) desc, ({_SHORT_ID} = $1) desc, stated_at desc limit 4
"""
_SHORT = f"select {_SHORT_ID} from (select $1::text as dedup_key) one"


#: Alerts of the same rule and hours about parts of what an alert is about, as their ``ancestors`` say.
_PARTS = """
select body::text as body from alerts
where rule = $1 and body->'ancestors' ? $2 and dedup_key <> $3
    and body->>'period_start' < $5 and body->>'period_end' > $4
order by dedup_key limit 200
"""


class AmbiguousError(ValueError):
    """More than one alert begins so."""


async def find_alert(pool: asyncpg.Pool, text: str) -> Alert | None:
    """The alert of a dedup key or an id, or the only one whose key or id begins so.

    Raises:
        AmbiguousError: there are several; the message names some.
    """
    rows = await pool.fetch(_FIND, storable(text)) if text else []
    if not rows:
        return None
    first = rows[0]["dedup_key"]
    if len(rows) > 1 and text not in (first, await pool.fetchval(_SHORT, first)):
        listed = ", ".join(row["dedup_key"] for row in rows[:3]) + (", …" if len(rows) > 3 else "")
        raise AmbiguousError(f"{text[:80]!r} may be {listed}: write more of it")
    return ALERTS.convert(msgspec.json.decode(rows[0]["body"]))


async def parts_of(pool: asyncpg.Pool, alert: Alert) -> list[Alert]:
    """The alerts that told of parts of the same: of an organisation's spike those of its teams."""
    if not alert.period_start or not alert.period_end:
        return []
    scope = storable(f"{alert.scope_type}:{alert.scope_id}")
    rows = await pool.fetch(_PARTS, alert.rule, scope, storable(alert.dedup_key), alert.period_start, alert.period_end)
    return [ALERTS.convert(msgspec.json.decode(row["body"])) for row in rows]
