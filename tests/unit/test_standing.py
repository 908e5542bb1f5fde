"""What the watcher keeps between two looks at the broker."""

import asyncio

from schemas import topics as contract
from streams.clock import WallClock
from streams.core.facts import TopicFact
from streams.doctor.standing import KafkaLooks


class Broker:
    """A broker whose topics have no leaders at first."""

    def __init__(self, *leaderless: int) -> None:
        self.leaderless = list(leaderless)

    async def topics(self, wanted):
        missing = self.leaderless.pop(0)
        return {topic.name: TopicFact(4, None, missing, 0) for topic in wanted}

    async def groups(self, app_id):
        return []

    async def reaches(self, counts, committed):
        return []


def test_topics_without_leaders_are_looked_at_again_each_time_and_well_ones_rarely():
    looks, broker = KafkaLooks({"bootstrap_servers": ["b:1"]}, "sluice", WallClock()), Broker(4, 4, 0)

    async def seen() -> list[int]:
        return [(await looks._look(broker)).facts.topics[contract.ALERTS].leaderless for _ in range(5)]

    assert asyncio.run(seen()) == [4, 4, 0, 0, 0]
