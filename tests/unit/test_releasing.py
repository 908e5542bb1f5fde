"""The release of every gate: revisions that only grow, and an end that outlives what it ends."""

import pytest

from schemas.commands import RELEASE_KEY
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
