"""Where a budget ends when two hundred callers spend it at once: not what is under way decides it, but the budget."""

import pytest

from tests.unit.crowd import Crowd, play


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "crowd",
    [
        pytest.param(Crowd(), id="two hundred callers at two busy gateways"),
        pytest.param(Crowd(gateways=(0.5, 0.5)), id="two gateways that share the load"),
        pytest.param(Crowd(gateways=(1.0,)), id="one gateway"),
        pytest.param(Crowd(capacity=1_000, obeys_s=(0.02, 0.1), lag_s=(0.05, 0.2)), id="gateways that are quick"),
        pytest.param(Crowd(obeys_s=(1.0, 4.0)), id="gateways that obey late"),
        pytest.param(Crowd(callers=50), id="fifty callers"),
        pytest.param(Crowd(callers=1_000, cost=0.0001, capacity=400), id="a thousand callers of little"),
        pytest.param(Crowd(callers=100, takes_s=(5, 9)), id="calls that take long"),
        pytest.param(Crowd(takes_s=(0.5, 6)), id="calls of which some take long"),
    ],
)
def test_a_budget_that_is_spent_in_seconds_ends_within_two_percent(crowd, seed):
    found = play(crowd._replace(seed=seed))
    assert 98 <= found.spent <= 102
    assert found.commands < 40


def test_a_budget_that_is_spent_slowly_is_closed_without_any_other_command():
    found = play(Crowd(callers=2, cost=0.0001), longest_s=6_000)
    assert 99 <= found.spent <= 100.1
    # Batch work is shed first, and then all is blocked.
    assert found.commands <= 2
