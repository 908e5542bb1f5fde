"""Keys, HTTP ingest and billing webhooks against a real broker and a real database."""

import asyncio
import json
import time
import uuid
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from standardwebhooks import Webhook

from schemas import topics
from streams.clock import elapsed_s
from streams.ports import RetryableError
from streams.settings import Settings
from streams.sinks.api_keys import REMEMBERED_S, ApiKeys, KeyRequestError
from streams.sources.billing import billing_router
from streams.sources.ingest import ingest_router
from streams.sources.publisher import UsagePublishing
from tests.integration.reading import (
    connection,
    header,
    records_of,
    with_topics,
)

pytestmark = pytest.mark.integration

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
USAGE = {"provider": "openai", "response_model": "gpt-4o", "input_tokens": 10, "team_id": "search"}
BILL = {
    "billing_account_id": "acc-1",
    "charge_period_start": "2026-11-01T00:00:00Z",
    "charge_period_end": "2026-12-01T00:00:00Z",
    "billed_cost": "-12.30",
    "billing_currency": "USD",
    "service_provider_name": "AWS",
}


@pytest.fixture
def run_id():
    """Marks the records of one test; topics are shared."""
    return uuid.uuid4().hex


@pytest.fixture
async def keys(pool):
    return ApiKeys(pool)


@pytest.fixture
async def publisher(kafka_url):
    publishing = UsagePublishing(await with_topics(kafka_url))
    yield publishing
    await publishing.stop()


def client_of(publisher, keys, **settings):
    chosen = Settings(billing_webhook_secret=SECRET, ingest_body_bytes_max=20_000, **settings)
    app = FastAPI()
    app.include_router(ingest_router(publisher, keys, chosen))
    app.include_router(billing_router(publisher, chosen))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sluice")


@pytest.fixture
async def client(publisher, keys):
    async with client_of(publisher, keys) as client:
        yield client


@pytest.fixture
def nobody():
    """A broker address at which nobody listens."""
    return UsagePublishing(connection("127.0.0.1:9"), timeout_s=1.0)


def event(run_id, number=0, data=USAGE, **attributes):
    return {
        "specversion": "1.0",
        "id": f"{run_id}-{number}",
        "source": "//gateway/a",
        "type": "ai.usage.recorded.v1",
        "time": "2026-11-21T11:59:59Z",
        "data": data,
    } | attributes


def bearer(key, content_type="application/cloudevents+json"):
    return {"Authorization": f"Bearer {key}", "Content-Type": content_type}


def mine(run_id):
    return lambda record: header(record, "ce_id").startswith(run_id)


class TestKeys:
    async def test_a_key_is_shown_once_and_only_its_hash_is_kept(self, keys, pool):
        key = await keys.create("gateway eu", ["ingest", "gateway"], team_id="search")
        (row,) = await pool.fetch("select * from api_keys")
        assert key.split("_")[2] not in str(dict(row))
        assert len(row["key_hash"]) == 32
        (listed,) = await keys.list()
        assert (listed.name, listed.scopes, listed.team_id) == ("gateway eu", ("gateway", "ingest"), "search")

    async def test_a_key_may_do_what_its_scopes_say(self, keys):
        key = await keys.create("reader", ["read"])
        found = await keys.verify(key, "read")
        assert found is not None
        assert found.name == "reader"
        assert await keys.verify(key, "admin") is None

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"), id="another last character"),
            pytest.param(lambda key: f"slk_{'0' * 12}_{'0' * 48}", id="a key that never was"),
            pytest.param(lambda key: key.upper(), id="in capitals"),
            pytest.param(lambda key: key + "\n", id="with a line end"),
            pytest.param(lambda key: "", id="nothing"),
            pytest.param(lambda key: "slk_é", id="not ASCII"),
        ],
    )
    async def test_another_key_is_nobody_s(self, keys, change):
        key = await keys.create("reader", ["read"])
        assert await keys.verify(key, "read") is not None
        assert await keys.verify(change(key), "read") is None

    @pytest.mark.parametrize(
        ("name", "scopes"),
        [("x", []), ("x", ["ingest", "root"]), (" ", ["read"])],
        ids=["no scope", "an unknown scope", "no name"],
    )
    async def test_a_key_that_makes_no_sense_is_not_made(self, keys, name, scopes):
        with pytest.raises(KeyRequestError):
            await keys.create(name, scopes)
        assert await keys.list() == []

    async def test_a_revocation_is_seen_by_another_process_within_five_seconds(self, keys, pool):
        elsewhere = ApiKeys(pool)
        key = await keys.create("gateway", ["ingest"])
        assert await elsewhere.verify(key, "ingest") is not None
        key_id = (await keys.list())[0].key_id
        assert await keys.revoke(key_id) is True
        assert await keys.verify(key, "ingest") is None
        until = elapsed_s() + 5.0
        while await elsewhere.verify(key, "ingest") is not None:
            assert elapsed_s() < until
            await asyncio.sleep(0.1)
        assert await keys.revoke(key_id) is False

    async def test_verifying_again_costs_no_query_until_the_memory_is_old(self, pool):
        now = [0.0]
        keys = ApiKeys(pool, elapsed=lambda: now[0])
        key = await keys.create("gateway", ["ingest"])
        assert await keys.verify(key, "ingest") is not None
        await pool.execute("update api_keys set revoked_at = now()")
        now[0] = REMEMBERED_S - 0.01
        assert await keys.verify(key, "ingest") is not None
        now[0] = REMEMBERED_S
        assert await keys.verify(key, "ingest") is None

    async def test_without_the_database_keys_are_neither_good_nor_bad(self, pool):
        keys = ApiKeys(pool)
        key = await keys.create("gateway", ["ingest"])
        await pool.close()
        with pytest.raises(RetryableError):
            await keys.verify(key, "ingest")


class TestIngest:
    async def test_a_single_event_is_on_its_topic_when_202_is_answered(self, client, keys, kafka_url, run_id):
        key = await keys.create("gateway", ["ingest"])
        answer = await client.post("/v1/events", json=event(run_id), headers=bearer(key))
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
        (record,) = await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id))
        assert (record.key, json.loads(record.value)) == (b"search", USAGE)
        assert header(record, "ce_time") == "2026-11-21T11:59:59Z"

    async def test_a_batch_is_published_whole(self, client, keys, kafka_url, run_id):
        key = await keys.create("gateway", ["ingest"])
        batch = [event(run_id, n) for n in range(50)]
        answer = await client.post("/v1/events", json=batch, headers=bearer(key, "application/cloudevents-batch+json"))
        assert (answer.status_code, answer.json()) == (202, {"accepted": 50})
        found = await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id))
        assert [header(record, "ce_id") for record in found] == [f"{run_id}-{n}" for n in range(50)]

    async def test_one_bad_event_in_a_batch_and_none_is_published(self, client, keys, kafka_url, run_id):
        key = await keys.create("gateway", ["ingest"])
        batch = [event(run_id, 0), event(run_id, 1, USAGE | {"input_tokens": -1}), event(run_id, 2)]
        answer = await client.post("/v1/events", json=batch, headers=bearer(key, "application/cloudevents-batch+json"))
        assert answer.status_code == 400
        assert [problem["index"] for problem in answer.json()["problems"]] == [1]
        assert await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id)) == []

    async def test_binary_mode_and_a_bound_key(self, client, keys, kafka_url, run_id):
        key = await keys.create("ads gateway", ["ingest"], team_id="ads")
        headers = bearer(key, "application/json") | {
            "ce-specversion": "1.0",
            "ce-id": run_id,
            "ce-source": "//gateway/a",
            "ce-type": "ai.usage.recorded.v1",
        }
        assert (await client.post("/v1/events", json=USAGE, headers=headers)).status_code == 202
        (record,) = await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id))
        assert (record.key, json.loads(record.value)["team_id"]) == (b"ads", "ads")

    async def test_litellm_s_openmeter_logger_posts_to_its_own_path(self, client, keys, kafka_url, run_id):
        key = await keys.create("litellm", ["ingest"], team_id="search")
        body = event(run_id, type="litellm_tokens", subject="user-7", data={"model": "gpt-4o", "cost": 0.01})
        answer = await client.post("/api/v1/events", content=json.dumps(body), headers=bearer(key))
        assert answer.status_code == 202
        (record,) = await records_of(kafka_url, topics.USAGE_EVENTS, mine(run_id))
        assert json.loads(record.value)["end_user_id"] == "user-7"

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            pytest.param({}, 401, id="without a key"),
            pytest.param({"Authorization": "Basic abc"}, 401, id="with another kind of authorisation"),
            pytest.param({"Authorization": f"Bearer slk_{'0' * 12}_{'0' * 48}"}, 401, id="with an unknown key"),
        ],
    )
    async def test_nobody_writes_without_a_key(self, client, run_id, headers, status):
        content = {"Content-Type": "application/cloudevents+json"}
        answer = await client.post("/v1/events", json=event(run_id), headers=headers | content)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (status, "Bearer")

    async def test_a_key_of_another_scope_does_not_write(self, client, keys, run_id):
        key = await keys.create("reader", ["read"])
        answer = await client.post("/v1/events", json=event(run_id), headers=bearer(key))
        assert answer.status_code == 403
        assert "lacks the scope ingest" in answer.json()["detail"]

    async def test_a_body_over_the_limit_is_refused(self, client, keys, run_id):
        key = await keys.create("gateway", ["ingest"])
        large = event(run_id, data=USAGE | {"tags": {"x": "y" * 30_000}})
        assert (await client.post("/v1/events", json=large, headers=bearer(key))).status_code == 413

        async def pieces():
            for _ in range(30):
                yield b" " * 1_000

        assert (await client.post("/v1/events", content=pieces(), headers=bearer(key))).status_code == 413

    async def test_a_compressed_body_is_refused(self, client, keys, run_id):
        key = await keys.create("gateway", ["ingest"])
        headers = bearer(key) | {"Content-Encoding": "gzip"}
        assert (await client.post("/v1/events", content=b"\x1f\x8b", headers=headers)).status_code == 415

    async def test_without_a_broker_the_caller_is_told_to_come_back(self, keys, nobody, run_id):
        key = await keys.create("gateway", ["ingest"])
        async with client_of(nobody, keys) as client:
            answer = await client.post("/v1/events", json=event(run_id), headers=bearer(key))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "send the same request again" in answer.json()["detail"]


class TestBillingWebhook:
    @staticmethod
    def signed(body, webhook_id):
        now = int(time.time())
        signature = Webhook(SECRET).sign(webhook_id, datetime.fromtimestamp(now, UTC), body.decode())
        return {"webhook-id": webhook_id, "webhook-timestamp": str(now), "webhook-signature": signature}

    async def test_a_signed_webhook_s_lines_are_published_under_the_same_ids_on_a_retry(
        self, client, kafka_url, run_id
    ):
        body = json.dumps({"type": "billing", "timestamp": "2026-11-21T12:00:00Z", "data": [BILL, BILL]}).encode()
        for _ in range(2):
            answer = await client.post("/v1/webhooks/billing", content=body, headers=self.signed(body, run_id))
            assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
        found = await records_of(kafka_url, topics.USAGE_BILLING, mine(run_id))
        assert [header(record, "ce_id") for record in found] == [f"{run_id}:0", f"{run_id}:1"] * 2
        assert {header(record, "ce_source") for record in found} == {"//billing/AWS"}
        assert {record.key for record in found} == {b"acc-1"}

    async def test_an_unsigned_one_is_refused(self, client, kafka_url, run_id):
        body = json.dumps({"data": BILL}).encode()
        headers = self.signed(body, run_id) | {"webhook-signature": "v1,!!"}
        assert (await client.post("/v1/webhooks/billing", content=body, headers=headers)).status_code == 401
        assert await records_of(kafka_url, topics.USAGE_BILLING, mine(run_id)) == []

    async def test_bad_lines_are_named(self, client, run_id):
        body = json.dumps({"data": [BILL, {}]}).encode()
        answer = await client.post("/v1/webhooks/billing", content=body, headers=self.signed(body, run_id))
        assert answer.status_code == 400
        assert [problem["index"] for problem in answer.json()["problems"]] == [1]

    async def test_without_a_secret_it_says_what_to_set(self, publisher):
        app = FastAPI()
        app.include_router(billing_router(publisher, Settings(billing_webhook_secret=None)))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sluice") as client:
            answer = await client.post("/v1/webhooks/billing", content=b"{}")
        assert answer.status_code == 503
        assert "billing_webhook_secret" in answer.json()["detail"]
