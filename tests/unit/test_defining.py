"""What people ask for, made into definitions: amounts, spans, whose business it is, and the words of the file."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from schemas.budgets import Grant, OpeningBalance, Override, Run
from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from streams.core.budget_entry import definition_of_entry, entry_of, entry_of_limit
from streams.core.budget_file import definitions_of
from streams.core.defining import amount, not_the_teams, span, until
from streams.core.definitions import Definitions

NOW = parse_instant("2026-11-21T14:35:10Z")
FILE = """
budgets:
  - {id: plain, scope: {team: search}, amount_usd: "50", period: day}
  - {id: shifted, scope: {team: search}, amount_usd: 0.5, period: week, week_start: sunday, timezone: Asia/Tokyo}
  - {id: rolling, scope: {feature: chat}, match: {environment: [prod, stage], "tag:customer": "ü: 7"}, amount_usd: 12,
     rolling: 30d, starts: 2026-01-01, ends: "2026-12-31T12:00:00Z", mode: enforce, hard: true, on_stale: close}
  - {id: sessions, per: session, match: {team: agents}, amount_usd: "0.000000001", period: quarter, pages: true}
  - {id: users, per: user, amount_usd: 5, period: month, rollover: true, model: pooled, growth: 1.025, owner: a@b.c}
  - id: graded
    scope: {org: acme}
    amount_usd: "9000000000"
    period: month
    exempt_models: [llama-*, own]
    thresholds:
      - {percent: 90, severity: critical, measures: [{action: rate_limit, rpm: 10, request_types: batch}]}
      - {percent: 95, severity: critical, measures: [{action: downgrade, models: {gpt-4o: gpt-4o-mini}}]}
      - {percent: 97, severity: warning, on: forecast}
      - {percent: 100, severity: emergency, action: block, measures: [{action: cap_tokens, max_tokens: 5}]}
limits:
  - {id: burst, scope: {team: search}, rpm: 600, tpm: 9, usd_per_minute: 0.25, request_types: [batch], mode: enforce}
"""
DEFINED = definitions_of(FILE)


@pytest.mark.parametrize("key", sorted(DEFINED), ids=str)
def test_what_is_written_back_is_read_as_the_same(key):
    kind, _, name = key.partition("|")
    definition = DEFINED[key]
    entry = entry_of(definition) if kind == "budget" else entry_of_limit(definition)
    assert definition_of_entry(kind, entry, name, Definitions()) == definition


@pytest.mark.parametrize(
    ("text", "nanos"), [("12.50", 12_500_000_000), ("$3", 3 * 10**9), (" 0.000000001 ", 1), ("9000000000", 9 * 10**18)]
)
def test_an_amount(text, nanos):
    assert amount(text) == nanos


@pytest.mark.parametrize("text", ["0", "-1", "", "ten", "nan", "inf", "1e30", "9000000000.01", "1,5", "0x10"])
def test_no_amount(text):
    with pytest.raises(ValueError, match="dollars"):
        amount(text)


@pytest.mark.parametrize(
    ("text", "micros"), [("90m", 90 * MINUTE), ("2h", 2 * HOUR), ("1d12h", 36 * HOUR), ("1d 12h", 36 * HOUR)]
)
def test_a_span(text, micros):
    assert span(text) == micros
    assert until(text, NOW) == NOW + micros


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2h!", "0h", "401d", "2 weeks", "9" * 40 + "h", "2h2026"])
def test_no_span(text):
    with pytest.raises(ValueError, match=r"span|400 days"):
        span(text)


@given(some.text(max_size=60))
def test_no_text_breaks_the_readers_of_what_people_write(text):
    for read in (amount, span, lambda each: until(each, NOW)):
        with contextlib.suppress(ValueError):
            assert read(text) > 0


# -- whose business it is -------------------------------------------------------------------------------------------

KNOWN = Definitions().changed(DEFINED)
OVERRIDE = Override(id="o", budget_id="plain", starts=0, until=1)


@pytest.mark.parametrize(
    ("definition", "mine"),
    [
        pytest.param(DEFINED["budget|plain"], True, id="its own budget"),
        pytest.param(DEFINED["budget|graded"], False, id="everybody's budget"),
        pytest.param(DEFINED["budget|sessions"], False, id="another team's sessions"),
        pytest.param(DEFINED["limit|burst"], True, id="its own limit"),
        pytest.param(OVERRIDE, True, id="more for its own budget"),
        pytest.param(Override(id="o", budget_id="graded", starts=0, until=1), False, id="more for everybody's"),
        pytest.param(OpeningBalance(budget_id="graded", period_start=0, nanos=1), False, id="everybody's opening"),
        pytest.param(Run(id="r", team_id="search", estimate_nanos=1), True, id="its own run"),
        pytest.param(Run(id="r", team_id="risk", estimate_nanos=1), False, id="another team's run"),
        pytest.param(Grant(team_id="search", model="m"), False, id="a grant to itself"),
    ],
)
def test_a_team_has_its_own_and_nothing_else(definition, mine):
    assert (not_the_teams("search", definition, KNOWN) == "") is mine
    assert not_the_teams("", definition, KNOWN) == ""


def test_the_farthest_time_is_bounded():
    assert until("2h", NOW, 7 * DAY) == NOW + 2 * HOUR
    with pytest.raises(ValueError, match="168 hours"):
        until("8d", NOW, 7 * DAY)
