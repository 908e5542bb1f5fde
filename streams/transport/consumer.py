"""A Faust consumer that delivers each fetched batch of a partition as one event.

Stock Faust pays per event: four tasks and three turns of the loop each. Here the same machinery (conductor, streams,
flow control, acks, rebalances) handles one event per fetch instead. ``docs/transport.md`` states the invariants.

Commit position: the acknowledged prefix of the delivered batches, and nothing else. Faust's own gap and ack lists are
not used for batch topics, since they lose and double-count (docs/transport.md, with the evidence).
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import faust
import faust.transport.drivers.aiokafka as driver
from faust.transport.consumer import ensure_TP
from faust.types import TP, ConsumerMessage, EventT, StreamT
from faust.types.tuples import Message
from mode import Service

from streams.transport.batch import RecordBatch
from streams.transport.eager import Begun
from streams.transport.fetching import Unread, hand_out_unread

COORDINATION_POLL_S = 1.0
#: A fetch that finds nothing is asked for again after this long.
FETCH_POLL_S = 1.0


class LogTruncatedError(Exception):
    """The broker has less than what was read before: reading on would take new records for old ones."""


class _Span:
    """A delivered batch: ``[first, end)``, and whether it was acknowledged."""

    __slots__ = ("acked", "end", "first")

    def __init__(self, first: int, end: int) -> None:
        self.first = first
        self.end = end
        self.acked = False


class Hands(faust.Sensor):
    """Tells the consumer when an agent takes its copy of a batch into its hands."""

    def on_stream_event_in(self, tp: TP, offset: int, stream: StreamT, event: EventT) -> None:
        """An agent begins with an event; Faust has no other place to learn it from."""
        consumer: Any = event.app.consumer
        consumer.took(event.message)


class Fetched(dict[TP, Unread]):
    """What one fetch took, with the seek epoch at the moment of taking."""

    epoch: int = 0


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer. All seeks happen on its loop, so they never race with a fetch."""

    seek_epoch: int = 0

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust hard-codes 1 500 ms; an idle partition would hold back the others on the same broker for that long.
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Fetched:
        hand_out_unread(consumer._fetcher)
        fetched = Fetched(await super()._fetch_records(consumer, *args, **kwargs))
        # No await between taking the records and this line: the epoch belongs to exactly these records.
        fetched.epoch = self.seek_epoch
        return fetched

    def look_again(self) -> None:
        """Let a fetch that waits take what it passed over: a partition that was held back is wanted again."""
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._wake_fetch)

    def _wake_fetch(self) -> None:
        if self._consumer is not None:
            fetcher = self._consumer._fetcher
            for waiter in list(fetcher._fetch_waiters):
                fetcher._notify(waiter)

    async def seek_all(self, starts: Mapping[TP, int]) -> None:
        """Set the reading positions; what was taken before is void."""
        await self.call_thread(self._seek_all, starts)

    async def _seek_all(self, starts: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in starts.items():
            consumer.seek(driver.ensure_aiokafka_TP(tp), offset)
        self.seek_epoch += 1

    async def seek_back(self, starts: Mapping[TP, int], epoch: int) -> None:
        """Read again what was taken and not delivered, unless a later seek has set the positions anyway."""
        await self.call_thread(self._seek_back, starts, epoch)

    async def _seek_back(self, starts: Mapping[TP, int], epoch: int) -> None:
        if epoch != self.seek_epoch:
            return
        consumer = self._ensure_consumer()
        mine = {tp: offset for tp, offset in starts.items() if tp in self.assignment()}
        for tp, offset in mine.items():
            consumer.seek(driver.ensure_aiokafka_TP(tp), offset)

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """The group's committed offset of each partition; None where there is none."""
        return await self.call_thread(self._committed, list(tps))

    async def _committed(self, tps: list[TP]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        return {tp: await consumer.committed(driver.ensure_aiokafka_TP(tp)) for tp in tps}

    def end_of(self, tp: TP) -> int | None:
        """See ``BatchConsumer.end_of``. aiokafka's ``highwater`` fails for a partition that is going away."""
        if self._consumer is None:
            return None  # about to stop
        subscription = self._consumer._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        state = assignment.state_value(tp) if assignment is not None else None
        return None if state is None else state.highwater or 0

    def coordination_error(self) -> BaseException | None:
        """What ended our membership of the group, or suspends it until somebody is told; None while all is well."""
        coordinator = getattr(self._consumer, "_coordinator", None)
        if coordinator is None:
            return None
        task = coordinator._coordination_task
        ended: BaseException | None = task.exception() if task.done() and not task.cancelled() else None
        pending: BaseException | None = coordinator._pending_exception
        return ended or pending


class BatchConsumer(driver.Consumer):
    """See the module's text."""

    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._spans: defaultdict[TP, deque[_Span]] = defaultdict(deque)
        self._positions: dict[TP, int] = {}
        #: Copies of a batch that no agent has taken (yet).
        self._untaken: WeakKeyDictionary[Message, int] = WeakKeyDictionary()
        self._wanted_again = asyncio.Event()

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @Service.task
    async def _watch_coordination(self) -> None:
        """Raise what aiokafka would only tell to whoever polls for records.

        Nobody polls while an assignment is awaited, and the coordinator waits until it is heard: a broker that answers
        a join with an error, as one that is stopping does, would leave a worker alive and idle for ever.
        """
        while not self.should_stop:
            await self.sleep(COORDINATION_POLL_S)
            error = self._thread.coordination_error()
            if error is not None and not self.should_stop:
                raise error

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Topics are created beforehand (``sluice topics create``), with the right retention; never by a worker."""

    # -- delivery ---------------------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Service) -> None:
        """Hand out all that a fetch took in one turn of the event loop.

        Stock Faust makes four tasks and takes three turns for every message. In a worker whose agents fold in slices a
        turn takes tens of milliseconds, so the last of a few dozen partitions would be handed out a second late.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)
                async for _, message in self.getmany(timeout=FETCH_POLL_S):
                    await self._hand_out(message)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _hand_out(self, message: Any) -> None:
        handing_out = Begun(self.callback(message))
        if not handing_out.is_done:
            # The flow has stopped under it: what is not handed out by the time of a rebalance is read again.
            await self.wait_first(handing_out, self.suspend_flow.wait())

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Yield one message per fetched partition; its value is a ``RecordBatch``.

        What was taken before a seek is void. What was taken after it and cannot be delivered (the flow has stopped, or
        has not begun yet) is sought back: taking has moved the position past it.
        """
        if self.flow_active and not self._get_active_partitions():
            # Every partition is held back. Stock Faust sleeps here, for a second.
            self._wanted_again.clear()
            await self.wait_first(self._wanted_again.wait(), self.suspend_flow.wait(), timeout=timeout)
            return
        fetched, active = await self._wait_next_records(timeout)
        if not fetched or self.should_stop:
            return
        kept: dict[TP, int] = {}
        for tp, unread in fetched.items():
            if not unread or self._is_stale(fetched):
                continue
            wanted = active is None or tp in active or tp in self._buffered_partitions
            if not self.flow_active or not wanted:
                kept[tp] = unread.first
                continue
            highwater = self.end_of(*tp)
            if highwater is None:
                continue  # the assignment went away under us; whoever has the partition reads it
            self.app.monitor.track_tp_end_offset(tp, highwater)
            yield tp, self._to_batch(tp, unread)
        if kept:
            await self._thread.seek_back(kept, fetched.epoch)

    def on_buffer_drop(self, tp: TP) -> None:
        """An agent has room again for a partition that was held back.

        Stock Faust leaves the fetch that is under way alone: with this partition's records in its hands it waits for
        those of others, for a second where there are none. More pile up meanwhile, and hold the partition back again.
        """
        was_held_back = tp in self._buffered_partitions
        super().on_buffer_drop(tp)
        if was_held_back:
            self._wanted_again.set()
            self._thread.look_again()

    def end_of(self, topic: str, partition: int) -> int | None:
        """Where a partition ended when it was fetched last, 0 before that; None once it is not ours any more."""
        return self._thread.end_of(TP(topic, partition))

    def _is_stale(self, fetched: Any) -> bool:
        return getattr(fetched, "epoch", -1) != self._thread.seek_epoch

    def _to_batch(self, tp: TP, unread: Unread) -> ConsumerMessage:
        first, end = unread.first, unread.end
        spans = self._spans[tp]
        while spans and spans[-1].first >= first:
            spans.pop()  # fetched again: this delivery supersedes the earlier one
        spans.append(_Span(first, end))
        begin = min(self._positions.get(tp, first), first)
        self._positions[tp] = end
        if len(self.app.topics._topic_name_index[tp.topic]) > 1:
            unread.keep()
        # Faust compares offsets with the last one read and would drop a batch that was fetched again.
        self._read_offset[tp] = None
        return ConsumerMessage(
            tp.topic, tp.partition, end - 1, unread.timestamp / 1000, 0, None, None,
            RecordBatch(tp.topic, tp.partition, begin, end, unread), None, None, None, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps need no bookkeeping: a span covers them."""

    # -- acknowledgement and commit ---------------------------------------------------------------------------------

    def ack(self, message: Message) -> bool:
        """Mark the batch that ends with this message as done."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        first, end = message.value.unread.first, message.value.end
        for span in self._spans.get(message.tp, ()):
            if (span.first, span.end) == (first, end):
                span.acked = True
                self._n_acked += 1
                break
        driver_notify(self._waiting_for_ack)
        return True

    def took(self, message: Message) -> None:
        """An agent has taken its copy of a batch: a topic with two agents has two of each."""
        self._untaken[message] = self._untaken.get(message, message.refcount) - 1

    async def wait_empty(self) -> None:
        """Wait for the batches that agents have in their hands; the flow is stopped and the queues are cleared.

        A copy that was cleared from one agent's queue, after another agent had taken its own, will never be
        acknowledged: stock Faust waits for it for ever. Its batch stays uncommitted, so it is read again.
        """
        self._clean_unacked_messages()
        await super().wait_empty()

    def _clean_unacked_messages(self) -> None:
        for message in list(self._unacked_messages):
            if message.acked or message.refcount <= self._untaken.get(message, 0):
                self._unacked_messages.discard(message)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp
            for tp, spans in list(self._spans.items())
            if spans and spans[0].acked and (topics is None or tp in topics or tp.topic in topics)
        )

    def _new_offset(self, tp: TP) -> int | None:
        spans = self._spans[tp]
        offset = None
        while spans and spans[0].acked:
            offset = spans.popleft().end
        return offset

    # -- seeking ----------------------------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Read each source partition from the smallest of: committed, what its table asks for; else the earliest.

        Faust leaves a partition without a committed offset where it happens to be, which skips records that were
        fetched and thrown away; here every partition gets an explicit position.
        """
        tps = {ensure_TP(tp) for tp in self.assignment() if not self._is_changelog_tp(tp)}
        if not tps:
            return
        committed = await self._thread.committed(tps)
        earliest = await self.earliest_offsets(*tps)
        ends = await self.highwaters(*tps)
        starts: dict[TP, int] = {}
        for tp in tps:
            wanted = [offset for offset in (committed[tp], self._table_start(tp)) if offset is not None]
            # The trial broker, which alone has no idempotent producers, reports wrong end offsets.
            if self.app.idempotence and max(wanted, default=0) > (ends.get(tp) or 0):
                raise LogTruncatedError(
                    f"{tp.topic}[{tp.partition}] ends at {ends.get(tp)}, and {max(wanted)} was read before: the topic"
                    " was created anew or its log was cut; raise topic_epoch (and change app_id) to start over"
                )
            starts[tp] = max(min(wanted, default=0), earliest.get(tp) or 0)
        await self._thread.seek_all(starts)
        for tp, start in starts.items():
            self._spans.pop(tp, None)
            self._positions[tp] = start
            self._read_offset[tp] = None
            self._committed_offset[tp] = committed[tp]

    def _table_start(self, tp: TP) -> int | None:
        starts = [table.start_offset(tp) for table in self.app.tables.values()]
        return min((start for start in starts if start is not None), default=None)

    # -- rebalance --------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let in-flight batches finish, commit them, and only then forget them (stock Faust forgets first)."""
        await super().on_partitions_revoked(revoked)
        self._unacked_messages.difference_update([m for m in self._unacked_messages if m.tp in revoked])
        for tp in revoked:
            self._spans.pop(tp, None)
            self._positions.pop(tp, None)
        self.app.tables.drop_revoked(revoked)


def driver_notify(future: Any) -> None:
    """Wake whoever waits for an acknowledgement."""
    if future is not None and not future.done():
        future.set_result(None)


__all__ = ["BatchConsumer", "BatchConsumerThread", "Hands"]
