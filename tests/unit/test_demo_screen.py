"""What the demo shows: everything of importance, each piece of news once, in any size of terminal."""

import io
from collections import Counter

import pytest
from rich.console import Console

from schemas.instants import HOUR, parse_instant
from schemas.money import NANOS
from streams.demo.news import News
from streams.demo.scenario import plan
from streams.demo.screen import PlainScreen, Scene, draw, outcome
from streams.demo.verdict import Finding, Order, Page, Story
from streams.demo.watch import Budget, Spend, View

SCENARIO = plan(1, parse_instant("2026-11-21T04:48:11Z"))
DAY = SCENARIO.calendar.day
FINDING = Finding("k", "spend_spike", "search", "", "page", "opened", "Team search spends much", DAY + 10 * HOUR, None)


def _scene() -> Scene:
    news = News()
    news.take([FINDING], [Page("k", "Team search spends much", DAY + 11 * HOUR, None)], [])
    return Scene(
        1,
        SCENARIO.calendar,
        dashboard="http://127.0.0.1:1",
        phase="playing the day",
        at=DAY + 12 * HOUR,
        published=12_345,
        refused=Counter(mobile=77),
        view=View(
            spend={
                ("search", "answers"): Spend(250 * NANOS, 40 * NANOS, 9),
                ("__unattributed__", "__unattributed__"): Spend(1, 1, 1),
            },
            budgets=[Budget("mobile-daily", "day", 90 * NANOS, 91 * NANOS, 100, "block", "enforce")],
            findings=[FINDING],
        ),
        lines=news.lines,
    )


def _text(renderable: object, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, height=44, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(140, 44), (140, 24), (80, 24)], ids=["large", "low", "small"])
def test_the_picture_has_the_clock_the_money_the_block_the_page_and_the_refusals(width: int, height: int) -> None:
    text = _text(draw(_scene(), width, height), width)
    for piece in ("12:00", "$250.00 today", "12,345 events", "mobile-daily", "BLOCKED", "mobile 77", "11:00", "☎"):
        assert piece in text


def test_a_large_terminal_shows_features_and_names_what_is_nobody_s() -> None:
    text = _text(draw(_scene(), 140, 44))
    assert "answers" in text
    assert "(nobody's)" in text
    assert "__unattributed__" not in text


def test_news_are_told_once_and_a_resolve_is_news_of_its_own() -> None:
    news = News()
    page, order = Page("k", "s", DAY + 11 * HOUR, None), Order("mobile-daily", "block", DAY + 20 * HOUR)
    assert [line.kind for line in news.take([FINDING], [page], [order])] == ["alert", "page", "throttle"]
    assert news.take([FINDING], [page], [order]) == []
    resolved = FINDING._replace(status="resolved", resolved_at=DAY + 13 * HOUR)
    release = order._replace(action="allow", at=DAY + 24 * HOUR)
    assert [line.kind for line in news.take([resolved], [page], [order, release])] == ["resolved", "release"]


def test_without_a_terminal_every_piece_of_news_is_a_line_and_the_hours_are_counted() -> None:
    file, scene = io.StringIO(), _scene()
    screen = PlainScreen(Console(file=file, width=80), lambda: scene)
    screen.update(scene.lines)
    screen.update([])
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["10:00", "11:00", "12:00"]
    assert "12,345 events" in lines[2]


def test_the_outcome_says_what_never_came() -> None:
    story = Story(SCENARIO.runaway, detected=DAY + 12 * HOUR, paged=None, throttled=None, released=None, resolved=None)
    text = _text(outcome(SCENARIO.calendar, [story]), 160)
    assert text.count("never") == 2
    assert "12:00" in text
