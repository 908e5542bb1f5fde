"""The release of every gate: revisions that only grow, and an end that outlives what it ends."""

import pytest

from gateway.commands import CommandBook
from schemas.commands import RELEASE_KEY, Target, ThrottleCommand
from schemas.instants import HOUR, format_instant, parse_instant
from streams.core.releasing import end_release, is_live, release

NOW = parse_instant("2026-11-21T14:35:10Z")


def test_a_release_says_who_and_why_and_until_when():
    said = release(None, NOW + 2 * HOUR, "anna", "an incident", NOW)
    assert said.action == "release"
    assert said.expires_at == format_instant(NOW + 2 * HOUR)
    assert said.reason == "All throttling is lifted until 2026-11-21T16:35:10Z by anna: an incident"
    assert RELEASE_KEY == "*|release"


@pytest.mark.parametrize(
    "later", [HOUR, 0, -HOUR], ids=["later", "in the same microsecond", "after the clock went back"]
)
def test_whoever_speaks_last_is_heard(later):
    first = release(None, NOW + 2 * HOUR, "anna", "r", NOW)
    ended = end_release(first, "bob", "over", NOW + later)
    again = release(ended, NOW + 3 * HOUR, "anna", "again", NOW + later)
    assert first.revision < ended.revision < again.revision
    assert len({first.command_id, ended.command_id, again.command_id}) == 3


def test_an_end_outlives_the_release_that_it_ends():
    first = release(None, NOW + 2 * HOUR, "anna", "r", NOW)
    assert parse_instant(end_release(first, "bob", "over", NOW).expires_at) > parse_instant(first.expires_at)


def test_a_release_is_live_until_it_ends_or_expires():
    said = release(None, NOW + 2 * HOUR, "anna", "r", NOW)
    assert is_live(said, NOW)
    assert not is_live(said, NOW + 2 * HOUR)
    assert not is_live(end_release(said, "bob", "over", NOW), NOW)
    assert not is_live(None, NOW)


def blocked_book(now: int) -> CommandBook:
    """A gate that blocks the team search for a day."""
    book = CommandBook(lambda: now)
    block = ThrottleCommand(
        command_id="c", budget_id="search-daily", target=Target("team", "search"), action="block", revision=1,
        reason="spent", issued_at=format_instant(NOW), effective_at=format_instant(NOW),
        expires_at=format_instant(NOW + 24 * HOUR),
    )  # fmt: skip
    book.apply(block.key(), block)
    return book


def test_a_gate_opens_with_the_release_and_closes_at_its_end():
    now = NOW + 1
    book = blocked_book(now)
    assert not book.check(team="search", now=now).allowed
    said = release(None, NOW + 2 * HOUR, "anna", "an incident", NOW)
    book.apply(RELEASE_KEY, said)
    assert book.check(team="search", now=now).allowed
    assert not book.check(team="search", now=NOW + 2 * HOUR).allowed
    book.apply(RELEASE_KEY, end_release(said, "bob", "over", now))
    assert not book.check(team="search", now=now).allowed


def test_a_gate_that_reads_an_end_before_its_release_stays_closed():
    book = blocked_book(NOW + 2)
    said = release(None, NOW + 2 * HOUR, "anna", "an incident", NOW)
    book.apply(RELEASE_KEY, end_release(said, "bob", "over", NOW + 1))
    book.apply(RELEASE_KEY, said)
    assert not book.check(team="search", now=NOW + 2).allowed
