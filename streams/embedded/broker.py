"""Which broker Sluice starts when none is given: Apache Kafka where Java and mvn are there, else Tansu."""

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from streams.embedded.kafka import KafkaBroker
from streams.embedded.kafka_jars import find_distribution
from streams.embedded.process import EmbeddedError
from streams.embedded.tansu import TansuBroker

Kind = Literal["auto", "kafka", "tansu"]


class Broker(Protocol):
    """A broker on 127.0.0.1 that lives no longer than the process that started it."""

    name: str
    version: str
    #: Whether what is seen on it holds for Apache Kafka.
    is_real_kafka: bool
    #: What a person must know before relying on it; empty for Apache Kafka.
    caveat: str

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients; raises EmbeddedError before the first start."""
        ...

    @property
    def pid(self) -> int:
        """Process id; raises EmbeddedError before the first start."""
        ...

    @property
    def log(self) -> Path:
        """Its log file."""
        ...

    async def start(self) -> str:
        """Start it and return ``bootstrap`` once clients can connect; raises EmbeddedError."""
        ...

    async def stop(self) -> None:
        """End it in order, or at a deadline without."""
        ...

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        ...

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        ...

    def kill(self) -> None:
        """End it as a power cut would."""
        ...


class Choice(NamedTuple):
    """A broker that was not started yet, and in a sentence why it was chosen."""

    broker: Broker
    reason: str


async def choose_broker(kind: Kind, state_dir: Path, *, heap_mb: int = 512, fast_start: bool = False) -> Choice:
    """Choose a broker; its data goes to ``state_dir/kafka`` (Tansu has none).

    The first choice of Apache Kafka on a machine lets ``mvn`` fetch its jars into the cache (some seconds).

    Raises:
        EmbeddedError: ``kafka`` was asked for and cannot be had; the text says what is missing.
    """
    if kind == "tansu":
        return Choice(TansuBroker(state_dir / "tansu"), "Tansu, because it was asked for")
    try:
        distribution = await find_distribution()
    except EmbeddedError as error:
        if kind == "kafka":
            raise
        return Choice(TansuBroker(state_dir / "tansu"), f"Tansu in place of Apache Kafka: {error}")
    broker = KafkaBroker(state_dir / "kafka", distribution, heap_mb=heap_mb, fast_start=fast_start)
    return Choice(broker, f"Apache Kafka {distribution.version} on Java {distribution.java_version}")
