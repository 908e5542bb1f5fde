"""The value of an event on a batch topic: all records of one fetch of one partition, untouched."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import faust
from faust.types import AppT, EventT, Message

from streams.transport.fetching import Unread


class RecordBatch(NamedTuple):
    """The records of one fetch, in offset order.

    ``begin`` is where the previous batch of this partition ended (or where reading was set to), ``end`` is where this
    one ends: everything in ``[begin, end)`` that the broker still has is in the batch. Gaps inside are records that
    compaction or a transaction marker took away. The records can be read once.
    """

    topic: str
    partition: int
    begin: int
    end: int
    unread: Unread

    @property
    def records(self) -> list[Any]:
        """All records at once."""
        return [record for chunk in self.unread.chunks() for record in chunk]

    def chunks(self) -> Iterator[list[Any]]:
        """The records, some hundreds at a time: what is dropped before the next are read stays cheap."""
        return self.unread.chunks()


class BatchSchema(faust.Schema):
    """Hands the batch through: decoding is the agent's, which can dead-letter one record without losing the rest."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """The decode coroutine that Faust's conductor calls for each message."""

        async def decode(message: Message, *, propagate: bool = True) -> EventT:
            return app.create_event(None, message.value, None, message)

        return decode
