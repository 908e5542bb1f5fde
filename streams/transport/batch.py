"""The value of an event on a batch topic: all records of one fetch of one partition, untouched."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import faust
from faust.types import AppT, EventT, Message


class RecordBatch(NamedTuple):
    """The records of one fetch, in offset order.

    ``begin`` is where the previous batch of this partition ended (or where reading was set to), ``end`` is one past the
    last record: everything in ``[begin, end)`` that the broker still has is in ``records``. Gaps inside are records
    that compaction or a transaction marker took away.
    """

    topic: str
    partition: int
    begin: int
    end: int
    records: Sequence[Any]


class BatchSchema(faust.Schema):
    """Hands the batch through: decoding is the agent's, which can dead-letter one record without losing the rest."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """The decode coroutine that Faust's conductor calls for each message."""

        async def decode(message: Message, *, propagate: bool = True) -> EventT:
            return app.create_event(None, message.value, None, message)

        return decode
