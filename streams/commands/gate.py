"""``sluice gate``: the decision endpoint of ``gateway.decide``, with the broker of the settings."""

import socket
from typing import Literal

from gateway.decide import serve as serve_decisions
from streams import kafka_connection
from streams.commands.running import complete
from streams.settings import Settings, SettingsError

PORT_MAX = 65_535


async def serve(settings: Settings, name: str, listen: str, fail: Literal["open", "closed"]) -> int:
    """Answer until told to end.

    Raises:
        SettingsError: no broker is given, and none runs here; or nobody can listen there.
    """
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > PORT_MAX:
        raise SettingsError([f"--listen: {listen!r} is not HOST:PORT, as in 127.0.0.1:8687"])
    found = complete(settings, "kafka_url")
    try:
        return await serve_decisions(
            kafka_connection.connection(found),
            name=name or f"decide-{socket.gethostname()}",
            host=host.strip("[]") or "127.0.0.1",
            port=int(port),
            fail=fail,
            idempotence=found.kafka_idempotence,
        )
    except OSError as error:
        raise SettingsError([f"--listen: cannot listen on {listen}: {error.strerror or error}"]) from error
