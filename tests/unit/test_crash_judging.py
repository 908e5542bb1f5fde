"""How the crash rig judges: what it expects of a few records by hand, and that it sees every kind of difference."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loadtest.crash.budgeting import BUDGETS
from loadtest.crash.compare import Found, Letter, compare
from loadtest.crash.expected import Command, Expected, Rung
from loadtest.crash.load import BILLS, EVENTS
from loadtest.crash.refusals import Raw
from loadtest.oracle import BILL, USAGE, Prices
from schemas.keys import alert_id

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PERIOD = (NOON - timedelta(hours=12), NOON + timedelta(hours=12))
BUSIEST = "busiest-daily"
KEY = "team:team-00|busiest-daily"


def _raw(offset: int, data: dict[str, Any] | bytes, id: str, minutes: float = 0.0, type: str = USAGE) -> Raw:
    value = data if isinstance(data, bytes) else json.dumps(data).encode()
    time = (NOON + timedelta(minutes=minutes)).isoformat()
    headers = {"ce_id": id, "ce_source": "//s", "ce_type": type, "ce_time": time}
    topic = EVENTS if type == USAGE else BILLS
    return Raw(topic, 0, offset, int(NOON.timestamp() * 1000), value, {n: v.encode() for n, v in headers.items()})


def _call(tokens: int = 1_000, **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "request_model": "gpt-4o", "team_id": "team-00", "input_tokens": tokens, **more}


def _expected(*records: Raw, amount: int = 10_000_000_000) -> Expected:
    found = Expected(Prices(), {budget.id: amount for budget in BUDGETS}, PERIOD)
    found.take(records)
    found.settle()
    return found


def test_calls_count_once_in_the_hour_in_which_they_happened():
    found = _expected(_raw(0, _call(), "a"), _raw(1, _call(), "a"), _raw(2, _call(), "b", minutes=-90))
    assert [(cell[0].hour, totals["requests"], totals["cost_nanos"]) for cell, totals in found.cells.items()] == [
        (12, 1, 2_500_000),
        (10, 1, 2_500_000),
    ]
    assert [totals["unverified_late"] for totals in found.cells.values()] == [0, 1]
    assert found.duplicates == {(EVENTS, 0): 1}


@pytest.mark.parametrize(
    ("data", "totals"),
    [
        (_call(status="failure"), {"errors": 1, "successes": 0, "cost_nanos": 2_500_000}),
        (_call(cache_hit=True), {"cache_hits": 1, "cost_nanos": 0}),
        (_call(request_model="x"), {"unpriced_requests": 1, "cost_nanos": 0}),
        (_call(request_model="x", reported_cost="0.25"), {"estimated_cost_nanos": 250_000_000, "unpriced_requests": 0}),
        (_call(reported_cost="0.25"), {"reported_cost_nanos": 250_000_000, "cost_nanos": 2_500_000}),
        (_call(duration_ms=25), {"latency_histogram 1": 1, "latency_histogram 0": 0}),
    ],
)
def test_a_call_adds_to_the_totals_of_its_cell(data, totals):
    ((_, found),) = _expected(_raw(0, data, "a")).cells.items()
    assert {name: found[name] for name in totals} == totals


def test_a_record_that_must_be_refused_is_expected_as_a_dead_letter():
    found = _expected(_raw(0, b"<html>", "a"), _raw(1, _call(), "b", minutes=6), _raw(2, _call(), "c", minutes=4))
    assert found.letters == {(EVENTS, 0, 0): "not_json", (EVENTS, 0, 1): "in_the_future"}
    assert found.counted == 1


def test_a_budget_that_is_spent_blocks_and_a_credit_lets_go_of_it():
    expected = _expected(_raw(0, _call(4_000_000), "a"), amount=9_000_000_000)
    assert {rung for rung in expected.statements() if rung.budget_id == BUSIEST} == {
        Rung(BUSIEST, percent, "opened") for percent in (50, 75, 90, 100)
    }
    assert expected.commands() == {KEY: Command("block", False)}
    credit = {
        "billed_cost": "-5", "billing_currency": "USD", "team_id": "team-00", "charge_category": "Credit",
        "service_provider_name": "Pinecone", "service_name": "P", "charge_period_start": NOON.isoformat(),
    }  # fmt: skip
    expected.take([_raw(0, credit, "c", type=BILL)])
    expected.settle()
    resolved = {rung.percent for rung in expected.statements() if rung.status == "resolved"}
    assert resolved == {75, 90, 100}
    assert expected.commands() == {KEY: Command("allow", False)}


def test_the_busiest_budget_alone_sees_its_team():
    assert _expected(_raw(0, _call(), "a")).spent[BUSIEST] == 2_500_000
    assert _expected(_raw(0, _call(), "a")).spent["calm-daily"] == 0


def _alert(percent: int = 100, episode: int = 1, status: str = "opened", **changes: Any) -> dict[str, Any]:
    key = f"v1:budget_threshold:budget:{BUSIEST}@x:p:{percent}"
    return {
        "rule": "budget_threshold", "scope_id": BUSIEST, "threshold": f"{percent} %", "status": status,
        "episode": episode, "dedup_key": key, "alert_id": alert_id(key, episode, status),
    } | changes  # fmt: skip


def _command(action: str = "block", revision: int = 1) -> tuple[str, dict[str, Any]]:
    return KEY, {"action": action, "revision": revision}


RAW = (_raw(0, _call(4_000_000), "a"), _raw(1, _call(4_000_000), "a"), _raw(2, b"", "b"))
TOLD = tuple(_alert(percent) for percent in (50, 75, 90, 100))


def _found(expected: Expected, **changes: Any) -> Found:
    right = Found(
        cells={cell: Counter(totals) for cell, totals in expected.cells.items()},
        spenders={who: Counter(spent) for who, spent in expected.spenders.items()},
        sources={(EVENTS, 0): (1, 1)},
        letters=[Letter((EVENTS, 0, 2), "empty_value")],
        alerts=list(TOLD),
        commands=[_command()],
        incidents=[TOLD[-1]["dedup_key"]],
        unsent=0,
    )
    return right._replace(**changes)


def _differences(found: Found, expected: Expected) -> list[str]:
    return [line for check in compare(expected, found, {"a", "b"}) for line in check.differences]


def test_a_service_that_is_right_differs_in_nothing_even_if_it_says_things_twice():
    expected = _expected(*RAW, amount=9_000_000_000)
    twice = _found(expected, letters=[Letter((EVENTS, 0, 2), "empty_value")] * 2, alerts=TOLD * 2)
    answered = [_command(revision=1), _command(revision=2), _command("allow", 1), _command(revision=2)]
    assert _differences(_found(expected), expected) == []
    assert _differences(twice, expected) == []
    assert _differences(_found(expected, commands=answered), expected) == [], "an overtaken owner that was answered"


def _one_nano_more(expected: Expected) -> dict[Any, Counter[str]]:
    ((cell, totals),) = expected.cells.items()
    return {cell: totals + Counter({"cost_nanos": 1})}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"cells": {}}, "not in the ledger", id="a cell that is missing"),
        pytest.param({"spenders": {}}, "key , user", id="a key and user that is missing"),
        pytest.param({"sources": {(EVENTS, 0): (1, 2)}}, "duplicates", id="a duplicate too many"),
        pytest.param({"letters": []}, "refused as None", id="a dead letter that is missing"),
        pytest.param({"letters": [Letter((EVENTS, 0, 2), "not_json")]}, "not_json", id="another reason"),
        pytest.param({"alerts": TOLD[1:]}, "never told", id="an alert that is missing"),
        pytest.param({"alerts": [*TOLD, _alert(episode=2)]}, "episode 2", id="a rung that was told anew"),
        pytest.param({"alerts": [*TOLD, _alert(status="resolved")]}, "did not happen", id="an alert for nothing"),
        pytest.param({"alerts": [*TOLD[:3], _alert(alert_id="x")]}, "does not follow", id="an id that is drawn"),
        pytest.param({"commands": []}, "the last command is None", id="a command that is missing"),
        pytest.param({"commands": [_command(), _command("allow", 2)]}, "allow", id="a release for nothing"),
        pytest.param(
            {"commands": [_command(), _command("rate_limit", 2)]}, "rate_limit", id="a block that is softened"
        ),
        pytest.param(
            {"commands": [_command(revision=2), _command()]},
            "compaction keeps revision 1, and gates obey 2",
            id="an overtaken owner that nobody answers",
        ),
        pytest.param({"incidents": []}, "nobody was paged", id="a page that is missing"),
        pytest.param({"incidents": [TOLD[-1]["dedup_key"]] * 2}, "2 incidents", id="a page too many"),
        pytest.param({"unsent": 1}, "1 messages", id="a message that is owed"),
    ],
)
def test_every_kind_of_difference_is_seen(change, words):
    expected = _expected(*RAW, amount=9_000_000_000)
    found = _differences(_found(expected, **change), expected)
    assert any(words in line for line in found), found


def test_a_single_nanodollar_is_seen():
    expected = _expected(*RAW, amount=9_000_000_000)
    found = _differences(_found(expected, cells=_one_nano_more(expected)), expected)
    assert any("cost_nanos is 10,000,000,001 in the ledger and 10,000,000,000 expected" in line for line in found)


def test_a_record_that_was_sent_and_is_nowhere_is_seen():
    expected = _expected(*RAW, amount=9_000_000_000)
    checks = compare(expected, _found(expected), {"a", "b", "lost"})
    assert checks[0].differences == ["lost is not on its topic"]


@pytest.mark.parametrize(("action", "is_right"), [("rate_limit", True), ("allow", True), ("block", False)])
def test_calls_of_a_budget_that_is_not_spent_may_be_let_go_slowly_and_no_more(action, is_right):
    expected = _expected(*RAW, amount=90_000_000_000)
    found = _found(expected, alerts=[], incidents=[], commands=[_command(action)])
    assert (not _differences(found, expected)) is is_right
