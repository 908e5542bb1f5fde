"""budgets.yaml: what is read, and that every mistake is named with its line."""

from pathlib import Path

import msgspec
import pytest

from schemas.budgets import Grant, Limit, Period, Rung
from schemas.commands import Measure, Target
from schemas.instants import parse_instant
from schemas.money import NANOS
from streams.core.budget_file import DEFAULT_LADDER, BudgetFileError, definitions_of, load_budgets
from streams.core.budget_rows import BudgetRow
from streams.core.budget_rungs import MeasureRow
from streams.core.definitions import read_definition
from streams.core.tree import Tree

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


def _rungs(*rungs: str) -> str:
    return _one() + "\n    thresholds:" + "".join(f"\n      - {rung}" for rung in rungs)


def _measure(fields: str) -> str:
    return _rungs(f"{{percent: 90, severity: critical, measures: [{{{fields}}}]}}")


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
        pytest.param("[" * 100_000, 1, "nested beyond reason", id="brackets without end"),
        pytest.param(_one(period=""), 5, "is missing", id="a period without a value"),
        pytest.param(_one(scope=""), 3, "is missing; say whom", id="a scope without a value"),
        pytest.param(_one(scope="{team: }"), 3, "with its value", id="a scope of nobody"),
        pytest.param(_one(scope='{team: "*"}'), 3, "write per: team", id="every team under one amount"),
        pytest.param(_one(scope="{tag:customer: acme}"), 3, "team", id="a tag cannot be throttled"),
        pytest.param(_one(match="{planet: earth}"), 6, "and tag:<name>", id="an unknown attribute"),
        pytest.param(_one(match='{"tag:": earth}'), 6, "and tag:<name>", id="a tag without a name"),
        pytest.param(_one(match="{feature: }"), 6, "has no value", id="a condition without a value"),
        pytest.param(_one(match="{feature: []}"), 6, "at least 1", id="a condition without values"),
        pytest.param(_one(match="{team: ads}"), 6, "contradicts the scope", id="a match that contradicts the scope"),
        pytest.param(
            _one(per="session"),
            3,
            "take scope out, and write team: search under match",
            id="an amount for each session, of a team",
        ),
        pytest.param(
            _one(scope="{session: s1}", per="session"), 3, "take scope out", id="an amount for each session, of one"
        ),
        pytest.param(
            _one(scope='{session: "*"}', per="session", match="{session: s1}"),
            7,
            "exclude each other",
            id="each session, and one",
        ),
        pytest.param(_one(per="user_tier"), 6, "session", id="an amount for each of what nobody can throttle"),
        pytest.param(_one(week_start="sunday"), 6, "period: week alone", id="the start of a week without one"),
        pytest.param(_one(period="week", week_start="someday"), 6, "monday, tuesday", id="an unknown day"),
        pytest.param(_one(period="rolling"), 5, "rolling: 30d", id="a rolling period that does not say how far"),
        pytest.param(_one(rolling="30d"), 6, "not to period: day", id="a day that rolls"),
        pytest.param(_one(period="rolling", rolling="401d"), 6, "400 days", id="401 rolling days"),
        pytest.param(_one(period="rolling", rolling="9601h"), 6, "400 days", id="an hour more than 400 days"),
        pytest.param(_one(period="rolling", rolling="0d"), 6, "72h or 30d", id="no rolling days"),
        pytest.param(_one(period="rolling", rolling="-3h"), 6, "72h or 30d", id="negative hours"),
        pytest.param(_one(period="rolling", rolling="2w"), 6, "72h or 30d", id="rolling weeks"),
        pytest.param(_one(period="total", rollover="true"), 6, "nothing rolls over", id="a total that rolls over"),
        pytest.param(_one(starts="tomorrow"), 6, "neither a date", id="a date in words"),
        pytest.param(_one(starts="2026-02-29"), 6, "neither a date", id="a leap day that is none"),
        pytest.param(_one(starts="2026-11-21T10:00:00"), 6, "neither a date", id="an instant without an offset"),
        pytest.param(_one(starts="0001-01-01"), 6, "between the years 2000 and 2200", id="the year 1"),
        pytest.param(_one(starts="2026-12-01", ends="2026-12-01"), 7, "is not after starts", id="an end at the start"),
        pytest.param(_one(parent="boss"), 6, "no budget boss", id="an unknown parent"),
        pytest.param(_one(parent="b"), 6, "b under b", id="a parent of itself"),
        pytest.param(_one(growth="0"), 6, "between 0.1 and 10", id="no growth at all"),
        pytest.param(_one(growth="20 %"), 6, "a factor such as 1.2", id="growth in percent"),
        pytest.param(_one(growth="1.0001"), 6, "three decimals", id="growth to the fourth decimal"),
        pytest.param(_one(mode="obey"), 6, "observe", id="an unknown mode"),
        pytest.param(_one(model="free"), 6, "usage_cap", id="an unknown model"),
        pytest.param(_one(on_stale="explode"), 6, "keep", id="an unknown way out"),
        pytest.param(_one(hard="perhaps"), 6, "boolean", id="neither true nor false"),
        pytest.param(_one(amount_usd="0.0000000001"), 4, "more than 0 dollars", id="less than can be counted"),
        pytest.param(_one(amount_usd="1e11"), 4, "typing error", id="more than the world has"),
        pytest.param(
            _rungs("{percent: 0, severity: info}"), 7, "greater than or equal to 1", id="a threshold at nothing"
        ),
        pytest.param(
            _rungs("{percent: 90, severity: info}", "{percent: 50, severity: info}"),
            8,
            "thresholds rise",
            id="thresholds that fall",
        ),
        pytest.param(
            _rungs("{percent: 90, severity: info}", "{percent: 90, severity: info}"),
            8,
            "thresholds rise",
            id="a threshold twice",
        ),
        pytest.param(_rungs("{percent: 90, severity: loud}"), 7, "emergency", id="an unknown severity"),
        pytest.param(
            _rungs("{percent: 90, severity: info, on: forecast, action: block}"),
            7,
            "a forecast opens a ticket",
            id="a forecast that blocks",
        ),
        pytest.param(_measure("action: explode"), 7, "rate_limit", id="an unknown measure"),
        pytest.param(_measure("action: rate_limit"), 7, "rpm or tpm", id="a rate without a limit"),
        pytest.param(_measure("action: rate_limit, rpm: 0"), 7, "greater than or equal to 1", id="a rate of nothing"),
        pytest.param(_measure("action: downgrade"), 7, "needs models", id="a downgrade to nothing"),
        pytest.param(_measure("action: downgrade, models: {a: a}"), 7, "a cheaper model", id="a downgrade to itself"),
        pytest.param(_measure("action: cap_tokens"), 7, "needs max_tokens", id="a cap of no size"),
        pytest.param(_measure("action: block, rpm: 5"), 7, "belongs to rate_limit", id="a block with a rate"),
        pytest.param(
            _measure("action: block, request_types: [weekly]"), 7, "interactive", id="an unknown request type"
        ),
        pytest.param("limits:\n  - {id: l, scope: {team: a}}", 2, "limits nothing", id="a limit of nothing"),
        pytest.param("limits:\n  - {id: l, scope: {team: '*'}, rpm: 5}", 2, "* is none", id="a limit of all"),
        pytest.param(
            "limits:\n  - {id: l, scope: {team: a}, rpm: -5}", 2, "greater than or equal to 1", id="a negative limit"
        ),
        pytest.param(
            "limits:\n  - {id: l, scope: {team: a}, usd_per_minute: 0}",
            2,
            "more than 0 dollars",
            id="no money a minute",
        ),
        pytest.param(
            "limits:\n  - {id: l, scope: {team: a}, rpm: 5}\n  - {id: l, scope: {team: b}, rpm: 5}",
            3,
            "a second limit",
            id="a limit twice",
        ),
        pytest.param("grants:\n  - {team: a, model: m}", 2, "needs no grant", id="a grant of what is free to use"),
        pytest.param(
            "expensive_models: [m]\ngrants:\n  - {team: a, model: m}\n  - {team: a, model: m}",
            4,
            "a second grant",
            id="a grant twice",
        ),
        pytest.param("expensive_models: [m]\ngrants:\n  - {team: '*', model: m}", 3, "one team", id="a grant to all"),
        pytest.param("budget: []", 1, "unknown key", id="an unknown section"),
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


def test_mistakes_of_every_kind_in_every_place_are_named_in_the_order_of_the_text():
    text = """budgets:
  - id: a
    scope: {team: x}
    amount_usd: -1
    period: day
    week_start: monday
    parent: b
    thresholds:
      - {percent: 90, severity: info, measures: [{action: block, tpm: 1}]}
      - {percent: 80, severity: info}
  - id: b
    per: session
    scope: {team: x}
    amount_usd: 1
    parent: c
  - id: c
    scope: {team: x}
    match: {team: y, planet: earth}
    amount_usd: 1
    period: rolling
    parent: a
limits:
  - {id: l, scope: {team: x}}
grants:
  - {team: x, model: m}
"""
    with pytest.raises(BudgetFileError) as caught:
        load_budgets(text)
    lines = [int(problem.split(":")[0].removeprefix("line ")) for problem in caught.value.problems]
    assert lines == [4, 6, 7, 9, 10, 11, 13, 15, 18, 18, 20, 21, 23, 25]
    assert "a under b under c under a" in caught.value.problems[2]


# -- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"period": "week", "week_start": "Sunday"}, "period", Period("week", "UTC", 6)),
        ({"period": "week", "week_start": "thu"}, "period", Period("week", "UTC", 3)),
        ({"period": "quarter", "timezone": "Asia/Tokyo"}, "period", Period("quarter", "Asia/Tokyo")),
        ({"period": "rolling", "rolling": "30d"}, "period", Period("rolling", hours=720)),
        ({"period": "", "rolling": "72h"}, "period", Period("rolling", hours=72)),
        ({"period": "rolling", "rolling": "400d"}, "period", Period("rolling", hours=9_600)),
        ({"starts": "2026-12-01", "timezone": "Asia/Tokyo"}, "starts", parse_instant("2026-11-30T15:00:00Z")),
        ({"ends": "2026-11-01", "timezone": "America/New_York"}, "ends", parse_instant("2026-11-01T04:00:00Z")),
        ({"ends": "2026-12-01T10:30:00+02:00"}, "ends", parse_instant("2026-12-01T08:30:00Z")),
        ({"growth": "1.125"}, "growth_permille", 1_125),
        ({"exempt_models": "llama-*"}, "exempt_models", ("llama-*",)),
        ({"exempt_models": "[a, b]"}, "exempt_models", ("a", "b")),
        ({"match": "{feature: [b, a], 'tag:c': x}"}, "match", (("feature", "a"), ("feature", "b"), ("tag:c", "x"), ("team", "search"))),
        ({"match": "{environment: ''}"}, "match", (("environment", ""), ("team", "search"))),
        ({"match": "{team: search}"}, "match", (("team", "search"),)),
        ({"scope": "", "per": "session"}, "target", Target("session", "*")),
        ({"scope": "{key: '*'}", "per": "key", "match": "{team: a}"}, "match", (("team", "a"),)),
        ({"scope": "{key: '*'}", "per": "key", "match": "{key: [k1, k2]}"}, "match", (("key", "k1"), ("key", "k2"))),
        ({"match": "{}"}, "match", (("team", "search"),)),
        ({"match": " "}, "match", (("team", "search"),)),
        ({}, "pages", True),
        ({"scope": "{session: s}"}, "pages", False),
        ({"scope": "{run: r}"}, "pages", False),
        ({"scope": "{run: r}", "pages": "true"}, "pages", True),
        ({"scope": "{experiment: e}"}, "pages", True),
        ({"pages": "no"}, "pages", False),
        ({"model": "pooled"}, "model", "pooled"),
        ({"hard": "true"}, "hard", True),
        ({"on_stale": "close"}, "on_stale", "close"),
        ({"rollover": "yes"}, "rollover", True),
    ],
    ids=str,
)  # fmt: skip
def test_a_field_means_what_it_says(changes, field, expected):
    changes = {name: value for name, value in changes.items() if value or name == "period"}
    text = _one(**changes)
    if changes.get("period") == "":
        text = text.replace("    period: \n", "")
    if "scope" not in changes and "per" in changes:
        text = text.replace("    scope: {team: search}\n", "")
    assert getattr(load_budgets(text)[0], field) == expected


def test_measures_of_a_rung_are_read_with_all_that_they_say():
    rung = """{percent: 90, severity: critical, action: block, measures: [
      {action: rate_limit, rpm: 30, tpm: 1000, request_types: batch, environments: [dev, "!prod"]},
      {action: downgrade, models: {gpt-4o: gpt-4o-mini, "*": gpt-4o-mini}}, {action: cap_tokens, max_tokens: 500}]}"""
    (found,) = load_budgets(_rungs(rung))[0].thresholds
    assert found == Rung(
        90,
        "critical",
        (
            Measure("rate_limit", request_types=("batch",), environments=("dev", "!prod"), rpm=30, tpm=1_000),
            Measure("downgrade", models={"gpt-4o": "gpt-4o-mini", "*": "gpt-4o-mini"}),
            Measure("cap_tokens", max_tokens=500),
            Measure("block"),
        ),
    )


def test_forecast_thresholds_stand_beside_the_others():
    rungs = load_budgets(
        _rungs("{percent: 100, severity: emergency}", "{percent: 90, severity: warning, on: forecast}")
    )
    assert [(rung.percent, rung.on, rung.measures) for rung in rungs[0].thresholds] == [
        (100, "spent", ()),
        (90, "forecast", ()),
    ]


def test_everything_that_is_defined_lies_under_the_key_it_is_published_under():
    text = (
        _one()
        + """
limits:
  - {id: burst, scope: {key: k1}, rpm: 5, usd_per_minute: 0.5, environments: prod, mode: enforce}
expensive_models: [o1-*]
grants:
  - {team: search, model: o1-pro, until: 2027-01-01, reason: trial}
"""
    )
    found = definitions_of(text)
    assert found == {
        "budget|b": load_budgets(text)[0],
        "limit|burst": Limit(
            id="burst", target=Target("key", "k1"), rpm=5, nanos_per_minute=NANOS // 2, environments=("prod",), mode="enforce"
        ),
        "grant||o1-*": Grant(team_id="", model="o1-*"),
        "grant|search|o1-pro": Grant(
            team_id="search", model="o1-pro", until=parse_instant("2027-01-01T00:00:00Z"), reason="trial"
        ),
    }  # fmt: skip
    assert all(read_definition(msgspec.json.encode(each)) == each for each in found.values())
    assert definitions_of("") == {}


def test_the_example_shows_every_field_and_makes_a_tree():
    text = (Path(__file__).parents[2] / "examples" / "budgets.yaml").read_text()
    found = load_budgets(text)
    tree = Tree(found)
    assert tree.parent("chat-monthly") == tree.parent("acme-customers") == "acme-quarter"
    assert [name for name in BudgetRow.model_fields if f"{name}:" not in text] == []
    assert [name for name in MeasureRow.model_fields if f"{name}:" not in text] == []


LONG = "x" * 257


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        (
            f"budgets: [{{id: a, scope: {{team: s}}, amount_usd: 1, period: day, owner: {LONG}}}]",
            "owner",
            "257 characters",
        ),
        (f"budgets: [{{id: a, scope: {{team: {LONG}}}, amount_usd: 1, period: day}}]", "scope", "257 characters"),
        (f"budgets: [{{id: a, scope: {{team: s}}, amount_usd: 1, period: day, parent: {LONG}}}]", "parent", "257 char"),
        ('budgets: [{id: a, scope: {team: s}, amount_usd: 1, period: day, owner: "a\\nb"}]', "owner", "line breaks"),
        (f"limits: [{{id: a, scope: {{team: s}}, rpm: 1, owner: {LONG}}}]", "owner", "257 characters; at most 256"),
        (f"expensive_models: [m]\ngrants: [{{team: s, model: m, reason: {LONG * 4}}}]", "reason", "1028 characters"),
    ],
    ids=["a budget's owner", "a scope", "a parent", "two lines", "a limit's owner", "a reason"],
)
def test_texts_of_people_have_a_bound_that_the_error_names(text, where, problem):
    with pytest.raises(ValueError, match=problem) as found:
        definitions_of(text)
    assert where in str(found.value)
    assert "line 1" in str(found.value) or "line 2" in str(found.value)
