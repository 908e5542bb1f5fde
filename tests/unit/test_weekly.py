"""The weekly digest: which week is due where and when, and what it says in words."""

from datetime import date
from itertools import pairwise

import pytest

from schemas.instants import DAY, HOUR, MINUTE, format_instant, parse_instant
from schemas.money import parse_nanos
from streams.core.drivers import Usage
from streams.core.weekly import (
    AlertThen,
    BudgetNow,
    Facts,
    ReviewNow,
    Row,
    Week,
    due_week,
    facts_of,
    last_week,
    month_end_nanos,
    month_of,
    week_of,
)
from streams.core.weekly_words import models_report, notifications_of, report_of

#: A Monday, eight in the morning in Berlin.
NOW = parse_instant("2026-11-23T07:00:00Z")
WEEK = Week(date(2026, 11, 16), "Europe/Berlin")


def row(feature: str, model: str, usd: str, *, requests: int = 100, tokens: int = 1_000, team: str = "search") -> Row:
    return Row(team, feature, model, Usage(requests, 0, requests * tokens, 0, 0, parse_nanos(usd)))


def facts(**said) -> Facts:
    usual = {"subject": "team", "name": "search", "week": WEEK, "now": NOW, "rows": [], "rows_before": []}
    return Facts(**(usual | said))


@pytest.mark.parametrize(
    ("now", "zone", "name"),
    [
        ("2026-11-23T07:00:00Z", "Europe/Berlin", "2026-W47"),
        ("2026-11-23T06:59:59Z", "Europe/Berlin", None),
        ("2026-11-23T07:59:59Z", "UTC", None),
        ("2026-11-23T02:30:00Z", "Asia/Kolkata", "2026-W47"),
        ("2026-11-23T02:29:59Z", "Asia/Kolkata", None),
        ("2026-11-23T16:00:00Z", "America/Los_Angeles", "2026-W47"),
        ("2026-11-26T06:59:00Z", "Europe/Berlin", "2026-W47"),
        ("2026-11-26T07:00:00Z", "Europe/Berlin", None),
        ("2026-11-29T12:00:00Z", "Europe/Berlin", None),
        ("2027-01-04T08:00:00Z", "UTC", "2026-W53"),
    ],
    ids=[
        "at eight on Monday", "a second before", "not yet in London", "in India at eight there", "a second before there",
        "in California when it is eight there", "late, after an outage of three days", "too late", "on Sunday",
        "over the turn of a year with 53 weeks",
    ],
)  # fmt: skip
def test_a_week_is_due_on_monday_morning_of_its_zone(now, zone, name):
    found = due_week(parse_instant(now), zone, 8)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("week", "start", "end"),
    [
        (WEEK, "2026-11-15T23:00:00Z", "2026-11-22T23:00:00Z"),
        (Week(date(2026, 10, 19), "Europe/Berlin"), "2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z"),
        (Week(date(2026, 11, 16), "Asia/Kolkata"), "2026-11-15T18:00:00Z", "2026-11-22T18:00:00Z"),
    ],
    ids=[
        "in winter",
        "with the end of summer time in it: an hour longer",
        "half an hour off: from the whole hour before",
    ],
)
def test_a_week_begins_and_ends_with_a_whole_hour(week, start, end):
    assert (format_instant(week.start), format_instant(week.end)) == (start, end)
    assert week.before().end == week.start


@pytest.mark.parametrize(
    ("text", "monday"),
    [("", date(2026, 11, 16)), ("2026-W46", date(2026, 11, 9)), ("2026W46", date(2026, 11, 9)), ("2026-11-15", date(2026, 11, 9))],
    ids=["none named: the last that is over", "by its number", "without the hyphen", "by a day of it"],
)  # fmt: skip
def test_a_week_is_named_as_people_do(text, monday):
    assert week_of(text, "UTC", NOW).monday == monday


@pytest.mark.parametrize("text", ["2026-W54", "W46", "last", "2026-13-01"])
def test_what_names_no_week_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"2026-W47"):
        week_of(text, "UTC", NOW)


def test_every_week_is_told_once_and_none_is_left_out():
    """Of a year's mornings each names the week before its own, and all weeks follow each other."""
    names = [last_week(NOW + day * DAY, "America/New_York").monday for day in range(0, 371, 7)]
    assert [later - earlier for earlier, later in pairwise(names)] == [names[1] - names[0]] * 52


FULL = facts(
    rows=[
        row("chat", "gpt-4o", "800", requests=300),
        row("chat", "gpt-4o-mini", "40"),
        row("kyc", "gpt-4o", "360.50"),
    ],
    rows_before=[row("chat", "gpt-4o", "400", requests=150), row("old", "gpt-4o", "100")],
    month_nanos=parse_nanos("3100"),
    budgets=[
        BudgetNow("search-daily", "day", "Europe/Berlin", parse_nanos("12"), parse_nanos("50"), parse_nanos("41.2")),
        BudgetNow("search-month", "month", "Europe/Berlin", parse_nanos("3100"), parse_nanos("4000"),
                  parse_nanos("4300"), parse_instant("2026-11-28T14:00:00Z")),
        BudgetNow("kyc", "week", "UTC", parse_nanos("60"), parse_nanos("50")),
    ],
    alerts=[
        AlertThen("warning", "Budget search-month at 75 %", NOW - 4 * DAY),
        AlertThen("emergency", "Budget kyc is used up", NOW - 3 * DAY),
        AlertThen("emergency", "Spend spike in search", NOW - 2 * DAY),
    ],
    reviews=[ReviewNow("Spend spike in search", "", NOW + DAY), ReviewNow("Budget kyc is used up", "anna", NOW - HOUR)],
)  # fmt: skip


def test_a_teams_digest_word_for_word():
    report = report_of(FULL)
    assert "\n".join([report.heading, *report.paragraphs]) == (
        "Team search in week 2026-W47: $1,200.50, 140 % more\n"
        "16 November to 22 November 2026 (Europe/Berlin): $1,200.50 spent; the week before $500.00, 140 % more (+$700.50).\n"
        "Why: more requests +$500.00, a higher price per token +$360.50, cheaper models -$160.00.\n"
        "Features:\n· chat $840.00 (+$440.00)\n· kyc $360.50 (new)\n· old $0.00 (-$100.00)\n"
        "Models:\n· gpt-4o $1,160.50 (+$660.50)\n· gpt-4o-mini $40.00 (new)\n"
        "Forecast: $3,100.00 in November so far; if its other days cost what this week's did, $4,472.00 at its end.\n"
        "Budgets now:\n· kyc 120.0 % of $50.00 (week), used up\n"
        "· search-month 77.5 % of $4,000.00 (month), will be used up on the 28th at about 15:00\n"
        "· search-daily 24.0 % of $50.00 (day), foreseen $41.20\n"
        "Alerts: 2 emergency, 1 warning. The worst: Budget kyc is used up\n"
        "Reviews: 2 open, 1 of them overdue. First due, with anna: Budget kyc is used up"
    )


@pytest.mark.parametrize(
    ("after", "before", "words"),
    [
        ("100", "100", "as the week before"),
        ("150", "100", "50 % more"),
        ("50", "100", "50 % less"),
        ("103.3", "100", "3.3 % more"),
        ("100.5", "100", "as the week before"),
        ("2000", "100", "20 times the week before"),
        ("100", "0", "nothing the week before"),
        ("0", "100", "100 % less"),
        ("100", "-20", "-$20.00 the week before"),
    ],
)
def test_a_change_as_people_say_it(after, before, words):
    report = report_of(facts(rows=[row("chat", "m", after)], rows_before=[row("chat", "m", before)]))
    assert report.heading.endswith(f", {words}")


def test_a_week_without_anything_says_so():
    assert report_of(facts()).paragraphs == (
        "16 November to 22 November 2026 (Europe/Berlin): $0.00 spent, as the week before.", "Alerts: none.",
    )  # fmt: skip


def test_a_month_that_ends_with_its_week_needs_no_forecast():
    week = Week(date(2026, 5, 25), "UTC")
    over = facts(week=week, rows=[row("chat", "m", "70")], month_nanos=parse_nanos("300"))
    assert (month_of(week).name, month_end_nanos(over)) == ("May", None)
    assert "May is over with $300.00." in report_of(over).paragraphs


def test_a_forecast_adds_the_days_that_are_left_at_the_weeks_pace():
    ahead = month_end_nanos(facts(rows=[row("chat", "m", "70")], month_nanos=parse_nanos("300")))
    assert ahead == parse_nanos("380")


def test_the_models_have_a_paragraph_each_with_who_used_them():
    everything = facts(
        subject="all", name="",
        rows=[row("chat", "gpt-4o", "800"), row("kyc", "gpt-4o", "100", team="risk"), row("chat", "mini", "5")],
        rows_before=[row("chat", "gpt-4o", "400")],
    )  # fmt: skip
    report = models_report(everything)
    assert report.heading == "Models in week 2026-W47: $905.00, 126 % more"
    assert report.paragraphs[1:] == (
        "gpt-4o: $900.00, 125 % more (+$500.00); by search $800.00, risk $100.00; more requests +$400.00,"
        " a higher price per token +$100.00.",
        "mini: $5.00, nothing the week before; by search $5.00.",
    )


def test_names_that_others_chose_stay_within_their_line():
    hostile = report_of(facts(name="a\r\nBcc: x", rows=[row("chat\u202e\n", "m" * 300, "1")]))
    assert hostile.heading.startswith("Team a Bcc: x in week")
    lines = [line for text in hostile.paragraphs for line in text.split("\n")]
    assert all(line.isprintable() and len(line) < 200 for line in (hostile.heading, *lines))
    assert "\n" not in hostile.heading


def test_money_without_a_team_is_called_so():
    assert report_of(
        facts(name="__unattributed__", rows=[row("", "m", "1", team="__unattributed__")])
    ).heading.startswith("Spend without a team in week")


def test_messages_have_the_same_ids_whenever_and_by_whomever_they_are_made():
    report = report_of(FULL)
    made = notifications_of(report, FULL, "team", ["email", "slack"], "lead@example.com")
    again = notifications_of(report, FULL._replace(now=NOW + MINUTE), "team", ["email", "slack"], "lead@example.com")
    assert [one.notification_id for one in made] == [one.notification_id for one in again]
    assert {one.action for one in made} == {"tell"}
    assert made[0].group == {"report": "team", "team": "search", "owner": "lead@example.com"}


def test_ids_differ_by_receiver_week_name_and_subject():
    others = [FULL, FULL._replace(name="risk"), FULL._replace(week=WEEK.before())]
    made = [one for each in others for one in notifications_of(report_of(each), each, "team", ["email", "slack"], "")]
    made += notifications_of(report_of(FULL), FULL, "models", ["email", "slack"], "")
    assert len({one.notification_id for one in made}) == len(made) == 8
    assert len({one.thread_key for one in made}) == 4


def test_facts_are_made_of_the_ledgers_rows():
    found = facts_of(
        "team", "search", WEEK, NOW,
        spent=[("search", "chat", "m", True, (1, 0, 2, 0, 3, 40, 0)), ("search", "chat", "m", False, (1, 0, 2, 0, 3, 30, 0))],
        month_nanos=70, budgets=[("b", "day", "UTC", 1, 2, None, None)], alerts=[("info", "x", 1)], reviews=[("x", "", 2)],
    )  # fmt: skip
    assert (found.nanos, found.nanos_before, found.budgets[0].limit_nanos) == (40, 30, 2)
