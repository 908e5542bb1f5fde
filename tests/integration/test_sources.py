"""The producer, the GPU scraper and a replay against a real broker, outages included."""

import asyncio
import itertools
import json
import uuid

import aiohttp
import pytest
from aiohttp import web

from schemas import topics
from streams.clock import WallClock, elapsed_s
from streams.ports import PermanentError, RetryableError
from streams.sources.dcgm import GpuScraper
from streams.sources.publisher import Record, UsagePublishing
from streams.sources.replay import replay
from tests.integration.reading import (
    connection,
    eventually,
    eventually_records,
    header,
    records_of,
    with_topics,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def run_id():
    """Marks the records of one test; topics are shared."""
    return uuid.uuid4().hex


@pytest.fixture
async def publisher(kafka_url):
    publishing = UsagePublishing(await with_topics(kafka_url))
    yield publishing
    await publishing.stop()


@pytest.fixture
def nobody():
    """A broker address at which nobody listens."""
    return UsagePublishing(connection("127.0.0.1:9"), timeout_s=1.0)


def mine(run_id):
    return lambda record: header(record, "ce_id").startswith(run_id)


class TestPublishing:
    def record(self, run_id, value=b"{}"):
        return Record(topics.USAGE_EVENTS, b"search", value, [("ce_id", run_id.encode())])

    async def test_a_record_too_large_for_the_topic_is_refused_for_good_and_the_next_one_goes(
        self, publisher, kafka_url, run_id
    ):
        with pytest.raises(PermanentError):
            await publisher.publish(*self.record(run_id, b"x" * 5_000_000))
        await publisher.publish(*self.record(run_id))
        assert len(await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id))) == 1

    async def test_more_records_than_places_all_arrive(self, kafka_url, run_id):
        publisher = UsagePublishing(await with_topics(kafka_url), in_flight_max=10)
        records = [self.record(f"{run_id}-{n}") for n in range(500)]
        try:
            assert await publisher.publish_all(records) == 500
        finally:
            await publisher.stop()
        assert publisher.published == 500
        assert len(await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id))) == 500

    async def test_without_a_broker_it_says_so_in_time_and_stops(self, nobody, run_id):
        with pytest.raises(RetryableError):
            await nobody.publish(*self.record(run_id))
        await nobody.stop()


class TestPublishingInAnOutage:
    async def test_a_frozen_broker_is_a_503_in_time_and_what_was_in_flight_may_arrive_after_all(
        self, fresh_kafka, run_id
    ):
        publisher = UsagePublishing(await with_topics(fresh_kafka.bootstrap), timeout_s=1.0)
        record = Record(topics.USAGE_EVENTS, b"search", b"{}", [("ce_id", run_id.encode())])
        await publisher.publish(*record)
        fresh_kafka.pause()
        try:
            began = elapsed_s()
            with pytest.raises(RetryableError, match="did not acknowledge within 1 s"):
                await publisher.publish(*record)
            assert elapsed_s() - began < 3
        finally:
            fresh_kafka.resume()
        await eventually(lambda: publisher.published == 2, 30)
        await publisher.publish(*record)
        await publisher.stop()
        assert len(await records_of(fresh_kafka.bootstrap, topics.USAGE_EVENTS, mine(run_id))) == 3

    async def test_a_broker_that_was_killed_and_came_back_is_used_again(self, fresh_kafka, run_id):
        publisher = UsagePublishing(await with_topics(fresh_kafka.bootstrap), timeout_s=2.0)
        record = Record(topics.USAGE_EVENTS, b"search", b"{}", [("ce_id", run_id.encode())])
        await publisher.publish(*record)
        fresh_kafka.kill()
        with pytest.raises(RetryableError):
            await publisher.publish(*record)
        await fresh_kafka.start()
        until = elapsed_s() + 30
        while True:
            try:
                await publisher.publish(*record)
                break
            except RetryableError:
                assert elapsed_s() < until
        await publisher.stop()
        assert len(await records_of(fresh_kafka.bootstrap, topics.USAGE_EVENTS, mine(run_id))) >= 2


class TestGpuScraper:
    @pytest.fixture
    async def exporter(self):
        """A real HTTP server that says what dcgm-exporter says."""
        shown = {"text": "", "status": 200}

        async def metrics(request):
            return web.Response(text=shown["text"], status=shown["status"])

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        shown["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield shown
        await runner.cleanup()

    @staticmethod
    def text(uuid, util=5, namespace="ml-search"):
        return (
            "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n"
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{uuid}",pod="vllm-0",namespace="{namespace}"}} {util}\n'
        )

    async def test_what_lies_between_two_ticks_is_published(self, exporter, publisher, kafka_url, run_id):
        exporter["text"] = self.text(run_id)
        stop = asyncio.Event()
        scraper = GpuScraper(
            [exporter["url"]],
            publisher,
            WallClock(),
            interval_s=0.2,
            team_by_namespace={"ml-search": "search"},
        )
        task = asyncio.create_task(scraper.run(stop))
        await eventually(lambda: scraper.samples_published >= 3)
        stop.set()
        await asyncio.wait_for(task, 5)
        found = await records_of(kafka_url, topics.USAGE_GPU, lambda record: record.key == run_id.encode())
        assert len(found) == scraper.samples_published
        samples = [json.loads(record.value) for record in found]
        assert {sample["team_id"] for sample in samples} == {"search"}
        for before, after in itertools.pairwise(samples):
            assert before["window_end"] == after["window_start"]

    async def test_two_scrapers_name_a_window_alike(self, exporter, publisher, kafka_url, run_id):
        exporter["text"] = self.text(run_id)
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                scraper = GpuScraper([exporter["url"] + "/metrics"], publisher, WallClock(), interval_s=30)
                for tick in (0, 30_000_000):
                    await scraper.scrape(session, tick)
        found = await records_of(kafka_url, topics.USAGE_GPU, lambda record: record.key == run_id.encode())
        assert len(found) == 2
        assert len({header(record, "ce_id") for record in found}) == 1

    async def test_a_scrape_that_fails_is_a_gap_and_the_next_one_goes_on(self, exporter, publisher, kafka_url, run_id):
        scraper = GpuScraper([exporter["url"]], publisher, WallClock(), interval_s=30)
        async with aiohttp.ClientSession() as session:
            exporter["text"] = self.text(run_id)
            await scraper.scrape(session, 0)
            exporter["status"] = 500
            await scraper.scrape(session, 30_000_000)
            assert list(scraper.failing) == [exporter["url"] + "/metrics"]
            exporter["status"] = 200
            await scraper.scrape(session, 120_000_000)
        assert (scraper.scrapes_ok, scraper.scrapes_failed, dict(scraper.failing)) == (2, 1, {})
        (record,) = await records_of(kafka_url, topics.USAGE_GPU, lambda record: record.key == run_id.encode())
        sample = json.loads(record.value)
        assert (sample["window_start"], sample["allocated_seconds"]) == ("1970-01-01T00:01:00Z", "60")

    async def test_samples_wait_for_a_broker_that_is_away(self, exporter, publisher, nobody, kafka_url, run_id):
        class Switching:
            now: UsagePublishing = nobody

            async def publish_all(self, records):
                return await self.now.publish_all(records)

        switching = Switching()
        scraper = GpuScraper([exporter["url"]], switching, WallClock(), interval_s=30)
        exporter["text"] = self.text(run_id)
        async with aiohttp.ClientSession() as session:
            for tick in (0, 30_000_000):
                await scraper.scrape(session, tick)
            assert scraper.samples_published == 0
            switching.now = publisher
            await scraper.scrape(session, 60_000_000)
        assert (scraper.samples_published, scraper.samples_lost) == (2, 0)
        found = await records_of(kafka_url, topics.USAGE_GPU, lambda record: record.key == run_id.encode())
        assert len(found) == 2


class TestReplay:
    async def test_every_row_is_on_the_topic_and_again_under_the_same_ids(self, publisher, kafka_url, run_id, tmp_path):
        path = tmp_path / "trace.csv"
        rows = "".join(f"2023-11-16 18:17:{n % 60:02d}.9799600,{n},7\n" for n in range(3_000))
        path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
        teams = tmp_path / "teams.yaml"
        teams.write_text(f"default: {{team: 't{run_id}'}}")
        for _ in range(2):
            summary = await replay(path, "azure-llm", publisher, team_map=teams)
            assert (summary.published, summary.input_tokens) == (3_000, sum(range(3_000)))
        found = await eventually_records(
            kafka_url, topics.USAGE_EVENTS, lambda record: record.key == f"t{run_id}".encode(), 6_000
        )
        assert len(found) == 6_000
        assert len({header(record, "ce_id") for record in found}) == 3_000
