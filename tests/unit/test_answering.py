"""What people ask for, made into answers and planned events: which hours are meant, and from when on they are known."""

import pytest

from schemas import keys
from schemas.alerts import Alert
from schemas.answers import AlertAnswer
from schemas.budgets import Definition
from schemas.instants import DAY, HOUR, MINUTE, format_instant, parse_instant
from streams.agents.definitions import KnownDefinitions, LessonsNow
from streams.core.answering import answer_of, answers_of, planned_of, scope_named
from streams.core.answers import NO_LESSONS
from streams.core.defining import RequestError
from streams.core.definitions import Definitions
from tests.unit.records import NOON


def alert(rule: str = "spend_spike", scope: str = "team:search", **more) -> Alert:
    kind, _, name = scope.partition(":")
    begun = more.pop("begun", NOON)
    key = keys.alert_dedup_key(rule, scope, format_instant(begun))
    return Alert(
        alert_id=keys.alert_id(key, 1, "opened"), dedup_key=key, episode=1, status="opened", severity="critical",
        tier="page", rule=rule, scope_type=kind, scope_id=name, summary="s", occurred_at=format_instant(begun),
        stated_at=format_instant(begun + 10 * MINUTE), period_start=format_instant(begun),
        period_end=format_instant(begun + HOUR), **more,
    )  # fmt: skip


def answered(
    told: Alert, kind: str = "no", now: int = NOON + 30 * MINUTE, *, usd: str = "", ends: str = ""
) -> AlertAnswer:
    return answer_of(told, kind=kind, amount_usd=usd, ends=ends, why="w", by="ann", now=now)


@pytest.mark.parametrize(
    ("kind", "usd", "ends", "until"),
    [
        pytest.param("no", "", "", NOON + HOUR, id="no: the hours of the alert"),
        pytest.param("planned", "5", "", NOON + DAY, id="planned: a day from its beginning"),
        pytest.param("planned", "5", "3h", NOON + 3 * HOUR + 30 * MINUTE, id="planned for three hours from now"),
        pytest.param("planned", "5", "2026-11-23T00:00:00Z", parse_instant("2026-11-23T00:00:00Z"), id="or until then"),
    ],
)
def test_which_hours_are_meant(kind, usd, ends, until):
    found = answered(alert(), kind, usd=usd, ends=ends)
    assert (found.starts, found.until, found.known_from) == (NOON, until, NOON + 30 * MINUTE)


def test_history_learns_it_where_it_was_found():
    old = alert(begun=NOON - 90 * DAY, historic=True)
    assert answered(old).known_from == NOON - 90 * DAY + HOUR


def test_what_an_alert_says_of_itself_goes_into_its_answer():
    told = alert("runaway_request", "feature:chat", teaches="runaway_request|feature:chat", figures=(400_000, 3))
    found = answered(told)
    assert (found.teaches, found.figures) == ("runaway_request|feature:chat", (400_000, 3))


def test_a_spike_of_an_earlier_release_teaches_its_scope_all_the_same():
    assert answered(alert()).teaches == "team:search"


def test_every_wrong_field_is_named_at_once():
    with pytest.raises(RequestError) as refused:
        planned_of(scope="x", starts="soon", ends="never", amount_usd="-1", why="", by="ann", now=NOON)
    assert {wrong.where for wrong in refused.value.wrongs} == {"scope", "from", "until", "amount_usd", "reason"}


def test_a_part_of_another_habit_is_not_answered_with_the_whole():
    def habit(scope: str, ratio: str) -> Alert:
        return alert("regime_change", scope, teaches=f"regime_change|{scope}|{ratio}|up")

    parts = [habit("team:a", "price"), habit("team:b", "error_rate")]
    found = answers_of(
        habit("org:acme", "price"), parts, (), kind="no", amount_usd="", ends="", why="w", by="ann", now=NOON
    )
    assert [each.teaches for each in found] == ["regime_change|org:acme|price|up", "regime_change|team:a|price|up"]


@pytest.mark.parametrize("text", ["", "search", "budget:b", "team:", "team_feature:a", "team_feature:a/b/c", "key:k"])
def test_what_is_no_scope_is_refused(text):
    with pytest.raises(ValueError, match=r"none of|TEAM/FEATURE|1 to 256"):
        scope_named(text)


@pytest.mark.parametrize(
    ("starts", "begins"),
    [("now", 0), ("", 0), ("2h", 2 * HOUR), ("1d", DAY), ("2026-11-20T12:00:00Z", parse_instant("2026-11-20T12:00:00Z") - NOON)],
)  # fmt: skip
def test_when_an_event_begins(starts, begins):
    found = planned_of(
        scope="team:a", starts=starts, ends="2026-12-01T00:00:00Z", amount_usd="1", why="w", by="ann", now=NOON
    )
    assert (found.starts, found.known_from) == (NOON + begins, NOON)


def test_detectors_hear_of_changes_of_answers_and_of_nothing_else():
    known = KnownDefinitions()
    lessons = LessonsNow(known)
    assert lessons() is NO_LESSONS
    answer = answered(alert())
    changes: dict[str, Definition | None] = {answer.key(): answer}
    known._now = Definitions().changed(changes)
    first = lessons()
    assert list(first.of("team:search")) == [answer]
    known._now = known._now.changed({"budget|b": None})
    assert lessons() is first
    known._now = known._now.changed({answer.key(): None})
    assert lessons() is NO_LESSONS
