"""Silences as people write them: what they match, until when, and what is refused with which words."""

import pytest

from schemas.instants import DAY, HOUR, MINUTE, format_instant, parse_instant
from streams.core.defining import RequestError
from streams.core.silencing import silence_of

NOW = parse_instant("2026-11-21T14:35:10Z")
LABELS = {"team": "search", "rule": "budget_threshold", "severity": "critical"}


def made(matchers, **said):
    return silence_of(matchers, **({"ends": "2h", "why": "a load test", "by": "anna", "now": NOW} | said))


@pytest.mark.parametrize(
    ("matchers", "mutes"),
    [
        (["team=search"], True),
        (["team=risk"], False),
        (["team=search", "severity=warning"], False),
        (['severity=~"critical|warning"'], True),
        (["severity=~crit"], False),
        (["team!=risk", "rule=~budget_.*"], True),
        (["rule!~budget.*", "team=search"], False),
        (["cost_centre=", "team=search"], True),
    ],
    ids=[
        "the team", "another team", "one of two that holds is not enough", "one of several severities",
        "a pattern matches whole", "not another team, and rules of a kind", "not rules of a kind", "an empty label",
    ],
)  # fmt: skip
def test_what_a_silence_mutes(matchers, mutes):
    assert made(matchers).mutes(LABELS, NOW) is mutes


@pytest.mark.parametrize(
    ("at", "mutes"), [(NOW - 1, False), (NOW, True), (NOW + 2 * HOUR - 1, True), (NOW + 2 * HOUR, False)],
    ids=["before it", "from its start", "until just before its end", "at its end"],
)  # fmt: skip
def test_when_a_silence_mutes(at, mutes):
    assert made(["team=search"]).mutes(LABELS, at) is mutes


@pytest.mark.parametrize(
    ("matchers", "said", "where", "words"),
    [
        ([], {}, "matchers", "give 1 to 16"),
        (["team"], {}, "matchers", "write a label"),
        (["team=~(a"], {}, "matchers", "regular expression"),
        (["team=~(a+)+b"], {}, "matchers", "repeats too much"),
        (["team=~.*.*.*.*x"], {}, "matchers", "repeats too much"),
        (["team=" + "x" * 300], {}, "matchers", "at most 256"),
        (["team!=risk"], {}, "matchers", "at least one has to ask for something"),
        (["team=~.*"], {}, "matchers", "at least one has to ask for something"),
        (["team=search"] * 17, {}, "matchers", "give 1 to 16"),
        (["team=search"], {"ends": ""}, "ends", "2h"),
        (["team=search"], {"ends": "91d"}, "ends", "shorten it"),
        (["team=search"], {"ends": format_instant(NOW - MINUTE)}, "ends", "is past"),
        (["team=search"], {"starts": format_instant(NOW + 3 * HOUR)}, "ends", "after its start"),
        (["team=search"], {"starts": "tomorrow"}, "starts", "is no instant"),
        (["team=search"], {"why": " "}, "reason", "say why"),
        (["severity=info"], {"team": "search"}, "matchers", "add team=search"),
        (["team!=search", "rule=x"], {"team": "search"}, "matchers", "add team=search"),
        (["team=~search", "rule=x"], {"team": "search"}, "matchers", "add team=search"),
    ],
)
def test_what_is_refused_and_how(matchers, said, where, words):
    with pytest.raises(RequestError) as refused:
        made(matchers, **said)
    assert [(wrong.where, words in wrong.problem) for wrong in refused.value.wrongs] == [(where, True)]


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(RequestError) as refused:
        made(["team"], ends="soon", why="")
    assert {wrong.where for wrong in refused.value.wrongs} == {"matchers", "ends", "reason"}


def test_the_same_silence_has_the_same_id_in_whatever_order_it_is_written():
    ends = format_instant(NOW + HOUR)
    one = made(["team=search", "rule=x"], ends=ends)
    assert one == made(['rule="x"', "team = search", "team=search"], ends=ends)
    assert one.id != made(["team=search"], ends=ends).id != made(["team=search"], ends=ends, by="ben").id


def test_one_that_was_to_begin_in_the_past_begins_now():
    assert made(["team=search"], starts=format_instant(NOW - DAY)).starts == NOW
