"""``sluice gate``: the decision endpoint of ``gateway.decide``, with the broker of the settings."""

from typing import Literal

from gateway.decide import serve as serve_decisions
from streams import kafka_connection
from streams.commands.running import complete
from streams.settings import Settings


async def serve(settings: Settings, name: str, listen: str, fail: Literal["open", "closed"]) -> int:
    """Answer until told to end.

    Raises:
        SettingsError: no broker is given, and none runs here.
    """
    found = complete(settings, "kafka_url")
    host, _, port = listen.rpartition(":")
    return await serve_decisions(
        kafka_connection.connection(found),
        name=name,
        host=host or "127.0.0.1",
        port=int(port),
        fail=fail,
        idempotence=found.kafka_idempotence,
    )
