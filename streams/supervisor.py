"""Runs the whole service on one machine (`up`, `demo`): broker and PostgreSQL if none is given, workers, API.

Started in this order and stopped in the reverse one, by own process ids and within deadlines. A worker or API
that crashes later starts again. Enter it from the main thread: children die with the thread that made them.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from streams import kafka_connection, topic_admin
from streams.embedded.broker import Broker, choose_broker
from streams.embedded.postgres import EmbeddedPostgres
from streams.embedded.process import ChildProcess, EmbeddedError, free_port, http_status
from streams.embedded.service import Service
from streams.embedded.state_lock import StateLock
from streams.settings import Settings
from streams.settings_sources import PREFIX, as_variables
from streams.sinks.postgres import migrate

logger = logging.getLogger(__name__)

#: A worker recovers its tables before it is ready.
WORKER_READY_DEADLINE_S = 120.0
API_READY_DEADLINE_S = 45.0
WORKER_STOP_DEADLINE_S = 25.0
API_STOP_DEADLINE_S = 8.0
DATABASE = "sluice"
#: Tansu lets every member wait this long at each rebalance.
TANSU_REBALANCE_TIMEOUT_S = 6.0
PROGRAM = (sys.executable, "-m", "streams.cli")


class SupervisorInterruptedError(EmbeddedError):
    """SIGINT or SIGTERM came before everything was up; all that had started is stopped again."""


def child_environment(settings: Settings, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child process reads these very settings, however they were given to us."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    return inherited | {"PYTHONUNBUFFERED": "1"} | as_variables(settings) | dict(extra)


async def _all_up(*starts: Coroutine[Any, Any, None]) -> None:
    """Wait for all, also when one fails, so that nothing still starts while the rest is being stopped."""
    for result in await asyncio.gather(*starts, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


class Supervisor:
    """``async with Supervisor(settings, workers=2) as running:`` has the whole service ready inside.

    SIGINT or SIGTERM ends ``wait`` or, when the body does something else, cancels the body and leaves the
    ``with`` in order; ``interrupted_by`` then names the signal. A second signal kills what still stops.

    Args:
        settings: ``kafka_url`` and ``database_url`` decide what is embedded; ``api_port`` 0 takes a free one.
        workers: number of worker processes.
        extra_env: further variables for workers and API.
        program: how the command line of Sluice is started.
        fast_start: see ``KafkaBroker``.
        handle_signals: False leaves signals to the caller.
        say: takes lines for people while parts come up.

    Raises:
        EmbeddedError: a part did not come up; TopicError: topics do not fit.
    """

    def __init__(
        self,
        settings: Settings,
        workers: int = 1,
        extra_env: Mapping[str, str] | None = None,
        *,
        program: Sequence[str] = PROGRAM,
        fast_start: bool = False,
        handle_signals: bool = True,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        #: Completed while parts come up: the broker, the database and the port that are really used.
        self.settings = settings
        #: The embedded broker; None where one was given.
        self.broker: Broker | None = None
        #: The embedded PostgreSQL; None where a server was given.
        self.postgres: EmbeddedPostgres | None = None
        self.topics: topic_admin.TopicReport | None = None
        self.interrupted_by: signal.Signals | None = None
        self._state = settings.state_dir.absolute()
        self._lock = StateLock(self._state)
        self._worker_count = workers
        self._extra_env = dict(extra_env or {})
        self._program = list(program)
        self._fast_start = fast_start
        self._handle_signals = handle_signals
        self._say = say
        self._workers: list[Service] = []
        self._api: Service | None = None
        self._stack = AsyncExitStack()
        self._owner: asyncio.Task[object] | None = None
        self._stop_asked = asyncio.Event()
        self._waiting = False
        self._stopping = False
        self._cancelled = False

    @property
    def kafka_url(self) -> str:
        """Bootstrap servers in use."""
        return self.settings.kafka_url or ""

    @property
    def database_url(self) -> str:
        """PostgreSQL in use, with its password."""
        return self.settings.database_url.get_secret_value() if self.settings.database_url else ""

    @property
    def api_url(self) -> str:
        """Where the API and the dashboard answer on this machine."""
        host = self.settings.api_host
        return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{self.settings.api_port}"

    @property
    def workers(self) -> list[ChildProcess]:
        """The worker processes (``pid``, ``running``, ``log``)."""
        return [service.child for service in self._workers]

    @property
    def restarts(self) -> int:
        """How often a worker or the API crashed and was started again."""
        return sum(s.restarts for s in (*self._workers, *([self._api] if self._api else [])))

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        self._watch_signals()
        try:
            await self._start()
        except BaseException as error:
            await self._stop()
            if isinstance(error, asyncio.CancelledError) and self._cancelled_by_signal():
                raise SupervisorInterruptedError("stopped before everything was up") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        await self._stop()
        return isinstance(error, asyncio.CancelledError) and self._cancelled_by_signal()

    async def wait(self) -> signal.Signals | None:
        """Wait for SIGINT or SIGTERM and return which."""
        self._waiting = True
        try:
            await self._stop_asked.wait()
        finally:
            self._waiting = False
        return self.interrupted_by

    async def kill_worker(self, index: int, wanted: signal.Signals = signal.SIGKILL) -> None:
        """Send a worker a signal; unless it only pauses, it ends and stays down until ``start_worker``."""
        await self._workers[index].send(wanted)

    async def start_worker(self, index: int) -> None:
        """Start a worker that ``kill_worker`` ended and wait until it consumes; raises EmbeddedError."""
        await self._workers[index].start()

    async def _start(self) -> None:
        self._lock.take()
        self._stack.callback(self._lock.release)
        await _all_up(self._database(), self._kafka())
        done = await migrate(self.database_url)
        self._say(f"ledger: {f'{len(done)} migrations applied' if done else 'up to date'}")
        report = await topic_admin.ensure_topics(
            kafka_connection.connection(self.settings),
            self.settings.partitions,
            self.settings.replication_factor,
            extra=topic_admin.changelogs(self.settings.app_id),
        )
        self.topics = report.demand()
        self._say(f"topics: {len(report.created)} created, {len(report.existing)} found")
        self._take_api_port()
        self._workers = [self._worker(index) for index in range(self._worker_count)]
        self._api = self._api_service()
        for service in (*self._workers, self._api):
            self._stack.push_async_callback(service.stop)
        await _all_up(*(service.start() for service in (*self._workers, self._api)))
        self._say(f"service: {self._worker_count} worker(s), API and dashboard at {self.api_url}")

    async def _database(self) -> None:
        if self.settings.database_url is not None:
            return
        postgres = EmbeddedPostgres(self._state / "postgres")
        self._stack.push_async_callback(postgres.stop)
        await postgres.start()
        url = await postgres.create_database(DATABASE)
        self.postgres = postgres
        self.settings = self.settings.model_copy(update={"database_url": SecretStr(url)})
        self._say(f"database: PostgreSQL {postgres.version}, data in {self._state / 'postgres'}")

    async def _kafka(self) -> None:
        if self.settings.kafka_url is not None:
            return
        broker, reason = await choose_broker(self.settings.embedded_broker, self._state, fast_start=self._fast_start)
        self._stack.push_async_callback(broker.stop)
        await broker.start()
        self.broker = broker
        found: dict[str, object] = {"kafka_url": broker.bootstrap}
        if not broker.is_real_kafka:
            found |= {"kafka_idempotence": False, "rebalance_timeout_s": TANSU_REBALANCE_TIMEOUT_S}
        self.settings = self.settings.model_copy(update=found)
        caveat = f" ({broker.caveat})" if broker.caveat else ""
        self._say(f"broker: {reason}, at {broker.bootstrap}{caveat}")

    def _take_api_port(self) -> None:
        wanted = self.settings.api_port
        port = free_port(wanted)
        if wanted and port != wanted:
            raise EmbeddedError(f"port {wanted} is in use: set another api_port, or 0 for any free one")
        self.settings = self.settings.model_copy(update={"api_port": port})

    def _worker(self, index: int) -> Service:
        name = f"{self.settings.app_id}-worker-{index}"
        ready_file = self._state / "run" / f"{name}.ready"
        ready_file.parent.mkdir(parents=True, exist_ok=True)
        own: dict[str, object] = {"group_instance_id": name, "ready_file": ready_file}
        if self.settings.worker_metrics_port:
            own["worker_metrics_port"] = self.settings.worker_metrics_port + index

        async def is_ready() -> bool:
            return ready_file.exists()

        return Service(
            self._process(name, "worker", self.settings.model_copy(update=own)),
            is_ready,
            ready_deadline_s=WORKER_READY_DEADLINE_S,
            stop_deadline_s=WORKER_STOP_DEADLINE_S,
            before_start=lambda: ready_file.unlink(missing_ok=True),
        )

    def _api_service(self) -> Service:
        async def is_ready() -> bool:
            return await http_status(self.settings.api_port, "/readyz") == 200

        return Service(
            self._process(f"{self.settings.app_id}-api", "api", self.settings),
            is_ready,
            ready_deadline_s=API_READY_DEADLINE_S,
            stop_deadline_s=API_STOP_DEADLINE_S,
        )

    def _process(self, name: str, command: str, settings: Settings) -> ChildProcess:
        log = self._state / "logs" / f"{name}.log"
        return ChildProcess(name, [*self._program, command], log, child_environment(settings, self._extra_env))

    async def _stop(self) -> None:
        """Stop all that started, to the end even when cancelled: the parts' deadlines bound it."""
        stopping = asyncio.create_task(self._stack.aclose(), name="stop all parts")
        self._stopping = True
        while not stopping.done():
            try:
                await asyncio.wait({stopping})
            except asyncio.CancelledError:
                continue
        if self._handle_signals:
            for wanted in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().remove_signal_handler(wanted)
        stopping.result()

    def _watch_signals(self) -> None:
        if self._handle_signals:
            for wanted in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(wanted, self._on_signal, wanted)

    def _on_signal(self, received: signal.Signals) -> None:
        if self.interrupted_by is not None:
            for service in (*self._workers, *([self._api] if self._api else [])):
                service.child.send(signal.SIGKILL)
            return
        self.interrupted_by = received
        self._stop_asked.set()
        if not (self._waiting or self._stopping) and self._owner is not None:
            self._owner.cancel()
            self._cancelled = True

    def _cancelled_by_signal(self) -> bool:
        """Whether the cancellation was ours; then it ends here."""
        if not self._cancelled or self._owner is None:
            return False
        self._owner.uncancel()
        return True
