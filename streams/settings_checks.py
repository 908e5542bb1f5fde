"""What makes a single setting wrong, and what makes settings wrong together. No message repeats a secret."""

import base64
import binascii
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, PostgresDsn, SecretStr, TypeAdapter, ValidationError

from schemas.money import parse_nanos
from streams.settings_sources import split_list, split_mapping


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine.

    >>> [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.com", "")]
    [True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _postgres(value: SecretStr) -> SecretStr:
    try:
        TypeAdapter(PostgresDsn).validate_python(value.get_secret_value())
    except ValidationError:
        # Not its message: that repeats the input, and the input has a password in it.
        raise ValueError("not of the form postgresql://user:password@host:5432/name") from None
    return value


def _bootstrap(value: str) -> str:
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            raise ValueError(f"{server.strip()!r} is not host:port, as in kafka-1:9092,kafka-2:9092")
    return value


def _web(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value


def _secret_web(value: SecretStr) -> SecretStr:
    _web(value.get_secret_value())
    return value


def _amount(value: str) -> str:
    if parse_nanos(value) < 0:
        raise ValueError("an amount of dollars is not negative here")
    return value


def _routing_key(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) != 32:
        raise ValueError("a PagerDuty Events v2 integration key has 32 characters")
    return value


def _webhook_secret(value: SecretStr) -> SecretStr:
    try:
        base64.b64decode(value.get_secret_value().removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("a Standard Webhooks secret is whsec_ and base64 after it") from error
    return value


def _addresses(value: dict[str, str]) -> dict[str, str]:
    for name, address in value.items():
        if not _ADDRESS.fullmatch(address):
            raise ValueError(f"{name}={address[:64]!r}: that is no mail address, as in {name}=lead@example.com")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value[:64]!r} is no time zone; write one such as Europe/Berlin or UTC") from error
    return value


def _zones(value: dict[str, str]) -> dict[str, str]:
    for zone in value.values():
        _zone(zone)
    return value


_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")
#: What a worker can run, in the order in which money flows.
STAGES = ("meter", "budget", "detect", "ledger", "notify")


def _stages(value: list[str]) -> list[str]:
    unknown = [name for name in value if name not in STAGES]
    if unknown or not value:
        raise ValueError(f"{', '.join(unknown) or 'nothing'} is no stage; there are {', '.join(STAGES)}")
    return [name for name in STAGES if name in value]


TextList = Annotated[list[str], BeforeValidator(split_list)]
TextMapping = Annotated[dict[str, str], BeforeValidator(split_mapping)]
AddressMapping = Annotated[dict[str, str], AfterValidator(_addresses), BeforeValidator(split_mapping)]
TimeZone = Annotated[str, AfterValidator(_zone)]
TimeZoneMapping = Annotated[dict[str, str], AfterValidator(_zones), BeforeValidator(split_mapping)]
StageList = Annotated[list[str], AfterValidator(_stages), BeforeValidator(split_list)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres)]
BootstrapServers = Annotated[str, AfterValidator(_bootstrap)]
WebUrl = Annotated[str, AfterValidator(_web)]
SecretWebUrl = Annotated[SecretStr, AfterValidator(_secret_web)]
WebUrlList = Annotated[list[WebUrl], BeforeValidator(split_list)]
DollarAmount = Annotated[str, AfterValidator(_amount)]
RoutingKey = Annotated[SecretStr, AfterValidator(_routing_key)]
WebhookSecret = Annotated[SecretStr, AfterValidator(_webhook_secret)]


class Checked(Protocol):
    """The settings that have to fit each other."""

    kafka_security: str
    kafka_sasl_username: str | None
    kafka_sasl_password: SecretStr | None
    kafka_ca_file: Path | None
    gpu_idle_percent: int
    gpu_idle_exit_percent: int
    slack_webhook_url: SecretStr | None
    slack_bot_token: SecretStr | None
    slack_channel: str
    runbook_url: str
    smtp_host: str | None
    smtp_username: str | None
    smtp_password: SecretStr | None
    mail_to: list[str]
    run_record_usd: str
    run_approval_usd: str
    approval_secret: SecretStr | None
    watch_lag_s: int
    watch_lag_page_s: int


def problems_between(s: Checked) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong between settings that are right by themselves: (names it depends on, error)."""
    security = ("kafka_security", "kafka_sasl_username", "kafka_sasl_password", "kafka_ca_file")
    uses_sasl, has_sasl = (
        s.kafka_security.startswith("SASL"),
        bool(s.kafka_sasl_username and s.kafka_sasl_password),
    )
    rules: list[tuple[bool, tuple[str, ...], str]] = [
        (
            uses_sasl and not has_sasl,
            security[:3],
            f"{s.kafka_security} needs kafka_sasl_username and kafka_sasl_password",
        ),
        (
            has_sasl and not uses_sasl,
            security[:3],
            f"{s.kafka_security} would ignore kafka_sasl_username and kafka_sasl_password; set SASL_SSL",
        ),
        (
            s.kafka_ca_file is not None and "SSL" not in s.kafka_security,
            (security[0], security[3]),
            f"{s.kafka_security} would ignore kafka_ca_file; set SSL or SASL_SSL",
        ),
        (
            s.gpu_idle_exit_percent <= s.gpu_idle_percent,
            ("gpu_idle_exit_percent", "gpu_idle_percent"),
            f"must be above gpu_idle_percent ({s.gpu_idle_percent}), or alerts would flap",
        ),
        (
            bool(s.smtp_host) and not s.mail_to,
            ("mail_to", "smtp_host"),
            "is empty while smtp_host is set: nobody would get the mail",
        ),
        (
            bool(s.smtp_username) != bool(s.smtp_password),
            ("smtp_username", "smtp_password"),
            "smtp_username and smtp_password go together: set both or none",
        ),
    ]
    rules += [
        (
            parse_nanos(s.run_record_usd) > parse_nanos(s.run_approval_usd),
            ("run_record_usd", "run_approval_usd"),
            f"is above run_approval_usd ({s.run_approval_usd}): what needs an approval needs a record too",
        ),
        (
            s.approval_secret is not None and len(s.approval_secret.get_secret_value().encode()) < 16,
            ("approval_secret",),
            "is shorter than 16 bytes: `openssl rand -hex 32` makes one",
        ),
        (
            s.watch_lag_page_s <= s.watch_lag_s,
            ("watch_lag_page_s", "watch_lag_s"),
            f"must be above watch_lag_s ({s.watch_lag_s}): a lag is a ticket before it is a page",
        ),
    ]
    rules += _of_receivers(s)
    for name in ("rate_card", "budgets", "routes_file", "kafka_ca_file", "pagerduty_ca_file"):
        path = getattr(s, name)
        rules.append((path is not None and not path.is_file(), (name,), f"no such file: {path}"))
    return [(names, problem) for wrong, names, problem in rules if wrong]


def _of_receivers(s: Checked) -> list[tuple[bool, tuple[str, ...], str]]:
    """(Whether it is wrong, names it depends on, error)."""
    return [
        (
            s.slack_bot_token is not None and not s.slack_channel,
            ("slack_channel", "slack_bot_token"),
            "is empty while slack_bot_token is set: give the id of the channel that the bot writes to",
        ),
        (
            s.slack_bot_token is not None and s.slack_webhook_url is not None,
            ("slack_bot_token", "slack_webhook_url"),
            "set slack_bot_token or slack_webhook_url, not both: they are two ways to one channel",
        ),
        (
            bool(s.runbook_url) and not s.runbook_url.startswith(("https://", "http://")),
            ("runbook_url",),
            "must start with http:// or https://, as in https://wiki.example/runbooks/{rule}",
        ),
    ]
