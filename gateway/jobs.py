"""The reference consumer of job commands: ends a real process, or caps its replicas, only where the job allows it.

    python -m gateway.jobs --kafka 127.0.0.1:9092 --run r-2027-01 --auto-shutdown -- python train.py

Ending is SIGTERM, ``grace_s`` for a checkpoint, then SIGKILL. What became of a command is told on ``jobs.acks.v1``.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from gateway.clock import now_micros
from gateway.publisher import close_producer, new_producer
from schemas.cloudevents import binary_headers
from schemas.commands import JOB_APPLIED_TYPE, JobAck, JobCommand
from schemas.instants import InstantError, format_instant, parse_instant
from schemas.readers import JOB_COMMANDS as COMMANDS
from schemas.topics import JOB_ACKS, JOB_COMMANDS
from schemas.versions import UnknownVersionError

log = logging.getLogger(__name__)

BACKOFF_S = 1.0
_encode = msgspec.json.Encoder().encode
Outcome = Literal["stopped", "killed", "capped", "refused", "gone"]


class Process:
    """A process by a handle that is never another one's, however often its number is given out again (Linux)."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError where there is no such process."""
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._leads_group = os.getpgid(pid) == pid

    def send(self, wanted: signal.Signals) -> None:
        """Send a signal; to a process that leads its group, SIGKILL is for the whole group: its workers go with it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, wanted)
            if wanted == signal.SIGKILL and self._leads_group:
                os.killpg(self.pid, wanted)

    async def ended(self, within_s: float) -> bool:
        """Wait for its end, at most so long; whether it has ended."""
        if select.select([self._handle], [], [], 0)[0]:
            return True
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        # The handle becomes readable at the process's end, whosever child it is.
        loop.add_reader(self._handle, end.set)
        try:
            async with asyncio.timeout(within_s):
                await end.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._handle)
        return True

    def close(self) -> None:
        """Let go of the handle."""
        os.close(self._handle)


class Job(NamedTuple):
    """A run on this machine, and what it allows."""

    run_id: str
    process: Process | None
    auto_shutdown: bool
    scale: Callable[[int], Any] | None


class JobExecutor:
    """Follows the commands for the runs that were registered here.

    Args:
        connection: aiokafka's keyword arguments.
        executor: the name of this one in acknowledgements.
        clock: microseconds since 1970; what a command's expiry is compared with.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        *,
        executor: str,
        clock: Callable[[], int] = now_micros,
        idempotence: bool = True,
    ) -> None:
        self._connection = dict(connection)
        self._executor = executor
        self._clock = clock
        self._idempotence = idempotence
        self._jobs: dict[str, Job] = {}
        #: The newest command of each run, for runs that are registered later too.
        self._commands: dict[str, JobCommand] = {}
        #: Commands that are being obeyed or were.
        self._begun: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._unsent: asyncio.Queue[JobAck] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self.acks: list[JobAck] = []
        self.unreadable = 0

    def register(
        self,
        run_id: str,
        pid: int | None = None,
        *,
        auto_shutdown: bool = False,
        scale: Callable[[int], Any] | None = None,
    ) -> None:
        """Take a run under command. ``scale`` takes the most replicas it may have, and may be a coroutine function.

        Raises:
            ProcessLookupError: there is no such process.
        """
        self._jobs[run_id] = Job(run_id, None if pid is None else Process(pid), auto_shutdown, scale)
        if run_id in self._commands:
            self._obey(self._commands[run_id])

    async def start(self) -> None:
        """Begin to follow in the background."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tell())]

    async def stop(self, timeout_s: float = 5.0) -> None:
        """End following. What is being ended is brought to its end, and told, at most ``timeout_s`` long."""
        if self._work:
            await asyncio.wait(list(self._work), timeout=timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._unsent.join()
        for task in (*self._tasks, *self._work):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._work, return_exceptions=True)
        self._tasks = []
        for job in self._jobs.values():
            if job.process is not None:
                job.process.close()
        self._jobs = {}

    async def _follow(self) -> None:
        """Read from the beginning: a command given while this one was down still holds, unless it expired."""
        while True:
            consumer = AIOKafkaConsumer(
                JOB_COMMANDS, **self._connection, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
            )
            try:
                await consumer.start()
                async for record in consumer:
                    self._take(record.key, record.value)
            except (KafkaError, OSError) as error:
                log.warning("job commands can't be read: %r", error)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await asyncio.shield(consumer.stop())
            await asyncio.sleep(BACKOFF_S)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            self._commands.pop((key or b"").decode(errors="replace"), None)
            return
        try:
            command = COMMANDS.decode(value)
            parse_instant(command.expires_at)
        except (msgspec.DecodeError, UnicodeDecodeError, UnknownVersionError, InstantError, OverflowError) as error:
            self.unreadable += 1
            log.error("a job command under key %r can't be read and has no effect: %s", key, error)
            return
        known = self._commands.get(command.run_id)
        if known is None or command.revision >= known.revision:
            self._commands[command.run_id] = command
            self._obey(command)

    def _obey(self, command: JobCommand) -> None:
        job = self._jobs.get(command.run_id)
        if job is None or command.command_id in self._begun or parse_instant(command.expires_at) <= self._clock():
            return  # Another executor's, done already, or over.
        self._begun.add(command.command_id)
        work = asyncio.create_task(self._carry_out(job, command))
        self._work.add(work)
        work.add_done_callback(self._work.discard)

    async def _carry_out(self, job: Job, command: JobCommand) -> None:
        try:
            outcome, detail = await self._done(job, command)
        except Exception as error:
            log.exception("a job command could not be carried out")
            outcome, detail = "refused", repr(error)[:500]
        ack = JobAck(
            command_id=command.command_id,
            run_id=command.run_id,
            revision=command.revision,
            executor=self._executor,
            outcome=outcome,
            applied_at=format_instant(self._clock()),
            detail=detail,
        )
        log.warning("%s of run %s: %s. %s (%s)", command.action, command.run_id, outcome, detail, command.reason)
        self.acks.append(ack)
        self._unsent.put_nowait(ack)

    async def _done(self, job: Job, command: JobCommand) -> tuple[Outcome, str]:
        if command.dry_run:
            return "refused", "a dry run: nothing was done"
        if command.action == "scale_cap":
            if job.scale is None or command.replicas_max is None:
                return "refused", "this run cannot be scaled here"
            result = job.scale(command.replicas_max)
            if asyncio.iscoroutine(result):
                await result
            return "capped", f"at most {command.replicas_max} replicas"
        if not job.auto_shutdown:
            return "refused", "the job does not carry auto_shutdown: true"
        if job.process is None or await job.process.ended(0):
            return "gone", "its process had ended"
        job.process.send(signal.SIGTERM)
        if await job.process.ended(command.grace_s):
            return "stopped", "it ended after SIGTERM"
        job.process.send(signal.SIGKILL)
        await job.process.ended(10)
        return "killed", f"it still ran {command.grace_s} s after SIGTERM"

    async def _tell(self) -> None:
        producer: AIOKafkaProducer | None = None
        try:
            while True:
                ack = await self._unsent.get()
                while True:
                    try:
                        if producer is None:
                            found = new_producer({**self._connection, "enable_idempotence": self._idempotence})
                            producer = found
                            await found.start()
                        await self._send(producer, ack)
                        break
                    except (KafkaError, OSError) as error:
                        log.warning("an executor's acknowledgement waits, Kafka can't be used: %r", error)
                        if producer is not None:
                            await close_producer(producer, 1.0)
                        producer = None
                        await asyncio.sleep(BACKOFF_S)
                self._unsent.task_done()
        finally:
            if producer is not None:
                await close_producer(producer, 1.0)

    async def _send(self, producer: AIOKafkaProducer, ack: JobAck) -> None:
        headers = binary_headers(
            id=f"{ack.command_id}:{ack.executor}:{ack.outcome}",
            source=f"//executor/{ack.executor}",
            type=JOB_APPLIED_TYPE,
            time=ack.applied_at,
            subject=ack.run_id,
        )
        await producer.send_and_wait(JOB_ACKS, _encode(ack), key=ack.run_id.encode(), headers=headers)


async def run(arguments: list[str]) -> int:
    """Run a program under command; returns its exit code (128 + n where signal n ended it)."""
    parser = argparse.ArgumentParser(prog="python -m gateway.jobs", description=__doc__)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--run", required=True, help="the run's id, as in its usage events")
    parser.add_argument("--auto-shutdown", action="store_true", help="it may be ended when its budget says so")
    parser.add_argument("--executor", default=socket.gethostname(), help="the name of this one in acknowledgements")
    parser.add_argument("command", nargs="+", help="after --: the program and its arguments")
    options = parser.parse_args(arguments)
    # In a group of its own: its workers end with it.
    child = await asyncio.create_subprocess_exec(*options.command, start_new_session=True)
    executor = JobExecutor({"bootstrap_servers": options.kafka}, executor=options.executor)
    for wanted in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wanted, child.send_signal, wanted)
    with contextlib.suppress(ProcessLookupError):
        executor.register(options.run, child.pid, auto_shutdown=options.auto_shutdown)
    await executor.start()
    code = await child.wait()
    await executor.stop()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1:])))
