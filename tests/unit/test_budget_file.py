"""budgets.yaml: what is read, and that every mistake is named with its line."""

from pathlib import Path

import pytest

from schemas.money import NANOS
from streams.core.budget_file import DEFAULT_LADDER, BudgetFileError, load_budgets

GOOD = """
budgets:
  - id: search-daily
    scope: {team: search}
    amount_usd: 50.10
    period: day
  - id: chat-prod
    scope: {feature: chat}
    match: {environment: prod}
    amount_usd: "1200"
    period: month
    timezone: Europe/Berlin
    mode: enforce
    owner: lead@example.test
    thresholds:
      - {percent: 80, severity: warning}
      - {percent: 100, severity: emergency, action: block}
"""


def test_a_budget_has_the_default_ladder_and_only_observes_until_told_otherwise():
    budget = load_budgets(GOOD)[0]
    assert (budget.thresholds, budget.mode, budget.period.timezone) == (DEFAULT_LADDER, "observe", "UTC")
    assert budget.amount_nanos == 50_100_000_000
    assert (budget.target.key(), budget.match) == ("team:search", (("team", "search"),))


def test_a_budget_can_match_more_than_it_throttles():
    budget = load_budgets(GOOD)[1]
    assert budget.match == (("environment", "prod"), ("feature", "chat"))
    assert (budget.amount_nanos, budget.mode) == (1200 * NANOS, "enforce")
    assert [rung.percent for rung in budget.thresholds] == [80, 100]


def test_an_empty_file_has_no_budgets():
    assert load_budgets("") == ()


def _one(**changes: str) -> str:
    fields = {"id": "b", "scope": "{team: search}", "amount_usd": "5", "period": "day"} | changes
    return "budgets:\n  - " + "\n    ".join(f"{name}: {value}" for name, value in fields.items())


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        pytest.param(_one(amount_usd="0"), 4, "more than 0 dollars", id="nothing to spend"),
        pytest.param(_one(amount_usd="-5"), 4, "more than 0 dollars", id="a negative amount"),
        pytest.param(_one(amount_usd="lots"), 4, "not an amount", id="an amount in words"),
        pytest.param(_one(amount_usd=".nan"), 4, "not a", id="not a number"),
        pytest.param(_one(period="fortnight"), 5, "month", id="an unknown period"),
        pytest.param(_one(timezone="Mars/Olympus"), 6, "no IANA time zone", id="an unknown time zone"),
        pytest.param(_one(scope="{team: a, feature: b}"), 3, "exactly one of", id="two scopes"),
        pytest.param(_one(scope="{planet: earth}"), 3, "team", id="an unknown scope"),
        pytest.param(_one(id="Not Good"), 2, "an id has", id="an id with a blank"),
        pytest.param(_one(colour="red"), 6, "", id="an unknown field"),
        pytest.param(_one() + _one().removeprefix("budgets:"), 6, "a second budget", id="an id used twice"),
        pytest.param("budgets: [", 1, "not YAML", id="not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(text, line, words):
    with pytest.raises(BudgetFileError) as caught:
        load_budgets(text)
    (problem,) = caught.value.problems
    assert problem.startswith(f"line {line}:")
    assert words in problem


def test_all_mistakes_are_named_at_once():
    text = _one(amount_usd="0", period="fortnight", timezone="Mars/Olympus")
    with pytest.raises(BudgetFileError) as caught:
        load_budgets(text)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["line 4", "line 5", "line 6"]


def test_the_example_is_valid():
    assert load_budgets((Path(__file__).parents[2] / "examples" / "budgets.yaml").read_text())
