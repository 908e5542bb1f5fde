"""An excess is split exactly: parts always add up to it, and a single cause has all of it."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.money import parse_nanos
from streams.core.drivers import (
    Contribution,
    Parts,
    Usage,
    Weights,
    contributions,
    main_cause,
    split,
    split_against,
    told,
)

#: Nanodollars of an input, a cached and an output token.
PRICES = {"cheap": (150, 75, 600), "dear": (5_000, 1_250, 20_000), "flat": (100, 100, 100)}
WEIGHTS = {model: Weights(Fraction(cached, paid), Fraction(out, paid)) for model, (paid, cached, out) in PRICES.items()}


def calls(model, requests, tokens=1_000, output=200, cached=0, hits=0, dearer=1):
    """So many calls of a kind, at list price times ``dearer``."""
    paid, hit, out = PRICES[model]
    each = (tokens - cached) * paid + cached * hit + output * out
    return Usage(
        requests, hits, requests * tokens, requests * cached, requests * output, (requests - hits) * each * dearer
    )


def excess(before, after):
    return sum(each.cost_nanos for each in after.values()) - sum(each.cost_nanos for each in before.values())


BASE = {"cheap": calls("cheap", 900), "dear": calls("dear", 100, cached=500)}


@pytest.mark.parametrize(
    ("after", "part"),
    [
        pytest.param({"cheap": calls("cheap", 2_700), "dear": calls("dear", 300, cached=500)}, "volume", id="three times the calls"),
        pytest.param({"cheap": calls("cheap", 300), "dear": calls("dear", 700, cached=500)}, "model_mix", id="the same calls to a dearer model"),
        pytest.param({"dear": calls("dear", 1_000, cached=500)}, "model_mix", id="a model is left"),
        pytest.param({**BASE, "cheap": calls("cheap", 800), "flat": calls("flat", 100)}, "model_mix", id="a model that was not there"),
        pytest.param({"cheap": calls("cheap", 900, tokens=9_000), "dear": calls("dear", 100, cached=500)}, "tokens_per_request", id="longer prompts"),
        pytest.param({"cheap": calls("cheap", 900, output=2_000), "dear": calls("dear", 100, cached=500)}, "tokens_per_request", id="longer answers"),
        pytest.param({"cheap": calls("cheap", 900), "dear": calls("dear", 100, tokens=3_000, cached=1_500)}, "tokens_per_request", id="longer prompts, as well cached"),
        pytest.param({"cheap": calls("cheap", 900), "dear": calls("dear", 100, cached=0)}, "cache", id="the prompt cache misses"),
        pytest.param({"cheap": calls("cheap", 900, hits=450), "dear": calls("dear", 100, cached=500)}, "cache", id="a response cache answers half"),
        pytest.param({"cheap": calls("cheap", 900, hits=900), "dear": calls("dear", 100, cached=500)}, "cache", id="a response cache answers all"),
        pytest.param({"cheap": calls("cheap", 900), "dear": calls("dear", 100, cached=500, dearer=3)}, "price", id="a price rises"),
        pytest.param({"cheap": calls("cheap", 900, dearer=0), "dear": calls("dear", 100, cached=500)}, "price", id="a model becomes free"),
    ],
)  # fmt: skip
def test_a_single_cause_has_the_whole_excess(after, part):
    assert excess(BASE, after) != 0
    assert split(BASE, after, WEIGHTS) == Parts(**{part: excess(BASE, after)})
    assert split(after, BASE, WEIGHTS) == Parts(**{part: -excess(BASE, after)})


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        pytest.param({}, {}, Parts(), id="nothing and nothing"),
        pytest.param(BASE, BASE, Parts(), id="the same again"),
        pytest.param({}, BASE, Parts(volume=excess({}, BASE)), id="out of nothing"),
        pytest.param(BASE, {}, Parts(volume=-excess({}, BASE)), id="it ended"),
        pytest.param({"L40S": Usage(units=60, cost_nanos=600)}, {"L40S": Usage(units=180, cost_nanos=1_800)}, Parts(volume=1_200), id="more hours of a GPU"),
        pytest.param({"L40S": Usage(units=60, cost_nanos=600)}, {"L40S": Usage(units=60, cost_nanos=900)}, Parts(price=300), id="dearer hours of a GPU"),
        pytest.param({"x": Usage(5, 5, 10, 0, 0, 0)}, {"x": Usage(5, 0, 10, 0, 0, 70)}, Parts(cache=70), id="all were answered by a cache before"),
    ],
)  # fmt: skip
def test_what_has_nothing_to_compare_with_is_volume(before, after, parts):
    assert split(before, after) == parts


count = st.integers(0, 10**6)
usages = st.builds(
    lambda requests, hits, input_, cached, output, cost, units: Usage(
        requests, min(hits, requests), input_, min(cached, input_), output, cost, units
    ),
    count | st.just(0), count, count, count, count, st.integers(-(10**6), 10**15), st.integers(0, 10**4),
)  # fmt: skip
hours = st.dictionaries(st.sampled_from([*PRICES, "new"]), usages, max_size=4)


@settings(max_examples=300, deadline=None)
@given(before=hours, after=hours, expected=st.integers(0, 10**15))
def test_parts_add_up_to_the_excess_to_the_nanodollar(before, after, expected):
    assert sum(split(before, after, WEIGHTS)) == excess(before, after)
    cost = sum(each.cost_nanos for each in after.values())
    assert sum(split_against(expected, before, after, WEIGHTS)) == cost - expected


@settings(max_examples=100, deadline=None)
@given(times=st.integers(1, 9), requests=st.integers(1, 10**4), cached=st.integers(0, 1_000))
def test_more_of_the_same_is_volume_and_nothing_else(times, requests, cached):
    before = {"dear": calls("dear", requests, cached=cached), "flat": calls("flat", 3 * requests)}
    after = {model: Usage(*(number * times for number in usage)) for model, usage in before.items()}
    assert split(before, after) == Parts(volume=excess(before, after))
    # An hour like that one, which was expected to cost twice as much.
    expected = 2 * sum(each.cost_nanos for each in before.values())
    assert split_against(expected, before, after) == Parts(volume=excess(before, after) - expected // 2)


def test_two_causes_share_the_excess_and_the_later_one_has_what_they_do_together():
    before, after = {"cheap": calls("cheap", 100)}, {"cheap": calls("cheap", 200, dearer=2)}
    cost = before["cheap"].cost_nanos
    assert split(before, after) == Parts(volume=cost, price=2 * cost)


def test_those_who_cost_most_more_are_named_of_each_kind():
    before = {("team", "a"): 100, ("team", "b"): 900, ("model", "x"): 1_000}
    after = {("team", "a"): 700, ("team", "b"): 800, ("team", "c"): 50, ("key", "k"): 2_000, ("model", "x"): 1_600}
    assert contributions(before, after, most=1) == [
        Contribution("key", "k", 2_000), Contribution("model", "x", 600), Contribution("team", "a", 600),
    ]  # fmt: skip
    assert contributions(before, after, Fraction(1, 2), most=2)[-2:] == [
        Contribution("team", "a", 650), Contribution("team", "b", 350),
    ]  # fmt: skip


def test_an_alert_tells_the_parts_in_dollars_that_still_add_up():
    parts = Parts(1_500_000_001, -250_000_000, 3, 0, 7)
    found = told(parts, [Contribution("team", "search", 1_250_000_011)])
    shown = (found.volume, found.model_mix, found.tokens_per_request, found.cache, found.price)
    assert sum(map(parse_nanos, shown)) == sum(parts)
    assert [(one.kind, one.name, one.excess_usd) for one in found.by] == [("team", "search", "1.250000011")]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        pytest.param(Parts(90, 10), "more requests", id="most of it"),
        pytest.param(Parts(50, 50), "", id="half of it"),
        pytest.param(Parts(volume=-100, price=300), "a higher price per token", id="more than all of it"),
        pytest.param(Parts(volume=-10), "", id="it is less"),
    ],
)
def test_the_main_cause_is_told_where_there_is_one(parts, words):
    assert main_cause(parts) == words
