"""Topic names and how each topic is kept. All topics have the same number of partitions, so that partition p of
every topic, and the state that belongs to it, live on one worker."""

from typing import NamedTuple

USAGE_EVENTS = "usage.events.v1"
USAGE_GPU = "usage.gpu.v1"
USAGE_BILLING = "usage.billing.v1"
SPEND_CELLS = "spend.cells.v1"
SPEND_SCOPES = "spend.scopes.v1"
SPEND_HOURS = "spend.hours.v1"
USAGE_SIGNALS = "usage.signals.v1"
ALERTS = "alerts.v1"
GATEWAY_COMMANDS = "gateway.commands.v1"
GATEWAY_ACKS = "gateway.acks.v1"
BUDGETS = "budgets.v1"
JOB_COMMANDS = "jobs.commands.v1"
JOB_ACKS = "jobs.acks.v1"

DAY_MS = 24 * 3600 * 1000


class Topic(NamedTuple):
    """A topic and how it is kept. ``retention_ms`` is None for compacted topics, which keep each key's last record."""

    name: str
    key: str
    retention_ms: int | None
    max_message_bytes: int = 1_048_576
    #: The broker's arrival time is the record's time: lateness is judged against it, and no producer can forge it.
    broker_time: bool = False
    #: Of compacted topics: for so long every record stays, also those that newer ones of their key supersede.
    #: Consumers that lag by less than this still see every statement in order.
    compaction_lag_ms: int = 600_000
    #: A new segment is begun this often, None for the broker's own rule (a gigabyte, or a week): brokers compact
    #: nothing in the segment that they write to.
    segment_ms: int | None = None

    @property
    def compacted(self) -> bool:
        """Whether the last record of each key is kept for ever."""
        return self.retention_ms is None

    def config(self) -> dict[str, str]:
        """The broker's configuration entries for this topic."""
        shared = {"max.message.bytes": str(self.max_message_bytes)}
        if self.broker_time:
            shared["message.timestamp.type"] = "LogAppendTime"
        if self.segment_ms is not None:
            shared["segment.ms"] = str(self.segment_ms)
        if self.retention_ms is None:
            return shared | {
                "cleanup.policy": "compact",
                "min.compaction.lag.ms": str(self.compaction_lag_ms),
                "delete.retention.ms": str(7 * DAY_MS),
            }
        return shared | {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


def dead_letter(topic: str) -> str:
    """The dead-letter topic of a topic.

    >>> dead_letter(USAGE_EVENTS)
    'usage.events.v1.dlt'
    """
    return f"{topic}.dlt"


#: What producers write. They accept up to 4 MiB so that an oversized value is dead-lettered with a reason
#: by Sluice rather than lost in a producer's log.
INPUTS = (
    Topic(USAGE_EVENTS, "team", 7 * DAY_MS, 4_194_304, broker_time=True),
    Topic(USAGE_GPU, "GPU uuid", 7 * DAY_MS, 4_194_304, broker_time=True),
    Topic(USAGE_BILLING, "billing account", 30 * DAY_MS, 4_194_304, broker_time=True),
)
STATEMENTS = (
    Topic(SPEND_CELLS, "slot | cell id | segment | writer", None),
    Topic(SPEND_SCOPES, "slot | scope and period | segment | writer", None),
    Topic(SPEND_HOURS, "scope | hour | part", None),
    Topic(USAGE_SIGNALS, "scope", 7 * DAY_MS),
    Topic(ALERTS, "dedup key", None),
    Topic(GATEWAY_COMMANDS, "scope | budget id", None),
    Topic(GATEWAY_ACKS, "the command's key", 7 * DAY_MS),
    Topic(BUDGETS, "kind | id", None),
    Topic(JOB_COMMANDS, "run", None),
    Topic(JOB_ACKS, "run", 7 * DAY_MS),
)
DEAD_LETTERS = tuple(Topic(dead_letter(t.name), t.key, 30 * DAY_MS, 4_194_304 + 65_536) for t in INPUTS)
ALL = INPUTS + STATEMENTS + DEAD_LETTERS
