"""The throttle gate that a gateway embeds: follows commands, answers for each call, says what it refused.

Commands are read from the beginning of the compacted topic without a consumer group, so every gateway has all
of them. While the broker is away the gate goes on with what it knows, and commands still expire.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from gateway.clock import elapsed_s, now_micros
from gateway.commands import CommandBook, Decision, Live
from gateway.measures import Entry
from gateway.publisher import close_producer, new_producer
from schemas.cloudevents import binary_headers
from schemas.commands import APPLIED_TYPE, ThrottleAck, ThrottleCommand
from schemas.instants import InstantError, format_instant, parse_instant
from schemas.readers import COMMANDS
from schemas.topics import GATEWAY_ACKS, GATEWAY_COMMANDS
from schemas.versions import UnknownVersionError

log = logging.getLogger(__name__)

BACKOFF_S = 1.0
POLL_MS = 500
SEND_DEADLINE_S = 10.0
_encode = msgspec.json.Encoder().encode
_decode_command = COMMANDS.decode

NOT_READY = Decision(
    False,
    "not_ready",
    "The gateway has not read the throttle commands yet and is set to refuse until it has (fail='closed').",
    2,
    503,
)


class _Told(NamedTuple):
    """What was last acknowledged of one command."""

    key: str
    command: ThrottleCommand
    applied_at: str
    delay_ms: int | None
    #: -1 until the first acknowledgement went out.
    rejected_count: int
    #: When it last went out, on the clock of ``elapsed_s``.
    told_at: float


class ThrottleGate:
    """Says for each call whether it may go.

    Args:
        connection: aiokafka's keyword arguments.
        gateway: the name of this gateway process in acknowledgements.
        fail: what calls meet until all commands have been read: ``open`` lets them go, ``closed`` refuses.
        clock: microseconds since 1970; what commands' instants are compared with.
        ack_interval_s: how often changed counts of refused calls are told.
        on_command: called with each command that is new.
        before_ack: for gates that pass commands on: awaited before they are acknowledged, which waits while it fails.
        heartbeat_s: how often a command that holds is acknowledged again, so that Sluice knows that this gate lives.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        *,
        gateway: str,
        fail: Literal["open", "closed"] = "open",
        clock: Callable[[], int] = now_micros,
        ack_interval_s: float = 5.0,
        heartbeat_s: float = 60.0,
        idempotence: bool = True,
        on_command: Callable[[str, ThrottleCommand | None], None] | None = None,
        before_ack: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = dict(connection)
        self._gateway = gateway
        self._clock = clock
        self._ack_interval_s = ack_interval_s
        self._heartbeat_s = heartbeat_s
        self._idempotence = idempotence
        self._on_command = on_command
        self._before_ack = before_ack
        self._book = CommandBook(clock)
        #: What to do with one call: ``CommandBook.check``. Takes about a microsecond and never waits.
        self.check: Callable[..., Decision] = self._book.check if fail == "open" else self._check_unready
        self._ready = asyncio.Event()
        self._told: dict[str, _Told] = {}
        self._untold = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = False
        self.unreadable = 0
        self.acks_sent = 0

    @property
    def ready(self) -> bool:
        """Whether every command that was there at the start has been read; stays true without the broker."""
        return self._ready.is_set()

    async def start(self, ready_within_s: float = 0.0) -> bool:
        """Follow commands in the background; wait up to ``ready_within_s``; returns whether it is ready."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._follow(), name="sluice-gate-commands"),
                asyncio.create_task(self._tell(), name="sluice-gate-acks"),
            ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ready_within_s):
                await self._ready.wait()
        return self.ready

    async def stop(self) -> None:
        """End following; what was refused since the last acknowledgement is told if the broker is there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.connected = False

    def _check_unready(self, *identities: Any, **more: Any) -> Decision:
        """Until everything was read, where calls are refused until then; a release is obeyed as soon as it is read."""
        if self._ready.is_set():
            return self._book.check(*identities, **more)
        return self._book.released(more.get("now")) or NOT_READY

    def live(self) -> list[Live]:
        """The commands that hold now, with how many calls each has refused here."""
        return self._book.live()

    def standing(self) -> list[Entry]:
        """The commands that ask for something, for gates that pass them on; none while a release lives."""
        return [] if self._book.released() else self._book.standing()

    def now(self) -> int:
        """The instant on the clock that commands are compared with."""
        return self._clock()

    async def _follow(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                GATEWAY_COMMANDS,
                **self._connection,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            try:
                await consumer.start()
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                log.warning("throttle commands can't be read, the known ones hold: %r", error)
            finally:
                self.connected = False
                await asyncio.shield(_close_consumer(consumer))
            await asyncio.sleep(BACKOFF_S)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Read from the beginning; a command that was read before says nothing new."""
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions) if partitions else {}
        self.connected = bool(ends)
        while True:
            if not self._ready.is_set() and ends and await _is_past(consumer, ends):
                self._become_ready()
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    self._take(record.key, record.value)
            if not ends:
                # The topic came into being after the consumer did.
                partitions = consumer.assignment()
                ends = await consumer.end_offsets(partitions) if partitions else {}
                self.connected = bool(ends)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        try:
            name = (key or b"").decode()
            command = None if value is None else _decode_command(value)
            news = self._book.apply(name, command)
        except (msgspec.DecodeError, UnicodeDecodeError, UnknownVersionError, InstantError, OverflowError) as error:
            self.unreadable += 1
            log.error("a throttle command under key %r can't be read and has no effect: %s", key, error)
            return
        if news and self._on_command is not None:
            self._on_command(name, command)
        if command is None or not self._ready.is_set():
            return
        # A renewal that came after the command had run out makes it hold again: that is to be acknowledged too.
        if news or (command.command_id not in self._told and self._book.holds(name)):
            self._owe(name, command, is_new=bool(news) and command.command_id not in self._told)

    def _become_ready(self) -> None:
        """At the start only what still holds is acknowledged, not the history."""
        self._book.prune()
        for live in self._book.live():
            self._owe(live.key, live.command)
        self._ready.set()

    def _owe(self, key: str, command: ThrottleCommand, is_new: bool = False) -> None:
        """An acknowledgement; only of what has come just now it can be told how long it took."""
        now = self._clock()
        took = max(0, now - parse_instant(command.issued_at)) // 1_000 if is_new else None
        self._told[command.command_id] = _Told(key, command, format_instant(now), took, -1, 0.0)
        self._untold.set()

    async def _tell(self) -> None:
        """Acknowledge commands at once, and counts of refused calls every ``ack_interval_s``."""
        producer: AIOKafkaProducer | None = None
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._ack_interval_s):
                        await self._untold.wait()
                self._untold.clear()
                try:
                    if producer is None and self._due():
                        producer = await _started_producer(
                            {**self._connection, "enable_idempotence": self._idempotence}
                        )
                    if producer is not None:
                        await self._send_due(producer)
                except (KafkaError, OSError, TimeoutError) as error:
                    log.warning("throttle acknowledgements wait, Kafka can't be used: %r", error)
                    if producer is not None:
                        await close_producer(producer, 1.0)
                    producer = None
                    await asyncio.sleep(BACKOFF_S)
                self._forget()
        finally:
            if producer is not None:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    async with asyncio.timeout(2.0):
                        await self._send_due(producer)
                await close_producer(producer, 2.0)

    def _due(self) -> list[tuple[_Told, int]]:
        """What is to be said: changed counts, and every command that asks for something once in a heartbeat."""
        found, beat = [], elapsed_s() - self._heartbeat_s
        for command_id, told in self._told.items():
            count = self._book.rejected_count(command_id)
            asks = told.command.action != "allow" and self._book.holds(told.key)
            if count != told.rejected_count or (told.told_at <= beat and asks):
                found.append((told, count))
        return found

    async def _send_due(self, producer: AIOKafkaProducer) -> None:
        """Say it all, then wait for the broker: there may be thousands."""
        due, deliveries, now_ms = self._due(), [], self._clock() // 1_000
        if due and self._before_ack is not None:
            try:
                await self._before_ack()
            except Exception as error:
                log.warning("commands are not acknowledged, because they could not be passed on: %r", error)
                return
        async with asyncio.timeout(SEND_DEADLINE_S):
            for told, count in due:
                value, headers = self._acknowledgement(told, count)
                deliveries.append(
                    await producer.send(
                        GATEWAY_ACKS, value, key=told.key.encode(), headers=headers, timestamp_ms=now_ms
                    )
                )
            outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
        for (told, count), outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            if told.command.command_id in self._told:
                now_told = told._replace(rejected_count=count, told_at=elapsed_s())
                self._told[told.command.command_id] = now_told
            self.acks_sent += 1

    def _acknowledgement(self, told: _Told, count: int) -> tuple[bytes, list[tuple[str, bytes]]]:
        command = told.command
        ack = ThrottleAck(
            command_id=command.command_id,
            command_key=told.key,
            revision=command.revision,
            gateway=self._gateway,
            applied_at=told.applied_at,
            delay_ms=told.delay_ms,
            rejected_count=count,
        )
        now = format_instant(self._clock())
        headers = binary_headers(
            id=f"{command.command_id}:{self._gateway}:{told.applied_at}:{count}:{now}",
            source=f"//gateway/{self._gateway}",
            type=APPLIED_TYPE,
            time=now,
            subject=told.key,
        )
        return _encode(ack), headers

    def _forget(self) -> None:
        """Drop what is told of commands that ended and were told in full, so that memory does not grow."""
        live = {entry.command.command_id for entry in self._book.live()}
        for command_id in [name for name in self._told if name not in live]:
            if self._told[command_id].rejected_count == self._book.rejected_count(command_id):
                del self._told[command_id]
                self._book.forget_rejections(command_id)
        self._book.prune()


async def _is_past(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    for partition, end in ends.items():
        if end and await consumer.position(partition) < end:
            return False
    return True


async def _started_producer(connection: Mapping[str, Any]) -> AIOKafkaProducer:
    producer = new_producer(connection)
    try:
        await producer.start()
    except BaseException:
        await asyncio.shield(close_producer(producer, 1.0))
        raise
    return producer


async def _close_consumer(consumer: AIOKafkaConsumer) -> None:
    with contextlib.suppress(KafkaError, OSError):
        await consumer.stop()
