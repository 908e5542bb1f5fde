"""What the demo shows: everything of importance, each piece of news once, in any size of terminal."""

import io
from collections import Counter

import pytest
from rich.console import Console

from schemas.commands import Measure
from schemas.instants import HOUR, MINUTE, parse_instant
from schemas.money import NANOS
from streams.demo.ladder import Ladder, Step
from streams.demo.news import News
from streams.demo.scenario import plan
from streams.demo.screen import PlainScreen, Scene, course, draw, outcome
from streams.demo.verdict import Finding, Order, Page, Story
from streams.demo.watch import Budget, Spend, View

SCENARIO = plan(1, parse_instant("2026-11-21T04:48:11Z"))
DAY = SCENARIO.calendar.day
FINDING = Finding("k", "spend_spike", "search", "", "page", "opened", "Team search spends much", DAY + 10 * HOUR, None)

LIMIT, CHEAPER = Measure("rate_limit", request_types=("batch",), rpm=1), Measure("downgrade", models={"big": "small"})
LADDER = Ladder(
    "mobile-daily",
    (
        Step("rate_limit", (LIMIT,), DAY + 8 * HOUR + 3 * MINUTE, ("gateway-eu-1",), 1_204),
        Step("downgrade", (CHEAPER,), DAY + 9 * HOUR + 4 * MINUTE, ("gateway-eu-1",), 305),
        Step("block", (Measure("block"),), DAY + 10 * HOUR + 5 * MINUTE, ("gateway-eu-1",), 406),
    ),
    None,
    1_500_000_000,
    90 * NANOS,
)


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
        ladder=LADDER,
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


@pytest.mark.parametrize(
    ("width", "height"), [(140, 44), (120, 44), (120, 30), (80, 24)], ids=["large", "wide", "low", "small"]
)
def test_the_picture_has_the_steps_of_the_throttle_who_obeyed_how_soon_and_the_overshoot(
    width: int, height: int
) -> None:
    text = _text(draw(_scene(), width, height), width)
    for piece in ("gateway-eu-1", "1,204 ms", "305 ms", "406 ms", "$1.50 (1.6 %)"):
        assert piece in text
    assert ("batch: 1 a minute" in text and "big → small" in text) == (height >= 36)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) <= max(height, 28)


def test_the_course_of_a_throttle_ends_with_its_release_or_was_none() -> None:
    text = _text(course(SCENARIO.calendar, LADDER._replace(released=DAY + 25 * HOUR)), 80)
    for piece in ("mobile-daily", "08:03", "09:04", "10:05", "released", "01:00 +1d"):
        assert piece in text
    assert "no throttle" in _text(course(SCENARIO.calendar, LADDER._replace(steps=())), 80)


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
