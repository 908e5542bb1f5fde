"""``sluice routes`` and ``check-config``: what an operator reads of the routes."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.settings_sources import PREFIX
from tests.unit.notify_world import alert

EXAMPLE = Path(__file__).parents[2] / "examples" / "routes.yaml"
AT = ("--at", "2026-11-23T23:00:00Z")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, value in {
        "smtp_host": "mail.test", "mail_to": "a@b.test", "slack_webhook_url": "https://slack.test/x",
        "pagerduty_routing_key": "0" * 32,
    }.items():  # fmt: skip
        monkeypatch.setenv(PREFIX + name.upper(), value)


def sluice(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def tried(*pairs: str, more: tuple[str, ...] = ()) -> str:
    alerts = [part for pair in pairs for part in ("--alert", pair)]
    code, text, errors = sluice("routes", "test", "--routes", str(EXAMPLE), *AT, *alerts, *more)
    assert code == 0, errors
    return text


def _line(words: str) -> int:
    return next(n for n, line in enumerate(EXAMPLE.read_text().splitlines(), 1) if "match:" in line and words in line)


def test_the_tree_is_drawn_with_receivers_and_what_silences_what():
    code, text, _ = sluice("routes", "show", "--routes", str(EXAMPLE))
    assert code == 0
    assert '├── tier = "page": on-call' in text
    assert "after 10m to managers" in text
    assert "managers/email (head-of-platform@example.test, finance@example.test)" in text
    assert "one-page: one overspend is one page" in text
    assert "daily 19:00-07:00, sat,sun 07:00-19:00 in Europe/Berlin hold back pages; emergency may pass" in text


def test_without_a_file_the_built_in_tree_is_drawn():
    code, text, _ = sluice("routes", "show")
    assert code == 0
    assert '├── tier = "page": pagerduty, slack' in text


def test_a_try_says_which_route_takes_the_alert_and_why_the_others_do_not():
    text = tried("team=search", "severity=critical")
    search, page, critical = (_line(words) for words in ("{team: search}", "tier = page", "severity =~ critical"))
    assert f'->   team = "search" (line {search}): takes it' in text
    assert f'tier = "page" (line {page}): not tier = "page": tier is \'ticket\'' in text
    assert (
        f'severity =~ "critical|emergency" (line {critical}): not asked: a route before it has taken the alert' in text
    )
    assert "Told 1  search-room/slack\n  group   team=search rule=budget_threshold" in text
    assert "when    first after 10s; then changes every 5m; again every 12h" in text


def test_a_try_names_the_owner_and_every_group_where_routes_go_on():
    text = tried("team=ads", "severity=warning", "cost_centre=cc-12")
    assert "Told 1  finance-desk/webhook" in text
    # An owner with a receiver of his own is told there.
    assert "Told 2  search-room/slack" in text
    assert "owner=search-lead@example.test" in tried("team=search")


def test_a_try_says_what_holds_the_alert_back_now_and_later():
    assert "held back by the quiet hours berlin-nights, until 2026-11-24T06:00:00Z" in tried(
        "tier=page", "severity=critical"
    )
    text = tried("severity=emergency", "ancestors=org", more=("--firing", "scope=org,severity=emergency"))
    assert "now (pages): silenced by the alert v1:budget_threshold:budget:org" in text
    assert "later   managers/email after 10m, if nobody has acknowledged" in text
    assert "Silent  while an alert fires of the rule one-page" in text


def test_a_note_and_history_say_why_nobody_is_told():
    assert "nobody: it is a note" in tried("tier=note")
    assert "nobody: it is history" in tried("historic=true")


def test_a_file_with_an_alert_of_the_topic_can_be_tried(tmp_path):
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(alert("org")))
    (tmp_path / "b.json").write_text(
        json.dumps([{"data": msgspec.to_builtins(alert("chat", severity="info", tier="ticket"))}])
    )
    text = tried("a.json", "b.json")
    assert text.count("Walk") == 2
    assert "scope=org" in text
    assert "scope=chat" in text


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("severity=loud", "there is no severity 'loud'; there are info, warning, critical, emergency"),
        ("nothing", "'nothing' is neither LABEL=VALUE nor a file"),
    ],
)
def test_what_cannot_be_tried_is_said(given, error):
    code, _, errors = sluice("routes", "test", "--alert", given)
    assert code == 2
    assert error in errors


@pytest.mark.parametrize(("to", "code"), [(["slack", "pagerduty"], 0), (["slack"], 1), (["slack", "email"], 1)])
def test_a_try_can_stand_in_a_test_of_the_file(to, code):
    expected = [part for name in to for part in ("--to", name)]
    assert sluice("routes", "test", "--alert", "severity=emergency", *expected)[0] == code


def test_check_config_reads_the_routes(tmp_path):
    code, text, errors = sluice("--set", f"routes_file={EXAMPLE}", "check-config")
    assert (code, errors) == (0, "")
    assert "7 routes." in text


def test_check_config_names_the_lines_of_routes_and_receivers_that_reach_nobody(tmp_path, monkeypatch):
    (tmp_path / "routes.yaml").write_text("route:\n  receiver: slak\n")
    code, _, errors = sluice("--set", "routes_file=routes.yaml", "check-config")
    assert code == 1
    assert "routes.yaml: line 2: route.receiver: there is no receiver slak; did you mean slack?" in errors
    (tmp_path / "routes.yaml").write_text("route:\n  receiver: [slack, pagerduty]\n")
    monkeypatch.delenv(PREFIX + "PAGERDUTY_ROUTING_KEY")
    for command in (("check-config",), ("routes", "show")):
        code, _, errors = sluice("--set", "routes_file=routes.yaml", *command)
        assert code in (1, 2)
        assert "routes name the receiver pagerduty, and pagerduty_routing_key is not set" in errors


def test_a_file_that_is_not_there_is_said():
    code, _, errors = sluice("--set", "routes_file=no.yaml", "check-config")
    assert code == 1
    assert "routes_file: no such file: no.yaml" in errors
