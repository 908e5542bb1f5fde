"""Opening balances out of a table or a bill: line by line, by match and period, and never beyond the running one."""

import pytest

from schemas.instants import parse_instant
from streams.core.budget_file import definitions_of
from streams.core.definitions import Definitions
from streams.core.opening_file import OpeningFileError, balances_of_bill, balances_of_table, differing, not_negative
from streams.sources.focus import focus_row

NOW = parse_instant("2026-11-21T14:35:10Z")
KNOWN = Definitions().changed(
    definitions_of(
        """
budgets:
  - {id: org, scope: {org: acme}, amount_usd: 900, period: month}
  - {id: tokyo, scope: {team: search}, amount_usd: 50, period: day, timezone: Asia/Tokyo}
  - {id: teams, per: team, amount_usd: 50, period: month}
  - {id: looks-back, scope: {team: search}, amount_usd: 50, rolling: 72h}
"""
    )
)


def table(*rows: str) -> list[tuple[int, dict[str, str | None]]]:
    names = ("budget", "period_start", "amount_usd", "value")
    return [(line, dict(zip(names, row.split(","), strict=False))) for line, row in enumerate(rows, 2)]


def read(*rows: str):
    return balances_of_table(table(*rows), KNOWN, "before Sluice", "anna")


@pytest.mark.parametrize(
    ("row", "start", "nanos", "value"),
    [
        pytest.param("org,2026-11-01,12.5", "2026-11-01T00:00:00Z", 12_500_000_000, "", id="a date in UTC"),
        pytest.param("tokyo,2026-11-21,1", "2026-11-20T15:00:00Z", 10**9, "", id="a date in the budget's zone"),
        pytest.param("tokyo,2026-11-21T15:00:00Z,1", "2026-11-21T15:00:00Z", 10**9, "", id="an instant"),
        pytest.param("teams,2026-11-01,0,search", "2026-11-01T00:00:00Z", 0, "search", id="nothing, of one value"),
    ],
)
def test_a_line_of_a_table(row, start, nanos, value):
    (found,) = read(row)
    assert (found.period_start, found.nanos, found.value) == (parse_instant(start), nanos, value)
    assert (found.changed_by, found.reason) == ("anna", "before Sluice")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param("nobody,2026-11-01,1", "no budget 'nobody'", id="an unknown budget"),
        pytest.param("org,2026-11-02,1", "starts at 2026-11-01", id="not the start of a period"),
        pytest.param("org,soon,1", "a date in the budget's zone", id="no date"),
        pytest.param("org,2026-11-01,-1", "0 or more", id="less than nothing"),
        pytest.param("org,2026-11-01,lots", "no amount", id="no amount"),
        pytest.param("org,2026-11-01,1,search", "one for all", id="a value of a budget for all"),
        pytest.param("teams,2026-11-01,1", "say of which one", id="no value of a budget for each"),
        pytest.param("looks-back,2026-11-21,1", "rolling", id="a budget without periods"),
        pytest.param("org", "period_start", id="half a line"),
    ],
)
def test_a_wrong_line_says_its_number_and_what_to_do(row, says):
    with pytest.raises(OpeningFileError) as failed:
        read("org,2026-11-01,1", row)
    assert any(line.startswith("line 3: ") and says in line for line in failed.value.problems)


def test_all_wrong_lines_are_told_and_nothing_is_taken():
    with pytest.raises(OpeningFileError) as failed:
        read("nobody,2026-11-01,1", "org,2026-11-01,1", "org,2026-11-01,2")
    assert [line.partition(":")[0] for line in failed.value.problems] == ["line 2", "line 4"]


def bill(start: str, cost: str, team: str = "search", org: str = "acme"):
    row = {
        "BillingAccountId": "a", "BillingCurrency": "USD", "BilledCost": cost, "ChargePeriodStart": start,
        "ChargePeriodEnd": start, "ServiceProviderName": "OpenAI", "ServiceName": "gpt-4o",
        "Tags": f'{{"team":"{team}","org":"{org}"}}',
    }  # fmt: skip
    return focus_row(row), int(float(cost) * 10**9)


def summed(*bills, before: int = 0, names: tuple[str, ...] = ("org", "tokyo", "teams", "looks-back")):
    budgets = [budget for budget in KNOWN.budgets.values() if budget.id in names]
    found = balances_of_bill(bills, budgets, org_id="", before=before, now=NOW, why="w", by="b")
    return {(each.budget_id, each.value): each.nanos for each in found.balances}, found


def test_a_bill_is_summed_by_match_and_period():
    found, told = summed(
        bill("2026-11-03T00:00:00Z", "100"),
        bill("2026-11-20T15:00:00Z", "7"),
        bill("2026-11-20T14:59:59Z", "3"),
        bill("2026-10-31T23:59:59Z", "50"),
        bill("2026-11-05T00:00:00Z", "1", team="risk", org="other"),
    )
    assert found == {
        ("org", ""): 110 * 10**9,
        ("tokyo", ""): 7 * 10**9,
        ("teams", "search"): 110 * 10**9,
        ("teams", "risk"): 10**9,
    }
    assert (told.lines, told.unused, told.newest) == (5, 1, parse_instant("2026-11-20T15:00:00Z"))


def test_charges_that_sluice_saw_itself_are_left_out():
    bills = (bill("2026-11-03T00:00:00Z", "100"), bill("2026-11-04T00:00:00Z", "10"))
    found, _ = summed(*bills, before=parse_instant("2026-11-04T00:00:00Z"), names=("org",))
    assert found == {("org", ""): 100 * 10**9}


def test_a_bill_of_credits_opens_with_nothing():
    _, told = summed(bill("2026-11-03T00:00:00Z", "-5"), names=("org",))
    assert [not_negative(each).nanos for each in told.balances] == [0]


def test_only_what_differs_is_written():
    (balance,) = read("org,2026-11-01,1")
    assert differing([balance], KNOWN) == [(balance, None)]
    known = KNOWN.changed({balance.key(): balance})
    assert differing([balance], known) == []
