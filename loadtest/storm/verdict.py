"""What came through a storm: the promises, each kept or broken, and the figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from loadtest.bench.figures import summary
from loadtest.storm.town import IDS, PER_MINUTE, Town

SPAN_S = 60.0
_STATES = "select receiver, state, count(*) as n from outbox group by 1, 2 order by 1, 2"
#: What was folded into a digest counts as told where the digest was.
_UNTOLD = """
select o.receiver, o.state, o.reason, o.last_error, count(*) as n from outbox o
left join outbox d on d.notification_id = o.digest_id
where o.state not in ('sent', 'superseded') and not (o.state = 'digested' and d.state = 'sent')
group by 1, 2, 3, 4
"""
_TOLD = """
select receiver, count(distinct group_key) filter (where action = 'trigger') as opened,
    count(distinct group_key) filter (where action = 'resolve') as ended
from outbox where group_key <> '' and copy_of is null and state in ('sent', 'digested') group by 1
"""
_FIRST = """
select g.group_key, extract(epoch from min(o.sent_at) - min(g.opened_at)) as seconds
from notify_groups g join outbox o on o.group_key = g.group_key
where o.receiver = $1 and o.state = 'sent' and o.copy_of is null group by 1
"""
_COUNTS = """
select (select count(*) from notify_groups) as groups, (select count(*) from alerts) as alerts,
    (select count(*) from alerts where status <> 'resolved') as open,
    (select count(*) from outbox where reason = 'digest') as digests,
    (select count(*) from outbox where copy_of is not null) as copies,
    (select count(*) from outbox_tries where outcome <> 'sent') as failed_tries,
    (select max(attempts) from outbox) as tries_max,
    (select extract(epoch from max(sent_at) - min(owed_at)) from outbox) as seconds
"""
#: A group whose alerts had all ended, as far as was read by then, begins anew with the next: an incident for each end.
_INCIDENTS = """
select thread_key, count(*) as n from outbox
where receiver = $1 and action = 'resolve' and copy_of is null and state = 'sent' group by 1
"""
_STILL = """
select (select count(*) from outbox where state = 'owed')
    + (select count(*) from notify_groups where due_at is not null)
    + (select count(*) from alerts where status <> 'resolved')
"""


async def is_over(pool: asyncpg.Pool) -> bool:
    """Whether nobody is owed anything and every alert has ended."""
    return await pool.fetchval(_STILL) == 0


def densest(arrivals: Sequence[float], span_s: float = SPAN_S) -> int:
    """The most arrivals in any span.

    >>> densest([0.0, 1.0, 59.0, 60.5, 61.5], 60.0), densest([])
    (3, 0)
    """
    times, first, most = sorted(arrivals), 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - span_s:
            first += 1
        most = max(most, last - first + 1)
    return most


async def figures(pool: asyncpg.Pool, town: Town) -> dict[str, Any]:
    """What was sent, how soon, and how dense."""
    counts = await pool.fetchrow(_COUNTS)
    states: dict[str, dict[str, int]] = {}
    for row in await pool.fetch(_STATES):
        states.setdefault(row["receiver"], {})[row["state"]] = row["n"]
    first = {}
    for name in ("pagerduty", "slack", "webhook"):
        values = [float(row["seconds"]) for row in await pool.fetch(_FIRST, IDS[name])]
        first[name] = summary(values) if values else {}
    return {
        **{name: float(value or 0) if name == "seconds" else value for name, value in dict(counts).items()},
        "messages": states,
        "first_word_s": first,
        "requests": {name: sum(map(len, ways)) for name, ways in town.arrivals().items()},
        "most_in_a_minute": {name: max(map(densest, ways), default=0) for name, ways in town.arrivals().items()},
        "limit_per_minute": PER_MINUTE,
        "incidents": len(town.pagerduty.incidents),
        "incidents_resolved": sum(one.resolved_at is not None for one in town.pagerduty.incidents),
    }


async def broken(pool: asyncpg.Pool, town: Town, groups: int, alerts: int) -> list[str]:
    """Every promise that was not kept, in words."""
    counts = await pool.fetchrow(_COUNTS)
    found = []
    if (counts["groups"], counts["alerts"], counts["open"]) != (groups, alerts, 0):
        found.append(f"{dict(counts)} instead of {groups} groups and {alerts} alerts, all ended")
    incidents = Counter(one.dedup_key for one in town.pagerduty.incidents)
    wanted = {row["thread_key"]: row["n"] for row in await pool.fetch(_INCIDENTS, IDS["pagerduty"])}
    if len(wanted) != groups or incidents != wanted:
        odd = {key: (count, wanted.get(key, 0)) for key, count in incidents.items() if count != wanted.get(key)}
        found.append(f"{len(incidents)} incidents at PagerDuty for {groups} groups; opened and to be opened: {odd}")
    unresolved = sum(one.resolved_at is None for one in town.pagerduty.incidents)
    if unresolved:
        found.append(f"{unresolved} incidents never ended")
    found += [f"not told: {dict(row)}" for row in await pool.fetch(_UNTOLD)]
    told = {row["receiver"]: row for row in await pool.fetch(_TOLD)}
    for name in ("pagerduty", "slack", "webhook"):
        row = told.get(IDS[name])
        reached = (row["opened"], row["ended"]) if row else (0, 0)
        if reached != (groups, groups):
            found.append(f"{IDS[name]} heard of {reached[0]} groups and of the end of {reached[1]}")
    found += _of_limits(town.arrivals())
    for name, standin in (("pagerduty", town.pagerduty), ("slack", town.slack), ("webhook", town.webhook)):
        if standin.refused:
            found.append(f"{name} refused {len(standin.refused)} messages: {standin.refused[0]}")
    found += [
        f"{name} had to answer 429 to {door.held} requests above its limit"
        for name, door in town.doors.items()
        if door.held
    ]
    return found


def _of_limits(arrivals: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    return [
        f"{name} was asked {densest(times)} times in a minute and may be {PER_MINUTE[name]} times"
        for name, ways in arrivals.items()
        for times in ways
        if densest(times) > PER_MINUTE[name]
    ]
