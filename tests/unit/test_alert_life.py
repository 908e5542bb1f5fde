"""Where an alert stands for people, and what counts first of several things that are true of it."""

import pytest

from schemas.alerts import Alert
from schemas.instants import DAY, MINUTE
from streams.core.alert_life import IncidentWord, review_of, said_by_pagerduty, standing
from streams.core.notifying import Acknowledgement, Matcher, Silence
from tests.unit.records import NOON


def alert(status="opened", **said) -> Alert:
    usual = {"severity": "critical", "tier": "ticket", "team_id": "search", "summary": "s"}
    return Alert(
        alert_id="a", dedup_key="k", episode=2, status=status, rule="spend_spike", scope_type="team",
        scope_id="search", occurred_at="", stated_at="", **(usual | said),
    )  # fmt: skip


SILENCE = Silence(
    id="s", matchers=(Matcher("team", "=", "search"),), starts=NOON, ends=NOON + MINUTE, author="ben", reason="r"
)
LONGER = Silence(id="l", matchers=SILENCE.matchers, starts=NOON, ends=NOON + DAY, author="anna", reason="r")
WORD = {("k", 2): Acknowledgement(dedup_key="k", episode=2, by="anna", at=NOON, via="cli")}
EARLIER = {("k", 1): Acknowledgement(dedup_key="k", episode=1, by="anna", at=NOON, via="cli")}


@pytest.mark.parametrize(
    ("found", "silences", "words", "above", "stage"),
    [
        (alert(), [], {}, "", "firing"),
        (alert(), [], WORD, "", "acknowledged"),
        (alert(), [], EARLIER, "", "firing"),
        (alert(), [SILENCE], WORD, "", "silenced"),
        (alert(team_id="risk"), [SILENCE], {}, "", "firing"),
        (alert(), [SILENCE], WORD, "org", "inhibited"),
        (alert("updated"), [SILENCE], {}, "", "silenced"),
        (alert("resolved"), [SILENCE], WORD, "org", "resolved"),
    ],
    ids=[
        "nothing is said", "somebody has it in hand", "of the episode before", "a silence counts before a word",
        "another team's silence", "what makes it needless counts first", "an update stays silenced", "resolved is resolved",
    ],
)  # fmt: skip
def test_the_stage_of_an_alert(found, silences, words, above, stage):
    assert standing(found, silences, words, NOON, above).stage == stage


def test_all_that_is_true_of_it_is_told_and_of_silences_the_one_that_ends_last():
    where = standing(alert(), [SILENCE, LONGER], WORD, NOON, "org")
    assert where.acknowledged == WORD["k", 2]
    assert where.silenced == LONGER
    assert where.inhibited_by == "org"


@pytest.mark.parametrize(
    ("kind", "person", "kept"),
    [
        ("incident.acknowledged", True, "given"),
        ("incident.acknowledged", False, None),
        ("incident.resolved", True, "given"),
        ("incident.resolved", False, None),
        ("incident.unacknowledged", False, "withdrawn"),
        ("incident.reopened", True, "withdrawn"),
        ("incident.priority_updated", True, None),
        ("service.updated", True, None),
    ],
)
def test_what_a_word_of_pagerdutys_means(kind, person, kept):
    found = said_by_pagerduty(IncidentWord(kind, "k", NOON, "Anna", person), {"k": [(1, NOON - MINUTE)]})
    assert [("withdrawn" if said.withdrawn else "given") for said in found] == ([kept] if kept else [])


@pytest.mark.parametrize(
    ("at", "episode"),
    [(NOON - DAY, None), (NOON - MINUTE - 4_000_000, 1), (NOON - 1_000_000, 2), (NOON + DAY, 2)],
    ids=["before there was any", "its clock is four seconds behind", "a second behind the second one", "a day later"],
)
def test_a_word_is_about_the_episode_of_its_own_time(at, episode):
    known = {"k": [(1, NOON - MINUTE), (2, NOON)]}
    found = said_by_pagerduty(IncidentWord("incident.acknowledged", "k", at, "Anna", True), known)
    assert [said.acknowledgement.episode for said in found] == ([episode] if episode else [])


@pytest.mark.parametrize(
    ("found", "owner"),
    [
        (alert(owner="olga@example.com"), "olga@example.com"),
        (alert(), "lead@example.com"),
        (alert(team_id="risk"), "platform"),
        (alert(severity="emergency"), "lead@example.com"),
    ],
    ids=["the alert names its owner", "the team's lead", "whoever answers for the rest", "an emergency too"],
)
def test_who_a_review_is_for(found, owner):
    review = review_of(found, NOON, 5 * DAY, {"search": "lead@example.com", "*": "platform"})
    assert review is not None
    assert (review.owner, review.due_at) == (owner, NOON + 5 * DAY)
    assert review.is_overdue(NOON + 5 * DAY)
    assert not review.is_overdue(NOON + 5 * DAY - 1)


@pytest.mark.parametrize("found", [alert(severity="warning"), alert(severity="info"), alert(historic=True)])
def test_what_needs_no_review(found):
    assert review_of(found, NOON, DAY, {}) is None


def test_one_episode_has_one_review_whatever_it_says_later():
    names = [
        review_of(found, NOON, DAY, {}).review_id  # type: ignore[union-attr]
        for found in (alert(), alert("updated", severity="emergency", summary="worse"))
    ]
    assert names[0] == names[1]
