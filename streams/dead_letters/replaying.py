"""Brings dead letters back onto their topic, each once: whatever is killed, and whenever.

METER reads what is on a topic whether or not its transaction was committed, so a transaction alone would count a letter
twice: once from the transaction that a crash left open, once from the next try. Therefore, for each batch:

1. what is about to be sent, and from which offset on it can lie on its topic, is written to the progress topic;
2. the records and their marks ``replayed`` are written in one transaction.

A run begins by taking over the transactional id, which ends whatever an earlier run left open and lets nothing of it
arrive later. Then it looks for what was cut short between 1 and 2 where it can lie: what is there was brought back,
what is not waits as before. docs/decisions/0006-dead-letters-come-back-once.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from streams.clock import Clock
from streams.core.letters import REPLAY_OF, Letter, partition_for, replayed_headers
from streams.core.replay_progress import Found, Progress, Settled, open_ends, settle
from streams.dead_letters import DeadLetterError
from streams.dead_letters.log import LogReader
from streams.dead_letters.reading import progress_topic, read_progress
from streams.topic_admin import ensure_topics
from streams.transport import partition_of

BATCH_LETTERS = 500
BATCH_BYTES = 8 * 1_048_576
REQUEST_BYTES_MAX = 5 * 1_048_576
#: A cluster that cannot keep its transaction log never answers.
TAKE_OVER_S = 60.0

_encode = msgspec.json.Encoder().encode


class _Planned(NamedTuple):
    identity: str
    letter: Letter
    progress: Progress


class Replayer:
    """Use as a context: entering settles what earlier replays left open. One at a time; a second takes over.

    Args:
        connection: what ``kafka_connection.connection`` returns.
        app_id: names the progress topic and the transactional id.
        replication: copies of the progress topic, when it is made.
        clock: for the instants in the progress.
    """

    def __init__(self, connection: Mapping[str, Any], app_id: str, replication: int, clock: Clock) -> None:
        self._connection = connection
        self._app_id = app_id
        self._replication = replication
        self._clock = clock
        self._topic = progress_topic(app_id)
        self._producer = AIOKafkaProducer(
            **connection,
            transactional_id=f"{app_id}-dead-letter-replay",
            transaction_timeout_ms=60_000,
            max_request_size=REQUEST_BYTES_MAX,
            request_timeout_ms=30_000,
            linger_ms=5,
        )
        self._log = LogReader(connection, committed=False)
        self._partitions: dict[str, int] = {}
        #: What is known of every letter, by identity.
        self.progress: dict[str, Progress] = {}
        #: What became of letters that an earlier replay was killed over.
        self.settled = Settled({}, {}, {})

    async def __aenter__(self) -> Self:
        report = await ensure_topics(self._connection, 1, self._replication, topics=(), extra=(self._topic,))
        report.demand()
        try:
            await self._producer.start()
            await self._log.__aenter__()
            # From here on an earlier run can write nothing more: its transactions are refused, its open one is aborted.
            async with asyncio.timeout(TAKE_OVER_S):
                await self._write({})
            self.progress = await read_progress(self._connection, self._app_id)
            await self._settle()
        except BaseException as error:
            await self._close()
            raise _plain(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._producer.stop()
        await self._log.__aexit__(None, None, None)

    # -- what was cut short -----------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        open_ = open_ends(self.progress)
        if not open_:
            return
        lowest: dict[TopicPartition, int] = {}
        for known in open_.values():
            place = TopicPartition(known.topic, known.partition)
            lowest[place] = min(known.searched_from, lowest.get(place, known.searched_from))
        begins = await self._log.begins(list(lowest))
        lying: dict[TopicPartition, set[str]] = {place: set() for place in lowest}
        async for record in self._log.read(await self._log.ends(list(lowest)), lowest):
            for name, value in record.headers:
                if name == REPLAY_OF:
                    lying[TopicPartition(record.topic, record.partition)].add(value.decode("utf-8", "replace"))
        found = {tuple(place): Found(frozenset(names), begins[place]) for place, names in lying.items()}
        self.settled = settle(open_, found)
        marks: dict[str, Progress | None] = {
            identity: msgspec.structs.replace(known, state="replayed", at=self._clock.now())
            for identity, known in self.settled.arrived.items()
        }
        marks |= dict.fromkeys(self.settled.absent)
        await self._write(marks)

    # -- bringing back ----------------------------------------------------------------------------------------------

    async def replay(self, chosen: AsyncIterator[Letter], on_batch: Callable[[int], None] = lambda _: None) -> int:
        """Bring the letters back in batches and return how many; those that were brought back before are passed over.

        Raises:
            DeadLetterError: the broker did not take a batch, or another replay took over.
        """
        count = 0
        batch: list[Letter] = []
        taken: set[str] = set()
        try:
            async for letter in chosen:
                identity = letter.identity()
                known = self.progress.get(identity)
                if identity in taken or (known is not None and known.state == "replayed"):
                    continue
                taken.add(identity)
                batch.append(letter)
                if len(batch) >= BATCH_LETTERS or sum(len(found.value or b"") for found in batch) >= BATCH_BYTES:
                    count += await self._send(batch)
                    on_batch(count)
                    batch = []
            if batch:
                count += await self._send(batch)
                on_batch(count)
        except (KafkaError, TimeoutError) as error:
            raise _plain(error) from error
        return count

    async def _send(self, batch: Sequence[Letter]) -> int:
        planned = await self._plan(batch)
        await self._write({found.identity: found.progress for found in planned})
        await self._bring_back(planned)
        return len(planned)

    async def _plan(self, batch: Sequence[Letter]) -> list[_Planned]:
        wanted = {letter.source_topic for letter in batch} - set(self._partitions)
        if wanted:
            self._partitions |= await self._log.partitions(sorted(wanted))
        absent = sorted({letter.source_topic for letter in batch} - set(self._partitions))
        if absent:
            raise DeadLetterError(f"no topic {', '.join(absent)} to bring letters back to: run `sluice topics create`")
        places = {
            letter: TopicPartition(
                letter.source_topic, partition_for(letter, self._partitions[letter.source_topic], partition_of)
            )
            for letter in batch
        }
        ends = await self._log.ends(list(set(places.values())))
        now = self._clock.now()
        return [
            _Planned(
                letter.identity(),
                letter,
                Progress(
                    state="sending", letter=letter.place, topic=place.topic, partition=place.partition,
                    searched_from=ends[place], at=now,
                ),
            )
            for letter, place in places.items()
        ]  # fmt: skip

    async def _bring_back(self, planned: Sequence[_Planned]) -> None:
        """Records and marks in one transaction."""
        done = {found.identity: msgspec.structs.replace(found.progress, state="replayed") for found in planned}
        async with self._producer.transaction():
            pending = [
                await self._producer.send(
                    found.progress.topic,
                    key=found.letter.key,
                    value=found.letter.value,
                    headers=replayed_headers(found.letter),
                    partition=found.progress.partition,
                )
                for found in planned
            ]
            await _taken(pending + await self._mark(done))
        self.progress.update(done)

    async def _write(self, marks: Mapping[str, Progress | None]) -> None:
        """Progress alone, in a transaction of its own; None takes it back."""
        async with self._producer.transaction():
            await _taken(await self._mark(marks))
        for identity, known in marks.items():
            if known is None:
                self.progress.pop(identity, None)
            else:
                self.progress[identity] = known

    async def _mark(self, marks: Mapping[str, Progress | None]) -> list[Any]:
        return [
            await self._producer.send(
                self._topic.name, key=identity.encode(), value=None if known is None else _encode(known), partition=0
            )
            for identity, known in marks.items()
        ]


async def _taken(pending: Sequence[Any]) -> None:
    """Wait for all, also when one fails: a failure that nobody looks at is shouted about at the end of the process."""
    for outcome in await asyncio.gather(*pending, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _plain(error: BaseException) -> BaseException:
    if isinstance(error, ProducerFenced):
        return DeadLetterError("another replay has taken over; nothing is lost, and it goes on with what is left")
    if isinstance(error, KafkaError | TimeoutError):
        return DeadLetterError(f"Kafka did not do as asked: {error!r}; run it again, it goes on where this ended")
    return error
