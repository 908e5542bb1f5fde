"""How every Kafka client of Sluice connects: one translation of settings into aiokafka's arguments."""

from typing import Any

from aiokafka.helpers import create_ssl_context

from streams.settings import Settings, SettingsError


def connection(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any aiokafka client: servers, security protocol, TLS context, SASL.

    Raises:
        SettingsError: no broker is set, or the CA file cannot be read.
    """
    if not settings.kafka_url:
        raise SettingsError(["kafka_url is not set: give a broker's host:port, or use `sluice up`, which starts one"])
    found: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.kafka_url.split(",") if server.strip()],
        "security_protocol": settings.kafka_security,
    }
    if settings.kafka_security.endswith("SSL"):
        try:
            ca_file = str(settings.kafka_ca_file) if settings.kafka_ca_file else None
            found["ssl_context"] = create_ssl_context(cafile=ca_file)
        except OSError as error:
            raise SettingsError([f"kafka_ca_file: {settings.kafka_ca_file} holds no usable CA: {error}"]) from error
    if settings.kafka_security.startswith("SASL") and settings.kafka_sasl_password:
        found |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return found
