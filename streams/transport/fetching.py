"""Fetches of whole record batches, read when they are looked at.

aiokafka makes a Python object with eleven fields of each record, in the thread that fetches; that is four times the
cost of reading the record itself, and a megabyte of it is out of the processor's cache before anybody looks. Here a
fetch hands over the broker's record batches as they came, and their records are read in small chunks by whoever folds
them. What aiokafka does around the records (checksums, positions, control batches, aborted transactions) is kept.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from aiokafka.consumer import fetcher as aio
from aiokafka.errors import CorruptRecordException

#: Records read at a time: their objects, 2 to 3 KB each, stay within a processor's cache.
CHUNK = 32


class Unread:
    """The record batches of one fetch of one partition: offsets ``[first, end)``.

    They can be read once, unless ``keep`` was called before: what is read is not kept for nothing.
    """

    __slots__ = ("_batches", "_is_kept", "_kept", "end", "first", "timestamp")

    def __init__(self, first: int, end: int, timestamp: int, batches: Sequence[Any]) -> None:
        self.first = first
        self.end = end
        #: Of the newest record, milliseconds since 1970.
        self.timestamp = timestamp
        self._batches = batches
        self._is_kept = False
        self._kept: list[list[Any]] | None = None

    @classmethod
    def of(cls, first: int, end: int, records: Sequence[Any]) -> "Unread":
        """Records that were read by other means."""
        unread = cls(first, end, 0, ())
        unread._is_kept, unread._kept = True, [list(records)]
        return unread

    def keep(self) -> None:
        """Let the records be read more than once: the topic has more than one agent."""
        self._is_kept = True

    def __bool__(self) -> bool:
        """Whether it covers anything; a marker that ends a transaction is an offset without a record."""
        return self.end > self.first

    def chunks(self) -> Iterator[list[Any]]:
        """The records in offset order, each list of one batch."""
        if self._is_kept:
            if self._kept is None:
                self._kept = list(self._read())
            return iter(self._kept)
        return self._read()

    def _read(self) -> Iterator[list[Any]]:
        for batch in self._batches:
            # chain, since a batch is an iterator that may be asked for itself only once.
            records = chain(batch)
            while chunk := list(islice(records, CHUNK)):
                if chunk[0].offset < self.first:
                    # A batch is sent whole, though it begins below the offset that was asked for.
                    chunk = [record for record in chunk if record.offset >= self.first]
                if chunk:
                    yield chunk


class UnreadResults(OrderedDict[Any, Any]):
    """What stands in for a fetcher's store of results: each result hands out its batches unread."""

    def __setitem__(self, tp: Any, result: Any) -> None:
        if type(result) is aio.FetchResult:
            result.getall = lambda max_records=None: _take(result)
        super().__setitem__(tp, result)


def hand_out_unread(fetcher: Any) -> None:
    """Make a fetcher's results unread ones, also those that it has by now."""
    if not isinstance(fetcher._records, UnreadResults):
        results = UnreadResults()
        for tp, result in fetcher._records.items():
            results[tp] = result
        fetcher._records = results


def _take(result: Any) -> Sequence[Any] | Unread:
    """``FetchResult.getall`` without reading the records."""
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return []
    source = result._partition_records
    first = source.next_fetch_offset
    batches, timestamp = [], 0
    for batch in _whole_batches(source):
        batches.append(batch)
        timestamp = max(timestamp, batch.max_timestamp)
    result._update_position()
    # What is left refers to itself: without this a megabyte a fetch would wait for the collector of cycles.
    source._records_iterator = source._records = None
    result._partition_records = None
    del result.getall
    return Unread(first, source.next_fetch_offset, timestamp, batches)


def _whole_batches(source: Any) -> Iterator[Any]:
    """The batches whose records count, as ``PartitionRecords._unpack_records`` chooses them."""
    while source._records.has_next():
        batch = source._records.next_batch()
        if source._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {source._tp}")
        is_control = batch.is_control_batch
        if source._isolation_level == aio.READ_COMMITTED and batch.producer_id is not None:
            source._consume_aborted_up_to(batch.base_offset)
            if is_control and source._contains_abort_marker(batch):
                source._aborted_producers.discard(batch.producer_id)
            is_control = is_control or (batch.is_transactional and batch.producer_id in source._aborted_producers)
        source.next_fetch_offset = max(source.next_fetch_offset, batch.next_offset)
        if not is_control:
            yield batch
