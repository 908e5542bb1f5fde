"""The answers that BUDGET hears, of gateways and of executors of training runs: both are other people's programs."""

import logging
from collections.abc import Iterator
from typing import Any

from schemas import topics
from schemas.commands import JobAck, ThrottleAck
from schemas.readers import ACKS, JOB_ACKS
from schemas.versions import UnknownVersionError, Versioned
from streams import metrics
from streams.agents.shell import decoded
from streams.core.budget_terms import RUN
from streams.core.definitions import Definitions
from streams.transport import Outgoing, RecordBatch

logger = logging.getLogger("sluice.budget")

READERS: dict[str, Versioned[Any]] = {topics.GATEWAY_ACKS: ACKS, topics.JOB_ACKS: JOB_ACKS}


def answers_in(batch: RecordBatch) -> Iterator[tuple[Any, ThrottleAck | JobAck]]:
    """Each record with the answer in it; what cannot be read is passed over, loudly."""
    reader = READERS[batch.topic]
    for record in batch.records:
        try:
            for _, found in decoded([record], reader.decode):
                yield record, found
        except UnknownVersionError as error:
            logger.error("the acknowledgement at offset %d is passed over: %s", record.offset, error)


def asked_by(answer: ThrottleAck | JobAck, definitions: Definitions) -> tuple[str, str]:
    """The budget, and of a ``per`` budget the value, whose command an answer is to: everybody agrees where it lives."""
    if isinstance(answer, JobAck):
        return RUN + answer.run_id, ""
    target, _, budget_id = answer.command_key.rpartition("|")
    budget = definitions.of_budget(budget_id)
    return budget_id, target.partition(":")[2] if budget is not None and budget.per else ""


def sent_on(batch: RecordBatch, record: Any, place: int) -> Outgoing:
    """The record again, in the partition where its budget lives."""
    metrics.ACKS_ROUTED.inc()
    return Outgoing(batch.topic, place, record.key or b"", record.value, tuple(record.headers or ()))
