"""Which budget stands above which, among matches that overlap."""

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.budgets import Budget, Period
from schemas.commands import Target
from streams.core.tree import Tree, hours_of


def _budget(name, match="", period="day", parent="", per=""):
    """``match`` as ``team=a|b feature=c``."""
    pairs = [(part.split("=")[0], value) for part in match.split() for value in part.split("=")[1].split("|")]
    chosen = period if isinstance(period, Period) else Period(period)
    return Budget(
        id=name, match=tuple(pairs), target=Target("org", "x"), amount_nanos=1, period=chosen, thresholds=(),
        parent=parent, per=per,
    )  # fmt: skip


COMPANY = [
    _budget("acme", "org=acme", "quarter"),
    _budget("all", "", "total"),
    _budget("search", "org=acme team=search", "month"),
    _budget("search-daily", "org=acme team=search", "day"),
    _budget("search-chat", "org=acme team=search feature=chat", "day"),
    _budget("search-chat-prod", "org=acme team=search feature=chat environment=prod", "day"),
    _budget("two-teams", "org=acme team=search|ads", "month"),
    _budget("chat", "feature=chat", "month"),
    _budget("sessions", "team=search org=acme", "total", per="session"),
]


@pytest.mark.parametrize(
    ("name", "ancestors"),
    [
        pytest.param("all", (), id="what counts everything is a root"),
        pytest.param("acme", ("all",), id="an organisation under everything"),
        pytest.param("two-teams", ("acme", "all"), id="a list of teams under the organisation"),
        pytest.param("search", ("two-teams", "acme", "all"), id="a team under the list that it is in"),
        pytest.param("search-daily", ("search", "two-teams", "acme", "all"), id="a day under the month of the same"),
        pytest.param("search-chat", ("search-daily", "search", "two-teams", "acme", "all"), id="a feature under its team, where two overlap"),
        pytest.param("search-chat-prod", ("search-chat", "search-daily", "search", "two-teams", "acme", "all"), id="the most that is part of it is closest"),
        pytest.param("chat", ("all",), id="a feature of all teams is not one team's"),
        pytest.param("sessions", ("all",), id="nothing shorter stands above a total"),
        pytest.param("nobody", (), id="what is not defined has nothing above it"),
    ],
)  # fmt: skip
def test_what_stands_above_follows_from_the_matches(name, ancestors):
    assert Tree(COMPANY).ancestors(name) == ancestors


def test_children_are_those_whose_parent_it_is():
    tree = Tree(COMPANY)
    assert tree.children() == ("all",)
    assert tree.children("all") == ("acme", "chat", "sessions")
    assert all(child in tree.children(tree.parent(child)) for child in (budget.id for budget in COMPANY[2:]))


@pytest.mark.parametrize(
    ("budgets", "parents"),
    [
        pytest.param([("a", "team=x"), ("b", "team=y", "day", "a")], {"b": "a"}, id="a name counts more than matches"),
        pytest.param([("a", "team=x"), ("b", "team=x feature=y", "day", "gone")], {"b": "a"}, id="a parent that is gone is none"),
        pytest.param([("a", "", "day", "b"), ("b", "team=x")], {"a": "b"}, id="what is named above is not below too"),
        pytest.param([("a", "", "day", "b"), ("b", "", "day", "a"), ("c", "team=x")], {"c": "a"}, id="of a circle nobody is obeyed"),
        pytest.param([("a", "", "day", "a")], {}, id="nobody stands above itself"),
        pytest.param([("a", "team=x"), ("b", "team=x")], {}, id="twins stand beside each other"),
        pytest.param([("a", "team=x", "day"), ("b", "team=x feature=y", "month")], {}, id="a shorter period is not above a longer one"),
        pytest.param([("a", "team=x", "month"), ("b", "team=x", "week"), ("c", "team=x", "day")], {"c": "b", "b": "a"}, id="the closest period is above"),
        pytest.param([("a", "team=x|y"), ("b", "team=x|z")], {}, id="lists that overlap are not part of each other"),
        pytest.param([("a", "tag:c=x"), ("b", "tag:c=x session=s")], {"b": "a"}, id="tags and sessions"),
        pytest.param([("a", "", "day", "", "team"), ("b", "team=x")], {"b": "a"}, id="each team's budget is above that of one team"),
        pytest.param([("a", "", "day", "", "team"), ("b", "feature=x")], {}, id="of many teams none is above"),
        pytest.param([("a", "team=x"), ("b", "team=x", "day", "", "key")], {"b": "a"}, id="each key's budget is below its team's"),
        pytest.param([("a", "", "day", "", "key"), ("b", "team=x", "day", "", "key")], {"b": "a"}, id="each key's within a team is below each key's"),
        pytest.param([("a", "", "day", "", "key"), ("b", "team=x", "day", "", "user")], {}, id="keys and users are beside each other"),
        pytest.param([("a", "team=x", Period("rolling", hours=720)), ("b", "team=x", "week")], {"b": "a"}, id="thirty rolling days are longer than a week"),
    ],
)  # fmt: skip
def test_parents(budgets, parents):
    found = [_budget(*each) for each in budgets]
    tree = Tree(found)
    assert {budget.id: tree.parent(budget.id) for budget in found if tree.parent(budget.id)} == parents


def test_a_value_names_which_of_many_stands_above():
    tree = Tree(
        [_budget("teams", "", "month", "", "team"), _budget("b", "team=x"), _budget("keys", "team=x", "day", "", "key")]
    )
    assert tree.ancestors("b") == ("teams#x",)
    assert tree.ancestors("keys", "k1") == ("b", "teams#x")
    each = Tree([_budget("keys", "", "month", "", "key"), _budget("b", "team=x", "day", "", "key")])
    assert (each.ancestors("b", "k1"), each.ancestors("b")) == (("keys#k1",), ("keys",))


_matches = st.dictionaries(
    st.sampled_from(["team", "feature", "key"]), st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)
)
_specs = st.lists(
    st.tuples(_matches, st.sampled_from(["hour", "day", "total"]), st.sampled_from(["", "", "", "b0", "b1", "b2"])),
    min_size=1,
    max_size=9,
)


@settings(max_examples=300, deadline=None)
@given(specs=_specs)
def test_a_tree_has_no_circles_and_says_what_a_look_at_every_pair_says(specs):
    budgets = []
    for number, (match, period, parent) in enumerate(specs):
        words = " ".join(f"{name}={'|'.join(values)}" for name, values in match.items())
        budgets.append(_budget(f"b{number}", words, period, parent))
    tree = Tree(budgets)
    for budget in budgets:
        above = tree.ancestors(budget.id)
        assert budget.id not in above
        assert len(set(above)) == len(above)
    if any(parent for _, _, parent in specs):
        return
    for budget, (match, _, _) in zip(budgets, specs, strict=True):
        candidates = []
        for other, (others, _, _) in zip(budgets, specs, strict=True):
            is_part = all(name in match and set(match[name]) <= set(values) for name, values in others.items())
            same = {k: set(v) for k, v in others.items()} == {k: set(v) for k, v in match.items()}
            longer = hours_of(other.period) - hours_of(budget.period)
            if other is not budget and is_part and (longer > 0 or (longer == 0 and not same)):
                candidates.append((-len(others), sum(map(len, others.values())), hours_of(other.period), other.id))
        assert tree.parent(budget.id) == (min(candidates)[3] if candidates else "")


def test_a_tree_of_ten_thousand_is_made_in_seconds():
    budgets = [_budget(f"b{n}", f"org=acme team=t{n // 10} feature=f{n}", "day") for n in range(10_000)]
    budgets += [_budget(f"t{n}", f"org=acme team=t{n}", "month") for n in range(1_000)] + [
        _budget("acme", "org=acme", "total")
    ]
    began = perf_counter()
    tree = Tree(budgets)
    assert perf_counter() - began < 10
    assert tree.ancestors("b9999") == ("t999", "acme")
