"""Putting the transport together: the driver under its own URL scheme, and a Faust application on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
import faust.transport.drivers.aiokafka as driver
from faust.transport.drivers import TRANSPORTS
from faust.types.enums import ProcessingGuarantee
from mode import CrashingSupervisor

from streams.transport.consumer import BatchConsumer, Hands
from streams.transport.producer import BatchProducer
from streams.transport.recovery import BatchTableManager

SCHEME = "sluice"

#: A record larger than this cannot be produced; inputs allow 4 MiB and dead letters carry headers besides.
REQUEST_BYTES_MAX = 5 * 1_048_576
BATCH_BYTES = 262_144
#: aiokafka compresses lz4 at its highest level: 19 ms a MB of statements, on the event loop, where its zstd takes 3 and
#: makes less of them. What gateways send stays lz4: it is written in many places and read in one, and read sooner so.
COMPRESSION = "zstd"
METADATA_AGE_MS = 10_000
#: Batches an agent's queue holds until its partitions stop being fetched, and of each partition that come after that:
#: the one that shows it, and one that was on its way.
QUEUED_BATCHES, UNDER_WAY = 12, 2

Connection = Mapping[str, Any]


class Transport(driver.Transport):
    """aiokafka underneath, batches on top."""

    Consumer = BatchConsumer
    Producer = BatchProducer


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"


class App(faust.App):
    """A Faust application that knows how to reach the broker by itself, for readers outside the consumer group."""

    connection: Connection
    fetch_wait_ms: int
    partitions: int
    #: Names the changelogs, whatever the group is called.
    state_of: str
    #: What somebody waits for: written beside everything else (BatchProducer).
    express_topics: frozenset[str] = frozenset()
    #: False only for a broker that has no idempotent producers, which is none for production.
    idempotence: bool

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> Any:
        """An agent's queue: from ``maxsize`` batches on, each partition that comes is not fetched any more.

        Faust has a fifth of ``maxsize`` as room for what is under way then, whatever the number of partitions, and
        holds back everybody once that is full. Here every partition has room, so an agent that stands still (its
        database is away) holds back itself alone.
        """
        marked = maxsize or 0
        room = marked + UNDER_WAY * self.partitions
        queue = super().FlowControlQueue(room if marked else 0, clear_on_resume=clear_on_resume)
        if marked:
            queue.pressure_high_size, queue.pressure_drop_size = marked, marked // 2
        return queue


def make_app(
    app_id: str,
    connection: Connection,
    *,
    partitions: int,
    state_of: str = "",
    fetch_wait_ms: int = 50,
    fetch_max_bytes: int = 1_048_576,
    session_timeout_s: float = 10.0,
    rebalance_timeout_s: float = 60.0,
    group_instance_id: str | None = None,
    idempotence: bool = True,
    folder: Path | None = None,
) -> App:
    """A Faust application whose topics deliver batches.

    ``connection`` is what aiokafka clients take: ``bootstrap_servers`` and, where needed, the security settings.
    ``state_of`` names the changelogs; the application's own id unless given.
    ``folder`` is where Faust makes its (empty) data folders; the working directory unless given.
    """
    require_c_extension()
    app = App(
        app_id,
        broker=[f"{SCHEME}://{server}" for server in _servers(connection["bootstrap_servers"])],
        broker_credentials=_credentials(connection),
        TableManager=BatchTableManager,
        processing_guarantee=ProcessingGuarantee.AT_LEAST_ONCE,
        agent_supervisor=CrashingSupervisor,
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        table_standby_replicas=0,
        stream_wait_empty=True,
        stream_buffer_maxsize=QUEUED_BATCHES,
        broker_commit_interval=1.0,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=max(1.0, session_timeout_s / 5),
        broker_rebalance_timeout=rebalance_timeout_s,
        broker_max_poll_interval=300.0,
        consumer_group_instance_id=group_instance_id,
        consumer_auto_offset_reset="earliest",
        # A broker that is coming back knows no topics for a moment. A leader that assigns then gives everybody nothing,
        # and notices with its next look at the metadata: five minutes later by default.
        consumer_metadata_max_age_ms=METADATA_AGE_MS,
        consumer_max_fetch_size=fetch_max_bytes,
        producer_acks=-1,
        producer_linger=0.005,
        producer_request_timeout=30.0,
        producer_compression_type=COMPRESSION,
        producer_max_batch_size=BATCH_BYTES,
        producer_max_request_size=REQUEST_BYTES_MAX,
        worker_redirect_stdouts=False,
        web_enabled=False,
        **({"datadir": folder} if folder else {}),
        web_in_thread=False,
    )
    app.connection = connection
    app.fetch_wait_ms = fetch_wait_ms
    app.partitions = partitions
    app.state_of = state_of or app_id
    app.idempotence = idempotence
    app.sensors.add(Hands())
    return app


def require_c_extension() -> None:
    """Refuse to run on a Faust without its C extension: it acknowledges records of an old assignment, and loses them.

    Raises:
        RuntimeError: with what to install.
    """
    import faust.streams

    if getattr(faust.streams, "_CStreamIterator", None) is None:
        raise RuntimeError("faust-streaming was built without its C extension: install the wheel, not the sdist")


def _servers(bootstrap: str | list[str]) -> list[str]:
    return bootstrap.split(",") if isinstance(bootstrap, str) else list(bootstrap)


def _credentials(connection: Connection) -> Any:
    protocol = connection.get("security_protocol", "PLAINTEXT")
    context = connection.get("ssl_context")
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=connection["sasl_plain_username"],
            password=connection["sasl_plain_password"],
            mechanism=connection["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
