"""Recorded usage read back from a real broker, for `sluice simulate`."""

import uuid

import pytest

from schemas.events import UsageEvent
from schemas.instants import HOUR, MINUTE, format_instant
from streams.clock import WallClock
from streams.core.reading import Limits
from streams.simulation.calls import SimulationError
from streams.simulation.topics import from_topics
from streams.sources.intake import usage_record
from streams.sources.publisher import Record, UsagePublishing
from tests.integration.reading import connection, with_topics

pytestmark = pytest.mark.integration


async def test_what_happened_between_two_times_comes_back_in_order_and_once(kafka_url):
    run, now = uuid.uuid4().hex, WallClock().now()
    publisher = UsagePublishing(await with_topics(kafka_url))

    def record(name: str, at: int, team: str) -> Record:
        return usage_record(UsageEvent(provider="acme", team_id=team), id=name, source=run, time=format_instant(at))

    sent = [
        record("late", now - 3 * MINUTE, "a"),
        record("early", now - 9 * MINUTE, "b"),
        record("twice", now - 5 * MINUTE, "c"),
        record("twice", now - 5 * MINUTE, "c"),
        record("before", now - 2 * HOUR, "a"),
        record("after", now, "a"),
    ]
    try:
        for each in [*sent, sent[0]._replace(value=b"no json")]:
            await (await publisher.send(each))
    finally:
        await publisher.stop()
    calls = await from_topics(connection(kafka_url), now - 10 * MINUTE, now - MINUTE, Limits())
    assert [call.id for call in calls if call.source == run] == ["early", "twice", "late"]


async def test_a_time_that_nothing_is_kept_of_is_said(kafka_url):
    await with_topics(kafka_url)
    with pytest.raises(SimulationError, match="keep a week"):
        await from_topics(connection(kafka_url), HOUR, 2 * HOUR, Limits())
