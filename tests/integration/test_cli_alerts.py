"""``sluice alerts``, ``silences``, ``reviews`` and ``digest`` on a real PostgreSQL, without API or broker."""

import io
import json

import pytest
from rich.console import Console

from schemas.instants import DAY, HOUR, MINUTE
from streams.clock import WallClock
from streams.commands import alerts, digests, reviews, silences
from streams.core.alert_life import LifeError, review_of
from streams.core.defining import RequestError
from streams.settings import Settings, load_settings
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.reviews import open_reviews
from tests.integration.alert_rows import KEY, alert, put, tell


@pytest.fixture
def settings(database_url) -> Settings:
    return load_settings(database_url=database_url)


@pytest.fixture
def now() -> int:
    return WallClock().now()


def paper() -> Console:
    return Console(file=io.StringIO(), width=140)


def text_of(out: Console) -> str:
    return out.file.getvalue()  # type: ignore[attr-defined]


async def test_an_alert_is_listed_shown_and_taken_in_hand(pool, settings, now):
    await put(pool, alert(at=now - HOUR))
    name = await tell(pool, alert(at=now - HOUR), "pagerduty")
    await pool.execute(
        "update outbox set state = 'sent', sent_at = now(), receipt = 'pd-7' where notification_id = $1", name
    )
    out = paper()
    await alerts.show_list(settings, "open", "", 10, False, out)
    short = text_of(out).splitlines()[1].split()[0]
    assert "emergency" in text_of(out)
    assert "firing" in text_of(out)
    await alerts.acknowledge(settings, short[:6], "a retry loop", "anna", False, False, out := paper())
    assert "episode 1 is in the hands of anna" in text_of(out)
    await alerts.show_one(settings, KEY, False, out := paper())
    for words in (
        "acknowledged by anna",
        "a retry loop",
        "pagerduty: trigger, opened: sent at",
        "(pd-7)",
        "episode 1 from",
    ):
        assert words in text_of(out)
    await alerts.acknowledge(settings, short, "", "anna", True, False, paper())
    assert await load_acknowledgements(pool, [KEY]) == {}


async def test_what_fires_and_is_worst_is_listed_first(pool, settings, now):
    rows = [("later", "warning", now), ("worst", "emergency", now - HOUR), ("in hand", "emergency", now - MINUTE)]
    for key, severity, at in rows:
        await put(pool, alert(key=key, severity=severity, summary=key, at=at))
    await alerts.acknowledge(settings, "in hand", "", "anna (cli)", False, False, paper())
    await alerts.show_list(settings, "open", "", 10, False, out := paper())
    assert [line.rsplit("  ", 1)[1] for line in text_of(out).splitlines()[1:]] == ["worst", "later", "in hand"]
    await alerts.show_one(settings, "in hand", False, out := paper())
    assert "acknowledged by anna (cli), episode 1" in text_of(out)


async def test_json_is_what_the_api_says(pool, settings, now):
    await put(pool, alert(at=now - HOUR))
    await alerts.show_one(settings, KEY, True, out := paper())
    assert json.loads(text_of(out))["alert"]["stage"] == "firing"


async def test_an_alert_that_is_not_there_or_not_alone_is_said_plainly(pool, settings, now):
    with pytest.raises(LifeError, match="there is no alert 'nothing'"):
        await alerts.show_one(settings, "nothing", False, paper())
    await put(pool, alert(at=now))
    await put(pool, alert(key=KEY + "0", at=now))
    with pytest.raises(LifeError, match="write more of it"):
        await alerts.show_one(settings, "v1:budget", False, paper())
    await alerts.show_one(settings, KEY, False, paper())


async def test_a_silence_is_made_listed_and_ended(pool, settings, now):
    await put(pool, alert(at=now - MINUTE))
    await silences.add(settings, ["team=search"], "2h", "", "a load test", "anna", False, out := paper())
    assert "it holds back 1 open alert(s)" in text_of(out)
    name = text_of(out).split()[1]
    await silences.show_list(settings, False, False, out := paper())
    for words in (name, 'team = "search"', "anna", "a load test"):
        assert words in text_of(out)
    await alerts.show_list(settings, "open", "", 10, False, out := paper())
    assert "silenced until" in text_of(out)
    await silences.end(settings, name, "anna", paper())
    await silences.show_list(settings, False, False, out := paper())
    assert text_of(out) == "nothing is silenced\n"
    with pytest.raises(LifeError, match="sluice silences list"):
        await silences.end(settings, name, "anna", paper())


@pytest.mark.parametrize(
    ("matchers", "ends", "why", "names"),
    [
        (["team"], "2h", "x", ["matchers"]),
        (["team=search"], "soon", "", ["ends", "reason"]),
        (["team=~.*"], "2h", "x", ["matchers"]),
        (["team=~(a"], "2h", "x", ["matchers"]),
        (["team=search"], "91d", "x", ["ends"]),
    ],
)
async def test_what_cannot_be_silenced_is_said_field_by_field(settings, matchers, ends, why, names):
    with pytest.raises(RequestError) as refused:
        await silences.add(settings, matchers, ends, "", why, "anna", False, paper())
    assert [wrong.where for wrong in refused.value.wrongs] == names


async def test_a_review_is_listed_handed_over_and_closed(pool, settings, now):
    review = review_of(alert(), now - 9 * DAY, 5 * DAY, {})
    assert review is not None
    await put(pool, alert(at=now - 9 * DAY))
    await open_reviews(pool, [review])
    await reviews.show_list(settings, False, "", False, out := paper())
    assert "nobody" in text_of(out)
    assert "1 overdue" in text_of(out)
    await reviews.assign(settings, review.review_id[:5], "anna", "2d", paper())
    await reviews.show_list(settings, False, "search", False, out := paper())
    assert "overdue" not in text_of(out)
    await reviews.close(settings, review.review_id, "A retry loop; capped.", "anna", paper())
    await reviews.show_list(settings, True, "", False, out := paper())
    assert "A retry loop; capped. (anna)" in text_of(out)
    with pytest.raises(LifeError, match="there is no review"):
        await reviews.close(settings, "zzz", "x", "anna", paper())


async def test_a_digest_is_printed_in_lines_that_fit(pool, settings):
    await digests.show(settings, "search", "", False, "2026-W47", False, out := paper())
    lines = text_of(out).splitlines()
    assert lines[0] == "Team search in week 2026-W47: $0.00, as the week before"
    assert max(map(len, lines)) <= 100
