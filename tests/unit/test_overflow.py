"""A team that invents attributes keeps its money, its budgets and its neighbours; it is told, once an hour."""

import pytest

from schemas.instants import HOUR
from streams.core.admission import is_other
from streams.core.overflow import Overflow, overflow_alert
from streams.core.reading import Reason
from tests.unit.records import NOON, cost, state, usage_record

MANY = 30


def _invented(count: int = MANY, team: str = "search", first: int = 0):
    return [usage_record(first + n, team=team, feature=f"f{first + n}", input_tokens=n + 1) for n in range(count)]


def test_what_a_team_spends_beyond_its_cells_is_kept_under_other_and_no_cent_is_lost():
    partition = state(team_cells_max=10)
    partition.fold(_invented(), MANY)
    others = [cell for cell in partition.cells.values() if is_other(cell.dimensions)]
    assert (len(partition.cells), len(others), others[0].dimensions.team_id) == (11, 1, "search")
    assert others[0].totals.requests == MANY - 10
    assert cost(partition) == sum(10 * (n + 1) for n in range(MANY))


def test_its_budget_gets_the_money_under_its_true_name():
    partition = state(team_cells_max=10)
    partition.fold(_invented(), MANY)
    spent = {counter.scope: counter.cost_nanos for counter in partition.counters.values()}
    assert spent == {"budget:search-daily@": cost(partition)}


def test_a_neighbour_in_the_same_partition_is_not_touched():
    partition = state(team_cells_max=10)
    partition.fold([*_invented(), usage_record(MANY, team="calm", feature="chat")], MANY + 1)
    assert [cell.dimensions.feature for cell in partition.cells.values() if cell.dimensions.team_id == "calm"] == [
        "chat"
    ]


def test_a_partition_that_is_full_keeps_what_new_teams_spend_under_one_name():
    partition = state(cells_max=10)
    records = [usage_record(n, team=f"t{n}", input_tokens=1) for n in range(MANY)]
    partition.fold(records, MANY)
    assert (len(partition.cells), cost(partition)) == (11, MANY * 10)


def test_it_is_told_once_and_again_when_the_hour_has_left_memory():
    partition = state(team_cells_max=10)
    partition.fold(_invented(), MANY)
    told = Overflow("", "search", NOON)
    assert partition.overflows == {told: "opened"}
    partition.overflows = {}
    partition.fold(_invented(first=MANY), 2 * MANY)
    assert partition.overflows == {}
    partition.fold([usage_record(2 * MANY, team="calm", at=NOON + 9 * HOUR)], 2 * MANY + 1)
    partition.changed_cells.clear()
    partition.changed_counters.clear()
    partition.evict(ledger_offset=10_000)
    assert partition.overflows == {told: "resolved"}


def test_its_alert_has_a_derived_id_so_that_saying_it_twice_is_saying_it_once():
    told = Overflow("", "search", NOON)
    first, again = (overflow_alert(told, "opened", 10, at) for at in (NOON, NOON + HOUR))
    assert (first.alert_id, first.dedup_key) == (again.alert_id, again.dedup_key)
    assert (first.tier, "__other__" in first.summary) == ("ticket", True)
    assert overflow_alert(told, "resolved", 10, NOON).dedup_key == first.dedup_key


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"tags": {f"t{n}": "" for n in range(65)}}, Reason.TOO_LONG, id="more tags than an event may have"),
        pytest.param({"tags": {"t" * 300: ""}}, Reason.TOO_LONG, id="a tag with a name of 300 letters"),
        pytest.param({"tags": {"t": "x" * 300}}, Reason.TOO_LONG, id="a tag of 300 letters"),
        pytest.param({"tags": {"t": "x\x00"}}, Reason.WRONG_SHAPE, id="a tag with a NUL"),
        pytest.param({"tags": {f"t{n}": "x" for n in range(64)}}, None, id="as many tags as an event may have"),
    ],
)  # fmt: skip
def test_tags_are_bounded(fields, reason):
    partition = state()
    partition.fold([usage_record(0, **fields)], 1)
    assert [letter.reason for letter in partition.letters] == ([reason] if reason else [])
