"""Settings: precedence, every error at once, and no secret in any message."""

import os
from pathlib import Path
from typing import Any

import pytest

from streams.settings import Settings, SettingsError, effective, load_settings
from streams.settings_sources import PREFIX, SECRETS, as_variables, given_value

PASSWORD = "hunter2-never-shown"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def problems(**flags: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(**flags)
    return caught.value.problems


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_defaults_alone_are_valid_and_listen_on_loopback_only() -> None:
    settings = load_settings()
    assert settings.listens_on_loopback()
    assert settings.api_open_reads


def test_a_flag_goes_before_a_variable_before_a_secret_file_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = written(tmp_path / "s.yaml", "partitions: 1\napi_port: 1\napp_id: from-file\nsmtp_password: from-file\n")
    monkeypatch.setenv("SLUICE_CONFIG_FILE", config)
    monkeypatch.setenv("SLUICE_PARTITIONS", "2")
    monkeypatch.setenv("SLUICE_API_PORT", "2")
    monkeypatch.setenv("SLUICE_SMTP_PASSWORD_FILE", written(tmp_path / "secret", "from-secret-file\n"))
    monkeypatch.setenv("SLUICE_SMTP_USERNAME", "u")
    settings = load_settings(partitions=3)
    assert (settings.partitions, settings.api_port, settings.app_id) == (3, 2, "from-file")
    assert settings.smtp_password is not None
    assert settings.smtp_password.get_secret_value() == "from-secret-file"
    found = {name: origin for name, _, origin in effective(settings, partitions=3)}
    assert found["partitions"] == "flag"
    assert found["api_port"] == "SLUICE_API_PORT"
    assert found["smtp_password"] == "SLUICE_SMTP_PASSWORD_FILE"
    assert found["app_id"] == config
    assert found["tokens_max"] == "default"


def test_every_error_of_every_source_comes_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_PARTITIONS", "9999")
    monkeypatch.setenv("SLUICE_PARTITONS", "4")
    monkeypatch.setenv("SLUICE_SMTP_PASSWORD_FILE", str(tmp_path / "nowhere"))
    config = written(tmp_path / "s.yaml", "api_prt: 80\napi_port: many\n")
    found = problems(config_file=config, smtp_host="mail", gpu_idle_percent=60, budgets=tmp_path / "no.yaml")
    expected = [
        "partitions: should be less than or equal to 1024 (from SLUICE_PARTITIONS)",
        "SLUICE_PARTITONS: no setting has this variable; did you mean SLUICE_PARTITIONS?",
        "smtp_password: cannot read",
        f"{config}: no setting is called 'api_prt'; did you mean api_port?",
        "api_port: should be a valid integer",
        "mail_to: is empty while smtp_host is set",
        "gpu_idle_exit_percent: must be above gpu_idle_percent (60)",
        f"budgets: no such file: {tmp_path / 'no.yaml'}",
    ]
    for line in expected:
        assert any(problem.startswith(line) for problem in found), (line, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"partitons": 3}, "partitons: no such setting; did you mean partitions? (from flag)"),
        ({"kafka_url": "kafka"}, "kafka_url: 'kafka' is not host:port"),
        ({"kafka_url": "a:1,b"}, "kafka_url: 'b' is not host:port"),
        ({"kafka_security": "SASL_SSL"}, "kafka_security: SASL_SSL needs kafka_sasl_username"),
        ({"kafka_sasl_username": "u", "kafka_sasl_password": "p"}, "kafka_security: PLAINTEXT would ignore"),
        ({"public_url": "sluice.example"}, "public_url: must start with http:// or https://"),
        ({"gpu_targets": "http://a, b"}, "gpu_targets.1: must start with http:// or https://"),
        ({"spike_floor_usd": "much"}, "spike_floor_usd: not an amount of money"),
        ({"spike_floor_usd": "-1"}, "spike_floor_usd: an amount of dollars is not negative here"),
        ({"pagerduty_routing_key": "short"}, "pagerduty_routing_key: a PagerDuty Events v2 integration key"),
        ({"billing_webhook_secret": "whsec_?"}, "billing_webhook_secret: a Standard Webhooks secret is whsec_"),
        ({"mail_to": '["a"'}, "mail_to: looks like a list in JSON, but is not"),
        ({"gpu_team_by_namespace": "prod"}, "gpu_team_by_namespace: write name=value pairs"),
        ({"smtp_username": "u"}, "smtp_username: smtp_username and smtp_password go together"),
        ({"slack_bot_token": "xoxb-1"}, "slack_channel: is empty while slack_bot_token is set"),
        (
            {"slack_bot_token": "xoxb-1", "slack_channel": "C1", "slack_webhook_url": "https://h"},
            "slack_bot_token: set slack_bot_token or slack_webhook_url, not both",
        ),
        ({"runbook_url": "wiki/{rule}"}, "runbook_url: must start with http:// or https://"),
        ({"watch_lag_s": 300}, "watch_lag_page_s: must be above watch_lag_s (300)"),
        ({"heartbeat_url": "hc-ping.com/1"}, "heartbeat_url: must start with http:// or https://"),
        ({"config_file": "/nowhere/s.yaml"}, "config_file: cannot read /nowhere/s.yaml"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_named_with_what_to_do(flags: dict[str, Any], line: str) -> None:
    found = problems(**flags)
    assert len(found) == 1, found
    assert found[0].startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[1, 2]", "expected `name: value` lines, found a list"),
        ("a: [", "not YAML"),
        ("1: 2", "no setting is called 1"),
    ],
    ids=["a list", "broken", "a number as name"],
)
def test_a_settings_file_of_the_wrong_form_is_refused(tmp_path: Path, text: str, line: str) -> None:
    assert any(line in problem for problem in problems(config_file=written(tmp_path / "s.yaml", text)))


def test_an_empty_settings_file_sets_nothing(tmp_path: Path) -> None:
    assert load_settings(config_file=written(tmp_path / "s.yaml", "# later\n")).partitions == 4


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA_URL", "")
    assert load_settings().kafka_url is None


def test_an_empty_secret_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_DATABASE_URL_FILE", written(tmp_path / "s", "\n"))
    assert problems() == [
        f"database_url: {tmp_path / 's'} (from SLUICE_DATABASE_URL_FILE) is empty; put the secret into it"
    ]


@pytest.mark.parametrize("name", SECRETS)
def test_no_message_and_no_table_repeats_a_secret(name: str) -> None:
    good = {
        "database_url": f"postgresql://u:{PASSWORD}@h/d",
        "slack_webhook_url": f"https://{PASSWORD}",
        "slack_bot_token": PASSWORD,
        "pagerduty_routing_key": PASSWORD.ljust(32, "x"),
        "billing_webhook_secret": "whsec_aHVudGVyMg==",
        "smtp_password": PASSWORD,
        "kafka_sasl_password": PASSWORD,
        "approval_secret": PASSWORD.ljust(16, "x"),
        "pagerduty_webhook_secret": PASSWORD.ljust(16, "x"),
        "heartbeat_url": f"https://{PASSWORD}",
    }
    needed = {"smtp_password": {"smtp_username": "u"}, "slack_bot_token": {"slack_channel": "C1"}}
    extra: dict[str, Any] = dict(needed.get(name, {}))
    if name == "kafka_sasl_password":
        extra = {"kafka_sasl_username": "u", "kafka_security": "SASL_SSL"}
    settings = load_settings(**{name: good[name]}, **extra)
    shown = {row[0]: row[1] for row in effective(settings)}
    assert shown[name] == "**********"
    assert good[name] not in repr(settings)
    wrong = problems(**{name: f"ftp://u:{PASSWORD}@"}, partitions=0, gpu_idle_percent=99)
    assert not [line for line in wrong if PASSWORD in line]


@pytest.mark.parametrize(
    ("text", "value"),
    [("a@x, b@x", ["a@x", "b@x"]), ('["a@x"]', ["a@x"]), ("a@x", ["a@x"])],
    ids=["commas", "JSON", "one"],
)
def test_a_list_is_words_with_commas_or_json(monkeypatch: pytest.MonkeyPatch, text: str, value: list[str]) -> None:
    monkeypatch.setenv("SLUICE_MAIL_TO", text)
    assert load_settings().mail_to == value


def test_variables_for_a_child_process_give_it_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        database_url=f"postgresql://u:{PASSWORD}@h/d",
        mail_to=["a@x"],
        gpu_team_by_namespace={"prod": "search"},
        api_open_reads=False,
        spike_floor_usd="7.50",
        state_dir="elsewhere",
    )
    variables = as_variables(settings)
    assert set(variables) == {
        f"SLUICE_{name}"
        for name in (
            "DATABASE_URL",
            "MAIL_TO",
            "GPU_TEAM_BY_NAMESPACE",
            "API_OPEN_READS",
            "SPIKE_FLOOR_USD",
            "STATE_DIR",
        )
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_a_raw_value_is_found_by_precedence_even_where_settings_are_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = written(tmp_path / "s.yaml", "budgets: from-file.yaml\n")
    assert given_value("budgets", {}) is None
    assert given_value("budgets", {"config_file": config}) == "from-file.yaml"
    monkeypatch.setenv("SLUICE_BUDGETS", "from-variable.yaml")
    assert given_value("budgets", {"config_file": config}) == "from-variable.yaml"
    assert given_value("budgets", {"budgets": "from-flag.yaml"}) == "from-flag.yaml"


def test_every_setting_has_a_unit_or_a_bound_for_its_number() -> None:
    """A limit on everything: an unbounded number is a typing error that nobody notices."""
    unbounded = [
        name for name, field in Settings.model_fields.items() if field.annotation in (int, float) and not field.metadata
    ]
    assert unbounded == []


def test_every_secret_can_be_given_as_a_file():
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret | {"database_url"} == set(SECRETS)
