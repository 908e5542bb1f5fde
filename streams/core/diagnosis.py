"""What is well and what is not with a deployment, from facts that were gathered about it. Pure: no probe, no clock.

Every item is one line of plain words, and what to do where it is not well. What cannot be judged because something else
is away is skipped, so that one cause gives one failure.
"""

from collections.abc import Callable, Iterable

from streams.core import diagnosis_kafka as kafka
from streams.core import diagnosis_service as service
from streams.core.facts import Bounds, Facts, Finding, Level

#: In the order in which to mend them.
JUDGES: tuple[Callable[[Facts, Bounds], Finding], ...] = (
    kafka.broker, kafka.topics, kafka.partitions, kafka.replicas, kafka.cleanup, kafka.retention, kafka.arrival_time,
    kafka.record_size, service.database, service.schema, service.clock, service.workers, service.tables, service.lag,
    service.ledger, service.dead_letters,
)  # fmt: skip


def diagnose(facts: Facts, bounds: Bounds) -> list[Finding]:
    """Every item, in the order in which to mend them."""
    return [judge(facts, bounds) for judge in JUDGES]


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing fails; warnings are allowed."""
    return all(finding.level is not Level.FAIL for finding in findings)
