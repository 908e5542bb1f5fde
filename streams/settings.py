"""Settings: environment (``SLUICE_…``), one YAML file, and flags, validated whole.

Precedence: flags, then environment, then ``*_FILE`` secrets, then the file, then defaults. Every secret ``X``
can be given as ``X_FILE``, the path of a file that holds it. No other module reads the environment. All
errors of all sources are reported at once: a field that fails does not hide the checks between the others.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.settings_checks import (
    STAGES,
    AddressMapping,
    BootstrapServers,
    DollarAmount,
    PostgresUrl,
    RoutingKey,
    SecretWebUrl,
    StageList,
    TextList,
    TextMapping,
    TimeZone,
    TimeZoneMapping,
    WebhookSecret,
    WebUrl,
    WebUrlList,
    is_loopback,
    problems_between,
)
from streams.settings_sources import (
    CONFIG_FILE,
    PREFIX,
    PROBLEMS,
    SecretFiles,
    UnknownVariables,
    YamlFile,
    did_you_mean,
    origins,
)


class SettingsError(Exception):
    """The settings cannot be used; ``problems`` has one line for every error found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """All that an operator can set. Seconds end in ``_s``, milliseconds in ``_ms``, bounds in ``_max``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        env_ignore_empty=True,
        # Lists and mappings are read by split_list and split_mapping: commas are easier in a shell than JSON.
        enable_decoding=False,
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
    )

    config_file: Path | None = Field(None, description="The settings file itself, for the record.")
    state_dir: Path = Field(Path(".sluice"), description="Where the embedded parts keep their data.")

    # Kafka
    kafka_url: BootstrapServers | None = Field(None, description="host:port[,host:port]; none: embedded.")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_idempotence: bool = Field(True, description="Of producers; Tansu alone has none.")
    embedded_broker: Literal["auto", "kafka", "tansu"] = Field(
        "auto", description="auto: Apache Kafka where Java and mvn are there, else Tansu."
    )
    partitions: int = Field(4, ge=1, le=1024, description="Of every topic; fixed once topics exist.")
    replication_factor: int = Field(1, ge=1, le=9)
    topic_epoch: int = Field(0, ge=0, description="Raise it when the usage topics were created anew.")
    app_id: str = Field("sluice", pattern=r"^[a-z][a-z0-9-]{0,40}$", description="Consumer group, changelogs.")
    stages: StageList = Field(list(STAGES), description="What this worker runs; METER scales apart from the rest.")
    group_instance_id: str | None = Field(None, description="One stable name a worker: no rebalance.")
    session_timeout_s: float = Field(10.0, ge=6, le=300)
    rebalance_timeout_s: float = Field(60.0, ge=6, le=600, description="For joining members; 6 on Tansu.")
    fetch_wait_ms: int = Field(50, ge=1, le=5_000)
    fetch_max_bytes: int = Field(1_048_576, ge=65_536, le=52_428_800, description="Per partition and fetch.")

    # PostgreSQL
    database_url: PostgresUrl | None = Field(None, description="postgresql://…; none: an embedded server.")

    # METER
    flush_interval_ms: int = Field(250, ge=10, le=10_000)
    scope_interval_ms: int = Field(20, ge=5, le=5_000)
    dedupe_window_s: int = Field(3600, ge=60, le=86_400)
    dedupe_ids_max: int = Field(20_000_000, ge=1_000)
    lateness_s_max: int = Field(40 * 86_400, ge=3600, description="Older events are dead-lettered.")
    future_s_max: int = Field(300, ge=1, description="How far ahead of the clock an event may be.")
    cells_idle_s: int = Field(7_200, ge=600, description="A cell untouched for this long leaves memory.")
    value_bytes_max: int = Field(1_000_000, ge=1_024, description="Larger records are dead-lettered.")
    tokens_max: int = Field(100_000_000, ge=1, description="Of one kind in one call; more is absurd.")
    id_length_max: int = Field(512, ge=64, le=4_096, description="Of an event's source and id together.")
    text_length_max: int = Field(256, ge=32, le=2_048, description="Of each name and tag of an event.")
    tags_max: int = Field(64, ge=0, le=1_000, description="Tags of one event.")
    cells_max: int = Field(200_000, ge=100, description="Live cells of a source partition; the excess: __other__.")
    team_cells_max: int = Field(20_000, ge=10, description="Of one team among them; the excess: __other__.")
    spenders_max: int = Field(100_000, ge=0, description="Keys with users told apart in live cells; 0: none are.")
    team_spenders_max: int = Field(20_000, ge=0, description="Of one team among them; the excess: __other__.")
    rate_card: Path | None = Field(None, description="Contract prices, YAML; they go before the catalogue.")
    self_hosted_providers: TextList = ["vllm", "ollama", "tgi", "self-hosted"]
    metered_providers: TextList = Field(
        ["openai", "anthropic", "azure", "google", "aws", "mistral"],
        description="Their generative-AI bill lines reconcile with metered usage and add nothing.",
    )

    # BUDGET, DETECT
    budgets: Path | None = Field(None, description="budgets.yaml")
    budgets_max: int = Field(20_000, ge=1, description="More budgets than this are refused at the start.")
    clock: Literal["wall", "stream"] = Field(
        "wall",
        description="stream (`--as-live`): the newest event time is now; replays page and throttle.",
    )
    run_record_usd: DollarAmount = Field("50", description="Training runs above it have to be announced.")
    run_approval_usd: DollarAmount = Field("200", description="Runs above it need their team lead's approval.")
    approval_secret: SecretStr | None = Field(None, description="Signs approval links; none: no links.")
    team_leads: AddressMapping = Field(
        {}, description="team=address: who gets a run's approval link; `*` for all others, without it mail_to."
    )
    approval_links_in_slack: bool = Field(False, description="Everybody who reads the channel may then decide.")
    live_within_s: int = Field(3 * 3600, ge=60, description="Older findings are recorded, never paged.")
    rollup_interval_ms: int = Field(
        2_000, ge=50, le=30_000, description="How often hours of scopes are stated to detectors, at most."
    )
    spike_ratio_percent: int = Field(150, ge=101, le=10_000)
    spike_floor_usd: DollarAmount = Field("5", description="Excess below this is never a spike.")
    morning_timezone: TimeZone = Field("UTC", description="Where owners see at 09:00 what did not have to wake them.")
    runaway_tokens: int = Field(50_000, ge=1)
    loop_floor_usd: DollarAmount = Field("1", description="An hour; a caller at a lower pace is no runaway loop.")
    loop_page_usd: DollarAmount = Field("10", description="An hour; a runaway loop at a lower pace is a ticket.")
    gpu_idle_percent: int = Field(20, ge=1, le=99)
    gpu_idle_exit_percent: int = Field(30, ge=1, le=100)
    gpu_idle_s: int = Field(3600, ge=60)
    gpu_gap_s: int = Field(180, ge=30)
    gpu_page_usd: DollarAmount = Field("500", description="An owner's idle GPUs page once they have cost so much.")
    gpu_ticket_usd_per_day: DollarAmount = Field("1", description="Below it idle GPUs are only shown.")
    gpu_quiet_s: int = Field(3600, ge=0, description="So long none has idled when an incident ends.")
    waste_floor_usd_per_month: DollarAmount = Field("50", description="Waste below it is only in the inventory.")
    unused_days: int = Field(30, ge=1, le=3_650, description="A resource unused for so long is a ticket.")
    unused_stop_days: int = Field(60, ge=8, le=3_650, description="Its stop is proposed, a week after a warning.")

    # NOTIFY
    routes_file: Path | None = Field(None, description="routes.yaml: who hears of which alert; none: the built-in way.")
    pagerduty_routing_key: RoutingKey | None = None
    pagerduty_url: WebUrl = "https://events.pagerduty.com"
    pagerduty_ca_file: Path | None = Field(None, description="For a PagerDuty stand-in with its own CA.")
    slack_webhook_url: SecretWebUrl | None = Field(None, description="Incoming webhook: no threads.")
    slack_bot_token: SecretStr | None = Field(
        None, description="xoxb-…, scope chat:write: updates go into the incident's thread, a resolve edits its start."
    )
    slack_channel: str = Field("", description="Id of the channel that the bot writes to, as C0123456789.")
    slack_api_url: WebUrl = Field("https://slack.com/api/", description="For a Slack stand-in.")
    smtp_host: str | None = None
    smtp_port: int = Field(587, ge=1, le=65_535)
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    mail_from: str = "sluice@localhost"
    mail_to: TextList = Field([], description="Where an alert without an owner's address goes.")
    review_days: int = Field(5, ge=0, le=90, description="For the review of a critical alert; 0: none are opened.")
    delivery_history_days: int = Field(
        30, ge=0, le=3650, description="How long delivered messages are kept; 0: for ever. What is open is kept anyway."
    )
    digest_receivers: TextList = Field(["email", "slack"], description="Who gets the weekly digests; empty: none.")
    digest_hour: int = Field(8, ge=0, le=23, description="Of Monday, in the zone of whoever is told.")
    digest_timezone: TimeZone = Field("UTC", description="Of teams that team_timezones does not name, and of models.")
    team_timezones: TimeZoneMapping = Field({}, description="team=zone: when a team's week begins and is told.")
    public_url: WebUrl = Field(
        "http://127.0.0.1:8686", description="Where people reach the API: in messages, and of approval links."
    )
    runbook_url: str = Field(
        "", description="Linked where an alert names no runbook of its own; {rule} stands for its rule."
    )

    # The watcher of Sluice itself; docs/watching.md
    watch_interval_s: float = Field(15.0, ge=0.2, le=300, description="Between two looks at the deployment.")
    watch_lag_s: int = Field(60, ge=1, description="A record unread for so long is a ticket,")
    watch_lag_page_s: int = Field(300, ge=1, description="and for so long a page.")
    watch_ledger_s: int = Field(120, ge=5, description="The ledger may be so far behind METER.")
    watch_dead_letters_min: int = Field(10, ge=1, description="Fewer in ten minutes are never told.")
    watch_silence_s: int = Field(900, ge=60, description="No source is missed that was silent for less.")
    watch_unpriced_percent: int = Field(1, ge=1, le=100, description="Of all calls of two hours.")
    watch_unpriced_min: int = Field(20, ge=1, description="Fewer calls without a price are never told.")
    watch_delivery_s: int = Field(300, ge=1, description="A message may be owed for so long.")
    heartbeat_url: SecretWebUrl | None = Field(None, description="A dead man's switch that misses us.")
    heartbeat_style: Literal["healthchecks", "plain"] = Field(
        "healthchecks", description="healthchecks: POST, and POST …/fail where a check fails. plain: GET while well."
    )
    heartbeat_interval_s: float = Field(60.0, ge=0.2, le=3600)

    # API and sources
    api_host: str = "127.0.0.1"
    api_port: int = Field(8686, ge=0, le=65_535)
    api_open_reads: bool = Field(
        True,
        description="Reads need no key while the API listens on loopback and is called by a loopback name;"
        " everywhere else, or when false, they need a key of scope read. Writes always need a key.",
    )
    worker_metrics_port: int = Field(0, ge=0, le=65_535, description="0: none.")
    ready_file: Path | None = Field(None, description="Made by a worker once it consumes.")
    ingest_body_bytes_max: int = Field(4_000_000, ge=1_024, description="Of one request that writes.")
    ingest_batch_max: int = Field(10_000, ge=1, description="Events in one batch.")
    openmeter_types: TextList = Field(
        ["litellm_tokens"],
        description="CloudEvents types of LiteLLM's OpenMeter logger (its OPENMETER_EVENT_TYPE).",
    )
    billing_webhook_secret: WebhookSecret | None = Field(None, description="Standard Webhooks: whsec_…")
    pagerduty_webhook_secret: SecretStr | None = Field(None, description="Of its V3 webhook to us; none: none taken.")
    gpu_targets: WebUrlList = Field([], description="dcgm-exporter URLs to scrape.")
    gpu_scrape_interval_s: float = Field(30.0, ge=1, le=600)
    gpu_team_by_namespace: TextMapping = {}
    org_id: str = Field("", description="Organisation of events that name none.")

    # Logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line.")

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: Any, handler: Callable[[Any], "Settings"]) -> "Settings":
        """Field errors, errors between fields and unreadable sources together: none hides another."""
        data = dict(data)
        found = [_line_error(("",), line) for line in data.pop(PROBLEMS, {})]
        try:
            settings, failed = handler(data), set()
        except ValidationError as error:
            failed = {problem["loc"][0] for problem in error.errors(include_url=False)}
            found += [
                InitErrorDetails(
                    type=PydanticCustomError(p["type"], "{text}", {"text": _sentence(p)}),
                    loc=p["loc"],
                    input=None,
                )
                for p in error.errors(include_url=False)
            ]
            settings = handler({name: value for name, value in data.items() if name not in failed})
        for names, problem in problems_between(settings):
            if not failed.intersection(names):
                found.append(_line_error((names[0],), problem))
        if found:
            raise ValidationError.from_exception_data("Settings", found, hide_input=True)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before environment before ``*_FILE`` secrets before the settings file."""
        return (
            init_settings,
            env_settings,
            SecretFiles(settings_cls),
            YamlFile(settings_cls),
            UnknownVariables(settings_cls),
        )

    def listens_on_loopback(self) -> bool:
        """Whether the API can be reached from this machine only."""
        return is_loopback(self.api_host)


def _line_error(where: tuple[str, ...], line: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("settings", "{text}", {"text": line}), loc=where, input=None)


def _sentence(problem: Mapping[str, Any]) -> str:
    """Pydantic's message as an operator reads it."""
    if problem["type"] == "extra_forbidden":
        return "no such setting" + did_you_mean(str(problem["loc"][0]), Settings.model_fields)
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "should")


def load_settings(**flags: Any) -> Settings:
    """Read and check all settings; flags that are None were not given.

    Raises:
        SettingsError: with every problem found, one line each, saying where the wrong value comes from.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_lines(error, given)) from None


def _lines(error: ValidationError, flags: Mapping[str, Any]) -> list[str]:
    problems = error.errors(include_url=False)
    names = {str(problem["loc"][0]) for problem in problems}
    origin = origins(names, flags, _config_file(flags))
    lines = []
    for problem in problems:
        name = str(problem["loc"][0])
        if not name:
            lines.append(problem["msg"])
            continue
        where = ".".join(str(part) for part in problem["loc"])
        source = "" if origin[name] == "default" else f" (from {origin[name]})"
        lines.append(f"{where}: {problem['msg']}{source}")
    return list(dict.fromkeys(lines))


def _config_file(flags: Mapping[str, Any]) -> Path | None:
    path = flags.get("config_file") or os.environ.get(CONFIG_FILE)
    return Path(path) if path else None


def effective(settings: Settings, **flags: Any) -> list[tuple[str, str, str]]:
    """Every setting as (name, value, where it comes from), secrets masked, for people to read."""
    given = {name: value for name, value in flags.items() if value is not None}
    origin = origins(Settings.model_fields, given, settings.config_file)
    rows = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, list):
            value = ", ".join(value)
        elif isinstance(value, dict):
            value = ", ".join(f"{k}={v}" for k, v in value.items())
        rows.append((name, "" if value is None else str(value), origin[name]))
    return rows
