"""``sluice doctor`` and ``sluice dlq`` on the command line: help, and what they say when they have nothing to ask."""

import os

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.settings_sources import PREFIX


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        "dlq",
        "dlq list",
        "dlq show",
        "dlq replay",
        "budgets",
        "budgets list",
        "budgets show",
        "budgets set",
        "budgets withdraw",
        "budgets override",
        "budgets history",
        "budgets open-balance",
        "budgets showback",
        "limits list",
        "limits withdraw",
        "runs",
        "runs announce",
        "runs approve",
        "runs refuse",
        "runs end",
        "runs show",
        "runs list",
        "runs link",
        "grants list",
        "grants give",
        "grants revoke",
        "release",
    ],
)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param("doctor", "kafka_url is not set", id="doctor"),
        pytest.param("doctor", "database_url is not set", id="doctor, both at once"),
        pytest.param("budgets list", "database_url is not set", id="budgets"),
        pytest.param("budgets set no-such-file --why w", "no such file", id="a file that is not there"),
        pytest.param("budgets override b --extra 5", "say how long", id="an override for ever"),
        pytest.param("runs list", "kafka_url is not set", id="runs"),
        pytest.param("release", "kafka_url is not set", id="release"),
        pytest.param("release --all --why w", "say how long", id="a release for ever"),
        pytest.param("release --for 2h --why w", "--all", id="a release of what"),
        pytest.param("release --all --end --why w", "give one", id="open and close"),
        pytest.param("dlq list", "kafka_url is not set", id="list"),
        pytest.param("dlq show", "kafka_url is not set", id="show"),
        pytest.param("dlq replay", "kafka_url is not set", id="replay"),
        pytest.param("--set kafka_url=k:9 dlq show --reason nonsense", "there are empty_value", id="an unknown reason"),
        pytest.param(
            "--set kafka_url=k:9 dlq list --topic alerts.v1", "no such dead-letter topic", id="an unknown topic"
        ),
        pytest.param("--set kafka_url=k:9 --set kafka_idempotence=false dlq replay", "has no transactions", id="Tansu"),
    ],
)
def test_a_command_says_what_is_missing(command, says):
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2
    assert says in result.stderr
