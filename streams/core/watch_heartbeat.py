"""What the heartbeat says: whether this deployment does its work, check by check. The doctor's judges, and our own."""

from collections.abc import Iterable, Sequence

from schemas.alerts import Alert
from schemas.instants import SECOND
from streams.core import diagnosis_kafka, diagnosis_service
from streams.core.facts import Bounds, Facts, Finding, Level, skipped
from streams.core.watch_look import Look, WatchPolicy

BODY_MAX = 10_000
_JUDGES = (
    diagnosis_kafka.broker, diagnosis_kafka.topics, diagnosis_kafka.replicas, diagnosis_service.database,
    diagnosis_service.workers, diagnosis_service.tables, diagnosis_service.lag, diagnosis_service.ledger,
)  # fmt: skip


def bounds_of(policy: WatchPolicy, partitions: int, servers: str) -> Bounds:
    """Where the doctor's judges fail for a heartbeat."""
    return Bounds(
        partitions=partitions,
        app_id=policy.app_id,
        servers=servers,
        lag_s_warn=policy.lag_us / SECOND,
        lag_s_fail=policy.lag_page_us / SECOND,
        silent_s_warn=policy.ledger_us / SECOND,
        silent_s_fail=policy.lag_page_us / SECOND,
    )


def judged(facts: Facts, look: Look, alerts: Iterable[Alert], bounds: Bounds, policy: WatchPolicy) -> list[Finding]:
    """Every check, in the order in which to mend them: it beats only while none of them fails."""
    found = [judge(facts, bounds) for judge in _JUDGES]
    return [*found, outbox(look, policy), watched(alerts)]


def outbox(look: Look, policy: WatchPolicy) -> Finding:
    """Whether messages leave. Who cannot be told any other way is told by a heartbeat that fails."""
    if look.receivers is None:
        return skipped("outbox", "the database")
    stuck = [each for each in look.receivers if each.waiting and each.oldest_us >= policy.delivery_us]
    lines = tuple(f"{each.name}: {each.waiting:,} wait; {each.last_error}" for each in stuck)
    if not stuck:
        return Finding(
            "outbox", Level.OK, f"{sum(each.waiting for each in look.receivers):,} messages are on their way"
        )
    oldest = max(each.oldest_us for each in stuck)
    found = f"messages have waited for {diagnosis_service.span(oldest / SECOND)}"
    return Finding("outbox", Level.FAIL, found, "mend the receivers' addresses, keys or network", lines)


def watched(alerts: Iterable[Alert]) -> Finding:
    """What Sluice has to say of itself. What pages fails: the page may not get through, this will."""
    told = [alert for alert in alerts if not alert.historic]
    lines = tuple(alert.summary for alert in told)
    if not lines:
        return Finding("watch", Level.OK, "nothing is wrong with Sluice itself")
    level = Level.FAIL if any(alert.tier == "page" for alert in told) else Level.WARN
    return Finding("watch", level, f"{len(lines)} alerts about Sluice itself are open", "see below", lines)


def without_database(problem: str, bounds: Bounds) -> list[Finding]:
    """Where the database does not answer, which nothing else can be judged without."""
    facts = Facts(addresses=(), database="PostgreSQL", database_problem=f"does not answer: {problem}")
    return [diagnosis_service.database(facts, bounds)]


def unseen(problem: str) -> list[Finding]:
    """Where no look could be taken at all."""
    return [Finding("watch", Level.FAIL, f"this deployment cannot be looked at: {problem}", "run `sluice doctor`")]


def body(findings: Sequence[Finding], who: str) -> str:
    """The checks as text, those that fail first, for whoever opens the dead man's switch."""
    order = (Level.FAIL, Level.WARN, Level.OK, Level.SKIP)
    lines = [f"Sluice {who}"]
    for finding in sorted(findings, key=lambda each: order.index(each.level)):
        lines.append(
            f"{finding.level:<4} {finding.item}: {finding.found}" + (f"; {finding.todo}" if finding.todo else "")
        )
        lines += [f"       - {line}" for line in finding.details[:5]]
    return "\n".join(lines)[:BODY_MAX]
