"""The real parts of one run: Kafka and PostgreSQL behind proxies, stand-ins, two workers, and a third now and then."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from loadtest.crash.disk import SmallDisk
from loadtest.crash.plan import SESSION_TIMEOUT_S, WORKERS
from loadtest.crash.proxy import Proxy
from streams.clock import elapsed_s
from streams.embedded.kafka import KafkaBroker
from streams.embedded.kafka_jars import find_distribution
from streams.embedded.postgres import EmbeddedPostgres
from streams.embedded.process import ChildProcess, EmbeddedError
from streams.embedded.service import Service
from streams.settings import load_settings
from streams.standins.runner import StandIns
from streams.supervisor import Supervisor, child_environment

logger = logging.getLogger("crash-rig")

DATABASE = "crash"
#: Processes that write what they wait for to their logs when asked (SIGUSR1): a stall is worth nothing without it.
TELLING = {"PYTHONPATH": str(Path(__file__).parent / "inside")}
BACK_DEADLINE_S = 150.0
ALIVE_DEADLINE_S = 20.0
RATE_CARD = Path(__file__).parents[2] / "examples" / "demo" / "rate-card.yaml"


class ProxiedKafka(KafkaBroker):
    """Apache Kafka that tells its clients the address of a proxy in place of its own."""

    advertised = 0
    #: Where it listens itself, known before it is ready.
    port: int | None = None

    async def _write_configuration(self) -> int:
        self.port = port = await super()._write_configuration()
        own, told = (f"advertised.listeners=PLAINTEXT://127.0.0.1:{number}\n" for number in (port, self.advertised))
        self._properties.write_text(self._properties.read_text().replace(own, told))
        return port

    @property
    def is_alive(self) -> bool:
        """Whether the JVM runs."""
        return self._child.running


class Parts:
    """``async with Parts(folder, budgets, say) as parts``: everything is up inside, and gone outside."""

    def __init__(self, folder: Path, budgets: str, say: Callable[[str], None], small_disk: bool) -> None:
        self.folder = folder
        self.say = say
        self.disk = SmallDisk(folder / "disk") if small_disk else None
        self._budgets = budgets
        self._stack = contextlib.AsyncExitStack()
        self._state = folder / "disk" / "state"
        self.kafka: ProxiedKafka
        self.postgres: EmbeddedPostgres
        self.people: StandIns
        self.running: Supervisor
        self.third: Service
        self.kafka_proxy = Proxy(lambda: self.kafka.port)
        self.postgres_proxy = Proxy(lambda: urlsplit(self.postgres.url()).port)
        #: One fault at a time for each part.
        self.locks = {name: asyncio.Lock() for name in ("worker-0", "worker-1", "third", "kafka", "postgres")}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        if self.disk is not None:
            self.disk.mount()
            self._stack.callback(self.disk.unmount)
        self._state.mkdir(parents=True, exist_ok=True)
        self._stack.callback(self._keep_logs)
        for proxy in (self.kafka_proxy, self.postgres_proxy):
            await proxy.start()
            self._stack.push_async_callback(proxy.stop)
        self.people = await self._stack.enter_async_context(StandIns(self.folder / "standins"))
        self.kafka = ProxiedKafka(self._state / "kafka", await find_distribution(), fast_start=True)
        self.kafka.advertised = self.kafka_proxy.port
        self.postgres = EmbeddedPostgres(self._state / "postgres")
        for part in (self.kafka, self.postgres):
            self._stack.push_async_callback(part.stop)
        await asyncio.gather(self.kafka.start(), self.postgres.start())
        url = await self.postgres.create_database(DATABASE)
        await self._start_service(url.replace(f":{urlsplit(url).port}/", f":{self.postgres_proxy.port}/"))
        keeping = asyncio.create_task(self._link_logs(), name="keep every log")
        self._stack.callback(keeping.cancel)

    async def _start_service(self, database_url: str) -> None:
        budgets = self._state / "budgets.yaml"
        budgets.write_text(self._budgets)
        told = {name.removeprefix("SLUICE_").lower(): value for name, value in self.people.environment().items()}
        settings = load_settings(
            kafka_url=f"127.0.0.1:{self.kafka_proxy.port}", database_url=database_url, state_dir=self._state,
            api_port=0, session_timeout_s=SESSION_TIMEOUT_S, budgets=budgets, rate_card=RATE_CARD, **told,
        )  # fmt: skip
        running = Supervisor(settings, WORKERS, TELLING, handle_signals=False)
        self.running = await self._stack.enter_async_context(running)
        self.third = self._third_worker()
        self._stack.push_async_callback(self.third.stop)

    def _third_worker(self) -> Service:
        ready = self._state / "run" / "third.ready"
        settings = self.running.settings.model_copy(update={"ready_file": ready, "group_instance_id": None})

        async def is_ready() -> bool:
            return ready.exists()

        child = ChildProcess(
            "third worker", [sys.executable, "-m", "streams.cli", "worker"], self._state / "logs" / "third.log",
            child_environment(settings, TELLING),
        )  # fmt: skip
        return Service(
            child, is_ready, ready_deadline_s=60.0, stop_deadline_s=25.0,
            before_start=lambda: ready.unlink(missing_ok=True),
        )  # fmt: skip

    async def bring_back(self, worker: int) -> None:
        """Start a worker that was ended, as often as it takes: what it needs may be away itself."""
        until = elapsed_s() + BACK_DEADLINE_S
        while True:
            try:
                await self.running.start_worker(worker)
                return
            except EmbeddedError as error:
                if self.running.workers[worker].running:
                    return  # its keeper was quicker
                logger.warning("worker %d could not start: %s", worker, error)
                if elapsed_s() > until:
                    raise
                await asyncio.sleep(0.5)

    async def tell(self) -> None:
        """Let the workers write what they wait for to their logs."""
        for child in self.running.workers:
            if child.running:
                child.send(signal.SIGUSR1)
        await asyncio.sleep(1.0)
        self._keep_logs()

    async def mend(self) -> None:
        """See that everything is up that a plan may have left down."""
        for worker, child in enumerate(self.running.workers):
            child.send(signal.SIGCONT)
            if not child.running:
                await self.bring_back(worker)
        await self.third.stop()

    async def revive(self) -> list[str]:
        """Start broker and database again if they have died, as an operator would; returns which had."""
        died = []
        if not self.kafka.is_alive:
            died.append("Kafka")
            await self.kafka.start()
        if not await self._database_answers():
            died.append("PostgreSQL")
            await self.postgres.stop()
            await self.postgres.start()
        return died

    async def _database_answers(self) -> bool:
        until = elapsed_s() + ALIVE_DEADLINE_S
        while elapsed_s() < until:
            try:
                await self.postgres.create_database(DATABASE)
            except Exception as error:
                logger.info("PostgreSQL does not answer yet: %s", error)
                if not _exists(self.postgres.pid):
                    return False
                await asyncio.sleep(0.2)
            else:
                return True
        return False

    async def _link_logs(self) -> None:
        """A log is replaced at the second start after it: a hard link keeps each one."""
        while True:
            self._keep_logs()
            await asyncio.sleep(0.3)

    def _keep_logs(self) -> None:
        kept = self._state / "kept"
        # AttributeError: broker and database are not there yet.
        with contextlib.suppress(OSError, AttributeError):
            kept.mkdir(exist_ok=True)
            logs = [*(self._state / "logs").glob("*.log"), self.kafka.log, self.postgres.log]
            for log in logs:
                link = kept / f"{log.stem}.{log.stat().st_ino}.log"
                if not link.exists():
                    os.link(log, link)


def _exists(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


__all__ = ["Parts", "ProxiedKafka"]
