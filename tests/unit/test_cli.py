"""The command line: what it says when something is missing, and that help is quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.settings_sources import PREFIX

COMMANDS = ("up", "worker", "api", "demo", "replay", "check-config", "topics", "keys")
HEAVY = ("faust", "aiokafka", "river", "asyncpg", "fastapi", "numpy")
BUDGETS = """
budgets:
  - id: search-daily
    scope: {team: search}
    amount_usd: "100"
    period: day
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def sluice(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, text, _ = sluice(command, "--help")
    assert code == 0
    assert "Usage" in text


def test_help_imports_no_heavy_library() -> None:
    program = f"import sys, streams.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "streams.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def test_check_config_shows_what_is_in_force_and_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("partitions: 8\ndatabase_url: postgresql://u:hunter2@h/d\n")
    (tmp_path / "budgets.yaml").write_text(BUDGETS)
    code, text, wrong = sluice(
        "--set", "budgets=budgets.yaml", "--set", "api_port=1234", "check-config", "--config", "s.yaml"
    )
    assert (code, wrong) == (0, "")
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") == 4}
    assert "8" in lines["partitions"]
    assert "s.yaml" in lines["partitions"]
    assert "flag" in lines["api_port"]
    assert "hunter2" not in text
    assert "All good: 1 budgets, no rate card." in text


def test_check_config_draws_the_tree_of_the_budgets(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "examples" / "budgets.yaml").read_text()
    (tmp_path / "budgets.yaml").write_text(example)
    code, text, wrong = sluice("--set", "budgets=budgets.yaml", "check-config")
    assert (code, wrong) == (0, "")
    # What the example says of itself.
    drawn = [line.removeprefix("#").strip() for line in example.splitlines() if line.startswith("#   ")]
    told = [line.partition("...")[0] for line in drawn if not line.startswith("...")]
    assert len(told) == 5
    assert [line for line in told if line not in text] == []
    assert "limit search-burst: team:search has 600 requests a minute, 400000 tokens a minute, $2.00 a minute" in text
    assert "grant: search may use o1-pro until 2027-07-01T00:00:00Z" in text
    assert "All good: 6 budgets, no rate card." in text


def test_check_config_prints_errors_of_settings_budgets_and_rates_at_once_and_ends_with_1(
    tmp_path: Path,
) -> None:
    (tmp_path / "s.yaml").write_text("partitions: 0\nbudgets: budgets.yaml\nrate_card: rates.yaml\n")
    (tmp_path / "budgets.yaml").write_text("budgets:\n  - id: search-daily\n")
    (tmp_path / "rates.yaml").write_text("nonsense: 1\n")
    code, text, wrong = sluice("--config", "s.yaml", "check-config")
    assert (code, text) == (1, "")
    assert "partitions: should be greater than or equal to 1 (from s.yaml)" in wrong
    assert "budgets.yaml: line 2" in wrong
    assert "rates.yaml: line 1" in wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["api"], "database_url is not set"),
        (["worker"], "database_url is not set"),
        (["keys", "list"], "database_url is not set, and no `sluice up` runs"),
        (["topics", "create"], "kafka_url is not set"),
        (["--set", "partitions=none", "up"], "partitions: should be a valid integer"),
        (["--config", "nowhere.yaml", "up"], "config_file: cannot read nowhere.yaml"),
    ],
    ids=["api", "worker", "keys", "topics", "wrong value", "no settings file"],
)
def test_a_command_says_what_is_missing(arguments: list[str], message: str) -> None:
    code, _, wrong = sluice(*arguments)
    assert code != 0
    assert message in wrong


def test_set_without_a_value_is_refused() -> None:
    code, _, wrong = sluice("--set", "partitions", "check-config")
    assert code == 2
    assert "NAME=VALUE" in wrong


def test_an_unreachable_broker_is_named_in_one_line_and_no_traceback(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,1,1\n")
    command = [sys.executable, "-m", "streams.cli", "replay", "--format", "azure-llm", "--kafka", "127.0.0.1:9"]
    done = subprocess.run([*command, str(trace)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "no Kafka broker answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_topics_list_names_every_topic_and_how_it_is_kept() -> None:
    code, text, _ = sluice("topics", "list")
    assert code == 0
    assert "usage.events.v1.dlt" in text
    assert "last of each key" in text
