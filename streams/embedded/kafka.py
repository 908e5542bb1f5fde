"""Apache Kafka on 127.0.0.1: KRaft, broker and controller in one JVM, data kept over restarts."""

import asyncio
import base64
import json
import subprocess
import uuid
from pathlib import Path

from streams.embedded.connecting import cluster_id_at
from streams.embedded.kafka_jars import Distribution
from streams.embedded.process import ChildProcess, EmbeddedError, free_port

START_DEADLINE_S = 60.0
FORMAT_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
PORT_ATTEMPTS = 3
MESSAGE_BYTES_MAX = 5 * 1_048_576
#: Compiling with C1 only halves the CPU time of a start and costs throughput later: for tests and demos.
_FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")

_LOG4J = """<Configuration status="WARN" shutdownHook="disable">
  <Appenders><Console name="out"><PatternLayout pattern="%d{ISO8601} %p %c{1}: %m%n"/></Console></Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.common.config" level="WARN"/>
    <Root level="INFO"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""


class KafkaBroker:
    """Apache Kafka in ``data_dir``. Same ports as last time when they are free, same cluster id, same data.

    Args:
        data_dir: everything it writes; made when missing.
        distribution: jars and Java, from ``kafka_jars.find_distribution``.
        heap_mb: the JVM's largest heap.
        fast_start: trade throughput for a start that is quicker by a third.
    """

    name = "Apache Kafka"
    is_real_kafka = True
    caveat = ""

    def __init__(
        self, data_dir: Path, distribution: Distribution, *, heap_mb: int = 512, fast_start: bool = False
    ) -> None:
        self.version = distribution.version
        self._dir = data_dir.absolute()
        self._kafka = distribution
        self._flags = [f"-Xmx{heap_mb}m", *(_FAST_START if fast_start else ())]
        self._port: int | None = None
        self._child = ChildProcess("Apache Kafka", self._java("kafka.Kafka", str(self._properties)), self.log)

    def _java(self, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._dir / 'log4j2.xml'}"
        return [self._kafka.java, *self._flags, logging, "-cp", self._kafka.classpath, *arguments]

    @property
    def _properties(self) -> Path:
        return self._dir / "server.properties"

    @property
    def log(self) -> Path:
        """What the JVM prints."""
        return self._dir / "kafka.log"

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        return self._child.pid

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        if self._port is None:
            raise EmbeddedError("Apache Kafka was not started")
        return f"127.0.0.1:{self._port}"

    async def start(self) -> str:
        """Start, and return ``bootstrap`` once it answers as the cluster that it is.

        Raises:
            EmbeddedError: it did not become ready within a minute; the text quotes its log.
        """
        for attempt in range(PORT_ATTEMPTS):
            port = await self._write_configuration()
            cluster_id = await self._format()
            self._child.start()

            async def is_ours(port: int = port, cluster_id: str = cluster_id) -> bool:
                return await cluster_id_at(port) == cluster_id

            try:
                await self._child.ready(is_ours, START_DEADLINE_S)
            except EmbeddedError:
                self._child.kill()
                taken = "BindException" in self.log.read_text(errors="replace")
                if not taken or attempt == PORT_ATTEMPTS - 1:
                    raise
                (self._dir / "ports.json").unlink()
                continue
            except BaseException:
                self._child.kill()
                raise
            self._port = port
            return self.bootstrap
        raise EmbeddedError("Apache Kafka found no free port")

    async def _write_configuration(self) -> int:
        """Write configuration files; returns the clients' port, the last one again if it is free."""
        self._dir.mkdir(parents=True, exist_ok=True)
        remembered = self._dir / "ports.json"
        last = json.loads(remembered.read_text()) if remembered.exists() else {}
        port = free_port(last.get("broker"))
        controller = free_port(last.get("controller"))
        remembered.write_text(json.dumps({"broker": port, "controller": controller}))
        (self._dir / "log4j2.xml").write_text(_LOG4J)
        settings = server_properties(self._dir / "data", port, controller)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return port

    async def _format(self) -> str:
        """Format the storage of a new data directory; returns the cluster id of this or the first time."""
        meta = self._dir / "data" / "meta.properties"
        if not meta.exists():
            new_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # A leading dash would be read as an option.
            new_id = "A" + new_id[1:]
            tool = ("kafka.tools.StorageTool", "format", "-t", new_id, "-c", str(self._properties))
            try:
                done = await asyncio.to_thread(
                    subprocess.run,
                    self._java(*tool),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=FORMAT_DEADLINE_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise EmbeddedError(f"formatting {meta.parent} took over {FORMAT_DEADLINE_S:g} s") from error
            if done.returncode:
                raise EmbeddedError(
                    f"Kafka's storage in {meta.parent} cannot be formatted:\n{done.stdout}{done.stderr}"
                )
        entries = dict(line.split("=", 1) for line in meta.read_text().splitlines() if "=" in line)
        return entries["cluster.id"]

    async def stop(self) -> None:
        """Controlled shutdown; SIGKILL after 15 seconds."""
        await self._child.stop(deadline_s=STOP_DEADLINE_S)

    def pause(self) -> None:
        """Freeze the JVM."""
        self._child.pause()

    def resume(self) -> None:
        """Let the JVM go on."""
        self._child.resume()

    def kill(self) -> None:
        """SIGKILL the JVM; what it had acknowledged is in the page cache and survives."""
        self._child.kill()


def server_properties(data: Path, port: int, controller: int) -> dict[str, str]:
    """Configuration of a single node on one machine: small buffers, few internal partitions."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # Topics are made by `sluice topics create`, with their configuration; a typo must not make one.
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "message.max.bytes": str(MESSAGE_BYTES_MAX),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # After a SIGKILL the controller waits for the dead broker's session to end: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
        "log.retention.hours": "168",
        "log.segment.bytes": str(128 * 1_048_576),
        # Indexes are mapped at full size for each of some 80 partitions.
        "log.index.size.max.bytes": str(1_048_576),
        # The default offset map of 128 MiB would take a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1_048_576),
        "log.cleaner.io.buffer.size": str(2 * 1_048_576),
    }
