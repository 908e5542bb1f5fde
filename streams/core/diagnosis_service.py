"""Judges the workers, the ledger, the clocks, and what waits to be counted. Pure."""

from schemas.instants import SECOND
from streams.core.facts import Bounds, ClockFact, Facts, Finding, Level, skipped

#: A restart reads about so many changelog records a second.
RESTORED_PER_S = 200_000


def workers(facts: Facts, bounds: Bounds) -> Finding:
    """Whether the consumer group has members and is stable."""
    if facts.groups is None:
        return skipped("workers", "the broker")
    restless = [group for group in facts.groups if group.members and group.state != "Stable"]
    if restless:
        lines = tuple(f"{group.name} is {group.state} since {group.watched_s:.0f} s" for group in restless)
        found = "; ".join(
            f"group {group.name} has {group.members} members and does not come to rest" for group in restless
        )
        todo = "nothing is counted meanwhile: see which worker comes and goes (its log ends with the reason)"
        return Finding("workers", Level.FAIL, found, todo, lines)
    active = [group for group in facts.groups if group.is_active]
    start = "start one (`sluice worker`); one that ended says why in the last line of its log"
    if not active:
        return Finding("workers", Level.FAIL, f"no worker is active in group {bounds.app_id}", start)
    idle = [stage for stage in facts.stages if not any(stage in group.stages for group in active)]
    if idle:
        found = f"no worker runs {', '.join(idle)}"
        return Finding("workers", Level.FAIL, found, start, tuple(f"{group.name}: {group.members}" for group in active))
    found = ", ".join(f"{group.members} active in group {group.name}" for group in active) + ": stable"
    spare = [
        f"{group.name}: stop {group.members - bounds.partitions}"
        for group in active
        if group.members > bounds.partitions
    ]
    if spare:
        todo = f"{'; '.join(spare)}: only {bounds.partitions} can have a partition"
        return Finding("workers", Level.WARN, found, todo)
    return Finding("workers", Level.OK, found)


def lag(facts: Facts, bounds: Bounds) -> Finding:
    """How long the oldest record of each topic has waited to be read."""
    if facts.reaches is None:
        return skipped("lag", "the broker")
    unread: dict[str, int] = {}
    oldest: dict[str, float] = {}
    for reach in facts.reaches:
        if reach.unread_us is None:
            continue
        start = reach.begin if reach.committed is None else max(reach.committed, reach.begin)
        name = reach.topic if reach.group in ("", bounds.app_id) else f"{reach.topic} ({reach.group})"
        unread[name] = unread.get(name, 0) + max(0, reach.end - start)
        oldest[name] = max(oldest.get(name, 0.0), reach.unread_us / SECOND)
    lines = tuple(f"{name}: {unread[name]:,} unread, the oldest for {span(oldest[name])}" for name in sorted(unread))
    worst = max(oldest.values(), default=0.0)
    if worst < min(bounds.lag_s_warn, bounds.lag_s_fail):
        found = "everything is read" if not unread else f"{sum(unread.values()):,} records are on their way"
        return Finding("lag", Level.OK, found)
    level = Level.FAIL if worst >= bounds.lag_s_fail else Level.WARN
    found = f"{sum(unread.values()):,} records are unread, the oldest for {span(worst)}"
    todo = f"start more workers (up to {bounds.partitions} share the partitions), or see what holds up those that run"
    return Finding("lag", level, found, todo, lines)


def tables(facts: Facts, bounds: Bounds) -> Finding:
    """What a restart would read, and whether the workers that are active have recovered."""
    if facts.changelogs is None:
        return skipped("tables", "the broker")
    total = sum(facts.changelogs.values())
    seconds = total / RESTORED_PER_S
    found = f"a restart reads up to {total:,} changelog records, about {span(seconds)}" if total else "they are empty"
    lines = tuple(f"{name}: {records:,}" for name, records in sorted(facts.changelogs.items()))
    active = any(group.is_active and "meter" in group.stages for group in facts.groups or ())
    silent = facts.ledger_silent_s
    if active and silent is not None and silent >= bounds.silent_s_warn:
        level = Level.FAIL if silent >= bounds.silent_s_fail else Level.WARN
        said = f"workers are active, but the ledger has heard no watermark for {span(silent)}; {found}"
        todo = "they recover their tables or are stuck: their log says `ready` when it is over"
        return Finding("tables", level, said, todo, lines)
    if seconds >= bounds.restore_s_warn:
        todo = "see that the changelogs are compacted (cleanup policy, the broker's log cleaner)"
        return Finding("tables", Level.WARN, found, todo, lines)
    return Finding("tables", Level.OK, found)


def database(facts: Facts, bounds: Bounds) -> Finding:
    """Whether PostgreSQL can be reached."""
    if facts.database_problem:
        todo = "start PostgreSQL, or mend database_url (`sluice check-config`)"
        return Finding("database", Level.FAIL, f"{facts.database} {facts.database_problem}", todo)
    return Finding("database", Level.OK, f"{facts.database} answers")


def schema(facts: Facts, bounds: Bounds) -> Finding:
    """Whether the ledger is migrated to this version."""
    schema = facts.schema
    if schema is None:
        return skipped("schema", "the database")
    if schema.newer is not None:
        found = f"the database is at migration {schema.newer}, which this version does not know"
        return Finding("schema", Level.FAIL, found, "run the newer version of Sluice")
    if schema.edited:
        todo = "restore these files: an applied migration is never edited"
        return Finding("schema", Level.FAIL, "migrations were applied with other content", todo, schema.edited)
    if schema.missing:
        found = f"{len(schema.missing)} migrations are missing"
        return Finding(
            "schema", Level.FAIL, found, "start a worker or the API of this version: both migrate", schema.missing
        )
    return Finding("schema", Level.OK, "the ledger is migrated to this version")


def ledger(facts: Facts, bounds: Bounds) -> Finding:
    """Whether the ledger is where METER and the broker are."""
    if facts.slots is None:
        return skipped("ledger", "the broker and a migrated database")
    ahead, lost, lacking = [], [], []
    for slot in facts.slots:
        where = f"{slot.topic}[{slot.partition}]"
        furthest = max(slot.ledger_next, slot.committed or 0)
        if furthest > slot.end:
            who = "the ledger" if slot.ledger_next > slot.end else "the group"
            ahead.append(f"{where} ends at {slot.end}, and {who} has read up to {furthest}")
            continue
        lacking_s = (slot.lacking_us or 0) / SECOND
        if slot.ledger_next < (slot.committed or 0) and lacking_s >= bounds.lag_s_fail:
            lacking.append(f"{where}: {slot.ledger_next} of {slot.committed} that METER has counted")
        # One offset can be a transaction's marker, which nobody reads.
        elif 0 < slot.ledger_next < slot.begin - 1:
            lost.append(f"{where} begins at {slot.begin}, and the ledger is at {slot.ledger_next}")
    if ahead:
        todo = "topics were created anew or cut: raise topic_epoch and change app_id (docs/runbook.md)"
        return Finding("ledger", Level.FAIL, "the ledger is ahead of the broker", todo, tuple(ahead))
    if lacking:
        todo = (
            "was the database restored or replaced? Stop the workers, then: kafka-consumer-groups.sh --bootstrap-server"
            f" {bounds.servers} --group {bounds.app_id} --topic spend.cells.v1 --reset-offsets --to-earliest --execute"
        )
        return Finding("ledger", Level.FAIL, "the ledger lacks what METER has counted", todo, tuple(lacking))
    if lost:
        todo = "raise retention.ms of these topics, and import the bills of that time"
        return Finding("ledger", Level.WARN, "records were deleted before the ledger had them", todo, tuple(lost))
    if not any(slot.ledger_next for slot in facts.slots):
        return Finding("ledger", Level.OK, "nothing was counted yet")
    return Finding("ledger", Level.OK, "the ledger has what METER has counted, and nothing beyond the broker's end")


def dead_letters(facts: Facts, bounds: Bounds) -> Finding:
    """What was not counted and waits."""
    if facts.letters is None:
        return skipped("dead letters", "the broker")
    waiting = [found for found in facts.letters if found.waiting or found.in_doubt]
    count = sum(found.waiting + found.in_doubt for found in waiting)
    lines = tuple(
        f"{found.topic}: {found.waiting + found.in_doubt:,} wait"
        + (f" ({found.in_doubt:,} in doubt)" if found.in_doubt else "")
        + f"; the newest: {found.newest_reason}: {found.newest_detail}"
        for found in waiting
    )
    if not count:
        return Finding("dead letters", Level.OK, "none wait")
    level = Level.FAIL if count > bounds.dead_letters_max else Level.WARN
    todo = "look (`sluice dlq show`), mend what is wrong, then `sluice dlq replay --dry-run` and `sluice dlq replay`"
    return Finding("dead letters", level, f"{count:,} records were not counted and wait", todo, lines)


def clock(facts: Facts, bounds: Bounds) -> Finding:
    """Whether this machine, the broker and the database agree on the time."""
    known = [clock for clock in facts.clocks if not clock.problem]
    unknown = tuple(f"{clock.name}: {clock.problem}" for clock in facts.clocks if clock.problem)
    if not known:
        if unknown:
            return Finding("clock", Level.WARN, "clocks cannot be compared", "see the reasons below", unknown)
        return skipped("clock", "the broker or the database")
    worst = max(abs(clock.ahead_us) for clock in known) / SECOND
    lines = tuple(f"this machine is {_ahead(clock)} {clock.name}" for clock in known)
    if worst < min(bounds.skew_s_warn, bounds.skew_s_fail):
        level = Level.WARN if unknown else Level.OK
        names = " and ".join(clock.name for clock in known)
        todo = "see the reasons below" if unknown else ""
        return Finding(
            "clock", level, f"this machine agrees with {names} within {max(worst, 0.1):.1f} s", todo, unknown
        )
    level = Level.FAIL if worst >= bounds.skew_s_fail else Level.WARN
    todo = (
        "set the clocks by NTP (`chronyc tracking`): events look late or from the future, periods end at the wrong time"
    )
    return Finding("clock", level, f"clocks are {worst:.1f} s apart", todo, lines + unknown)


def _ahead(clock: ClockFact) -> str:
    seconds = clock.ahead_us / SECOND
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"


def span(seconds: float) -> str:
    """A length of time in the largest whole unit.

    >>> span(0.2), span(42), span(240), span(7_200), span(200_000)
    ('1 s', '42 s', '4 min', '2 h', '2 d')
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(1, round(seconds))} s"
